//! G19-G22, G58: headers that repeat arguments.

use serde_json::{Value, json};

use crate::support::{
    client::{Modern, call, modern},
    fake_server::{Contents, FakeServer, Speaks},
    legacy_client::legacy,
    logs::Logs,
    node::{Setup, TestNode},
};

/// A tool whose arguments have headers, one of them nested.
const ECHO: &str = r#"{"name":"echo","inputSchema":{"type":"object","properties":{
    "tenant":{"type":"string","x-mcp-header":"Tenant"},
    "count":{"type":"integer","x-mcp-header":"Count"},
    "dry":{"type":"boolean","x-mcp-header":"Dry"},
    "where":{"type":"object","properties":{"site":{"type":"string","x-mcp-header":"Site"}}},
    "free":{"type":"string"}}}}"#;

async fn start() -> (TestNode, FakeServer) {
    let server = FakeServer::offering(Speaks::Modern, Contents::tools(&[ECHO])).await;
    (Setup::up(&server).start().await, server)
}

/// A call with headers as a client makes them.
fn with(arguments: Value, headers: &[(&str, &str)]) -> Modern {
    let request = call("echo", arguments);
    headers
        .iter()
        .fold(request, |request, (name, value)| request.also(name, value))
}

#[tokio::test]
async fn g19_a_parameter_header_that_differs_or_is_missing_is_400_header_mismatch() {
    let (node, server) = start().await;
    for (arguments, headers) in [
        (json!({"tenant": "a"}), &[][..]),
        (json!({"tenant": "a"}), &[("mcp-param-tenant", "b")]),
        (json!({"tenant": "a"}), &[("mcp-param-tenant", "A")]),
        (
            json!({"tenant": "a"}),
            &[("mcp-param-tenant", "=?base64?***?=")],
        ),
        (json!({"dry": true}), &[("mcp-param-dry", "True")]),
        (json!({"dry": true}), &[("mcp-param-dry", "false")]),
        (json!({"count": 1}), &[("mcp-param-count", "one")]),
        (json!({"where": {"site": "x"}}), &[]),
        (json!({"where": {"site": "x"}}), &[("mcp-param-site", "y")]),
        (json!({}), &[("mcp-param-tenant", "a")]),
        (
            json!({"tenant": "a"}),
            &[("mcp-param-tenant", "a"), ("mcp-param-tenant", "a")],
        ),
    ] {
        let refused = with(arguments.clone(), headers)
            .id(json!("x"))
            .send(&node)
            .await;
        assert_eq!(refused.refusal(), (400, -32020), "{arguments} {headers:?}");
        assert_eq!(refused.response["id"], "x");
    }
    assert!(server.seen("tools/call").is_empty());

    let right = json!({"tenant": "caf\u{e9}", "count": 42, "dry": false, "where": {"site": "x"}});
    let headers = [
        ("mcp-param-tenant", "=?base64?Y2Fmw6k=?="),
        ("mcp-param-count", "42"),
        ("mcp-param-dry", "false"),
        ("mcp-param-site", "x"),
    ];
    with(right, &headers).result(&node).await;
    let seen = server.only("tools/call");
    for (name, value) in headers {
        let given: Vec<_> = seen.headers.get_all(name).iter().collect();
        assert_eq!(given, [value], "{name}");
    }
}

#[tokio::test]
async fn g19_the_same_holds_on_the_merged_endpoint() {
    let (node, server) = start().await;
    let request = call("up__echo", json!({"tenant": "a"})).at("/mcp");
    assert_eq!(request.send(&node).await.refusal(), (400, -32020));
    request.also("mcp-param-tenant", "a").result(&node).await;
    assert_eq!(
        server.only("tools/call").header("mcp-param-tenant"),
        Some("a")
    );
}

#[tokio::test]
async fn g19_a_legacy_client_sends_none_and_the_server_gets_them() {
    let (node, server) = start().await;
    let session = legacy("2025-06-18").open(&node).await;
    let arguments = json!({"tenant": " a", "count": 7, "dry": true});
    session.call("echo", arguments).await.result();
    let seen = server.only("tools/call");
    assert_eq!(seen.header("mcp-param-tenant"), Some("=?base64?IGE=?="));
    assert_eq!(seen.header("mcp-param-count"), Some("7"));
    assert_eq!(seen.header("mcp-param-dry"), Some("true"));
    assert_eq!(seen.header("mcp-param-site"), None);
}

#[tokio::test]
async fn g20_null_and_absent_arguments_need_no_header() {
    let (node, server) = start().await;
    for arguments in [
        json!({}),
        json!({"tenant": null, "count": null, "dry": null}),
        json!({"where": {}}),
        json!({"where": null}),
        json!({"free": "x"}),
    ] {
        let answered = with(arguments.clone(), &[]).send(&node).await;
        assert_eq!(answered.status, 200, "{arguments}: {}", answered.text);
    }
    for seen in server.seen("tools/call") {
        let sent = seen
            .headers
            .keys()
            .find(|name| name.as_str().starts_with("mcp-param-"));
        assert_eq!(sent, None);
    }
}

#[tokio::test]
async fn g21_integers_are_compared_by_value() {
    let (node, server) = start().await;
    for (argument, header) in [
        ("42", "42"),
        ("42.0", "42"),
        ("42", "42.0"),
        ("4.2e1", "42"),
        ("-0", "0"),
    ] {
        let request = with(json!({"count": 1}), &[("mcp-param-count", header)]);
        let body = request
            .text()
            .replace("\"count\":1", &format!("\"count\":{argument}"));
        let answered = request.body(body).send(&node).await;
        assert_eq!(
            answered.status, 200,
            "{argument} {header}: {}",
            answered.text
        );
    }
    assert_eq!(server.seen("tools/call").len(), 5);
    let request = with(json!({"count": 42}), &[("mcp-param-count", "43")]);
    assert_eq!(request.send(&node).await.refusal(), (400, -32020));
}

#[tokio::test]
async fn g22_unknown_parameter_headers_are_passed_on() {
    let (node, server) = start().await;
    let headers = [
        ("mcp-param-region", "eu =x"),
        ("mcp-param-other", "=?base64?w6k=?="),
    ];
    with(json!({"free": "x"}), &headers).result(&node).await;
    let seen = server.only("tools/call");
    for (name, value) in headers {
        assert_eq!(seen.header(name), Some(value));
    }
}

#[tokio::test]
async fn g58_a_tool_with_an_invalid_header_annotation_is_left_out_and_logged() {
    let logs = Logs::begin();
    let schema = |property: &str| {
        format!(
            r#"{{"type":"object","properties":{{"a":{property},"b":{{"type":"string","x-mcp-header":"B"}}}}}}"#
        )
    };
    let bad = [
        ("empty", r#"{"type":"string","x-mcp-header":""}"#),
        ("no-token", r#"{"type":"string","x-mcp-header":"a b"}"#),
        ("number", r#"{"type":"number","x-mcp-header":"A"}"#),
        ("object", r#"{"type":"object","x-mcp-header":"A"}"#),
        ("twice", r#"{"type":"string","x-mcp-header":"b"}"#),
        (
            "items",
            r#"{"type":"array","items":{"type":"string","x-mcp-header":"A"}}"#,
        ),
        (
            "any-of",
            r#"{"anyOf":[{"type":"string","x-mcp-header":"A"}]}"#,
        ),
        ("no-text", r#"{"type":"string","x-mcp-header":7}"#),
    ];
    let mut tools = vec![ECHO.to_owned()];
    for (name, property) in bad {
        tools.push(format!(
            r#"{{"name":"{name}","inputSchema":{}}}"#,
            schema(property)
        ));
    }
    tools.push(r#"{"name":"last","inputSchema":{"type":"object"}}"#.to_owned());
    let contents = Contents {
        tools,
        ..Contents::default()
    };
    let server = FakeServer::offering(Speaks::Modern, contents).await;
    let node = Setup::up(&server).start().await;
    let list = modern("tools/list").result(&node).await;
    let names: Vec<_> = list["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .map(|t| t["name"].clone())
        .collect();
    assert_eq!(names, ["echo", "last"]);
    let text = logs.text();
    for (name, _) in bad {
        let warned = text
            .lines()
            .any(|line| line.contains("WARN") && line.contains(name));
        assert!(warned, "no warning about {name}: {text}");
    }
}
