//! What is wrong, oversized, dead or hanging gets an answer and harms nobody else.

use serde_json::{Value, json};

use crate::support::{
    client::{Modern, bare, call, modern, post},
    eventually,
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, call::Outcome},
    legacy_client::legacy,
    node::{Setup, TestNode, node_with},
    raw_server::{RawServer, Reply as RawReply},
    wire,
};

async fn alive(node: &TestNode) {
    assert_eq!(call("echo", json!({})).send(node).await.status, 200);
}

#[tokio::test]
async fn malformed_json_is_a_parse_error() {
    let (node, _server) = node_with(Speaks::Modern).await;
    for body in [
        "",
        "{",
        "nonsense",
        "{\"jsonrpc\":\"2.0\",}",
        "\u{feff}",
        "[",
        "'{}'",
        "{\"a\":1}{\"b\":2}",
    ] {
        for headers in [&[][..], &[("mcp-protocol-version", "2026-07-28")]] {
            let refused = post(&node, "/mcp/up", headers, body).await.answered().await;
            assert_eq!(refused.refusal(), (400, -32700), "{body:?}");
            assert!(refused.response.get("id").is_none_or(Value::is_null));
        }
    }
    let session = legacy("2025-11-25").open(&node).await;
    let refused = session.post("{").await.answered().await;
    assert_eq!(refused.refusal(), (400, -32700));
    alive(&node).await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_a_parse_error() {
    let (node, _server) = node_with(Speaks::Modern).await;
    for bytes in [
        &b"\xff\xfe{}"[..],
        b"{\"a\":\"\xc3\"}",
        b"\0\0\0",
        b"{\"a\":\"\xed\xa0\x80\"}",
    ] {
        let mut request = b"POST /mcp/up HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n".to_vec();
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", bytes.len()).as_bytes());
        request.extend_from_slice(bytes);
        let (status, body) = wire::exchange_bytes(node.address, &request).await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (status, &body["error"]["code"]),
            (400, &json!(-32700)),
            "{bytes:?}"
        );
    }
    alive(&node).await;
}

#[tokio::test]
async fn what_is_no_message_is_an_invalid_request() {
    let (node, server) = node_with(Speaks::Modern).await;
    for body in [
        "1",
        "null",
        "\"text\"",
        "[]",
        "{}",
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":7}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
    ] {
        let refused = post(&node, "/mcp/up", &[], body).await.answered().await;
        assert_eq!(refused.refusal(), (400, -32600), "{body}: {}", refused.text);
    }
    assert!(server.seen("POST").is_empty());
    alive(&node).await;
}

#[tokio::test]
async fn wrong_types_in_parameters_are_refused() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let (node, server) = node_with(speaks).await;
        let requests: Vec<(&str, Value)> = vec![
            ("tools/call", json!({})),
            ("tools/call", json!({"name": 7})),
            ("tools/call", json!({"name": null})),
            ("prompts/get", json!({"name": {}})),
            ("resources/read", json!({"uri": 1})),
            ("resources/read", json!({})),
            ("tools/list", json!({"cursor": {}})),
        ];
        for (method, params) in requests {
            let refused = modern(method).params(params.clone()).send(&node).await;
            assert_eq!(
                refused.code(),
                -32602,
                "{method} {params}: {}",
                refused.text
            );
        }
        let session = legacy("2025-11-25").open(&node).await;
        for (method, params) in [
            ("tools/list", json!({"cursor": {}})),
            ("logging/setLevel", json!({"level": 3})),
        ] {
            let refused = session.send(method, params.clone()).await;
            assert_eq!(refused.code(), -32602, "{method} {params}");
        }
        assert!(server.seen("tools/call").is_empty());
        alive(&node).await;
    }
}

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
async fn deep_nesting_is_refused() {
    let (node, server) = node_with(Speaks::Modern).await;
    for (depth, status) in [(100, 200), (200, 400), (100_000, 400)] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let request = call("echo", json!("DEEP"));
        let body = request.text().replace("\"DEEP\"", &deep);
        let answered = request.body(body).send(&node).await;
        assert_eq!(answered.status, status, "{depth}");
        if status == 400 {
            assert_eq!(answered.code(), -32600, "{depth}");
        }
    }
    // Brackets in a text are not nesting.
    let request = call("echo", json!({"text": "[".repeat(10_000)}));
    assert_eq!(request.send(&node).await.status, 200);
    assert_eq!(server.seen("tools/call").len(), 2);
}

#[tokio::test]
async fn repeated_members_are_not_read_two_ways() {
    let (node, server) = node_with(Speaks::Modern).await;
    let request = call("echo", json!({}));
    for (what, body) in [
        (
            "name",
            request
                .text()
                .replace("\"name\":\"echo\"", "\"name\":\"fail\",\"name\":\"echo\""),
        ),
        (
            "method",
            request
                .text()
                .replace("\"method\":", "\"method\":\"ping\",\"method\":"),
        ),
    ] {
        let answered = request.clone().body(body).send(&node).await;
        assert!(
            answered.response.get("error").is_some(),
            "{what}: {}",
            answered.text
        );
    }
    assert!(server.seen("tools/call").is_empty());
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
