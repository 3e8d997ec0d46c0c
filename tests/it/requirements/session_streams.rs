//! G83-G86, G90: the streams of legacy sessions.

use std::time::Duration;

use serde_json::{Value, json};

use super::{BOTH, SESSION_VERSIONS};
use crate::support::{
    client::{bare, call},
    eventually,
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, call::Outcome},
    legacy_client::legacy,
    node::{Setup, TestCluster, node_with},
    wire::Reply,
};

#[tokio::test]
async fn g83_a_get_that_is_not_for_events_is_answered_405() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let session = legacy("2025-11-25").open(&node).await;
    let id = ("mcp-session-id", session.id.as_str());
    for headers in [
        &[id, ("accept", "application/json")][..],
        &[id, ("accept", "text/html")],
        &[("accept", "text/event-stream")],
        &[("accept", "text/html")],
        &[],
    ] {
        let reply = bare(&node, "GET", "/mcp/up", headers).await;
        assert_eq!(reply.status, 405, "{headers:?}");
        assert!(reply.header("allow").is_some(), "{headers:?}");
    }
}

#[tokio::test]
async fn g83_no_head_opens_a_stream() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let session = legacy("2025-11-25").open(&node).await;
    let headers = [
        ("mcp-session-id", session.id.as_str()),
        ("accept", "text/event-stream"),
    ];
    for path in ["/mcp/up", "/mcp", "/sse/up", "/sse"] {
        let reply = bare(&node, "HEAD", path, &headers).await;
        assert_eq!(reply.status, 405, "{path}");
        assert!(reply.header("allow").is_some(), "{path}");
    }
}

/// Waits until a change of a resource is told on that stream.
async fn hears(stream: &mut Reply, server: &FakeServer) {
    let hearing =
        async { while stream.message().await["method"] != "notifications/resources/updated" {} };
    tokio::pin!(hearing);
    loop {
        let telling = async {
            server.resource_updated("doc://a").await;
            // What is told before the stream has its turn is told to nobody.
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::select! {
            () = &mut hearing => return,
            () = telling => {}
        }
    }
}

#[tokio::test]
async fn a_stream_hears_of_what_is_subscribed_to_after_its_node_missed_news() {
    let server = FakeServer::start(Speaks::Modern).await;
    let cluster = TestCluster::pair(Setup::up(&server)).await;
    let session = legacy("2025-06-18").open(cluster.a()).await;
    let mut stream = session.stream().await;
    let listeners = || cluster.redis.cli(&["client", "list", "type", "pubsub"]);
    let before = listeners();
    cluster.redis.cli(&["client", "kill", "type", "pubsub"]);
    eventually("the nodes listen again", async || {
        let now = listeners();
        now.lines().count() == before.lines().count() && now != before
    })
    .await;
    let uri = json!({"uri": "doc://a"});
    session.result("resources/subscribe", uri).await;
    hears(&mut stream, &server).await;
}

#[tokio::test]
async fn g84_when_the_newest_stream_ends_the_one_before_gets_the_messages() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let here = legacy("2025-06-18").open(cluster.a()).await;
        let there = here.through(cluster.b());
        here.result("resources/subscribe", json!({"uri": "doc://a"}))
            .await;
        let mut one = here.stream().await;
        let mut two = there.stream().await;
        let mut three = here.stream().await;
        let four = there.stream().await;
        drop(four);
        hears(&mut three, &server).await;
        // One that ends out of turn changes nothing.
        drop(one);
        hears(&mut three, &server).await;
        drop(three);
        hears(&mut two, &server).await;
        one = here.stream().await;
        hears(&mut one, &server).await;
    }
}

#[tokio::test]
async fn g84_a_message_goes_out_on_one_stream_only() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let here = legacy("2025-06-18").open(cluster.a()).await;
        let there = here.through(cluster.b());
        let one = here.stream().await;
        let two = here.stream().await;
        let mut three = there.stream().await;
        assert_eq!((one.status, two.status, three.status), (200, 200, 200));
        // A resource the session subscribed to is told once per change.
        there
            .result("resources/subscribe", json!({"uri": "doc://a"}))
            .await;
        for _ in 0..2 {
            server.resource_updated("doc://a").await;
            loop {
                let message = three.message().await;
                if message["method"] == "notifications/resources/updated" {
                    break;
                }
            }
        }
        cluster.nodes.iter().for_each(|node| node.stop());
        for older in [one, two] {
            let rest = older.answered().await.messages;
            assert_eq!(rest, Vec::<Value>::new(), "{speaks:?}");
        }
    }
}

#[tokio::test]
async fn g84_a_calls_messages_stay_off_the_standalone_stream() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        let session = legacy("2025-11-25").open(&node).await;
        let standalone = session.stream().await;
        let params = json!({"name": "report", "_meta": {"progressToken": 1}});
        let answered = session.send("tools/call", params).await;
        assert_eq!(answered.messages.len(), 8, "{speaks:?}");
        node.stop();
        assert_eq!(
            standalone.answered().await.messages,
            Vec::<Value>::new(),
            "{speaks:?}"
        );
    }
}

#[tokio::test]
async fn g85_a_broken_stream_is_resumed_on_another_node() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let here = legacy("2025-11-25").open(cluster.a()).await;
        let there = here.through(cluster.b());
        let params = json!({"name": "wait", "_meta": {"progressToken": "first"}});
        let mut broken = here.open(json!(1), "tools/call", params).await;
        let first = broken.message_event().await.expect("progress");
        let last_id = first.id.clone().expect("an event id");
        assert_eq!(first.json()["params"]["progressToken"], "first");
        drop(broken);
        // Another stream of the session, whose events must not be replayed here.
        let report = json!({"name": "report", "_meta": {"progressToken": "second"}});
        let mut other = here.open(json!(2), "tools/call", report).await;
        let mut ids = vec![last_id.clone()];
        while let Some(event) = other.event().await {
            ids.push(event.id.expect("an event id"));
        }
        assert!(ids.len() > 5);
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len(), "{ids:?}");

        let resumed = there.resume(&last_id).await;
        server.open_gate("go");
        let rest = resumed.answered().await;
        assert_eq!(rest.messages, Vec::<Value>::new(), "{speaks:?}");
        assert_eq!(rest.response["id"], 1);
        assert_eq!(rest.result()["content"][0]["text"], "waited", "{speaks:?}");
        // Once more, after the end: the same events again.
        let again = there.resume(&last_id).await.answered().await;
        assert_eq!(again.text, rest.text, "{speaks:?}");
    }
}

#[tokio::test]
async fn g85_strangers_cannot_resume_a_stream() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let session = legacy("2025-11-25").open(&node).await;
    let other = legacy("2025-11-25").open(&node).await;
    let params = json!({"name": "report", "_meta": {"progressToken": 1}});
    let mut stream = session.open(json!(1), "tools/call", params).await;
    let id = stream
        .event()
        .await
        .and_then(|event| event.id)
        .expect("an event id");
    while stream.event().await.is_some() {}
    let stolen = other.resume(&id).await;
    node.stop();
    let got = stolen.answered().await;
    assert_eq!((got.messages, got.response), (Vec::new(), Value::Null));
}

#[tokio::test]
async fn g86_priming_events_are_for_2025_11_25_only() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for version in SESSION_VERSIONS {
            let primes = version >= "2025-11-25";
            let session = legacy(version).open(&node).await;
            let params = json!({"name": "report", "_meta": {"progressToken": 1}});
            let mut call = session.open(json!(1), "tools/call", params).await;
            let first = call.event().await.expect("an event");
            assert_eq!(
                first.data.as_deref().unwrap_or_default().is_empty(),
                primes,
                "{speaks:?} {version}: {first:?}"
            );
            assert!(!primes || first.id.is_some(), "{first:?}");
            while let Some(event) = call.event().await {
                assert!(!event.data.unwrap_or_default().is_empty(), "primed twice");
            }
        }
        let session = legacy("2025-11-25").open(&node).await;
        let first = session.stream().await.event().await.expect("an event");
        assert!(first.id.is_some() && first.data.unwrap_or_default().is_empty());
        // An older client's stream begins with what there is to say.
        let session = legacy("2025-06-18").open(&node).await;
        let standalone = session.stream().await;
        node.stop();
        let rest = standalone.answered().await;
        assert_eq!((rest.messages, rest.response), (Vec::new(), Value::Null));
    }
}

#[tokio::test]
async fn g86_an_upstream_that_breaks_off_is_asked_again_when_it_said() {
    let retry = Duration::from_millis(700);
    let server = FakeServer::with(SESSIONS, Contents::default(), move |call| async move {
        call.progress(1.0);
        call.break_off(Some(retry));
        Outcome::text("after the break")
    })
    .await;
    server.make_resumable();
    let node = Setup::up(&server).start().await;
    let answered = call("echo", json!({}))
        .meta("progressToken", json!(1))
        .send(&node)
        .await;
    assert_eq!(answered.result()["content"][0]["text"], "after the break");
    assert_eq!(answered.messages.len(), 1);
    let asked = server.only("tools/call");
    let resumed: Vec<_> = server
        .seen("GET")
        .into_iter()
        .filter(|get| get.header("last-event-id").is_some())
        .collect();
    assert_eq!(resumed.len(), 1, "{resumed:?}");
    assert!(
        resumed[0].at >= asked.at + retry,
        "resumed before the server was ready"
    );
    assert_eq!(
        resumed[0].header("mcp-session-id"),
        asked.header("mcp-session-id")
    );
    assert!(server.seen("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn g86_a_pause_of_the_server_is_one_for_clients_that_know_pauses() {
    let server = FakeServer::with(SESSIONS, Contents::default(), |call| async move {
        call.progress(1.0);
        call.break_off(Some(Duration::from_millis(300)));
        call.gate("go").await;
        Outcome::text("after the break")
    })
    .await;
    server.make_resumable();
    let node = Setup::up(&server).start().await;
    let params = json!({"name": "echo", "_meta": {"progressToken": 1}});

    let session = legacy("2025-11-25").open(&node).await;
    let mut stream = session.open(json!(1), "tools/call", params.clone()).await;
    let mut events = Vec::new();
    while let Some(event) = stream.event().await {
        events.push(event);
    }
    assert!(
        events.iter().any(|event| event.retry.is_some()),
        "{events:?}"
    );
    let last = events.iter().rev().find_map(|event| event.id.clone());
    let resumed = session.resume(&last.expect("an event id")).await;

    // Older clients would take a stream without a response for a broken one.
    let older = legacy("2025-06-18").open(&node).await;
    let kept = older.open(json!(2), "tools/call", params).await;
    server.wait_for("tools/call", 2).await;
    server.open_gate("go");
    for (stream, id) in [(resumed, 1), (kept, 2)] {
        let answered = stream.answered().await;
        assert_eq!(answered.response["id"], id);
        assert_eq!(answered.result()["content"][0]["text"], "after the break");
    }
}

#[tokio::test]
async fn g90_an_answer_through_another_node_completes_the_call() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        for version in ["2025-06-18", "2025-11-25"] {
            let client = legacy(version).capabilities(json!({"elicitation": {}}));
            let here = client.open(cluster.a()).await;
            let there = here.through(cluster.b());
            let mut stream = here
                .open(json!(7), "tools/call", json!({"name": "ask"}))
                .await;
            let question = stream.message().await;
            assert_eq!(question["method"], "elicitation/create", "{speaks:?}");
            let answer = json!({"action": "accept", "content": {"name": "Ann"}});
            assert_eq!(there.respond(&question["id"], answer.clone()).await, 202);
            let done = stream.answered().await;
            assert_eq!(done.response["id"], 7);
            assert_eq!(
                done.result()["content"][0]["text"],
                "hello Ann",
                "{speaks:?}"
            );
            // A second answer comes too late and harms nobody.
            assert_eq!(there.respond(&question["id"], answer).await, 202);
        }
    }
}
