//! G93, G94: how the gateway finds out what a server speaks.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{VERSION, call, modern},
    fake_server::{FakeServer, Recorded, SESSIONS, Speaks},
    legacy_client::legacy,
    node::{Setup, TestNode},
};

fn is_probe(request: &Recorded) -> bool {
    request.method() == "server/discover"
}

fn error(id: &Value, code: i64, data: &Value) -> String {
    let error = json!({"code": code, "message": "no", "data": data});
    json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()
}

#[tokio::test]
async fn g93_servers_of_every_era_are_reached_and_probed_once() {
    for (speaks, probes) in [
        (Speaks::Modern, 1),
        (SESSIONS, 1),
        (Speaks::Sessions("2025-03-26"), 1),
        (Speaks::Sessions("2025-06-18"), 1),
        (Speaks::Stateless("2025-06-18"), 1),
        (Speaks::Stateless("2025-03-26"), 1),
        (Speaks::HttpSse, 1),
    ] {
        let server = FakeServer::start(speaks).await;
        let node = Setup::up(&server).start().await;
        for n in 0..3 {
            let result = call("echo", json!({ "n": n })).result(&node).await;
            assert_eq!(result["structuredContent"], json!({ "n": n }), "{speaks:?}");
        }
        let shook_hands = !server.seen("initialize").is_empty();
        assert_eq!(shook_hands, !speaks.is_modern(), "{speaks:?}");
        let session = legacy("2025-11-25").open(&node).await;
        let answered = session.call("echo", json!({"n": 9})).await;
        assert_eq!(
            answered.result()["structuredContent"],
            json!({"n": 9}),
            "{speaks:?}"
        );
        let asked = server.seen("server/discover").len();
        // A modern server's discovery is also what lists are made from.
        assert!(
            asked == probes || (speaks.is_modern() && asked <= 2),
            "{speaks:?}: {asked}"
        );
    }
}

#[tokio::test]
async fn g93_modern_errors_are_no_reason_to_fall_back() {
    for (code, data) in [
        (-32020, json!({})),
        (-32021, json!({"requiredCapabilities": {"roots": {}}})),
        (
            -32022,
            json!({"supported": ["2027-01-01"], "requested": "2026-07-28"}),
        ),
    ] {
        let server = FakeServer::start(SESSIONS).await;
        server.intercept(move |request| {
            let refused = is_probe(request).then(|| error(&request.json["id"], code, &data));
            refused.map(|body| (400, body))
        });
        let node = Setup::up(&server).start().await;
        let failed = call("echo", json!({})).send(&node).await;
        assert_eq!(failed.code(), -32603, "{code}: {}", failed.text);
        assert!(server.seen("initialize").is_empty(), "{code}");
    }
}

#[tokio::test]
async fn g93_a_server_that_lists_only_legacy_versions_is_legacy() {
    let server = FakeServer::start(SESSIONS).await;
    server.intercept(|request| {
        let data = json!({"supported": ["2025-11-25", "2025-06-18"], "requested": "2026-07-28"});
        is_probe(request).then(|| (400, error(&request.json["id"], -32022, &data)))
    });
    let node = Setup::up(&server).start().await;
    call("echo", json!({})).result(&node).await;
    assert!(!server.seen("initialize").is_empty());
}

#[tokio::test]
async fn g93_what_says_nothing_about_the_era_is_asked_again() {
    for speaks in BOTH {
        for status in [401, 403, 408, 429, 500, 502, 503] {
            let server = FakeServer::start(speaks).await;
            let is_ill = Arc::new(AtomicBool::new(true));
            let ill = Arc::clone(&is_ill);
            server.intercept(move |_| ill.load(Ordering::SeqCst).then(|| (status, String::new())));
            let node = Setup::up(&server).start().await;
            let failed = call("echo", json!({})).send(&node).await;
            assert!(
                failed.response.get("error").is_some(),
                "{status}: {}",
                failed.text
            );
            assert!(
                server.seen("initialize").is_empty(),
                "{speaks:?} {status}: fell back"
            );
            is_ill.store(false, Ordering::SeqCst);
            let result = call("echo", json!({})).result(&node).await;
            assert_eq!(result["content"][0]["text"], "echo", "{speaks:?} {status}");
        }
    }
}

#[tokio::test]
async fn g93_other_refusals_of_the_probe_mean_legacy() {
    for (status, body) in [
        (400, "Bad Request: Server not initialized"),
        (404, "not found"),
        (
            404,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#,
        ),
        (405, ""),
        (422, "Unexpected message, expect initialize request"),
        (
            200,
            r#"{"jsonrpc":"2.0","id":"probe","error":{"code":-32000,"message":"no"}}"#,
        ),
    ] {
        let server = FakeServer::start(SESSIONS).await;
        server.intercept(move |request| {
            let mut body = body.to_owned();
            if let Ok(mut json) = serde_json::from_str::<Value>(&body) {
                json["id"] = request.json["id"].clone();
                body = json.to_string();
            }
            is_probe(request).then_some((status, body))
        });
        let node = Setup::up(&server).start().await;
        let result = call("echo", json!({})).result(&node).await;
        assert_eq!(result["content"][0]["text"], "echo", "{status} {body}");
    }
}

/// A node with a stdio server named `up`; the server's log is at the path.
async fn stdio(kind: &str, log: &Path) -> TestNode {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/support/stdio_server.py"
    );
    let command = json!(["python3", script, log, kind]);
    // Only silence has to be waited for; a slow start must not pass for it.
    let probe = if kind == "silent" {
        "\"5s\""
    } else {
        "\"60s\""
    };
    Setup::new()
        .program("up", &command)
        .set("upstream.probe_timeout", probe)
        .start()
        .await
}

/// Lines that arrived, by process in the order of their first line.
fn lines(log: &Path) -> Vec<Vec<Value>> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut by_process: Vec<(String, Vec<Value>)> = Vec::new();
    for line in text.lines() {
        let (process, message) = line.split_once(' ').expect("a process and a message");
        let message: Value =
            serde_json::from_str(message).unwrap_or_else(|e| panic!("{e}: {message}"));
        match by_process.iter_mut().find(|(known, _)| known == process) {
            Some((_, messages)) => messages.push(message),
            None => by_process.push((process.to_owned(), vec![message])),
        }
    }
    by_process
        .into_iter()
        .map(|(_, messages)| messages)
        .collect()
}

#[tokio::test]
async fn g94_a_process_is_probed_first_and_falls_back_on_anything_not_modern() {
    for kind in ["modern", "legacy", "exits", "silent"] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        let node = stdio(kind, &log).await;
        let list = modern("tools/list").result(&node).await;
        assert_eq!(list["tools"][0]["name"], "echo", "{kind}");
        let result = call("echo", json!({"n": 1})).result(&node).await;
        assert_eq!(result["content"][0]["text"], r#"{"n": 1}"#, "{kind}");
        let session = legacy("2025-11-25").open(&node).await;
        session.call("echo", json!({"n": 2})).await.result();
        let processes = lines(&log);
        assert_eq!(processes[0][0]["method"], "server/discover", "{kind}");
        let methods: Vec<_> = processes
            .iter()
            .flatten()
            .map(|m| m["method"].clone())
            .collect();
        assert_eq!(
            methods.contains(&json!("initialize")),
            kind != "modern",
            "{kind}: {methods:?}"
        );
        if kind == "modern" {
            let calls = processes
                .iter()
                .flatten()
                .filter(|m| m["method"] == "tools/call");
            for call in calls {
                assert_eq!(call["params"]["_meta"][VERSION], "2026-07-28");
            }
        }
        node.stop();
        node.stopped().await;
    }
}

#[tokio::test]
async fn g94_a_message_is_one_line_however_the_client_wrote_it() {
    for kind in ["modern", "legacy"] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("log");
        let node = stdio(kind, &log).await;
        let arguments = json!({"text": "two\nlines\r\n\u{2028}\u{85}end", "list": [1, 2]});
        let request = call("echo", arguments.clone());
        let body: Value = serde_json::from_str(&request.text()).expect("JSON");
        let pretty = serde_json::to_string_pretty(&body)
            .expect("JSON")
            .replace('\n', "\r\n");
        assert!(pretty.lines().count() > 10);
        request.body(pretty).result(&node).await;
        // Each line that arrived is a whole message, or `lines` would have failed.
        let messages: Vec<_> = lines(&log).into_iter().flatten().collect();
        let call = messages
            .iter()
            .find(|m| m["method"] == "tools/call")
            .expect("the call");
        assert_eq!(call["params"]["arguments"], arguments, "{kind}");
        node.stop();
        node.stopped().await;
    }
}
