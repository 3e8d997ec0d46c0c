//! Requests that are wrong before their body is read, or too large.

use serde_json::json;

use super::alive;
use crate::support::{
    client::{bare, call, post},
    fake_server::Speaks,
    node::{Setup, node_with},
    wire,
};

#[tokio::test]
async fn media_types_are_checked() {
    let (node, server) = node_with(Speaks::Modern).await;
    let body = call("echo", json!({})).text();
    for content_type in ["text/plain", "application/xml", "application/jsonx", ""] {
        let reply = post(
            &node,
            "/mcp/up",
            &[("content-type", content_type)],
            body.clone(),
        )
        .await;
        assert_eq!(reply.status, 415, "{content_type}");
    }
    for accept in [
        "text/html",
        "application/json",
        "text/event-stream",
        "application/xml, text/*",
    ] {
        let reply = post(&node, "/mcp/up", &[("accept", accept)], body.clone()).await;
        assert_eq!(reply.status, 406, "{accept}");
    }
    assert!(server.seen("tools/call").is_empty());
    for accept in [
        "*/*",
        "application/json;q=0.5, text/event-stream;q=0.1",
        "application/*, text/*",
    ] {
        let request = call("echo", json!({})).header("accept", accept);
        assert_eq!(request.send(&node).await.status, 200, "{accept}");
    }
    let request = call("echo", json!({})).header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(request.send(&node).await.status, 200);
}

#[tokio::test]
async fn oversized_bodies_are_refused_and_the_largest_is_not() {
    let (_, server) = node_with(Speaks::Modern).await;
    let node = Setup::up(&server)
        .set("limits.body", "\"64KiB\"")
        .start()
        .await;
    let sized = |bytes: usize| {
        let request = call("echo", json!({"text": ""}));
        let length = request.text().len();
        call("echo", json!({"text": "x".repeat(bytes - length)}))
    };
    assert_eq!(sized(64 * 1024).send(&node).await.status, 200);
    let refused = sized(64 * 1024 + 1).open(&node).await;
    assert_eq!(refused.status, 413);
    assert!(refused.text().await.contains("limits.body"));
    // Without a length in front.
    let request = sized(80_000);
    let mut text =
        "POST /mcp/up HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n".to_owned();
    for (name, value) in request.header_lines() {
        text += &format!("{name}: {value}\r\n");
    }
    let body = request.text();
    text += &format!("\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    assert_eq!(
        wire::exchange_bytes(node.address, text.as_bytes()).await.0,
        413
    );
    server.only("tools/call");
    alive(&node).await;
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let (_, server) = node_with(Speaks::Modern).await;
    let node = Setup::up(&server)
        .set("limits.headers", "\"8KiB\"")
        .start()
        .await;
    let large = "x".repeat(9 * 1024);
    for request in [
        call("echo", json!({})).also("x-large", &large),
        call("echo", json!({})).also("mcp-param-large", &format!("=?base64?{large}?=")),
        (0..90).fold(call("echo", json!({})), |request, n| {
            request.also(&format!("x-{n}"), &large[..100])
        }),
    ] {
        assert_eq!(request.open(&node).await.status, 431);
    }
    let many = (0..300).fold(call("echo", json!({})), |request, n| {
        request.also(&format!("x-{n}"), "1")
    });
    assert_eq!(many.open(&node).await.status, 431);
    assert!(server.seen("tools/call").is_empty());
    alive(&node).await;
}

#[tokio::test]
async fn hosts_are_checked_on_loopback() {
    let (node, server) = node_with(Speaks::Modern).await;
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
    ] {
        let refused = call("echo", json!({}))
            .header("host", host)
            .open(&node)
            .await;
        assert_eq!(refused.status, 403, "{host}");
    }
    assert!(server.seen("tools/call").is_empty());
    for host in [
        "localhost",
        "LOCALHOST:99",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:8080",
    ] {
        let answered = call("echo", json!({}))
            .header("host", host)
            .open(&node)
            .await;
        assert_eq!(answered.status, 200, "{host}");
    }
    let twice = call("echo", json!({}))
        .also("host", "evil.example")
        .open(&node)
        .await;
    assert!((400..500).contains(&twice.status), "{}", twice.status);
}

#[tokio::test]
async fn unknown_paths_and_servers_are_404() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let answered = call("echo", json!({})).at("/mcp/upp").send(&node).await;
    assert_eq!(answered.status, 404);
    assert!(
        answered.text.contains("did you mean \\\"up\\\""),
        "{}",
        answered.text
    );
    for path in ["/mcp/upp/tools/list", "/nothing", "/sse/upp"] {
        assert_eq!(bare(&node, "GET", path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(bare(&node, "PUT", "/mcp/up", &[]).await.status, 405);
}

#[tokio::test]
async fn requests_that_break_off_harm_nobody() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let body = call("echo", json!({})).text();
    for cut in [0, 1, body.len() / 2, body.len() - 1] {
        let text = format!(
            "POST /mcp/up HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
            body.len(),
            &body[..cut]
        );
        use tokio::io::AsyncWriteExt as _;
        let mut stream = tokio::net::TcpStream::connect(node.address)
            .await
            .expect("a connection");
        stream.write_all(text.as_bytes()).await.expect("written");
        drop(stream);
    }
    let (status, _) = wire::exchange_bytes(node.address, b"\x16\x03\x01 garbage\r\n\r\n").await;
    assert_eq!(status, 400);
    alive(&node).await;
}
