//! G01-G08: the endpoint, its HTTP methods and what bodies it takes.

use serde_json::{Value, json};

use super::{BOTH, SESSION_VERSIONS};
use crate::support::{
    client::{LOG_LEVEL, MODERN, bare, call, modern, post},
    fake_server::Speaks,
    legacy_client::legacy,
    node::node_with,
};

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

#[tokio::test]
async fn g01_foreign_origins_are_refused_whatever_the_method_and_era() {
    let (node, server) = node_with(Speaks::Modern).await;
    let foreign = ("origin", "https://evil.example");
    let modern_call = call("echo", json!({})).also(foreign.0, foreign.1);
    assert_eq!(modern_call.open(&node).await.status, 403);
    let client = legacy("2025-11-25").header(foreign.0, foreign.1);
    assert_eq!(client.hello(&node).await.status, 403);
    let session = legacy("2025-11-25").open(&node).await;
    let intruder = session.with_header(foreign.0, foreign.1);
    assert_eq!(
        intruder
            .post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)
            .await
            .status,
        403
    );
    assert_eq!(intruder.stream().await.status, 403);
    assert_eq!(intruder.delete().await, 403);
    for path in ["/sse/up", "/mcp", "/mcp/up/tools/list", "/healthz"] {
        let reply = bare(&node, "GET", path, &[EVENTS, foreign]).await;
        assert_eq!(reply.status, 403, "{path}");
    }
    assert!(server.seen("tools/call").is_empty());
    // The session was not ended, and a page of this machine may call.
    assert_eq!(session.result("ping", json!({})).await, json!({}));
    let own = call("echo", json!({})).also("origin", "http://localhost:3000");
    assert_eq!(own.send(&node).await.status, 200);
}

#[tokio::test]
async fn g02_one_path_takes_posts_and_in_sessions_gets_and_deletes() {
    let (node, _server) = node_with(Speaks::Modern).await;
    assert_eq!(call("echo", json!({})).send(&node).await.status, 200);
    for version in SESSION_VERSIONS {
        let session = legacy(version).open(&node).await;
        assert_eq!(session.call("echo", json!({})).await.status, 200);
        let stream = session.stream().await;
        assert_eq!(stream.status, 200, "{version}");
        assert!(stream.is_stream());
        assert_eq!(session.delete().await, 204, "{version}");
    }
    for method in ["GET", "DELETE"] {
        let headers = [("mcp-protocol-version", MODERN), EVENTS];
        let reply = bare(&node, method, "/mcp/up", &headers).await;
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("POST"), "{method}");
    }
}

#[tokio::test]
async fn g03_requests_are_answered_as_json_or_as_an_event_stream() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let reply = call("echo", json!({})).open(&node).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let reply = modern("tools/list").open(&node).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let wrong = call("echo", json!({}))
        .header("mcp-method", "x")
        .open(&node)
        .await;
    assert_eq!(wrong.header("content-type"), Some("application/json"));
    let telling = call("report", json!({})).meta(LOG_LEVEL, json!("debug"));
    let reply = telling.open(&node).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));

    let session = legacy("2025-06-18").open(&node).await;
    let call = json!({"name": "echo", "arguments": {}});
    let reply = session.open(json!(1), "tools/call", call).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let reply = session
        .open(json!(2), "tools/call", json!({"name": "report"}))
        .await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
}

#[tokio::test]
async fn g04_accepted_notifications_are_answered_202_without_a_body() {
    let (node, server) = node_with(Speaks::Modern).await;
    let session = legacy("2025-11-25").open(&node).await;
    let body = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let reply = session.post(body).await;
    assert_eq!((reply.status, reply.text().await), (202, String::new()));
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/vendor", "params": {
        "_meta": {"io.modelcontextprotocol/protocolVersion": MODERN,
                  "io.modelcontextprotocol/clientCapabilities": {}}}});
    let headers = [("mcp-protocol-version", MODERN)];
    let reply = post(&node, "/mcp/up", &headers, notification.to_string()).await;
    assert_eq!((reply.status, reply.text().await), (202, String::new()));
    assert!(server.violations().is_empty());
}

#[tokio::test]
async fn g05_responses_posted_outside_a_session_are_refused() {
    let (node, server) = node_with(Speaks::Modern).await;
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    for headers in [
        &[("mcp-protocol-version", MODERN)][..],
        &[("mcp-protocol-version", "2025-11-25")],
        &[],
    ] {
        let reply = post(&node, "/mcp/up", headers, response).await;
        assert!(
            (400..500).contains(&reply.status),
            "{headers:?}: {}",
            reply.status
        );
    }
    assert!(server.seen("response").is_empty());
}

#[tokio::test]
async fn g06_a_batch_of_2025_03_26_gets_one_response_per_request() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        let session = legacy("2025-03-26").open(&node).await;
        let batch = json!([
            {"jsonrpc": "2.0", "id": "p", "method": "ping"},
            {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {"n": 1}}},
            {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "none"}},
            {"jsonrpc": "2.0", "id": 4, "method": "tools/list"},
        ]);
        let reply = session.post(batch.to_string()).await;
        assert_eq!(reply.status, 200);
        let mut responses = match reply.json().await {
            Value::Array(responses) => responses,
            other => panic!("no batch: {other}"),
        };
        responses.sort_by_key(|response| response["id"].to_string());
        let ids: Vec<_> = responses.iter().map(|r| r["id"].clone()).collect();
        assert_eq!(
            ids,
            [json!("p"), json!(2), json!(3), json!(4)],
            "{speaks:?}"
        );
        assert_eq!(responses[0]["result"], json!({}));
        assert_eq!(responses[1]["result"]["content"][0]["text"], "echo");
        assert_eq!(responses[2]["error"]["code"], -32602);
        assert!(responses[3]["result"]["tools"].is_array());
        assert_eq!(server.seen("tools/call").len(), 2);

        let silent = json!([{"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}]);
        let reply = session.post(silent.to_string()).await;
        assert_eq!((reply.status, reply.text().await), (202, String::new()));
    }
}

#[tokio::test]
async fn g06_a_batch_is_answered_on_a_stream_when_something_precedes_a_response() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let session = legacy("2025-03-26").open(&node).await;
    let report = json!({"name": "report", "_meta": {"progressToken": "t"}});
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": report},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {}}},
    ]);
    let mut reply = session.post(batch.to_string()).await;
    assert!(reply.is_stream());
    let mut responses = Vec::new();
    while let Some(event) = reply.message_event().await {
        let message = event.json();
        if message.get("id").is_some() {
            responses.push(message["id"].clone());
        }
    }
    responses.sort_by_key(Value::to_string);
    assert_eq!(responses, [json!(1), json!(2)]);
}

#[tokio::test]
async fn g07_batches_of_other_versions_are_refused_and_nothing_of_them_runs() {
    let (node, server) = node_with(Speaks::Modern).await;
    let legacy_call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {}}});
    for version in ["2025-06-18", "2025-11-25"] {
        let session = legacy(version).open(&node).await;
        let refused = session
            .post(json!([legacy_call]).to_string())
            .await
            .answered()
            .await;
        assert_eq!(refused.refusal(), (400, -32600), "{version}");
    }
    let request = call("echo", json!({}));
    let batch = request.clone().body(format!("[{}]", request.text()));
    assert_eq!(batch.send(&node).await.refusal(), (400, -32600));
    // A modern request does not slip in with a session that may send batches.
    let session = legacy("2025-03-26").open(&node).await;
    let mixed = format!("[{legacy_call},{}]", request.text());
    assert_eq!(
        session.post(mixed).await.answered().await.refusal(),
        (400, -32600)
    );
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test]
async fn g08_initialize_inside_a_batch_is_refused() {
    let (node, server) = node_with(Speaks::Modern).await;
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": {"name": "echo", "arguments": {}}});
    let batch = json!([call, initialize]).to_string();
    let alone = post(&node, "/mcp/up", &[], batch.clone()).await;
    assert_eq!(alone.status, 400);
    assert_eq!(alone.header("mcp-session-id"), None);
    let session = legacy("2025-03-26").open(&node).await;
    assert_eq!(
        session.post(batch).await.answered().await.refusal(),
        (400, -32600)
    );
    assert!(server.seen("tools/call").is_empty());
}
