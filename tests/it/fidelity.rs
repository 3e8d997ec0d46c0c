//! Payloads are not ours: what is not rewritten arrives byte for byte.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    client::{call, modern},
    fake_server::{
        Contents, FakeServer, SESSIONS, Speaks,
        call::{Call, Outcome},
    },
    legacy_client::{Session, legacy},
    node::{Setup, TestNode},
    raw_server::{RawServer, Reply as RawReply},
    wire::Answered,
};

/// What JSON libraries like to change.
const ODD: &str = concat!(
    r#"{"zeta":1,"alpha":{"b":[1, 2,{"k":null}],"a":true},"#,
    r#""big":123456789012345678901234567890,"precise":0.1000000000000000055511151231257827021181583404541015625,"#,
    r#""exponent":1E+30,"tiny":1e-30,"minus":-0.0,"trailing":1.500,"edge":9007199254740993,"u64":18446744073709551616,"#,
    r#""emoji":"👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽","nbsp":"a b\u00a0c","bom":"﻿x","separators":"  ","#,
    r#""escapes":"\u00e9\/\b\f\n\r\t\"\\ \ud83d\ude00 \u2028","composed":"é é","#,
    r#""":{"empty key":[]}, "spaced" : [ 1 , 2 ] ,"x-unknown":{},"constructor":{"__proto__":[]},"last":false}"#
);

/// A list item whose members come in an odd order, with unknown ones between.
fn odd_tool() -> String {
    format!(
        r#"{{"x-first":{ODD},"inputSchema":{{"type":"object","default":{ODD}}},"name":"echo","annotations":{{"x":1.0}}}}"#
    )
}

fn contents() -> Contents {
    Contents {
        prompts: vec![format!(r#"{{"x":{ODD},"name":"greet"}}"#)],
        resources: vec![format!(r#"{{"x":{ODD},"uri":"doc://a","name":"a"}}"#)],
        templates: vec![format!(
            r#"{{"x":{ODD},"uriTemplate":"doc://{{n}}","name":"t"}}"#
        )],
        ..Contents::tools(&[&odd_tool()])
    }
}

/// Gives the odd object back in every place a result has.
async fn odd(call: Call) -> Outcome {
    match (call.request.method().as_str(), call.name().as_str()) {
        ("tools/call", "error") => Outcome::Error(format!(
            r#"{{"x":{ODD},"code":-31999,"message":"m  ","data":{ODD}}}"#
        )),
        ("tools/call", "stream") => {
            let token = call.token();
            call.say(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"x":{ODD},"progressToken":{token},"progress":1}}}}"#
            ));
            Outcome::Result(format!(r#"{{"content":[],"x":{ODD}}}"#))
        }
        ("tools/call", _) => {
            let arguments = call.request.raw_arguments();
            Outcome::Result(format!(
                r#"{{"x":{ODD},"content":[{{"x":{ODD},"type":"text","text":"👩‍👩‍👧‍👦 "}}],"structuredContent":{arguments},"_meta":{{"vendor/x":{ODD}}}}}"#
            ))
        }
        ("prompts/get", _) => Outcome::Result(format!(r#"{{"messages":[],"x":{ODD}}}"#)),
        ("resources/read", _) => Outcome::Result(format!(
            r#"{{"contents":[{{"uri":"doc://a","text":"a","x":{ODD}}}],"x":{ODD}}}"#
        )),
        _ => Outcome::error(-32601, "no"),
    }
}

enum Client {
    Modern,
    Legacy(Box<Session>),
}

async fn start(client: Speaks, server: Speaks) -> (TestNode, FakeServer, Client) {
    let server = FakeServer::with(server, contents(), odd).await;
    let node = Setup::up(&server).start().await;
    let client = match client {
        Speaks::Modern => Client::Modern,
        _ => Client::Legacy(Box::new(legacy("2025-11-25").open(&node).await)),
    };
    (node, server, client)
}

impl Client {
    /// Sends a request whose `params` has this text in place of the text `"ODD"`.
    async fn send(&self, node: &TestNode, method: &str, params: Value) -> Answered {
        match self {
            Self::Modern => {
                let request = modern(method).params(params);
                let body = request.text().replace("\"ODD\"", ODD);
                request.body(body).send(node).await
            }
            Self::Legacy(session) => {
                let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
                let body = body.to_string().replace("\"ODD\"", ODD);
                session.post(body).await.answered().await
            }
        }
    }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Everything there is to get through unchanged, in both directions.
async fn survives(client: Speaks, server: Speaks) {
    let what = format!("{client:?} -> {server:?}");
    let (node, server, client) = start(client, server).await;
    // Toward the server: arguments, unknown parameters, unknown `_meta` keys.
    let params = json!({"name": "echo", "arguments": "ODD", "x-unknown": "ODD", "_meta": {"vendor/x": "ODD"}});
    let params = match client {
        // Reaches `_meta` without replacing the envelope.
        Client::Modern => json!({"name": "echo", "arguments": "ODD", "x-unknown": "ODD"}),
        Client::Legacy(_) => params,
    };
    let sent = if matches!(client, Client::Modern) {
        2
    } else {
        3
    };
    let answered = client.send(&node, "tools/call", params).await;
    let seen = server.only("tools/call");
    assert_eq!(seen.raw_arguments(), ODD, "{what}");
    assert_eq!(count(&seen.body, ODD), sent, "{what}: {}", seen.body);
    // Toward the client: unknown members, content, structured content, `_meta`.
    assert_eq!(count(&answered.text, ODD), 4, "{what}: {}", answered.text);
    assert!(answered.text.contains("👩‍👩‍👧‍👦 "), "{what}");

    let params = json!({"name": "error", "arguments": {}});
    let failed = client.send(&node, "tools/call", params).await;
    assert_eq!(failed.code(), -31999);
    assert_eq!(count(&failed.text, ODD), 2, "{what}: {}", failed.text);

    let got = client
        .send(
            &node,
            "prompts/get",
            json!({"name": "greet", "arguments": "ODD"}),
        )
        .await;
    assert_eq!(count(&got.text, ODD), 1, "{what}: {}", got.text);
    assert_eq!(count(&server.only("prompts/get").body, ODD), 1, "{what}");
    let read = client
        .send(
            &node,
            "resources/read",
            json!({"uri": "doc://a", "x": "ODD"}),
        )
        .await;
    assert_eq!(count(&read.text, ODD), 2, "{what}: {}", read.text);

    for (method, odd) in [
        ("tools/list", 2),
        ("prompts/list", 1),
        ("resources/list", 1),
        ("resources/templates/list", 1),
    ] {
        // The second time from the cache.
        for _ in 0..2 {
            let list = client.send(&node, method, json!({})).await;
            assert_eq!(
                count(&list.text, ODD),
                odd,
                "{what} {method}: {}",
                list.text
            );
        }
    }
    let list = client.send(&node, "tools/list", json!({})).await;
    assert!(list.text.contains(&odd_tool()), "{what}: {}", list.text);
}

#[tokio::test]
async fn payloads_survive_from_modern_to_modern() {
    survives(Speaks::Modern, Speaks::Modern).await;
}

#[tokio::test]
async fn payloads_survive_from_legacy_to_legacy() {
    survives(SESSIONS, SESSIONS).await;
}

#[tokio::test]
async fn payloads_survive_from_modern_to_legacy() {
    survives(Speaks::Modern, SESSIONS).await;
}

#[tokio::test]
async fn payloads_survive_from_legacy_to_modern() {
    survives(SESSIONS, Speaks::Modern).await;
}

#[tokio::test]
async fn merged_lists_change_names_and_nothing_else() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::with(speaks, contents(), odd).await;
        let node = Setup::up(&server).start().await;
        let list = modern("tools/list").at("/mcp").send(&node).await;
        let renamed = odd_tool().replace(r#""name":"echo""#, r#""name":"up__echo""#);
        assert!(list.text.contains(&renamed), "{speaks:?}: {}", list.text);
    }
}

#[tokio::test]
async fn unknown_members_of_meta_survive_beside_the_envelope() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::with(speaks, contents(), odd).await;
        let node = Setup::up(&server).start().await;
        let request = call("echo", json!({}))
            .meta("vendor/x", json!("ODD"))
            .meta("plain", json!("ODD"));
        let body = request.text().replace("\"ODD\"", ODD);
        request.body(body).result(&node).await;
        assert_eq!(count(&server.only("tools/call").body, ODD), 2, "{speaks:?}");
    }
}

#[tokio::test]
async fn notifications_survive_but_for_their_token() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::with(speaks, contents(), odd).await;
        let node = Setup::up(&server).start().await;
        let request = call("stream", json!({})).meta("progressToken", json!("token"));
        let mut stream = request.open(&node).await;
        let progress = stream
            .message_event()
            .await
            .and_then(|event| event.data)
            .expect("progress");
        let expected = format!(r#""params":{{"x":{ODD},"progressToken":"token","progress":1}}"#);
        assert!(progress.contains(&expected), "{speaks:?}: {progress}");
        let response = stream
            .message_event()
            .await
            .and_then(|event| event.data)
            .expect("a response");
        assert!(response.contains(ODD), "{speaks:?}: {response}");
    }
}

#[tokio::test]
async fn line_breaks_between_tokens_do_not_break_events() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let server = FakeServer::with(speaks, Contents::default(), |call| async move {
            let pretty = "{\n  \"content\": [\n    {\"type\": \"text\", \"text\": \"a\"}\n  ]\n}";
            if call.name() == "stream" {
                call.log("error", json!("first"));
            }
            Outcome::Result(pretty.to_owned())
        })
        .await;
        let node = Setup::up(&server).start().await;
        for tool in ["plain", "stream"] {
            let request =
                call(tool, json!({})).meta("io.modelcontextprotocol/logLevel", json!("debug"));
            let result = request.result(&node).await;
            assert_eq!(result["content"][0]["text"], "a", "{speaks:?} {tool}");
        }
        let session = legacy("2025-11-25").open(&node).await;
        let answered = session.call("stream", json!({})).await;
        assert_eq!(answered.result()["content"][0]["text"], "a", "{speaks:?}");
    }
}

#[tokio::test]
async fn what_this_machine_cannot_represent_survives_too() {
    // No number and no text of this program, and still JSON.
    let odd = r#"{"huge":1E+400,"lone":"\ud800","zero":-0e-999}"#;
    let seen = Arc::new(Mutex::new(String::new()));
    let arrived = Arc::clone(&seen);
    let server = RawServer::start(move |request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let id = body.split(r#""id":"#).nth(1).and_then(|rest| rest.split([',', '}']).next());
        let id = id.unwrap_or("null");
        let result = if body.contains("server/discover") {
            r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":60000,"cacheScope":"public","resultType":"complete"}"#.to_owned()
        } else if body.contains("tools/list") {
            format!(r#"{{"resultType":"complete","ttlMs":60000,"cacheScope":"public","tools":[{{"name":"odd","inputSchema":{{"type":"object"}},"x":{odd}}}]}}"#)
        } else {
            *arrived.lock().expect("not poisoned") = body.clone();
            format!(r#"{{"resultType":"complete","content":[],"structuredContent":{odd}}}"#)
        };
        let response = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        RawReply::full(200, &[("content-type", "application/json")], response)
    })
    .await;
    let node = Setup::new().server("up", &server.url("/mcp")).start().await;
    let list = modern("tools/list").open(&node).await.text().await;
    assert!(list.contains(odd), "{list}");
    let request = call("odd", json!("ODD"));
    let body = request.text().replace("\"ODD\"", odd);
    let result = request.body(body).open(&node).await.text().await;
    assert!(result.contains(odd), "{result}");
    let seen = seen.lock().expect("not poisoned").clone();
    assert!(seen.contains(odd), "{seen}");
}
