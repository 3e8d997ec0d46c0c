//! G47-G52: what a cached answer may be used for, and when it ends.

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{Modern, call, modern},
    eventually,
    fake_server::{Contents, FakeServer, Speaks, call::Outcome, contents, scripts},
    node::{Setup, TestCluster, TestNode, node_with},
};

fn read(uri: &str) -> Modern {
    modern("resources/read").params(json!({ "uri": uri }))
}

fn names(list: &Value) -> Vec<String> {
    let items = list["tools"]
        .as_array()
        .unwrap_or_else(|| panic!("no tools: {list}"));
    items
        .iter()
        .map(|item| item["name"].as_str().expect("a name").to_owned())
        .collect()
}

async fn tools(node: &TestNode) -> Vec<String> {
    names(&modern("tools/list").result(node).await)
}

async fn offering(contents: Contents) -> (TestNode, FakeServer) {
    let server = FakeServer::offering(Speaks::Modern, contents).await;
    (Setup::up(&server).start().await, server)
}

#[tokio::test]
async fn g47_a_cached_answer_serves_only_the_same_question() {
    let contents = Contents {
        tools: ["one", "two", "three"].map(contents::tool).into(),
        ..Contents::default()
    };
    let server = FakeServer::offering(Speaks::Modern, contents).await;
    let node = Setup::up(&server).set("cache.page_size", "2").start().await;
    for _ in 0..2 {
        let first = modern("tools/list").result(&node).await;
        assert_eq!(names(&first), ["one", "two"]);
        let next = modern("tools/list").params(json!({"cursor": first["nextCursor"]}));
        assert_eq!(names(&next.result(&node).await), ["three"]);
        assert_eq!(
            modern("prompts/list").result(&node).await["prompts"][0]["name"],
            "greet"
        );
        for uri in ["doc://a", "doc://a/2"] {
            assert_eq!(read(uri).result(&node).await["contents"][0]["uri"], uri);
        }
    }
    // The second time around nothing was asked again, and everything was asked once.
    for (method, times) in [
        ("tools/list", 1),
        ("prompts/list", 1),
        ("resources/read", 2),
    ] {
        assert_eq!(server.seen(method).len(), times, "{method}");
    }
}

#[tokio::test]
async fn g47_calls_are_never_answered_from_a_cache() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        for _ in 0..2 {
            call("echo", json!({})).result(&node).await;
            modern("prompts/get")
                .params(json!({"name": "greet"}))
                .result(&node)
                .await;
        }
        assert_eq!(server.seen("tools/call").len(), 2, "{speaks:?}");
        assert_eq!(server.seen("prompts/get").len(), 2, "{speaks:?}");
    }
}

#[tokio::test]
async fn g48_a_private_answer_stays_with_its_principal() {
    let contents = Contents {
        scope: "private",
        ..Contents::tools(&[r#"{"name":"of-alice","inputSchema":{"type":"object"}}"#])
    };
    let (node, server) = offering(contents).await;
    let list = |who: &str| modern("tools/list").also("authorization", who);
    assert_eq!(
        names(&list("Bearer alice").result(&node).await),
        ["of-alice"]
    );
    read("doc://a")
        .also("authorization", "Bearer alice")
        .result(&node)
        .await;
    server.change(|contents| contents.tools = vec![contents::tool("of-bob")]);
    for (who, expected) in [("Bearer bob", "of-bob"), ("Bearer alice", "of-alice")] {
        let answered = list(who).result(&node).await;
        assert_eq!(names(&answered), [expected], "{who}");
        assert_eq!(answered["cacheScope"], "private");
    }
    assert_eq!(names(&modern("tools/list").result(&node).await), ["of-bob"]);
    assert_eq!(server.seen("tools/list").len(), 3);
    read("doc://a")
        .also("authorization", "Bearer bob")
        .result(&node)
        .await;
    read("doc://a")
        .also("authorization", "Bearer alice")
        .result(&node)
        .await;
    assert_eq!(server.seen("resources/read").len(), 2);
    for seen in server.seen("POST") {
        assert_eq!(seen.header("authorization"), None);
    }
}

#[tokio::test]
async fn g49_a_public_answer_serves_every_principal() {
    let (node, server) = node_with(Speaks::Modern).await;
    for who in ["Bearer alice", "Bearer bob"] {
        let list = modern("tools/list")
            .also("authorization", who)
            .result(&node)
            .await;
        assert_eq!(list["cacheScope"], "public");
        read("doc://a")
            .also("authorization", who)
            .result(&node)
            .await;
    }
    server.only("tools/list");
    server.only("resources/read");
}

#[tokio::test]
async fn g50_questions_and_the_results_of_retries_are_not_kept() {
    let server = FakeServer::with(Speaks::Modern, Contents::default(), |call| async move {
        let hints = r#""ttlMs":60000,"cacheScope":"public""#;
        let params = call.request.params();
        if params.get("inputResponses").is_none() {
            let question = json!({"method": "elicitation/create", "params": scripts::question()});
            return Outcome::Result(format!(
                r#"{{"resultType":"input_required","inputRequests":{{"k":{question}}},{hints}}}"#
            ));
        }
        Outcome::Result(format!(
            r#"{{"resultType":"complete","contents":[{{"uri":"doc://a","text":"secret"}}],{hints}}}"#
        ))
    })
    .await;
    let node = Setup::up(&server).start().await;
    let able = read("doc://a").capabilities(json!({"elicitation": {}}));
    for _ in 0..2 {
        assert_eq!(able.result(&node).await["resultType"], "input_required");
        let answers =
            json!({"inputResponses": {"k": {"action": "accept", "content": {"name": "x"}}}});
        let done = able.clone().params(answers).result(&node).await;
        assert_eq!(done["contents"][0]["text"], "secret");
    }
    // The first question was asked on behalf of whoever reads the same: it is asked again.
    assert_eq!(server.seen("resources/read").len(), 5);
    let refused = read("doc://a").send(&node).await;
    assert_eq!(refused.response["error"]["code"], -32021);
}

#[tokio::test]
async fn g51_a_change_ends_a_fresh_entry_on_all_nodes() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        for node in &cluster.nodes {
            assert_eq!(tools(node).await.len(), 5);
        }
        // Only one request, so that no other reason to ask again is left.
        assert_eq!(server.seen("tools/list").len(), 1, "{speaks:?}");
        server.change(|contents| contents.tools.push(contents::tool("late")));
        server.list_changed("tools").await;
        for node in &cluster.nodes {
            eventually("the node has heard of the new tool", async || {
                tools(node).await.contains(&"late".to_owned())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn g51_an_updated_resource_is_read_again() {
    let (node, server) = node_with(Speaks::Modern).await;
    let filter = json!({"notifications": {"resourceSubscriptions": ["doc://a"]}});
    let mut listening = modern("subscriptions/listen")
        .params(filter)
        .open(&node)
        .await;
    listening.message().await;
    for _ in 0..2 {
        read("doc://a").result(&node).await;
    }
    server.only("resources/read");
    server.resource_updated("doc://a").await;
    assert_eq!(
        listening.message().await["method"],
        "notifications/resources/updated"
    );
    read("doc://a").result(&node).await;
    assert_eq!(server.seen("resources/read").len(), 2);
}

#[tokio::test]
async fn g51_a_lost_change_stream_ends_every_entry() {
    let (node, server) = node_with(Speaks::Modern).await;
    assert_eq!(tools(&node).await.len(), 5);
    // Nobody is told of this one.
    server.change(|contents| contents.tools.push(contents::tool("late")));
    server.wait_for("subscriptions/listen", 1).await;
    server.end_listens();
    eventually("the list was asked for again", async || {
        tools(&node).await.contains(&"late".to_owned())
    })
    .await;
    assert!(server.seen("subscriptions/listen").len() > 1);
}

#[tokio::test]
async fn g52_all_pages_of_a_list_have_one_scope() {
    let open = FakeServer::start(Speaks::Modern).await;
    let closed = Contents {
        scope: "private",
        ..Contents::default()
    };
    let closed = FakeServer::offering(Speaks::Modern, closed).await;
    let node = Setup::new()
        .server("open", &open.url())
        .server("closed", &closed.url())
        .set("cache.page_size", "2")
        .start()
        .await;
    for (path, scope, pages) in [
        ("/mcp/open", "public", 3),
        ("/mcp/closed", "private", 3),
        ("/mcp", "private", 5),
    ] {
        let mut request = modern("tools/list").at(path);
        let mut seen = 0;
        loop {
            let page = request.result(&node).await;
            assert_eq!(page["cacheScope"], scope, "{path} page {seen}");
            seen += 1;
            match page.get("nextCursor") {
                Some(next) => request = request.params(json!({ "cursor": next })),
                None => break,
            }
        }
        assert_eq!(seen, pages, "{path}");
    }
}
