//! G41, G42, G87, G88: who cancels a call, and who does not.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use super::BOTH;
use crate::support::{
    client::call,
    eventually,
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, call::Outcome},
    legacy_client::legacy,
    node::{Setup, TestCluster, TestNode, node_with},
    wire::{Owned, within},
};

/// A server whose calls never end by themselves, and the count of those whose
/// client went away.
async fn endless(speaks: Speaks) -> (TestNode, FakeServer, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&left);
    let server = FakeServer::with(speaks, Contents::default(), move |call| {
        let count = Arc::clone(&count);
        async move {
            if call.name() == "fail" {
                return Outcome::text("alive");
            }
            if !call.token().is_null() {
                call.progress(1.0);
            }
            call.gone().await;
            count.fetch_add(1, Ordering::SeqCst);
            Outcome::Silence
        }
    })
    .await;
    let node = Setup::up(&server).start().await;
    (node, server, left)
}

#[tokio::test]
async fn g41_a_client_that_goes_away_cancels_its_call_at_a_modern_server() {
    let (node, server, left) = endless(Speaks::Modern).await;
    // Before the first byte of an answer.
    let request = call("wait", json!({}));
    let waiting = Owned(tokio::spawn({
        let request = request.clone();
        let address = node.address;
        async move { request.open_at(address).await }
    }));
    server.wait_for("tools/call", 1).await;
    drop(waiting);
    eventually("the server's stream is closed", async || {
        left.load(Ordering::SeqCst) == 1
    })
    .await;
    // In the middle of a stream.
    let mut stream = request.meta("progressToken", json!(1)).open(&node).await;
    stream.message().await;
    drop(stream);
    eventually("the server's stream is closed", async || {
        left.load(Ordering::SeqCst) == 2
    })
    .await;
}

#[tokio::test]
async fn g41_a_client_that_goes_away_cancels_its_call_at_a_legacy_server() {
    let (node, server) = node_with(SESSIONS).await;
    let request = call("wait", json!({}));
    let waiting = Owned(tokio::spawn({
        let request = request.clone();
        let address = node.address;
        async move { request.open_at(address).await }
    }));
    server.wait_for("tools/call", 1).await;
    drop(waiting);
    server.wait_for("notifications/cancelled", 1).await;
    let mut stream = request.meta("progressToken", json!(1)).open(&node).await;
    stream.message().await;
    drop(stream);
    let cancelled = server.wait_for("notifications/cancelled", 2).await;
    for (call, cancelled) in server.seen("tools/call").iter().zip(cancelled) {
        assert_eq!(cancelled.params()["requestId"], call.json["id"]);
        assert_eq!(
            cancelled.header("mcp-session-id"),
            call.header("mcp-session-id")
        );
    }
}

#[tokio::test]
async fn g42_nothing_more_is_sent_for_a_request_that_was_reset() {
    let (node, _server, left) = endless(Speaks::Modern).await;
    let stream = TcpStream::connect(node.address)
        .await
        .expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    let _connection = Owned(tokio::spawn(connection));
    let request = |request: crate::support::client::Modern| {
        let mut built = Request::post(format!("http://localhost{}", "/mcp/up"));
        for (name, value) in request.header_lines() {
            if name != "host" {
                built = built.header(name, value);
            }
        }
        built
            .body(Full::new(Bytes::from(request.text())))
            .expect("a request")
    };
    let endless = call("wait", json!({})).meta("progressToken", json!(1));
    let response = within("a stream", sender.send_request(request(endless)))
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    // Resets the stream; HTTP/2 itself would fail on anything sent for it afterwards.
    drop(response);
    eventually("the call was cancelled", async || {
        left.load(Ordering::SeqCst) == 1
    })
    .await;
    let other = within(
        "an answer",
        sender.send_request(request(call("fail", json!({})))),
    )
    .await;
    assert_eq!(other.expect("the connection lives").status(), 200);
}

#[tokio::test]
async fn g87_a_lost_connection_does_not_cancel_a_legacy_call() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        let session = legacy("2025-11-25").open(&node).await;
        let params = json!({"name": "wait", "_meta": {"progressToken": 1}});
        let mut stream = session.open(json!(7), "tools/call", params).await;
        let last = stream
            .message_event()
            .await
            .expect("progress")
            .id
            .expect("an event id");
        drop(stream);
        // Without a stream to resume the call goes on as well.
        let quiet = Owned(tokio::spawn({
            let session = session.through(&node);
            async move {
                session
                    .open(json!(8), "tools/call", json!({"name": "wait"}))
                    .await
            }
        }));
        server.wait_for("tools/call", 2).await;
        drop(quiet);
        server.open_gate("go");
        let rest = session.resume(&last).await.answered().await;
        assert_eq!(rest.response["id"], 7, "{speaks:?}");
        assert_eq!(rest.result()["content"][0]["text"], "waited", "{speaks:?}");
        assert!(
            server.seen("notifications/cancelled").is_empty(),
            "{speaks:?}"
        );
    }
}

#[tokio::test]
async fn g88_a_call_is_cancelled_through_any_node_and_gets_no_response() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let session = legacy("2025-06-18").open(cluster.a()).await;
        let params = json!({"name": "wait", "_meta": {"progressToken": 1}});
        for (id, other) in [(json!(7), cluster.b()), (json!("x"), cluster.a())] {
            let mut stream = session.open(id.clone(), "tools/call", params.clone()).await;
            assert_eq!(stream.message().await["method"], "notifications/progress");
            let there = session.through(other);
            let notice = json!({"requestId": id, "reason": "test"});
            assert_eq!(there.notify("notifications/cancelled", notice).await, 202);
            assert_eq!(
                stream.event().await,
                None,
                "{speaks:?}: a response after all"
            );
        }
        if speaks == SESSIONS {
            let cancelled = server.wait_for("notifications/cancelled", 2).await;
            let ids: Vec<_> = server
                .seen("tools/call")
                .iter()
                .map(|call| call.json["id"].clone())
                .collect();
            let told: Vec<_> = cancelled
                .iter()
                .map(|c| c.params()["requestId"].clone())
                .collect();
            assert_eq!(told, ids);
        }
        session.call("echo", json!({})).await.result();
    }
}
