//! G31-G33, G46: what every modern result carries.

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{Modern, SERVER_INFO, call, modern},
    fake_server::SESSIONS,
    node::node_with,
};

/// A request for every method that has a result, on the server's own endpoint
/// and on the merged one.
fn everything() -> Vec<Modern> {
    let named = |method: &str, params: Value| modern(method).params(params);
    let reference = json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": ""}});
    let merged = json!({"ref": {"type": "ref/prompt", "name": "up__greet"}, "argument": {"name": "a", "value": ""}});
    let mut all = vec![
        call("echo", json!({})),
        call("up__echo", json!({})).at("/mcp"),
        named("prompts/get", json!({"name": "greet"})),
        named("prompts/get", json!({"name": "up__greet"})).at("/mcp"),
        named("completion/complete", reference),
        named("completion/complete", merged).at("/mcp"),
    ];
    all.extend(cacheable());
    all
}

/// The six methods whose results may be kept.
fn cacheable() -> Vec<Modern> {
    let methods = [
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    ];
    let mut all = Vec::new();
    for path in ["/mcp/up", "/mcp"] {
        for method in methods {
            let request = modern(method).at(path);
            all.push(match method {
                "resources/read" => request.params(json!({"uri": "doc://a"})),
                _ => request,
            });
        }
    }
    all
}

#[tokio::test]
async fn g31_every_result_has_a_type() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for request in everything() {
            let result = request.result(&node).await;
            assert_eq!(
                result["resultType"],
                "complete",
                "{speaks:?} {}",
                request.text()
            );
        }
    }
}

#[tokio::test]
async fn g32_every_result_says_who_the_server_is() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for request in everything() {
            let result = request.result(&node).await;
            let info = &result["_meta"][SERVER_INFO];
            assert!(
                info["name"].is_string() && info["version"].is_string(),
                "{speaks:?} {}: {result}",
                request.text()
            );
        }
    }
}

#[tokio::test]
async fn g33_a_result_without_a_type_is_complete() {
    let (node, server) = node_with(SESSIONS).await;
    let result = call("echo", json!({"n": 1})).result(&node).await;
    assert_eq!(result["resultType"], "complete");
    assert_eq!(result["content"], json!([{"type": "text", "text": "echo"}]));
    assert_eq!(result["structuredContent"], json!({"n": 1}));
    server.only("tools/call");
}

#[tokio::test]
async fn g46_every_cacheable_result_has_hints() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for request in cacheable() {
            let result = request.result(&node).await;
            let what = format!("{speaks:?} {}: {result}", request.text());
            assert!(result["ttlMs"].as_u64().is_some(), "{what}");
            let scope = result["cacheScope"].as_str();
            assert!(matches!(scope, Some("public" | "private")), "{what}");
            if speaks == SESSIONS {
                // A legacy server says nothing about who may see its lists.
                assert_eq!(scope, Some("private"), "{what}");
            }
        }
    }
}
