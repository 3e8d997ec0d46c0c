//! Bodies that are no messages, or wrong ones.

use serde_json::{Value, json};

use super::alive;
use crate::support::{
    client::{call, modern, post},
    fake_server::{SESSIONS, Speaks},
    legacy_client::legacy,
    node::node_with,
    wire,
};

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
