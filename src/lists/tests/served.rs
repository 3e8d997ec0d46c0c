//! Lists of scripted servers: drained, cached, merged, looked up, invalidated.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::node::{Fake, Known, anyone, config, node, soon};
use crate::{
    cache::CacheStatus,
    fleet::Change,
    ids::Principal,
    lists::{Caller, ListError, ListPage, Target},
    mcp::{capabilities::ClientCapabilities, json as raw_json, method::ListKind, version::Version},
};

const TOOLS: ListKind = ListKind::Tools;

fn tools(names: &[&str]) -> Value {
    let tool = |name: &&str| json!({ "name": name, "inputSchema": { "type": "object" } });
    Value::Array(names.iter().map(tool).collect())
}

fn kept(mut result: Value) -> Result<Value, Value> {
    result["resultType"] = "complete".into();
    result["ttlMs"] = 60_000.into();
    result["cacheScope"] = "public".into();
    Ok(result)
}

fn not_found() -> Result<Value, Value> {
    Err(json!({ "code": -32601, "message": "Method not found" }))
}

fn names(page: &ListPage) -> Vec<String> {
    let array = page.array(Version::LATEST_MODERN);
    let items: Vec<Value> = serde_json::from_slice(&array).expect("an array");
    let name = |item: &Value| {
        let name = item["name"].as_str().or_else(|| item["uri"].as_str());
        name.expect("a name").to_owned()
    };
    items.iter().map(name).collect()
}

/// A modern server with these tools.
fn with_tools(names: &'static [&'static str]) -> Fake {
    Fake::modern(json!({ "tools": {} }), move |method, _| match method {
        "tools/list" => kept(json!({ "tools": tools(names) })),
        _ => not_found(),
    })
}

/// A modern server that gives one tool per page.
fn paged(names: &'static [&'static str]) -> Fake {
    Fake::modern(json!({ "tools": {} }), move |method, params| {
        if method != "tools/list" {
            return not_found();
        }
        let at = params["cursor"]
            .as_str()
            .map_or(0, |cursor| cursor.parse().expect("our own"));
        let mut page = json!({ "tools": tools(&names[at..=at]), "vendor": at });
        if at + 1 < names.len() {
            page["nextCursor"] = (at + 1).to_string().into();
        }
        kept(page)
    })
}

// --- one server

#[tokio::test]
async fn all_pages_are_fetched_once_and_served_in_pages_of_our_own() {
    let fake = paged(&["a", "b", "c"]);
    let node = node(&config(), vec![Known("one", vec![Some(&fake)])]).await;
    let one = node.one("one");
    let first = node.lists.page(&one, TOOLS, &anyone(), None, soon()).await;
    let first = first.expect("a page");
    assert_eq!(
        (names(&first), first.status),
        (vec!["a".into(), "b".into()], CacheStatus::Miss)
    );
    let cursor = first.next_cursor.as_deref();
    let second = node
        .lists
        .page(&one, TOOLS, &anyone(), cursor, soon())
        .await;
    let second = second.expect("a page");
    assert_eq!(
        (names(&second), second.status),
        (vec!["c".to_owned()], CacheStatus::Hit)
    );
    assert_eq!(second.next_cursor, None);
    assert!(second.public && second.ttl > Duration::from_secs(50));
    assert_eq!(fake.asked("tools/list"), 3);
    let result = first.result(Version::LATEST_MODERN).concat();
    let result: Value = serde_json::from_slice(&result).expect("JSON");
    assert_eq!(result["vendor"], 0);
    assert_eq!(
        result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
        "fake"
    );
}

#[tokio::test]
async fn a_refused_cursor_starts_the_list_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let fake = Fake::modern(json!({ "tools": {} }), move |method, params| {
        if method != "tools/list" {
            return not_found();
        }
        match (
            counted.fetch_add(1, Ordering::SeqCst),
            params["cursor"].as_str(),
        ) {
            (0, None) => kept(json!({ "tools": tools(&["old"]), "nextCursor": "x" })),
            (1, Some(_)) => Err(json!({ "code": -32602, "message": "the list changed" })),
            (2, None) => kept(json!({ "tools": tools(&["new"]), "nextCursor": "y" })),
            (3, Some("y")) => kept(json!({ "tools": tools(&["newer"]) })),
            unexpected => panic!("{unexpected:?}"),
        }
    });
    let node = node(&config(), vec![Known("one", vec![Some(&fake)])]).await;
    let page = node
        .lists
        .whole(&node.one("one"), TOOLS, &anyone(), soon())
        .await;
    assert_eq!(names(&page.expect("a list")), ["new", "newer"]);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn lists_without_an_end_are_given_up() {
    let endless = Fake::modern(json!({ "tools": {} }), |method, params| {
        let at: usize = params["cursor"].as_str().map_or(0, |cursor| cursor.len());
        match method {
            "tools/list" => {
                kept(json!({ "tools": tools(&["a"]), "nextCursor": "x".repeat(at + 1) }))
            }
            _ => not_found(),
        }
    });
    let stuck = Fake::modern(json!({ "tools": {} }), |_, _| {
        kept(json!({ "tools": tools(&["a"]), "nextCursor": "same" }))
    });
    let long = with_tools(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    let known = vec![
        Known("endless", vec![Some(&endless)]),
        Known("stuck", vec![Some(&stuck)]),
        Known("long", vec![Some(&long)]),
    ];
    let node = node(&config(), known).await;
    for (server, limit) in [
        ("endless", "limits.list_pages"),
        ("long", "limits.list_items"),
    ] {
        let error = node
            .lists
            .whole(&node.one(server), TOOLS, &anyone(), soon())
            .await;
        let error = error.expect_err("too long");
        assert!(error.to_string().contains(limit), "{error}");
    }
    // A server that repeats a cursor is taken to be at its end.
    let page = node
        .lists
        .whole(&node.one("stuck"), TOOLS, &anyone(), soon())
        .await;
    assert_eq!(names(&page.expect("a list")), ["a", "a"]);
}

#[tokio::test]
async fn tools_with_invalid_parameter_headers_are_left_out() {
    let bad = json!({ "name": "bad", "inputSchema": { "type": "object", "properties": {
        "n": { "type": "number", "x-mcp-header": "N" } } } });
    let good = json!({ "name": "good", "inputSchema": { "type": "object", "properties": {
        "s": { "type": "string", "x-mcp-header": "S" } } } });
    let list = json!({ "tools": [bad, good] });
    let modern_list = list.clone();
    let modern = Fake::modern(json!({ "tools": {} }), move |_, _| {
        kept(modern_list.clone())
    });
    let legacy = Fake::legacy(json!({ "tools": {} }), move |_, _| Ok(list.clone()));
    let known = vec![
        Known("new", vec![Some(&modern)]),
        Known("old", vec![Some(&legacy)]),
    ];
    let node = node(&config(), known).await;
    let new = node
        .lists
        .whole(&node.one("new"), TOOLS, &anyone(), soon())
        .await;
    assert_eq!(names(&new.expect("a list")), ["good"]);
    let old = node
        .lists
        .whole(&node.one("old"), TOOLS, &anyone(), soon())
        .await;
    assert_eq!(names(&old.expect("a list")), ["bad", "good"]);
    let tool = node
        .lists
        .tool(&node.server("new"), &anyone(), "good", soon())
        .await;
    assert!(!tool.expect("listed").param_headers.is_empty());
    let tool = node
        .lists
        .tool(&node.server("new"), &anyone(), "none", soon())
        .await;
    assert!(tool.is_none());
}

#[tokio::test]
async fn another_replica_is_asked_when_one_is_dead() {
    let fake = with_tools(&["a"]);
    let known = vec![Known("one", vec![None, Some(&fake), None])];
    let node = node(&config(), known).await;
    let page = node
        .lists
        .whole(&node.one("one"), TOOLS, &anyone(), soon())
        .await;
    assert_eq!(names(&page.expect("a list")), ["a"]);
}

#[tokio::test]
async fn a_servers_own_error_is_handed_on_and_not_kept() {
    let fake = Fake::modern(json!({ "tools": {} }), |_, _| {
        Err(json!({ "code": -31000, "message": "not today", "data": 1 }))
    });
    let node = node(&config(), vec![Known("one", vec![Some(&fake)])]).await;
    for asked in 1..=2 {
        let error = node
            .lists
            .whole(&node.one("one"), TOOLS, &anyone(), soon())
            .await;
        let Err(ListError::Answered { answer, .. }) = error else {
            panic!("another answer");
        };
        assert_eq!(answer.error_code(), Some(-31000));
        assert!(fake.asked("tools/list") >= asked);
        // Past the pause after a failure.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_change_makes_the_list_be_fetched_again() {
    let fake = with_tools(&["a"]);
    let node = node(&config(), vec![Known("one", vec![Some(&fake)])]).await;
    let one = node.one("one");
    let list = async || node.lists.whole(&one, TOOLS, &anyone(), soon()).await;
    list().await.expect("a list");
    assert_eq!(list().await.expect("a list").status, CacheStatus::Hit);
    node.lists
        .invalidate(&node.server("one").id, &Change::Prompts)
        .await;
    assert_eq!(list().await.expect("a list").status, CacheStatus::Hit);
    node.lists
        .invalidate(&node.server("one").id, &Change::Tools)
        .await;
    assert_eq!(list().await.expect("a list").status, CacheStatus::Miss);
    assert_eq!(fake.asked("tools/list"), 2);
}

#[tokio::test]
async fn private_lists_stay_with_their_principal() {
    let fake = Fake::modern(json!({ "tools": {} }), |_, _| {
        let mut list = kept(json!({ "tools": tools(&["a"]) }))?;
        list["cacheScope"] = "private".into();
        Ok(list)
    });
    let node = node(&config(), vec![Known("one", vec![Some(&fake)])]).await;
    let one = node.one("one");
    for (credential, asked) in [("ann", 1), ("ben", 2), ("ann", 2)] {
        let caller = Caller::plain(Principal::from_credential(credential.as_bytes()));
        let page = node.lists.whole(&one, TOOLS, &caller, soon()).await;
        assert!(!page.expect("a list").public);
        assert_eq!(fake.asked("tools/list"), asked, "{credential}");
    }
}

#[tokio::test]
async fn legacy_lists_may_depend_on_what_the_client_can_do() {
    let fake = Fake::legacy(json!({ "tools": {} }), |method, _| match method {
        "tools/list" => Ok(json!({ "tools": tools(&["a"]) })),
        _ => not_found(),
    });
    let node = node(&config(), vec![Known("old", vec![Some(&fake)])]).await;
    let old = node.one("old");
    let capable = raw_json::raw(&json!({ "elicitation": {}, "sampling": {} }));
    let capable = Caller {
        capabilities: ClientCapabilities::parse(&capable).expect("an object"),
        ..anyone()
    };
    for (caller, asked) in [(&anyone(), 1), (&capable, 2), (&anyone(), 2), (&capable, 2)] {
        let page = node.lists.whole(&old, TOOLS, caller, soon()).await;
        let page = page.expect("a list");
        assert!(!page.public && page.ttl > Duration::from_secs(60));
        assert_eq!(fake.asked("tools/list"), asked);
    }
}

#[tokio::test]
async fn calls_do_not_wait_for_a_list_that_does_not_come() {
    let fake = with_tools(&["a"]).slow(Duration::from_secs(30));
    let node = node(&config(), vec![Known("slow", vec![Some(&fake)])]).await;
    let slow = node.server("slow");
    let look = async || {
        let begun = Instant::now();
        let tool = node.lists.tool(&slow, &anyone(), "a", soon()).await;
        assert!(tool.is_none());
        begun.elapsed()
    };
    assert!(look().await < Duration::from_millis(2500));
    assert!(look().await < Duration::from_millis(500), "it waited again");
}

#[tokio::test]
async fn a_call_sees_the_newest_definition_of_its_tool() {
    let labels = ["First", "Second"];
    let edition = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&edition);
    let fake = Fake::modern(json!({ "tools": {} }), move |method, _| match method {
        "tools/list" => {
            let label = labels[now.load(Ordering::SeqCst)];
            let site = json!({ "type": "string", "x-mcp-header": label });
            let schema = json!({ "type": "object", "properties": { "site": site } });
            kept(json!({ "tools": [{ "name": "a", "inputSchema": schema }] }))
        }
        _ => not_found(),
    });
    let node = node(&config(), vec![Known("one", vec![Some(&fake)])]).await;
    let server = node.server("one");
    let arguments = raw_json::raw(&json!({ "site": "x" }));
    let header = async || {
        let tool = node.lists.tool(&server, &anyone(), "a", soon()).await;
        let tool = tool.expect("listed");
        let headers = tool.param_headers.headers_for(Some(&arguments));
        headers[0].0.as_str().to_owned()
    };
    for _ in 0..3 {
        assert_eq!(header().await, "mcp-param-first");
    }
    assert_eq!(fake.asked("tools/list"), 1);
    edition.store(1, Ordering::SeqCst);
    node.lists.invalidate(&server.id, &Change::Tools).await;
    let target = node.one("one");
    let page = node.lists.whole(&target, TOOLS, &anyone(), soon()).await;
    page.expect("a list");
    assert_eq!(header().await, "mcp-param-second");
}

#[tokio::test]
async fn calls_do_without_the_store_when_l1_has_no_room_for_a_list() {
    let fake = with_tools(&["a"]);
    let mut config = config();
    config.cache.memory = 0;
    let node = node(&config, vec![Known("one", vec![Some(&fake)])]).await;
    let server = node.server("one");
    let looks = || {
        let counters = node.lists.cache.counters();
        counters.hits.get() + counters.misses.get()
    };
    let tool = node.lists.tool(&server, &anyone(), "a", soon()).await;
    assert!(tool.is_some());
    let first = looks();
    assert!(first > 0);
    for _ in 0..10 {
        let tool = node.lists.tool(&server, &anyone(), "a", soon()).await;
        assert!(tool.is_some());
    }
    assert_eq!(looks(), first);
}

// --- all servers

#[tokio::test]
async fn dead_and_slow_servers_neither_spoil_nor_delay_the_merged_list() {
    let first = with_tools(&["a"]);
    let slow = with_tools(&["never"]).slow(Duration::from_secs(30));
    let none = Fake::modern(json!({}), |_, _| panic!("it has no lists"));
    let refuses = Fake::modern(json!({ "tools": {} }), |_, _| not_found());
    let last = with_tools(&["a", "b"]);
    let known = vec![
        Known("first", vec![Some(&first)]),
        Known("slow", vec![Some(&slow)]),
        Known("none", vec![Some(&none)]),
        Known("refuses", vec![Some(&refuses)]),
        Known("dead", vec![None]),
        Known("last", vec![Some(&last)]),
    ];
    let node = node(&config(), known).await;
    let begun = Instant::now();
    let page = node
        .lists
        .whole(&Target::All, TOOLS, &anyone(), soon())
        .await;
    let page = page.expect("a list");
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(names(&page), ["first__a", "last__a", "last__b"]);
    let missing: Vec<_> = page
        .missing
        .iter()
        .map(|missing| &*missing.server)
        .collect();
    assert_eq!(missing, ["slow", "dead"]);
    assert!(
        page.missing
            .iter()
            .all(|missing| !missing.reason.contains("127.0.0.1"))
    );
    assert!(page.ttl <= Duration::from_secs(5) && !page.public);
}

#[tokio::test]
async fn merged_lists_wait_once_for_a_server_that_is_late_and_have_it_when_it_has_answered() {
    let first = with_tools(&["a"]);
    let late = with_tools(&["b"]).gated();
    let known = vec![
        Known("first", vec![Some(&first)]),
        Known("late", vec![Some(&late)]),
    ];
    let mut config = config();
    config.cache.list_deadline = Duration::from_secs(3600);
    config.cache.fetch_timeout = Duration::from_secs(3600);
    let node = node(&config, known).await;
    let whole = async |deadline| {
        let page = node
            .lists
            .whole(&Target::All, TOOLS, &anyone(), deadline)
            .await;
        page.expect("a list")
    };
    let shortly = Instant::now() + Duration::from_millis(500);
    assert_eq!(names(&whole(shortly).await), ["first__a"]);
    // Who waited for the server again would wait for ever.
    let in_an_hour = Instant::now() + Duration::from_secs(3600);
    let page = whole(in_an_hour).await;
    assert_eq!(names(&page), ["first__a"]);
    assert_eq!(page.missing[0].reason, "no answer in time");
    late.open();
    let all = async {
        while names(&whole(in_an_hour).await) != ["first__a", "late__b"] {
            tokio::task::yield_now().await;
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(30), all).await;
    all.expect("it is back in the list");
}

#[tokio::test]
async fn merged_cursors_lead_through_all_servers() {
    let (one, two) = (with_tools(&["a", "b", "c"]), with_tools(&["d", "e"]));
    let known = vec![
        Known("one", vec![Some(&one)]),
        Known("two", vec![Some(&two)]),
    ];
    let node = node(&config(), known).await;
    let (mut cursor, mut last, mut seen) = (None, None, Vec::new());
    loop {
        let page = node
            .lists
            .page(&Target::All, TOOLS, &anyone(), cursor.as_deref(), soon())
            .await
            .expect("a page");
        assert!(page.len() <= 2 && page.missing.is_empty());
        seen.extend(names(&page));
        match page.next_cursor {
            Some(next) => {
                last = Some(next.clone());
                cursor = Some(next);
            }
            None => break,
        }
    }
    assert_eq!(seen, ["one__a", "one__b", "one__c", "two__d", "two__e"]);
    let one = node.one("one");
    let foreign = node
        .lists
        .page(&one, TOOLS, &anyone(), last.as_deref(), soon())
        .await;
    assert!(matches!(foreign, Err(ListError::BadCursor(_))));
}

#[tokio::test]
async fn merged_names_lead_to_their_servers() {
    const LONG: &str = "a.tool.with.dots.and.a.name.that.no.model.interface.would.ever.accept";
    let (one, two) = (with_tools(&["a", LONG]), with_tools(&["a"]));
    let known = vec![
        Known("one", vec![Some(&one)]),
        Known("two", vec![Some(&two)]),
    ];
    let node = node(&config(), known).await;
    let page = node
        .lists
        .whole(&Target::All, TOOLS, &anyone(), soon())
        .await;
    let shown = names(&page.expect("a list"));
    let wanted = [("one", "a"), ("one", LONG), ("two", "a")];
    for (shown, (server, original)) in shown.iter().zip(wanted) {
        let found = node
            .lists
            .resolve_name(TOOLS, shown, &anyone(), soon())
            .await;
        let (owner, name) = found.expect("a tool");
        assert_eq!((owner.id.as_str(), &*name), (server, original), "{shown}");
    }
    for unknown in ["three__a", "a", "", "__a"] {
        let found = node
            .lists
            .resolve_name(TOOLS, unknown, &anyone(), soon())
            .await;
        assert!(found.is_none(), "{unknown}");
    }
}

/// A server with these resources and one template.
fn with_resources(uris: &'static [&'static str], template: &'static str) -> Fake {
    Fake::modern(json!({ "resources": {} }), move |method, _| match method {
        "resources/list" => {
            let items = uris.iter().map(|uri| json!({ "uri": uri, "name": uri }));
            kept(json!({ "resources": items.collect::<Vec<_>>() }))
        }
        "resources/templates/list" => kept(json!({
            "resourceTemplates": [{ "uriTemplate": template, "name": "t" }]
        })),
        _ => not_found(),
    })
}

#[tokio::test]
async fn a_resource_belongs_to_who_lists_it_or_has_a_template_for_it() {
    let one = with_resources(&["x:1"], "one:///{name}");
    let two = with_resources(&["x:1", "x:2"], "{+anything}");
    let known = vec![
        Known("one", vec![Some(&one)]),
        Known("two", vec![Some(&two)]),
    ];
    let node = node(&config(), known).await;
    for (uri, owner) in [
        ("x:1", "one"),
        ("x:2", "two"),
        ("one:///readme", "one"),
        ("one:///{name}", "one"),
        ("else:where", "two"),
    ] {
        let found = node.lists.owner_of(uri, &anyone(), soon()).await;
        assert_eq!(found.expect("an owner").id.as_str(), owner, "{uri}");
    }
}

#[tokio::test]
async fn an_unlisted_resource_belongs_to_the_only_server_with_resources() {
    let with = with_resources(&["x:1"], "one:///{name}");
    let without = with_tools(&["a"]);
    let known = vec![
        Known("with", vec![Some(&with)]),
        Known("without", vec![Some(&without)]),
    ];
    let alone = node(&config(), known).await;
    let found = alone.lists.owner_of("hidden:1", &anyone(), soon()).await;
    assert_eq!(found.expect("an owner").id.as_str(), "with");
    let other = with_resources(&[], "two:///{name}");
    let known = vec![
        Known("with", vec![Some(&with)]),
        Known("other", vec![Some(&other)]),
    ];
    let several = node(&config(), known).await;
    assert!(
        several
            .lists
            .owner_of("hidden:1", &anyone(), soon())
            .await
            .is_none()
    );
}

// --- resources

#[tokio::test]
async fn resources_are_kept_when_their_server_allows_it() {
    let fake = Fake::modern(json!({ "resources": {} }), |method, params| {
        if method != "resources/read" {
            return not_found();
        }
        let contents = json!({ "contents": [{ "uri": params["uri"], "text": "t" }] });
        match params["uri"].as_str() {
            Some("x:kept") => kept(contents),
            Some("x:asks") => kept(contents).map(|mut result| {
                result["resultType"] = "input_required".into();
                result["inputRequests"] = json!({});
                result
            }),
            Some("x:none") => Err(json!({ "code": -32602, "message": "unknown" })),
            _ => Ok(contents),
        }
    });
    let node = node(&config(), vec![Known("one", vec![Some(&fake)])]).await;
    let server = node.server("one");
    let read = async |params: Value| {
        let params = raw_json::raw(&params);
        node.lists.read(&server, &anyone(), &params, soon()).await
    };
    let asked = || fake.asked("resources/read");

    let kept = read(json!({ "uri": "x:kept" }))
        .await
        .expect("read")
        .expect("kept");
    assert_eq!((kept.status, asked()), (CacheStatus::Miss, 1));
    let kept = read(json!({ "uri": "x:kept", "_meta": { "v": 1 } })).await;
    let kept = kept.expect("read").expect("kept");
    assert_eq!((kept.status, asked()), (CacheStatus::Hit, 1));
    let result: Value = serde_json::from_str(kept.result.get()).expect("JSON");
    assert!(
        result["ttlMs"]
            .as_u64()
            .is_some_and(|ttl| (50_000..=60_000).contains(&ttl))
    );
    node.lists
        .invalidate(
            &server.id,
            &Change::Resource {
                uri: "x:kept".into(),
            },
        )
        .await;
    let kept = read(json!({ "uri": "x:kept" }))
        .await
        .expect("read")
        .expect("kept");
    assert_eq!((kept.status, asked()), (CacheStatus::Miss, 2));

    // What may not be kept is answered once, and from then on left to the caller.
    let plain = json!({ "uri": "x:plain" });
    let first = read(plain.clone()).await.expect("read").expect("an answer");
    assert_eq!(first.status, CacheStatus::Bypass);
    assert!(read(plain).await.expect("read").is_none());
    // A question is left to the caller at once: another may have caused the fetch.
    let before = asked();
    for _ in 0..2 {
        let asks = read(json!({ "uri": "x:asks" })).await.expect("read");
        assert!(asks.is_none());
    }
    assert_eq!(asked(), before + 1);
    let refused = read(json!({ "uri": "x:none" })).await;
    assert!(matches!(refused, Err(ListError::Answered { .. })));
    let before = asked();
    for not_plain in [
        json!({ "uri": "x:kept", "requestState": "s" }),
        json!({ "uri": "x:kept", "inputResponses": {} }),
        json!({ "uri": "x:kept", "_meta": { "progressToken": 1 } }),
        json!({ "uri": "x:kept", "_meta": { "io.modelcontextprotocol/logLevel": "info" } }),
        json!({ "uri": 1 }),
    ] {
        assert!(
            read(not_plain.clone()).await.expect("read").is_none(),
            "{not_plain}"
        );
    }
    assert_eq!(asked(), before);
}

#[tokio::test]
async fn a_server_that_went_away_is_still_described_and_listed() {
    let fake = with_tools(&["a"]);
    let mut config = config();
    config.cache.lists.fresh = Duration::from_millis(1);
    let node = node(&config, vec![Known("one", vec![Some(&fake)])]).await;
    let server = node.server("one");
    let described = node
        .lists
        .discovery(&server, &anyone(), soon())
        .await
        .expect("described");
    assert!(described.value.capabilities.has_tools());
    assert_eq!(node.lists.spoken(&server), Some(Version::V2026_07_28));
    node.lists
        .whole(&node.one("one"), TOOLS, &anyone(), soon())
        .await
        .expect("a list");
    assert!(
        node.lists
            .tool(&server, &anyone(), "a", soon())
            .await
            .is_some()
    );
}
