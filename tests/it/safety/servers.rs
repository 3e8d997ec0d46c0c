//! Servers that are dead, hang, forget or answer with garbage.

use serde_json::json;

use super::alive;
use crate::support::{
    client::{Modern, call, modern},
    eventually,
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, call::Outcome},
    legacy_client::legacy,
    node::{Setup, node_with},
    raw_server::{RawServer, Reply as RawReply},
};

/// An address nobody listens at.
fn dead() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}/mcp", listener.local_addr().expect("bound"))
}

fn everything() -> Vec<Modern> {
    vec![
        call("echo", json!({})),
        modern("tools/list"),
        modern("server/discover"),
        modern("resources/read").params(json!({"uri": "doc://a"})),
    ]
}

#[tokio::test]
async fn a_dead_server_is_named_in_an_error() {
    let node = Setup::new().server("up", &dead()).start().await;
    for request in everything() {
        let failed = request.id(json!("x")).send(&node).await;
        assert_eq!(failed.refusal(), (200, -32603), "{}", failed.text);
        assert_eq!(failed.response["id"], "x");
        let message = failed.response["error"]["message"]
            .as_str()
            .expect("a message");
        assert!(message.contains("up"), "{message}");
    }
    let refused = legacy("2025-11-25").hello(&node).await.answered().await;
    assert_eq!(refused.code(), -32603);
}

#[tokio::test]
async fn a_hanging_server_costs_its_timeout_and_no_more() {
    let hanging = RawServer::start(|_| RawReply::hang()).await;
    let node = Setup::new()
        .server_with("up", &hanging.url("/mcp"), "1s")
        .set("upstream.probe_timeout", "\"1s\"")
        .set("cache.list_deadline", "\"1s\"")
        .set("cache.fetch_timeout", "\"1s\"")
        .start()
        .await;
    for request in everything() {
        let failed = request.send(&node).await;
        assert_eq!(failed.code(), -32603, "{}", failed.text);
    }
    let refused = legacy("2025-11-25").hello(&node).await.answered().await;
    assert_eq!(refused.code(), -32603);
}

#[tokio::test]
async fn a_call_that_hangs_is_given_up_and_cancelled() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::start(speaks).await;
        let node = Setup::new()
            .server_with("up", &server.url(), "1s")
            .server("fine", &server.url())
            .start()
            .await;
        let failed = call("wait", json!({})).send(&node).await;
        assert_eq!(failed.code(), -32603, "{}", failed.text);
        if speaks == SESSIONS {
            server.wait_for("notifications/cancelled", 1).await;
        }
        let session = legacy("2025-11-25").open(&node).await;
        assert_eq!(
            session.call("wait", json!({})).await.code(),
            -32603,
            "{speaks:?}"
        );
        let fine = call("echo", json!({})).at("/mcp/fine");
        assert_eq!(fine.send(&node).await.status, 200);
    }
}

#[tokio::test]
async fn dead_and_hanging_servers_leave_merged_lists_alone() {
    let server = FakeServer::start(Speaks::Modern).await;
    let hanging = RawServer::start(|_| RawReply::hang()).await;
    let node = Setup::new()
        .server("good", &server.url())
        .server("dead", &dead())
        .server("slow", &hanging.url("/mcp"))
        .set("cache.list_deadline", "\"1s\"")
        .start()
        .await;
    // What is known of the good one is there, however busy the machine is.
    eventually("the good server's list is cached", async || {
        let list = modern("tools/list").at("/mcp/good").send(&node).await;
        list.response.get("result").is_some()
    })
    .await;
    for _ in 0..2 {
        let list = modern("tools/list").at("/mcp").result(&node).await;
        let tools = list["tools"].as_array().expect("tools");
        assert_eq!(tools.len(), 5);
        let missing = list["_meta"]["mcp-fleet/missing"]
            .as_array()
            .expect("the missing servers")
            .clone();
        let names: Vec<_> = missing
            .iter()
            .map(|missing| missing["server"].clone())
            .collect();
        assert_eq!(names, ["dead", "slow"]);
        assert!(missing.iter().all(|missing| missing["reason"].is_string()));
    }
    let result = call("good__echo", json!({})).at("/mcp").result(&node).await;
    assert_eq!(result["content"][0]["text"], "echo");
}

#[tokio::test]
async fn sessions_a_server_forgot_are_made_again() {
    let (node, server) = node_with(SESSIONS).await;
    let session = legacy("2025-11-25").open(&node).await;
    for _ in 0..2 {
        call("echo", json!({})).result(&node).await;
        session.call("echo", json!({})).await.result();
        server.forget_sessions();
    }
    alive(&node).await;
    session.call("echo", json!({})).await.result();
    // Each ran once, whatever was sent again.
    let answered = server.seen("tools/call").len();
    assert!(answered >= 6, "{answered}");
}

#[tokio::test]
async fn garbage_from_a_server_is_an_error_here() {
    for answer in [
        Outcome::Http(200, "not JSON".into()),
        Outcome::Http(500, "<html>".into()),
        Outcome::Http(200, String::new()),
        Outcome::Http(302, String::new()),
        Outcome::Http(418, "{\"jsonrpc\":\"2.0\"}".into()),
    ] {
        for speaks in [Speaks::Modern, SESSIONS] {
            let reply = answer.clone();
            let server = FakeServer::with(speaks, Contents::default(), move |call| {
                let reply = reply.clone();
                async move {
                    match call.name().as_str() {
                        "echo" => Outcome::text("fine"),
                        _ => reply,
                    }
                }
            })
            .await;
            let node = Setup::up(&server).start().await;
            let failed = call("bad", json!({})).send(&node).await;
            assert_eq!(
                failed.refusal(),
                (200, -32603),
                "{answer:?}: {}",
                failed.text
            );
            alive(&node).await;
        }
    }
}
