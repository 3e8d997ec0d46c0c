//! G91, G92: what legacy clients get, and HTTP+SSE.

use serde_json::{Value, json};

use super::{BOTH, SESSION_VERSIONS};
use crate::support::{
    fake_server::{Contents, FakeServer, Speaks, call::Outcome},
    legacy_client::legacy,
    node::{Setup, TestCluster, node_with},
};

/// Requests that have results, and their parameters.
fn everything() -> Vec<(&'static str, Value)> {
    let reference = json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": ""}});
    vec![
        ("ping", json!({})),
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("tools/call", json!({"name": "echo", "arguments": {}})),
        ("prompts/get", json!({"name": "greet"})),
        ("resources/read", json!({"uri": "doc://a"})),
        ("completion/complete", reference),
        ("logging/setLevel", json!({"level": "info"})),
        ("resources/subscribe", json!({"uri": "doc://a"})),
        ("resources/unsubscribe", json!({"uri": "doc://a"})),
    ]
}

fn assert_legacy(result: &Value, what: &str) {
    for modern in [
        "resultType",
        "ttlMs",
        "cacheScope",
        "inputRequests",
        "requestState",
        "supportedVersions",
    ] {
        assert_eq!(result.get(modern), None, "{what}: {result}");
    }
    let meta = result.get("_meta").and_then(Value::as_object);
    let foreign = meta.and_then(|meta| {
        meta.keys()
            .find(|key| key.starts_with("io.modelcontextprotocol/"))
    });
    assert_eq!(foreign, None, "{what}: {result}");
}

#[tokio::test]
async fn g91_legacy_results_have_no_modern_members() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for version in SESSION_VERSIONS {
            let session = legacy(version).open(&node).await;
            assert_legacy(&session.hello, "initialize");
            for (method, params) in everything() {
                let result = session.result(method, params).await;
                assert_legacy(&result, &format!("{speaks:?} {version} {method}"));
                let is_empty = matches!(
                    method,
                    "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe"
                );
                assert!(!is_empty || result == json!({}), "{method}: {result}");
            }
        }
        let merged = legacy("2025-11-25").at("/mcp").open(&node).await;
        for method in [
            "tools/list",
            "prompts/list",
            "resources/list",
            "resources/templates/list",
        ] {
            assert_legacy(&merged.result(method, json!({})).await, method);
        }
        let mut sse = legacy("2024-11-05").open_sse(&node, "/sse/up").await;
        for (method, params) in everything() {
            let response = sse.send(method, params).await;
            assert_legacy(&response["result"], &format!("HTTP+SSE {method}"));
        }
    }
}

#[tokio::test]
async fn g91_contents_older_clients_cannot_read_are_rewritten() {
    let server = FakeServer::with(Speaks::Modern, Contents::default(), |_call| async {
        Outcome::Result(
            r#"{"content":[{"type":"audio","data":"AAAA","mimeType":"audio/wav"},{"type":"resource_link","uri":"doc://x","name":"x"},{"type":"text","text":"t"}],"structuredContent":[1,2]}"#
                .into(),
        )
    })
    .await;
    let node = Setup::up(&server).start().await;
    let kinds = |result: &Value| -> Vec<String> {
        let content = result["content"].as_array().expect("content");
        content
            .iter()
            .map(|block| block["type"].as_str().expect("a type").to_owned())
            .collect()
    };
    let mut sse = legacy("2024-11-05").open_sse(&node, "/sse/up").await;
    let oldest = sse.send("tools/call", json!({"name": "echo"})).await["result"].clone();
    assert!(
        !kinds(&oldest)
            .iter()
            .any(|kind| kind == "audio" || kind == "resource_link"),
        "{oldest}"
    );
    assert_eq!(oldest["content"].as_array().map(Vec::len), Some(3));
    for (version, links) in [
        ("2025-03-26", false),
        ("2025-06-18", true),
        ("2025-11-25", true),
    ] {
        let session = legacy(version).open(&node).await;
        let answered = session.call("echo", json!({})).await;
        let result = answered.result();
        assert_eq!(kinds(result)[0], "audio", "{version}");
        assert_eq!(
            kinds(result)[1] == "resource_link",
            links,
            "{version}: {result}"
        );
        // Only objects may stand there before 2026.
        assert_eq!(result.get("structuredContent"), None, "{version}: {result}");
        assert!(
            links || result.to_string().contains("doc://x"),
            "{version}: {result}"
        );
    }
}

#[tokio::test]
async fn g92_http_sse_begins_with_the_endpoint_and_answers_as_messages() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for (path, tool) in [("/sse/up", "echo"), ("/sse", "up__echo")] {
            // Opening it checks the first event.
            let mut sse = legacy("2024-11-05").open_sse(&node, path).await;
            assert_eq!(sse.hello["protocolVersion"], "2024-11-05", "{speaks:?}");
            assert!(sse.endpoint().starts_with("/sse"), "{}", sse.endpoint());
            let list = sse.send("tools/list", json!({})).await;
            assert_eq!(
                list["result"]["tools"].as_array().map(Vec::len),
                Some(5),
                "{speaks:?}"
            );
            let called = sse
                .send("tools/call", json!({"name": tool, "arguments": {"n": 1}}))
                .await;
            assert_eq!(called["result"]["content"][0]["text"], "echo", "{speaks:?}");
            let unknown = sse.send("tools/call", json!({"name": "none"})).await;
            assert_eq!(unknown["error"]["code"], -32602, "{speaks:?}");
        }
    }
}

#[tokio::test]
async fn g92_questions_travel_over_http_sse_and_any_node() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let client = legacy("2024-11-05").capabilities(json!({"elicitation": {}, "roots": {}}));
        let mut sse = client.open_sse(cluster.a(), "/sse/up").await;
        sse.post_through(cluster.b());
        let list = sse.send("tools/list", json!({})).await;
        assert_eq!(
            list["result"]["tools"].as_array().map(Vec::len),
            Some(5),
            "{speaks:?}"
        );
        let call =
            json!({"jsonrpc": "2.0", "id": "q", "method": "tools/call", "params": {"name": "ask"}});
        sse.post(&call).await;
        let asked = sse.next().await.json();
        assert_eq!(asked["method"], "elicitation/create", "{speaks:?}: {asked}");
        let answer = json!({"action": "accept", "content": {"name": "Ann"}});
        sse.post(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": answer}))
            .await;
        let done = sse.next().await.json();
        assert_eq!(done["id"], "q");
        assert_eq!(
            done["result"]["content"][0]["text"], "hello Ann",
            "{speaks:?}"
        );
    }
}

#[tokio::test]
async fn g92_the_session_ends_with_its_stream() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let sse = legacy("2024-11-05").open_sse(&node, "/sse/up").await;
    let endpoint = sse.endpoint().to_owned();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert!(
        (200..300).contains(
            &crate::support::client::post(&node, &endpoint, &[], ping)
                .await
                .status
        )
    );
    drop(sse);
    crate::support::eventually("its messages are refused", async || {
        crate::support::client::post(&node, &endpoint, &[], ping)
            .await
            .status
            == 404
    })
    .await;
}
