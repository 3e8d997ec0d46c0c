//! What requests cost Redis: calls to known servers and cached lists nothing.

use serde_json::json;

use crate::support::{
    client::{call, modern},
    fake_server::{FakeServer, SESSIONS, Speaks},
    legacy_client::legacy,
    node::{Setup, TestCluster},
};

#[tokio::test]
async fn calls_and_cached_lists_cost_redis_nothing() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let node = cluster.a();
        let session = legacy("2025-11-25").open(node).await;
        let traffic = async || {
            call("echo", json!({"n": 1})).result(node).await;
            call("up__echo", json!({"n": 1}))
                .at("/mcp")
                .result(node)
                .await;
            modern("tools/list").result(node).await;
            modern("tools/list").at("/mcp").result(node).await;
            modern("server/discover").result(node).await;
            session.call("echo", json!({"n": 1})).await.result();
            session.result("tools/list", json!({})).await;
        };
        // The first of each may ask and write.
        traffic().await;
        let before = cluster.redis.commands_run();
        for _ in 0..20 {
            traffic().await;
        }
        let cost = cluster.redis.commands_run() - before;
        // Nodes say nothing by themselves, and 140 requests said nothing either.
        assert_eq!(cost, 0, "{speaks:?}");
    }
}
