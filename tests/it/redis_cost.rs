//! What requests cost Redis: calls to known servers and cached lists nothing,
//! at any node, in either era, with any number of sessions. What nodes say
//! whatever they are asked is known by its keys; `docs/redis.md` has the formula.

use serde_json::json;

use crate::support::{
    client::{call, modern},
    fake_server::{FakeServer, SESSIONS, Speaks},
    legacy_client::{Session, legacy},
    node::{Setup, TestCluster, TestNode},
};

/// Keys of what nodes do by the clock: beats, leases, who listens, health.
const BY_THE_CLOCK: [&str; 4] = [
    "mcp-fleet:members",
    "mcp-fleet:lease:",
    "mcp-fleet:interest:",
    "mcp-fleet:health:",
];

/// Checks that a connection is alive.
const CHECKS: [&str; 2] = ["\"PING\"", "\"ping\""];

async fn ask_everything(node: &TestNode, sessions: &[Session]) {
    call("echo", json!({"n": 1})).result(node).await;
    call("up__echo", json!({"n": 1}))
        .at("/mcp")
        .result(node)
        .await;
    modern("tools/list").result(node).await;
    modern("tools/list").at("/mcp").result(node).await;
    modern("server/discover").result(node).await;
    for session in sessions {
        let session = session.through(node);
        session.call("echo", json!({"n": 1})).await.result();
        session.result("tools/list", json!({})).await;
        session.result("ping", json!({})).await;
    }
}

#[tokio::test]
async fn calls_and_cached_lists_cost_redis_nothing_at_any_node() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::start(speaks).await;
        // Probing is on: what it costs does not depend on requests either.
        let setup = Setup::up(&server).set("health.probe", "true");
        let cluster = TestCluster::named(setup, &["a", "b", "c"]).await;
        let mut sessions = Vec::new();
        for node in &cluster.nodes {
            sessions.push(legacy("2025-11-25").open(node).await);
        }
        // The first of each may ask and write.
        for node in &cluster.nodes {
            ask_everything(node, &sessions).await;
        }
        let monitor = cluster.redis.monitor();
        for _ in 0..5 {
            for node in &cluster.nodes {
                ask_everything(node, &sessions).await;
            }
        }
        let is_by_the_clock = |command: &&String| {
            let has = |words: &[&str]| words.iter().any(|word| command.contains(word));
            has(&BY_THE_CLOCK) || has(&CHECKS)
        };
        let mut commands = monitor.commands(&cluster.redis);
        commands.retain(|command| !is_by_the_clock(&command));
        // Hundreds of requests said nothing.
        assert!(commands.is_empty(), "{speaks:?}: {commands:#?}");

        // It would have been seen: the end of a session is written down.
        let monitor = cluster.redis.monitor();
        sessions[0].delete().await;
        let commands = monitor.commands(&cluster.redis);
        let is_session = |command: &String| command.contains("mcp-fleet:session:");
        assert!(commands.iter().any(is_session), "{commands:#?}");
    }
}
