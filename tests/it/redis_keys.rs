//! What nodes at work leave in Redis is what `docs/redis-keys.md` lists, and ends.

use serde_json::json;

use crate::support::{
    client::{call, modern},
    fake_server::{FakeServer, SESSIONS, Speaks},
    legacy_client::legacy,
    node::{Setup, TestCluster, TestNode},
    redis::RedisServer,
};

#[path = "../../src/store/redis/keys/document.rs"]
mod document;

pub(crate) use document::{Listed, listed};

/// Uses everything that leaves something in Redis, and looks at it while it lasts.
async fn work(node: &TestNode, other: &TestNode, look: impl FnOnce()) {
    let ability = json!({"elicitation": {"form": {}}});
    modern("tools/list").result(node).await;
    modern("resources/list").result(node).await;
    let read = modern("resources/read").params(json!({"uri": "doc://a"}));
    read.result(node).await;
    call("echo", json!({"n": 1})).result(node).await;
    // A question that nobody answers: the call waits in its mailbox.
    let ask = call("ask", json!({})).capabilities(ability.clone());
    assert_eq!(ask.result(node).await["resultType"], "input_required");
    let session = legacy("2025-11-25").capabilities(ability).open(node).await;
    session.call("echo", json!({"n": 1})).await.result();
    let there = session.through(other);
    there.call("echo", json!({"n": 1})).await.result();
    let _stream = there.stream().await;
    let subscription = json!({"uri": "doc://a"});
    there.result("resources/subscribe", subscription).await;
    session.result("tools/list", json!({})).await;
    let report = json!({"name": "report", "_meta": {"progressToken": 1}});
    session.open(json!(1), "tools/call", report).await;
    let mut old = legacy("2024-11-05").open_sse(node, "/sse/up").await;
    old.post_through(other);
    old.send("tools/list", json!({})).await;
    let ended = legacy("2025-06-18").open(node).await;
    ended.call("echo", json!({"n": 1})).await.result();
    assert!(ended.delete().await < 300);
    look();
}

/// Each key and channel is in the document, and ends as that says.
pub(crate) fn is_listed(redis: &RedisServer, listed: &Listed) {
    let keys = redis.cli(&["keys", "*"]);
    assert!(keys.lines().count() > 10, "{keys}");
    for key in keys.lines() {
        let row = listed.keys.iter().find(|(form, _)| form.fits(key));
        let (form, cells) = row.unwrap_or_else(|| panic!("{key} is in no list"));
        let [kind, life, ..] = &cells[..] else {
            panic!("{form:?} has no time to live");
        };
        let found = redis.cli(&["type", key]);
        assert!(
            kind.starts_with(found.trim()) || found.trim() == "none",
            "{key}: {found}"
        );
        let ttl = redis.cli(&["pttl", key]);
        if ttl.trim() == "-2" {
            // Its time came just now.
            continue;
        }
        let lives_for_ever = ttl.trim() == "-1";
        assert_eq!(lives_for_ever, life.starts_with("none"), "{key}: {ttl}");
    }
    let channels = redis.cli(&["pubsub", "channels"]);
    assert!(channels.lines().count() >= 2, "{channels}");
    for channel in channels.lines() {
        let is_listed = listed.channels.iter().any(|form| form.fits(channel));
        assert!(is_listed, "{channel} is in no list");
    }
}

#[tokio::test]
async fn what_nodes_leave_in_redis_is_listed_and_ends() {
    let listed = listed();
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::start(speaks).await;
        // They keep what seals in Redis too.
        let cluster = TestCluster::pair_without_secret(Setup::up(&server)).await;
        work(cluster.a(), cluster.b(), || {
            is_listed(&cluster.redis, &listed);
        })
        .await;
    }
}
