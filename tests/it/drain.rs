//! The real program: what SIGTERM does, and that nothing panics.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{
    client::{call, modern},
    fake_server::{FakeServer, SESSIONS, Speaks},
    node::{NodeProcess, Setup, node_with},
    wire,
};

#[tokio::test]
async fn sigterm_turns_readiness_off_ends_listens_lets_calls_finish_and_exits_0() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::start(speaks).await;
        let node = NodeProcess::start(&Setup::up(&server)).await;
        let filter = json!({"notifications": {"toolsListChanged": true}});
        let mut listen = modern("subscriptions/listen")
            .params(filter)
            .open_at(node.address)
            .await;
        listen.message().await;
        let mut streaming = call("wait", json!({}))
            .meta("progressToken", json!(1))
            .open_at(node.address)
            .await;
        streaming.message().await;
        let address = node.address;
        let waiting = tokio::spawn(async move { call("wait", json!({})).open_at(address).await });
        server.wait_for("tools/call", 2).await;

        node.signal("-TERM");
        let end = listen.answered().await;
        assert_eq!(end.result()["resultType"], "complete", "{speaks:?}");
        // A load balancer asks on a connection of its own and has to be told.
        assert_eq!(wire::send(address, ready()).await.status, 503);
        // What it sends before it knows is served.
        let late = call("echo", json!({}))
            .open_at(address)
            .await
            .answered()
            .await;
        assert_eq!(late.result()["content"][0]["text"], "echo", "{speaks:?}");
        server.open_gate("go");
        for reply in [
            streaming,
            wire::within("the call", waiting).await.expect("no panic"),
        ] {
            let answered = reply.answered().await;
            assert_eq!(
                answered.result()["content"][0]["text"],
                "waited",
                "{speaks:?}"
            );
        }
        let status = node.ended().await;
        assert_eq!(status.code(), Some(0), "{speaks:?}");
        assert!(wire::try_send(address, ready()).await.is_err());
        assert!(server.seen("notifications/cancelled").is_empty());
    }
}

fn ready() -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let request = http::Request::get("/readyz").header("host", "localhost");
    request.body(Default::default()).expect("a request")
}

#[tokio::test]
async fn the_end_of_the_drain_time_ends_everything() {
    let server = FakeServer::start(Speaks::Modern).await;
    let node = NodeProcess::start(&Setup::up(&server).set("node.drain", "\"1s\"")).await;
    let mut streaming = call("wait", json!({}))
        .meta("progressToken", json!(1))
        .open_at(node.address)
        .await;
    streaming.message().await;
    node.signal("-TERM");
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_barrage_of_nonsense_panics_nowhere() {
    let server = FakeServer::start(SESSIONS).await;
    let mut node = NodeProcess::start_with(&Setup::up(&server), Stdio::piped()).await;
    let good = call("echo", json!({"text": "caf\u{e9}", "n": [1, {"a": null}]}));
    let text = good.text();
    let values = [
        "null",
        "0",
        "-1",
        "\"\"",
        "[]",
        "{}",
        "1e999",
        "\"\\ud800\"",
        "[[[[]]]]",
    ];
    let mut bodies: Vec<String> = Vec::new();
    for end in (0..text.len())
        .filter(|end| text.is_char_boundary(*end))
        .step_by(7)
    {
        bodies.push(text[..end].to_owned());
    }
    let parsed: Value = serde_json::from_str(&text).expect("JSON");
    for pointer in [
        "/jsonrpc",
        "/id",
        "/method",
        "/params",
        "/params/name",
        "/params/arguments",
        "/params/_meta",
        "/params/_meta/io.modelcontextprotocol~1protocolVersion",
        "/params/_meta/io.modelcontextprotocol~1clientCapabilities",
        "/params/_meta/io.modelcontextprotocol~1clientInfo",
    ] {
        for value in values {
            let mut bent = parsed.clone();
            *bent.pointer_mut(pointer).expect("it is there") = json!("BENT");
            bodies.push(bent.to_string().replace("\"BENT\"", value));
        }
    }
    for key in [
        "requestState",
        "inputResponses",
        "cursor",
        "notifications",
        "ref",
        "uri",
        "level",
    ] {
        for value in values {
            bodies.push(text.replace("\"arguments\"", &format!("\"{key}\":{value},\"arguments\"")));
        }
    }
    for body in bodies {
        let reply = good.clone().body(body.clone()).open_at(node.address).await;
        assert!(reply.status < 500, "{} for {body}", reply.status);
        reply.answered().await;
    }
    node.signal("-TERM");
    let log = node.stderr().await;
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_node_that_loses_a_task_ends_with_an_error_that_names_it() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let address = node.address;
    node.gateway
        .tasks
        .spawn("doomed", async { panic!("as the test wants") });
    let error = node.failed().await;
    assert!(error.to_string().contains("`doomed` panicked"), "{error}");
    assert!(wire::try_send(address, ready()).await.is_err());
}
