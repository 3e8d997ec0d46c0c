//! G53-G56, G59, G60: cursors, order and contents of lists.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{Modern, call, modern},
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, contents},
    legacy_client::legacy,
    node::{Setup, TestCluster, TestNode},
};

const TOOLS: [&str; 5] = ["zebra", "Alpha", "mid", "alpha", "_last"];

async fn paged(speaks: Speaks) -> (FakeServer, Setup) {
    let contents = Contents {
        tools: TOOLS.map(contents::tool).into(),
        page: 2,
        ..Contents::default()
    };
    let server = FakeServer::offering(speaks, contents).await;
    let setup = Setup::up(&server).set("cache.page_size", "2");
    (server, setup)
}

fn list(path: &str) -> Modern {
    modern("tools/list").at(path)
}

fn names(page: &Value) -> Vec<String> {
    let items = page["tools"]
        .as_array()
        .unwrap_or_else(|| panic!("no tools: {page}"));
    items
        .iter()
        .map(|item| item["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// All pages, each from the next of the nodes in turn.
async fn walk(request: &Modern, nodes: &[&TestNode]) -> Vec<String> {
    let mut request = request.clone();
    let mut all = Vec::new();
    for node in nodes.iter().cycle() {
        let page = request.result(node).await;
        all.extend(names(&page));
        match page.get("nextCursor") {
            Some(next) => request = request.params(json!({ "cursor": next })),
            None => break,
        }
    }
    all
}

#[tokio::test]
async fn g53_foreign_and_broken_cursors_are_refused_and_an_empty_one_is_not() {
    for speaks in BOTH {
        let (_server, setup) = paged(speaks).await;
        let node = setup.start().await;
        for path in ["/mcp/up", "/mcp"] {
            let first = list(path).result(&node).await;
            let cursor = first["nextCursor"]
                .as_str()
                .expect("a next page")
                .to_owned();
            let mut tampered = cursor.clone().into_bytes();
            let middle = tampered.len() / 2;
            tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(tampered).expect("text");
            for bad in [
                "x",
                "at-2",
                &tampered,
                &cursor[1..],
                &format!("{cursor}A"),
                "\u{e9}",
            ] {
                let refused = list(path)
                    .params(json!({ "cursor": bad }))
                    .send(&node)
                    .await;
                assert_eq!(refused.code(), -32602, "{speaks:?} {path} {bad}");
            }
            let wrong_type = list(path).params(json!({"cursor": 2})).send(&node).await;
            assert_eq!(wrong_type.code(), -32602);
            let elsewhere = if path == "/mcp" { "/mcp/up" } else { "/mcp" };
            for foreign in [
                modern("prompts/list").at(path),
                list(elsewhere),
                list(path).also("authorization", "Bearer somebody"),
            ] {
                let refused = foreign
                    .params(json!({ "cursor": cursor }))
                    .send(&node)
                    .await;
                assert_eq!(refused.code(), -32602, "{speaks:?} {path}");
            }
            let empty = list(path).params(json!({"cursor": ""})).result(&node).await;
            assert_eq!(names(&empty), names(&first), "{speaks:?} {path}");
            let next = list(path)
                .params(json!({ "cursor": cursor }))
                .result(&node)
                .await;
            assert_ne!(names(&next), names(&first));
        }
        let session = legacy("2025-06-18").open(&node).await;
        let refused = session.send("tools/list", json!({"cursor": "x"})).await;
        assert_eq!(refused.refusal(), (200, -32602), "{speaks:?}");
        let empty = session.result("tools/list", json!({"cursor": ""})).await;
        assert_eq!(names(&empty), TOOLS[..2]);
    }
}

#[tokio::test]
async fn g54_a_cursor_of_one_node_works_on_the_other() {
    for speaks in BOTH {
        let (_server, setup) = paged(speaks).await;
        let cluster = TestCluster::pair(setup).await;
        let nodes = [cluster.a(), cluster.b()];
        assert_eq!(walk(&list("/mcp/up"), &nodes).await, TOOLS, "{speaks:?}");
        let merged = TOOLS.map(|name| format!("up__{name}"));
        assert_eq!(walk(&list("/mcp"), &nodes).await, merged, "{speaks:?}");
        let session = legacy("2025-11-25").open(nodes[0]).await;
        let first = session.result("tools/list", json!({})).await;
        let there = session.through(nodes[1]);
        let next = there
            .result("tools/list", json!({"cursor": first["nextCursor"]}))
            .await;
        assert_eq!(names(&next), TOOLS[2..4], "{speaks:?}");
    }
}

#[tokio::test]
async fn g55_the_order_is_the_servers_on_every_node_and_every_time() {
    let (_modern, _) = paged(Speaks::Modern).await;
    let (_legacy, _) = paged(SESSIONS).await;
    let setup = Setup::new()
        .server("zoo", &_modern.url())
        .server("art", &_legacy.url());
    let cluster = TestCluster::pair(setup).await;
    let merged: Vec<_> = ["zoo", "art"]
        .iter()
        .flat_map(|server| TOOLS.map(|tool| format!("{server}__{tool}")))
        .collect();
    for _ in 0..3 {
        for node in &cluster.nodes {
            assert_eq!(walk(&list("/mcp/zoo"), &[node]).await, TOOLS);
            assert_eq!(walk(&list("/mcp/art"), &[node]).await, TOOLS);
            assert_eq!(walk(&list("/mcp"), &[node]).await, merged);
        }
    }
}

#[tokio::test]
async fn g56_a_list_does_not_depend_on_connections_or_earlier_calls() {
    for speaks in BOTH {
        let (server, setup) = paged(speaks).await;
        let node = setup.start().await;
        let before = list("/mcp/up").send(&node).await;
        call("echo", json!({})).send(&node).await;
        modern("prompts/get")
            .params(json!({"name": "greet"}))
            .send(&node)
            .await;
        let session = legacy("2025-11-25")
            .capabilities(json!({"roots": {}}))
            .open(&node)
            .await;
        session.call("echo", json!({})).await;
        let items = |answered: &crate::support::wire::Answered| {
            (
                answered.result()["tools"].clone(),
                answered.result()["resultType"].clone(),
            )
        };
        for request in [
            list("/mcp/up"),
            list("/mcp/up").also("mcp-session-id", &session.id),
            list("/mcp/up").without_meta("io.modelcontextprotocol/clientInfo"),
            list("/mcp/up").capabilities(json!({"elicitation": {}})),
        ] {
            let after = request.send(&node).await;
            assert_eq!(items(&after), items(&before), "{speaks:?}");
        }
        assert!(!server.seen("tools/list").is_empty());
    }
}

const SCHEMA: &str = r##"{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"https://example.com/s","type":"object","$defs":{"node":{"$anchor":"n","type":"object","properties":{"next":{"$ref":"#n"}}}},"properties":{"a":{"$ref":"#/$defs/node"},"b":{"prefixItems":[{"const":1}],"items":false,"minContains":0}},"allOf":[{"if":{"required":["a"]},"then":{"minProperties":1},"else":true}],"oneOf":[{},{"not":{}}],"patternProperties":{"^x-":{"type":["string","null"]}},"dependentSchemas":{"a":{"required":["b"]}},"unevaluatedProperties":false,"$comment":"kept","$dynamicRef":"#n","contentEncoding":"base64","x-vendor":{"k":1.50}}"##;

#[tokio::test]
async fn g59_schema_keywords_pass_unchanged() {
    for speaks in BOTH {
        let output = r#"{"type":"array","items":{"$ref":"\#x"}}"#.replace('\\', "");
        let tool = format!(r#"{{"name":"t","inputSchema":{SCHEMA},"outputSchema":{SCHEMA}}}"#);
        let other = format!(r#"{{"name":"o","inputSchema":{SCHEMA},"outputSchema":{output}}}"#);
        let server = FakeServer::offering(speaks, Contents::tools(&[&tool, &other])).await;
        let node = Setup::up(&server).start().await;
        let answered = list("/mcp/up").send(&node).await;
        for tool in [&tool, &other] {
            assert!(
                answered.text.contains(tool.as_str()),
                "{speaks:?}: {}",
                answered.text
            );
        }
        let session = legacy("2025-11-25").open(&node).await;
        let answered = session.send("tools/list", json!({})).await;
        assert!(
            answered.text.contains(&tool),
            "{speaks:?}: {}",
            answered.text
        );
        assert!(answered.text.contains(SCHEMA));
    }
}

#[tokio::test]
async fn g60_references_into_the_network_are_not_followed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let elsewhere = FakeServer::start(Speaks::Modern).await;
    elsewhere.intercept(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Some((200, "{}".to_owned()))
    });
    let url = elsewhere.url();
    let tool = format!(
        r#"{{"name":"echo","inputSchema":{{"type":"object","$schema":"{url}","properties":{{"a":{{"$ref":"{url}"}}}}}},"outputSchema":{{"type":"object","$ref":"{url}"}},"icons":[{{"src":"{url}"}}]}}"#
    );
    for speaks in BOTH {
        let server = FakeServer::offering(speaks, Contents::tools(&[&tool])).await;
        let node = Setup::up(&server).start().await;
        assert!(list("/mcp/up").send(&node).await.text.contains(&url));
        list("/mcp").result(&node).await;
        call("echo", json!({"a": 1})).result(&node).await;
        let session = legacy("2025-06-18").open(&node).await;
        session.call("echo", json!({"a": 1})).await.result();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
