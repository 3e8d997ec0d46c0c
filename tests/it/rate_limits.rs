//! Limits on how fast clients may call, over the whole fleet.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    client::{call, post},
    eventually,
    fake_server::{FakeServer, SESSIONS, Speaks},
    legacy_client::legacy,
    node::{Setup, TestNode},
    redis::RedisServer,
};

const LIMITED: i64 = -31_429;

/// Nodes on one Redis, which have all heard of each other.
async fn fleet(setup: &Setup, redis: &RedisServer, count: usize) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(setup.clone().redis(redis).start().await);
    }
    for node in &nodes {
        eventually("the node knows all others", async || {
            node.gateway.membership.view().count() == count
        })
        .await;
    }
    nodes
}

async fn is_accepted(node: &TestNode) -> bool {
    let answer = call("echo", json!({})).send(node).await;
    assert!(matches!(answer.status, 200 | 429), "{}", answer.text);
    answer.status == 200
}

/// How many of so many calls at every node, all at once, are accepted.
async fn accepted(nodes: &[TestNode], each: usize) -> usize {
    let calls = nodes
        .iter()
        .flat_map(|node| (0..each).map(move |_| is_accepted(node)));
    let accepted = futures_util::future::join_all(calls).await;
    accepted.into_iter().filter(|accepted| *accepted).count()
}

fn limited(server: &FakeServer, rate: &str) -> Setup {
    Setup::up(server).set("rate_limits.principal", rate)
}

#[tokio::test]
async fn a_limit_is_one_for_all_nodes() {
    let (server, redis) = (
        FakeServer::start(Speaks::Modern).await,
        RedisServer::start(),
    );
    let nodes = fleet(&limited(&server, "\"10/h\""), &redis, 3).await;
    assert_eq!(accepted(&nodes, 8).await, 10);
    assert_eq!(accepted(&nodes, 2).await, 0);
    assert_eq!(server.seen("tools/call").len(), 10);
}

#[tokio::test]
async fn demand_at_one_node_gets_the_whole_limit() {
    let (server, redis) = (
        FakeServer::start(Speaks::Modern).await,
        RedisServer::start(),
    );
    let rate = "{ rate = \"40/h\", burst = 40 }";
    let nodes = fleet(&limited(&server, rate), &redis, 3).await;
    assert_eq!(accepted(&nodes[..1], 60).await, 40);
}

#[tokio::test]
async fn batches_of_tokens_do_not_add_up_to_more() {
    let (server, redis) = (
        FakeServer::start(Speaks::Modern).await,
        RedisServer::start(),
    );
    let rate = "{ rate = \"60/s\", burst = 60 }";
    let nodes = fleet(&limited(&server, rate), &redis, 3).await;
    let begun = Instant::now();
    let mut sum = 0;
    for _ in 0..4 {
        sum += accepted(&nodes, 20).await;
    }
    let came_back = begun.elapsed().as_secs_f64() * 60.0;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
    let accepted = sum as f64;
    assert!(
        accepted <= 60.0 + came_back + 1.0,
        "{accepted} in {came_back}"
    );
    assert!(sum > 0);
}

#[tokio::test]
async fn without_redis_every_node_gives_out_its_share() {
    let server = FakeServer::start(Speaks::Modern).await;
    let mut redis = RedisServer::start();
    let nodes = fleet(&limited(&server, "\"10/h\""), &redis, 2).await;
    redis.kill();
    for node in &nodes {
        eventually("the node notices", async || {
            !node.gateway.store.is_reachable()
        })
        .await;
    }
    for node in &nodes {
        assert_eq!(accepted(std::slice::from_ref(node), 8).await, 5);
    }
}

#[tokio::test]
async fn whoever_is_too_fast_is_told_when_to_come_back() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::start(speaks).await;
        let node = limited(&server, "\"1/h\"").start().await;
        let session = legacy("2025-11-25").at("/mcp/up").open(&node).await;
        assert!(is_accepted(&node).await);
        let check = |retry_after: Option<&str>| {
            let seconds: u64 = retry_after.expect("Retry-After").parse().expect("seconds");
            assert!((1..=3600).contains(&seconds), "{seconds}");
        };
        let modern = call("echo", json!({})).send(&node).await;
        assert_eq!(modern.refusal(), (429, LIMITED));
        check(modern.header("retry-after"));
        assert!(modern.response["error"]["data"]["retryAfterSeconds"].is_u64());

        let told = session.call("echo", json!({})).await;
        assert_eq!(told.refusal(), (429, LIMITED));
        check(told.header("retry-after"));
        // What does not reach a server goes on.
        session.result("tools/list", json!({})).await;

        let body = json!({"name": "echo", "arguments": {}}).to_string();
        let rest = post(&node, "/mcp/up/tools/call", &[], body).await;
        assert_eq!(rest.status, 429);
        check(rest.header("retry-after"));
        assert_eq!(rest.json().await["error"]["code"], "rate_limited");
        assert_eq!(server.seen("tools/call").len(), 1);
    }
}

#[tokio::test]
async fn items_of_a_batch_are_counted_one_by_one() {
    let server = FakeServer::start(Speaks::Modern).await;
    let node = limited(&server, "\"3/h\"").start().await;
    let one = json!({"server": "up", "tool": "echo", "arguments": {}});
    let body = json!({"calls": [one, one]}).to_string();
    let batch = post(&node, "/api/batch", &[], body).await;
    assert_eq!(batch.status, 200);
    let results = batch.json().await["results"].clone();
    assert!(
        results
            .as_array()
            .expect("results")
            .iter()
            .all(|one| one["result"].is_object())
    );
    let session = legacy("2025-03-26").at("/mcp/up").open(&node).await;
    let request = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "echo", "arguments": {}}});
    let batch = session
        .post(Value::from(vec![request(1), request(2)]).to_string())
        .await;
    assert_eq!(batch.status, 200);
    let answers = batch.json().await;
    let answers = answers.as_array().expect("a batch");
    let refused = answers.iter().filter(|one| one["error"]["code"] == LIMITED);
    assert_eq!((answers.len(), refused.count()), (2, 1));
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let server = FakeServer::start(Speaks::Modern).await;
    for (trusted, expected) in [("[\"127.0.0.1\"]", 200), ("[]", 429)] {
        let node = limited(&server, "\"1/h\"")
            .set("node.trusted_proxies", trusted)
            .start()
            .await;
        for (client, status) in [
            ("1.1.1.1", 200),
            ("2.2.2.2", expected),
            ("9.9.9.9, 1.1.1.1", 429),
        ] {
            let call = call("echo", json!({})).header("x-forwarded-for", client);
            assert_eq!(call.send(&node).await.status, status, "{trusted} {client}");
        }
    }
}

#[tokio::test]
async fn a_registered_server_brings_its_limits() {
    let server = FakeServer::start(Speaks::Modern).await;
    let node = Setup::new().start().await;
    let definition = json!({"name": "up", "url": server.url(), "timeout": "60s",
        "tool_rate_limits": {"echo": "1/h"}});
    let registered = post(&node, "/api/servers", &[], definition.to_string()).await;
    assert_eq!(registered.status, 201);
    assert!(is_accepted(&node).await);
    let told = call("echo", json!({})).send(&node).await;
    assert_eq!(told.refusal(), (429, LIMITED));
    assert!(
        told.text.contains("tool \\\"echo\\\" of server up"),
        "{}",
        told.text
    );
    // Through the merged endpoint it is the same tool.
    let merged = call("up__echo", json!({})).at("/mcp").send(&node).await;
    assert_eq!(merged.refusal(), (429, LIMITED));
    assert_eq!(call("report", json!({})).send(&node).await.status, 200);
}
