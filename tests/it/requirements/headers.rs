//! G12-G18, G23: the standard headers and their agreement with the body.

use serde_json::json;

use crate::support::{
    client::{Modern, call, modern},
    fake_server::Speaks,
    node::{TestNode, node_with},
    wire,
};

async fn mismatch(node: &TestNode, what: &str, request: &Modern) {
    let refused = request.clone().id(json!("x")).send(node).await;
    assert_eq!(refused.refusal(), (400, -32020), "{what}: {}", refused.text);
    assert_eq!(refused.response["id"], "x", "{what}");
}

/// One request of each kind that has a name.
fn named() -> [Modern; 3] {
    [
        call("echo", json!({})),
        modern("prompts/get").params(json!({"name": "greet"})),
        modern("resources/read").params(json!({"uri": "doc://a"})),
    ]
}

#[tokio::test]
async fn g12_version_header_other_than_envelope_is_400_header_mismatch() {
    let (node, server) = node_with(Speaks::Modern).await;
    for other in ["2025-11-25", "2026-07-29", "2027-01-01", "draft", ""] {
        let request = call("echo", json!({})).header("mcp-protocol-version", other);
        mismatch(&node, other, &request).await;
    }
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test]
async fn g13_a_missing_version_header_is_400_header_mismatch() {
    let (node, server) = node_with(Speaks::Modern).await;
    for request in named() {
        mismatch(
            &node,
            "none",
            &request.without_header("mcp-protocol-version"),
        )
        .await;
    }
    let list = modern("tools/list").without_header("mcp-protocol-version");
    mismatch(&node, "list", &list).await;
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test]
async fn g14_a_missing_or_different_method_header_is_400_header_mismatch() {
    let (node, server) = node_with(Speaks::Modern).await;
    for other in ["tools/list", "Tools/Call", "TOOLS/CALL", ""] {
        mismatch(
            &node,
            other,
            &call("echo", json!({})).header("mcp-method", other),
        )
        .await;
    }
    mismatch(
        &node,
        "none",
        &call("echo", json!({})).without_header("mcp-method"),
    )
    .await;
    for method in [
        "tools/list",
        "server/discover",
        "subscriptions/listen",
        "completion/complete",
    ] {
        let request = modern(method).params(json!({"notifications": {}}));
        mismatch(&node, method, &request.without_header("mcp-method")).await;
    }
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test]
async fn g15_a_missing_or_different_name_header_is_400_header_mismatch() {
    let (node, server) = node_with(Speaks::Modern).await;
    for request in named() {
        mismatch(&node, "none", &request.clone().without_header("mcp-name")).await;
        for other in ["other", "Echo", "GREET", ""] {
            mismatch(&node, other, &request.clone().header("mcp-name", other)).await;
        }
    }
    for method in ["tools/call", "prompts/get", "resources/read"] {
        assert!(server.seen(method).is_empty(), "{method}");
    }
    for request in named() {
        assert_eq!(request.send(&node).await.status, 200);
    }
}

#[tokio::test]
async fn g16_header_names_have_any_case_and_values_any_space_around_them() {
    let (node, server) = node_with(Speaks::Modern).await;
    let request = call("echo", json!({"n": 1}));
    let body = request.text();
    let mut text = "POST /mcp/up HTTP/1.1\r\nconnection: close\r\n".to_owned();
    for (name, value) in request.header_lines() {
        let odd: String = name
            .char_indices()
            .map(|(at, c)| {
                if at % 2 == 0 {
                    c.to_ascii_uppercase()
                } else {
                    c
                }
            })
            .collect();
        text += &format!("{odd}: \t {value} \t\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let (status, answer) = wire::exchange_bytes(node.address, text.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    server.only("tools/call");
}

#[tokio::test]
async fn g17_encoded_values_are_decoded_before_they_are_compared() {
    let (node, server) = node_with(Speaks::Modern).await;
    let uri = "doc://a/caf\u{e9} \u{1f469}\u{200d}\u{1f467}";
    let request = modern("resources/read").params(json!({"uri": uri}));
    assert_eq!(request.result(&node).await["contents"][0]["uri"], uri);
    // What needs no encoding may be encoded all the same.
    let needless = call("echo", json!({})).header("mcp-name", "=?base64?ZWNobw==?=");
    assert_eq!(needless.send(&node).await.status, 200);
    server.only("resources/read");

    for broken in [
        "=?base64?ZWNobw=?=",
        "=?base64?ZWNobw?=",
        "=?base64?ZWN*bw==?=",
        "=?base64?/w==?=",
        "=?base64?b3RoZXI=?=",
    ] {
        let request = call("echo", json!({})).header("mcp-name", broken);
        mismatch(&node, broken, &request).await;
    }
    server.only("tools/call");
}

#[tokio::test]
async fn g18_what_is_not_quite_the_sentinel_is_a_literal() {
    let (node, server) = node_with(Speaks::Modern).await;
    let literals = [
        "=?BASE64?ZWNobw==?=",
        "=?Base64?ZWNobw==?=",
        "=?base64?ZWNobw==",
        "base64?ZWNobw==?=",
    ];
    for literal in literals {
        let as_name = modern("prompts/get").params(json!({"name": literal}));
        let answered = as_name.header("mcp-name", literal).send(&node).await;
        // The server knows no such prompt; the headers agree.
        assert_eq!(answered.code(), -32602, "{literal}: {}", answered.text);
        mismatch(
            &node,
            literal,
            &call("echo", json!({})).header("mcp-name", literal),
        )
        .await;
    }
    let asked: Vec<_> = server
        .seen("prompts/get")
        .iter()
        .map(|seen| seen.params()["name"].clone())
        .collect();
    assert_eq!(asked, literals.map(|literal| json!(literal)));
    // A name that looks like the sentinel has to come encoded.
    let looks = "=?base64?ZWNobw==?=";
    let as_name = modern("prompts/get").params(json!({"name": looks}));
    mismatch(&node, looks, &as_name.clone().header("mcp-name", looks)).await;
    assert_eq!(as_name.send(&node).await.code(), -32602);
}

#[tokio::test]
async fn g23_a_routing_header_given_twice_is_refused() {
    let (node, server) = node_with(Speaks::Modern).await;
    let request = call("echo", json!({}));
    for (name, same, other) in [
        ("mcp-protocol-version", "2026-07-28", "2025-11-25"),
        ("mcp-method", "tools/call", "tools/list"),
        ("mcp-name", "echo", "fail"),
    ] {
        for second in [same, other] {
            let what = format!("{name} {second}");
            let refused = request.clone().also(name, second).send(&node).await;
            assert_eq!(refused.refusal(), (400, -32020), "{what}: {}", refused.text);
            assert!(
                !refused.response["id"].is_null(),
                "{what}: {}",
                refused.text
            );
        }
    }
    assert!(server.seen("tools/call").is_empty());
}
