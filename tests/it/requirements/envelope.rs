//! G09-G11, G24-G26, G28-G30, G35: what a modern request carries, and that
//! nothing is remembered from the one before.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{CAPABILITIES, CLIENT_INFO, VERSION, call, modern},
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, call::Outcome, scripts},
    node::{Setup, node_with},
};

#[tokio::test]
async fn g09_a_missing_protocol_version_is_refused() {
    let (node, server) = node_with(Speaks::Modern).await;
    for method in ["tools/list", "tools/call", "server/discover"] {
        let request = modern(method)
            .params(json!({"name": "echo"}))
            .id(json!("x"));
        let refused = request.without_meta(VERSION).send(&node).await;
        assert_eq!(refused.refusal(), (400, -32602), "{method}");
        assert_eq!(refused.response["id"], "x");
    }
    let wrong_type = call("echo", json!({}))
        .meta(VERSION, json!(20260728))
        .send(&node)
        .await;
    assert_eq!(wrong_type.refusal(), (400, -32602));
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test]
async fn g10_missing_client_capabilities_are_refused() {
    let (node, server) = node_with(Speaks::Modern).await;
    let request = call("echo", json!({})).id(json!("x"));
    let refused = request.clone().without_meta(CAPABILITIES).send(&node).await;
    assert_eq!(refused.refusal(), (400, -32602));
    assert_eq!(refused.response["id"], "x");
    for wrong in [json!(null), json!([]), json!("none")] {
        let refused = request
            .clone()
            .capabilities(wrong.clone())
            .send(&node)
            .await;
        assert_eq!(refused.refusal(), (400, -32602), "{wrong}");
    }
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test]
async fn g11_a_missing_client_info_is_accepted() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        let request = call("echo", json!({})).without_meta(CLIENT_INFO);
        assert_eq!(request.send(&node).await.status, 200, "{speaks:?}");
        assert!(
            modern("tools/list")
                .without_meta(CLIENT_INFO)
                .result(&node)
                .await["tools"]
                .is_array()
        );
    }
}

#[tokio::test]
async fn g24_a_version_that_is_not_served_is_refused_with_those_that_are() {
    let (node, server) = node_with(Speaks::Modern).await;
    let request = call("echo", json!({}))
        .meta(VERSION, json!("2027-01-01"))
        .id(json!("x"));
    let refused = request.send(&node).await;
    assert_eq!(refused.refusal(), (400, -32022));
    assert_eq!(refused.response["id"], "x");
    let data = &refused.response["error"]["data"];
    assert_eq!(data["requested"], "2027-01-01");
    let supported = data["supported"].as_array().expect("a list");
    assert!(supported.contains(&json!("2026-07-28")), "{supported:?}");
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test]
async fn g25_supported_versions_agree_with_discovery() {
    for path in ["/mcp/up", "/mcp"] {
        let (node, _server) = node_with(SESSIONS).await;
        let about = modern("server/discover").at(path).result(&node).await;
        let request = modern("tools/list")
            .at(path)
            .meta(VERSION, json!("2027-01-01"));
        let refused = request.send(&node).await;
        let supported = &refused.response["error"]["data"]["supported"];
        assert_eq!(supported, &about["supportedVersions"], "{path}");
    }
}

#[tokio::test]
async fn g26_unknown_and_removed_methods_are_answered_404() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        for method in [
            "initialize",
            "ping",
            "logging/setLevel",
            "resources/subscribe",
            "resources/unsubscribe",
            "no/such",
        ] {
            let refused = modern(method).params(json!({"uri": "doc://a", "level": "info"}));
            let refused = refused.id(json!("x")).send(&node).await;
            assert_eq!(refused.refusal(), (404, -32601), "{method} {speaks:?}");
            assert_eq!(refused.response["id"], "x");
        }
        for removed in ["ping", "logging/setLevel", "resources/subscribe"] {
            let sent = server.seen(removed);
            assert!(sent.is_empty(), "{removed} was passed on: {sent:?}");
        }
    }
}

#[tokio::test]
async fn g28_discovery_needs_no_traffic_before_it() {
    for (speaks, path) in [
        (Speaks::Modern, "/mcp/up"),
        (SESSIONS, "/mcp/up"),
        (SESSIONS, "/mcp"),
    ] {
        let (node, _server) = node_with(speaks).await;
        let about = modern("server/discover").at(path).result(&node).await;
        let versions = about["supportedVersions"].as_array().expect("versions");
        assert!(versions.contains(&json!("2026-07-28")), "{versions:?}");
        let capabilities = &about["capabilities"];
        assert_eq!(
            capabilities["tools"]["listChanged"], true,
            "{speaks:?} {path}"
        );
        assert_eq!(
            capabilities["resources"]["subscribe"], true,
            "{speaks:?} {path}"
        );
        assert!(capabilities["completions"].is_object(), "{speaks:?} {path}");
    }
}

#[tokio::test]
async fn g29_a_capability_the_client_lacks_is_named_in_an_object() {
    let error =
        r#"{"code":-32021,"message":"roots needed","data":{"requiredCapabilities":{"roots":{}}}}"#;
    let server = FakeServer::with(
        Speaks::Modern,
        Contents::default(),
        move |_call| async move { Outcome::Error(error.to_owned()) },
    )
    .await;
    let node = Setup::up(&server).start().await;
    let refused = call("echo", json!({})).send(&node).await;
    assert_eq!(refused.refusal(), (400, -32021));
    let required = &refused.response["error"]["data"]["requiredCapabilities"];
    assert_eq!(required, &json!({"roots": {}}));
}

#[tokio::test]
async fn g29_a_legacy_url_elicitation_needs_the_url_mode() {
    let error = json!({"code": -32042, "message": "visit first", "data": {"elicitations": [
        {"mode": "url", "elicitationId": "e1", "url": "https://example.com/a", "message": "Sign in"}]}});
    let server = FakeServer::with(SESSIONS, Contents::default(), move |_call| {
        let error = error.to_string();
        async move { Outcome::Error(error) }
    })
    .await;
    let node = Setup::up(&server).start().await;
    for capabilities in [json!({}), json!({"elicitation": {"form": {}}})] {
        let refused = call("echo", json!({}))
            .capabilities(capabilities)
            .send(&node)
            .await;
        assert_eq!(refused.refusal(), (400, -32021));
        let required = &refused.response["error"]["data"]["requiredCapabilities"];
        assert!(required["elicitation"]["url"].is_object(), "{required}");
    }
}

#[tokio::test]
async fn g30_capabilities_do_not_outlive_their_request_at_a_modern_server() {
    let (node, server) = node_with(Speaks::Modern).await;
    let able = json!({"elicitation": {"form": {}}, "sampling": {}, "roots": {}});
    call("echo", json!({}))
        .capabilities(able)
        .result(&node)
        .await;
    call("echo", json!({})).result(&node).await;
    let seen = server.seen("tools/call");
    assert!(seen[0].meta(CAPABILITIES)["elicitation"]["form"].is_object());
    for kind in ["elicitation", "sampling", "roots"] {
        assert!(
            seen[1].meta(CAPABILITIES).get(kind).is_none(),
            "{kind} was carried over"
        );
    }
}

#[tokio::test]
async fn g30_a_client_never_lands_on_a_session_that_declared_more() {
    let server = FakeServer::with(SESSIONS, Contents::default(), scripts::standard).await;
    let node = Setup::up(&server).start().await;
    let able = json!({"elicitation": {"form": {}}});
    let asked = call("ask", json!({}))
        .capabilities(able)
        .result(&node)
        .await;
    assert_eq!(asked["resultType"], "input_required");
    call("echo", json!({})).result(&node).await;
    let seen = server.seen("tools/call");
    let sessions: BTreeSet<_> = seen
        .iter()
        .map(|call| call.header("mcp-session-id"))
        .collect();
    assert_eq!(
        sessions.len(),
        2,
        "one session for two sets of capabilities"
    );
    let declared: Vec<Value> = server
        .seen("initialize")
        .iter()
        .map(|hello| hello.params()["capabilities"].clone())
        .collect();
    assert!(
        declared.iter().any(|c| c.get("elicitation").is_none()),
        "{declared:?}"
    );
}

#[tokio::test]
async fn g35_a_session_header_of_a_modern_client_means_nothing() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        let request = call("echo", json!({})).also("mcp-session-id", "made-up");
        let answered = request.send(&node).await;
        assert_eq!(answered.status, 200, "{speaks:?}: {}", answered.text);
        assert_eq!(answered.header("mcp-session-id"), None);
        for method in ["tools/list", "server/discover"] {
            let answered = modern(method)
                .also("mcp-session-id", "made-up")
                .send(&node)
                .await;
            assert_eq!(
                (answered.status, answered.header("mcp-session-id")),
                (200, None)
            );
        }
        for seen in server.seen("POST") {
            assert_ne!(seen.header("mcp-session-id"), Some("made-up"));
        }
    }
}
