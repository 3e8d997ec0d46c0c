//! G27, G34, G61, G62: errors of the gateway and errors of servers.

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{Modern, call, modern, post},
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, call::Outcome},
    legacy_client::legacy,
    node::{Setup, node_with},
};

/// Ids that a reader of numbers or texts could confuse.
const IDS: [&str; 8] = [
    "1",
    "\"1\"",
    "0",
    "-7",
    "\"\"",
    "9007199254740993",
    "\"caf\u{e9}\"",
    "\"a b\"",
];

#[tokio::test]
async fn g27_errors_of_modern_requests_repeat_the_id_as_it_was_written() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let wrong: [fn(Modern) -> Modern; 6] = [
        |request| request.without_meta("io.modelcontextprotocol/clientCapabilities"),
        |request| request.header("mcp-method", "other"),
        |request| request.without_header("mcp-name"),
        |request| request.params(json!({"name": "no such tool"})),
        |request| {
            request
                .params(json!({"name": "echo"}))
                .without_header("mcp-protocol-version")
        },
        |request| {
            request.meta(
                "io.modelcontextprotocol/protocolVersion",
                json!("2030-01-01"),
            )
        },
    ];
    for id in IDS {
        for bend in wrong {
            let request = bend(call("echo", json!({})));
            let body = request
                .text()
                .replace("\"id\":1,", &format!("\"id\":{id},"));
            let refused = request.body(body).send(&node).await;
            refused.code();
            let echoed = format!("\"id\":{id}");
            assert!(refused.text.contains(&echoed), "{id}: {}", refused.text);
        }
        let removed = modern("ping");
        let body = removed
            .text()
            .replace("\"id\":1,", &format!("\"id\":{id},"));
        let refused = removed.body(body).send(&node).await;
        assert!(
            refused.text.contains(&format!("\"id\":{id}")),
            "{id}: {}",
            refused.text
        );
    }
}

#[tokio::test]
async fn g27_errors_of_legacy_requests_repeat_the_id_as_it_was_written() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        let session = legacy("2025-11-25").open(&node).await;
        for id in IDS {
            for (method, params) in [
                ("tools/call", r#"{"name":"no such tool"}"#),
                ("tools/list", r#"{"cursor":"bad"}"#),
                ("logging/setLevel", r#"{"level":"loud"}"#),
                ("server/discover", "{}"),
            ] {
                let body = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#
                );
                let refused = session.post(body).await.answered().await;
                refused.code();
                let echoed = format!("\"id\":{id}");
                assert!(
                    refused.text.contains(&echoed),
                    "{method} {id}: {}",
                    refused.text
                );
            }
        }
    }
}

#[tokio::test]
async fn g27_errors_about_the_session_repeat_the_id_too() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let call = r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"echo"}}"#;
    for headers in [&[][..], &[("mcp-session-id", "unknown")]] {
        let refused = post(&node, "/mcp/up", headers, call).await.answered().await;
        assert_eq!(refused.response["id"], "x", "{headers:?}: {}", refused.text);
        refused.code();
    }
}

#[tokio::test]
async fn g34_a_legacy_servers_resource_error_becomes_a_modern_one() {
    let (node, _server) = node_with(SESSIONS).await;
    let refused = modern("resources/read")
        .params(json!({"uri": "doc://none"}))
        .send(&node)
        .await;
    assert_eq!(refused.code(), -32602);
    assert_eq!(refused.response["error"]["data"]["uri"], "doc://none");
}

#[tokio::test]
async fn g34_codes_a_modern_server_may_not_send_go_no_further() {
    for (code, expected) in [
        (-32002, -32602),
        (-32042, -32021),
        // What is wrong with the gateway's own request is not the client's fault.
        (-32020, -32603),
        (-32022, -32603),
        (-32601, -32601),
        (-31999, -31999),
    ] {
        let script = move |_call| async move {
            let data = json!({"supported": ["2026-07-28"], "requested": "2026-07-28"});
            let error = json!({"code": code, "message": "no", "data": data});
            Outcome::Error(error.to_string())
        };
        let server = FakeServer::with(Speaks::Modern, Contents::default(), script).await;
        let node = Setup::up(&server).start().await;
        let refused = call("echo", json!({})).send(&node).await;
        assert_eq!(refused.code(), expected, "{code}: {}", refused.text);
    }
}

#[tokio::test]
async fn g34_a_url_elicitation_error_becomes_a_question() {
    let error = json!({"code": -32042, "message": "visit first", "data": {"elicitations": [
        {"mode": "url", "elicitationId": "e1", "url": "https://example.com/a", "message": "Sign in"}]}});
    let server = FakeServer::with(SESSIONS, Contents::default(), move |call| {
        let error = error.to_string();
        async move {
            match call.shared.seen("tools/call").len() {
                1 => Outcome::Error(error),
                _ => Outcome::text("signed in"),
            }
        }
    })
    .await;
    let node = Setup::up(&server).start().await;
    let request = call("echo", json!({"n": 1})).capabilities(json!({"elicitation": {"url": {}}}));
    let asked = request.result(&node).await;
    assert_eq!(asked["resultType"], "input_required");
    let (key, question) = asked["inputRequests"]
        .as_object()
        .and_then(|all| all.iter().next())
        .expect("a question");
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["mode"], "url");
    assert_eq!(question["params"]["url"], "https://example.com/a");
    assert!(
        question["params"].get("elicitationId").is_none(),
        "{question}"
    );
    let retry = request.params(json!({
        "inputResponses": {key: {"action": "accept"}},
        "requestState": asked["requestState"],
    }));
    let done = retry.id(json!(2)).result(&node).await;
    assert_eq!(done["content"][0]["text"], "signed in");
    let again = &server.seen("tools/call")[1];
    assert!(
        again.params().get("inputResponses").is_none()
            && again.params().get("requestState").is_none()
    );
    assert_eq!(again.params()["arguments"], json!({"n": 1}));
}

#[tokio::test]
async fn g61_unknown_tools_are_errors_and_failures_are_results() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        let unknown = call("no such tool", json!({})).send(&node).await;
        assert_eq!(unknown.refusal(), (200, -32602), "{speaks:?}");
        let failed = call("fail", json!({})).result(&node).await;
        assert_eq!(failed["isError"], true, "{speaks:?}");
        for name in ["nothing", "up__no such tool", "other__echo", "echo"] {
            let unknown = call(name, json!({})).at("/mcp").send(&node).await;
            assert_eq!(unknown.code(), -32602, "{speaks:?} {name}");
        }
        for version in ["2025-03-26", "2025-11-25"] {
            let session = legacy(version).open(&node).await;
            assert_eq!(
                session.call("no such tool", json!({})).await.refusal(),
                (200, -32602)
            );
            let failed = session.call("fail", json!({})).await;
            assert_eq!(failed.result()["isError"], true, "{speaks:?} {version}");
        }
    }
}

#[tokio::test]
async fn g62_unknown_resources_are_errors() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for path in ["/mcp/up", "/mcp"] {
            for uri in ["doc://none", "other://x", ""] {
                let request = modern("resources/read")
                    .at(path)
                    .params(json!({"uri": uri}));
                let refused = request.send(&node).await;
                assert_eq!(
                    refused.code(),
                    -32602,
                    "{speaks:?} {path} {uri}: {}",
                    refused.text
                );
                assert_eq!(refused.response.get("result"), None);
            }
        }
        let session = legacy("2025-11-25").open(&node).await;
        let refused = session
            .send("resources/read", json!({"uri": "doc://none"}))
            .await;
        assert_eq!(refused.code(), -32002, "{speaks:?}");
        let read = session
            .result("resources/read", json!({"uri": "doc://a"}))
            .await;
        assert_eq!(read["contents"][0]["text"], "text of a");
        let read: Value = modern("resources/read")
            .params(json!({"uri": "doc://a"}))
            .result(&node)
            .await;
        assert_eq!(read["contents"][0]["text"], "text of a");
    }
}
