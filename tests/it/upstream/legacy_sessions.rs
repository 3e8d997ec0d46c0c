//! Upstream sessions: shared, lost, recorded for other nodes, retired.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mcp_fleet::{
    servers::{Endpoint, Server},
    store::{Store, memory::MemoryStore},
    upstream::{SessionUse, UpstreamError},
};
use serde_json::{Value, json};

use super::{Side, answer_of, client_session, dedicated, eras::legacy, server_id, settings};
use crate::support::raw_server::{RawRequest, RawServer, Reply};

fn ok(request: &RawRequest) -> Reply {
    let session = request.header("mcp-session-id").unwrap_or_default();
    Reply::json(200, &request.result(json!({"session": session})))
}

/// Answers `refusal` to requests of the first session once it is told to.
async fn forgetful(
    refusal: impl Fn() -> Reply + Send + Sync + 'static,
) -> (RawServer, Arc<AtomicBool>) {
    let forget = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&forget);
    let server = RawServer::start(legacy(move |request| {
        let first = request.header("mcp-session-id") == Some("s1");
        if first && flag.load(Ordering::SeqCst) {
            refusal()
        } else {
            ok(request)
        }
    }))
    .await;
    (server, forget)
}

#[tokio::test]
async fn a_lost_session_is_made_again_once_and_the_request_resent() {
    let refusals: Vec<fn() -> Reply> = vec![
        || Reply::status(404),
        || Reply::status(401),
        || Reply::full(422, &[], "Unexpected message, expect initialize request"),
        || {
            let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32000,
                "message": "Bad Request: No valid session ID provided"}});
            Reply::json(400, &error)
        },
    ];
    for refusal in refusals {
        for session in [SessionUse::Pooled, dedicated("c1")] {
            let (server, forget) = forgetful(refusal).await;
            let side = Side::http(&server.url("/mcp"));
            let call = async || {
                let exchange = side
                    .call(
                        "tools/call",
                        json!({"name": "x"}),
                        json!({}),
                        session.clone(),
                    )
                    .await;
                answer_of(exchange.expect("called"))
                    .await
                    .expect("answered")
            };
            assert_eq!(call().await["session"], "s1");
            forget.store(true, Ordering::SeqCst);
            assert_eq!(call().await["session"], "s2");
            assert_eq!(call().await["session"], "s2");
            let initialized = server
                .methods()
                .iter()
                .filter(|m| *m == "initialize")
                .count();
            assert_eq!(initialized, 2);
            side.stop().await;
        }
    }
}

#[tokio::test]
async fn a_new_session_is_told_what_the_lost_one_knew() {
    let (server, forget) = forgetful(|| Reply::status(404)).await;
    let side = Side::http(&server.url("/mcp"));
    let call = async |method: &str, params: Value| {
        let calling = side.call(method, params, json!({}), dedicated("c1"));
        answer_of(calling.await.unwrap()).await.unwrap()
    };
    call("logging/setLevel", json!({"level": "error"})).await;
    call("resources/subscribe", json!({"uri": "a://1"})).await;
    call("resources/subscribe", json!({"uri": "a://2"})).await;
    call("resources/unsubscribe", json!({"uri": "a://2"})).await;
    forget.store(true, Ordering::SeqCst);
    call("tools/list", json!({})).await;
    let told: Vec<Value> = server
        .requests()
        .iter()
        .filter(|r| r.header("mcp-session-id") == Some("s2"))
        .map(|r| json!([r.rpc_method(), r.json()["params"]["uri"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["notifications/initialized", null]),
            json!(["logging/setLevel", null]),
            json!(["resources/subscribe", "a://1"]),
            json!(["tools/list", null]),
        ]
    );
}

#[tokio::test]
async fn a_404_that_means_an_unknown_method_is_an_answer() {
    let server = RawServer::start(legacy(|request| match request.rpc_method().as_str() {
        "vendor/odd" => Reply::json(404, &request.error(-32601, "Method not found")),
        _ => ok(request),
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let answer = side.ask("vendor/odd", json!({})).await.unwrap();
    assert_eq!(answer["error"]["code"], -32601);
}

#[tokio::test]
async fn many_callers_of_a_lost_session_make_one_new_session() {
    let (server, forget) = forgetful(|| Reply::status(404)).await;
    let side = Side::http(&server.url("/mcp"));
    side.ask("tools/list", json!({})).await.unwrap();
    forget.store(true, Ordering::SeqCst);
    let calls = (0..20).map(|_| side.ask("tools/list", json!({})));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap()["session"], "s2");
    }
    let initialized = server
        .methods()
        .iter()
        .filter(|m| *m == "initialize")
        .count();
    assert_eq!(initialized, 2);
}

#[tokio::test]
async fn a_server_that_forgets_every_session_is_not_asked_for_ever() {
    let server = RawServer::start(legacy(|_| Reply::status(404))).await;
    let side = Side::http(&server.url("/mcp"));
    let error = side.ask("tools/list", json!({})).await.unwrap_err();
    assert!(matches!(error, UpstreamError::SessionLost), "{error:?}");
    let tries = server
        .methods()
        .iter()
        .filter(|m| *m == "tools/list")
        .count();
    assert_eq!(tries, 2);
}

#[tokio::test]
async fn capabilities_keep_pooled_sessions_apart() {
    let server = RawServer::start(legacy(ok)).await;
    let side = Side::http(&server.url("/mcp"));
    let sampling = json!({"sampling": {}});
    for (capabilities, session) in [
        (json!({}), "s1"),
        (sampling.clone(), "s2"),
        (json!({}), "s1"),
    ] {
        let exchange = side
            .call("tools/list", json!({}), &capabilities, SessionUse::Pooled)
            .await
            .unwrap();
        assert_eq!(answer_of(exchange).await.unwrap()["session"], session);
    }
    let initialize: Vec<Value> = server
        .requests()
        .iter()
        .filter(|r| r.rpc_method() == "initialize")
        .map(|r| r.json()["params"]["capabilities"].clone())
        .collect();
    assert_eq!(initialize, [json!({}), sampling]);
}

#[tokio::test]
async fn the_number_of_pooled_sessions_is_bounded() {
    let server = RawServer::start(legacy(ok)).await;
    let mut settings = settings();
    settings.sessions_per_replica = 2;
    let side = Side::with(&server.url("/mcp"), settings, Arc::new(MemoryStore::new()));
    for capabilities in [
        json!({}),
        json!({"sampling": {}}),
        json!({"elicitation": {}}),
    ] {
        let exchange = side
            .call("tools/list", json!({}), &capabilities, SessionUse::Pooled)
            .await
            .unwrap();
        answer_of(exchange).await.unwrap();
    }
    // The one unused for longest made room.
    let ended = server.request("DELETE").await;
    assert_eq!(ended.header("mcp-session-id"), Some("s1"));
}

#[tokio::test]
async fn idle_pooled_sessions_are_ended() {
    let server = RawServer::start(legacy(ok)).await;
    let mut settings = settings();
    settings.session_idle = Duration::from_millis(100);
    let side = Side::with(&server.url("/mcp"), settings, Arc::new(MemoryStore::new()));
    side.ask("tools/list", json!({})).await.unwrap();
    server.request("DELETE").await;
    assert_eq!(
        side.ask("tools/list", json!({})).await.unwrap()["session"],
        "s2"
    );
}

#[tokio::test]
async fn nodes_share_the_session_of_a_client() {
    let server = RawServer::start(legacy(ok)).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let node = || Side::with(&server.url("/mcp"), settings(), Arc::clone(&store));
    let (a, b) = (node(), node());
    let call = async |side: &Side, key: &str| {
        let exchange = side
            .call(
                "tools/call",
                json!({"name": "x"}),
                json!({}),
                dedicated(key),
            )
            .await
            .unwrap();
        answer_of(exchange).await.unwrap()["session"].clone()
    };
    assert_eq!(call(&a, "c1").await, "s1");
    assert_eq!(call(&b, "c1").await, "s1");
    assert_eq!(call(&b, "c2").await, "s2");
    let initialize = server.request("initialize").await;
    assert_eq!(
        initialize.json()["params"]["clientInfo"]["name"],
        "their-client"
    );

    let fleet = Server::new(
        server_id(),
        vec![Arc::clone(&b.replica)],
        Default::default(),
        Duration::from_secs(5),
        "test",
    );
    let bound = b.upstreams.bound_replica(&"c1".into(), &fleet).await;
    assert_eq!(bound.as_ref(), Some(&b.replica.id));
    // A node that has never met the client asks the store.
    let c = node();
    let bound = c.upstreams.bound_replica(&"c1".into(), &fleet).await;
    assert_eq!(bound.as_ref(), Some(&b.replica.id));
    assert_eq!(
        c.upstreams.bound_replica(&"nobody".into(), &fleet).await,
        None
    );

    // Any node can end it.
    c.upstreams.retire(&"c1".into(), &fleet).await;
    let ended = server.request("DELETE").await;
    assert_eq!(ended.header("mcp-session-id"), Some("s1"));
    assert_eq!(c.upstreams.bound_replica(&"c1".into(), &fleet).await, None);
}

#[tokio::test]
async fn of_nodes_that_open_at_once_one_session_remains() {
    let server = RawServer::start(legacy(ok)).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let nodes: Vec<Side> = (0..4)
        .map(|_| Side::with(&server.url("/mcp"), settings(), Arc::clone(&store)))
        .collect();
    let calls = nodes.iter().map(async |side| {
        let exchange = side
            .call(
                "tools/call",
                json!({"name": "x"}),
                json!({}),
                dedicated("c1"),
            )
            .await
            .unwrap();
        answer_of(exchange).await.unwrap()["session"].to_string()
    });
    let used: BTreeSet<String> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .collect();
    assert_eq!(used.len(), 1, "{used:?}");
    let opened = server
        .methods()
        .iter()
        .filter(|m| *m == "initialize")
        .count();
    server
        .until("the losers' DELETE", |server| {
            let ended = server.methods().iter().filter(|m| *m == "DELETE").count();
            (ended == opened - 1).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_log_level_is_set_once_per_session_and_filtered_per_request() {
    let server = RawServer::start(legacy(|request| match request.rpc_method().as_str() {
        "logging/setLevel" => Reply::json(200, &request.result(json!({}))),
        _ => {
            let log = |level: &str| {
                json!({"jsonrpc": "2.0", "method": "notifications/message",
                    "params": {"level": level, "data": 1}})
            };
            Reply::sse()
                .event(&log("debug"))
                .event(&log("error"))
                .event(&request.result(json!({})))
                .end()
        }
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let logs = async |level: Option<&str>| {
        let params = super::raw(&json!({"name": "x"}));
        let capabilities = super::caps(&json!({}));
        let request = mcp_fleet::upstream::Outgoing {
            method: "tools/call",
            params: Some(&params),
            capabilities: &capabilities,
            log_level: level.and_then(mcp_fleet::mcp::envelope::LogLevel::parse),
            progress_token: None,
            trace: Default::default(),
            headers: Vec::new(),
        };
        let call = side
            .upstreams
            .call(&side.replica, request, SessionUse::Pooled, super::soon());
        let mut exchange = call.await.unwrap();
        let mut count = 0;
        while let mcp_fleet::upstream::Event::Notification(_) = exchange.next().await.unwrap() {
            count += 1;
        }
        count
    };
    assert_eq!(logs(None).await, 0);
    assert_eq!(logs(Some("warning")).await, 1);
    assert_eq!(logs(Some("error")).await, 1);
    assert_eq!(logs(Some("debug")).await, 2);
    assert_eq!(logs(Some("info")).await, 1);
    let levels: Vec<Value> = server
        .requests()
        .iter()
        .filter(|r| r.rpc_method() == "logging/setLevel")
        .map(|r| r.json()["params"]["level"].clone())
        .collect();
    assert_eq!(levels, ["warning", "debug"]);
}

#[tokio::test]
async fn messages_outside_of_calls_reach_the_clients_stream() {
    let feed = crate::support::raw_server::Feed::default();
    let pushed = feed.clone();
    let server = RawServer::start(legacy(move |request| {
        if request.method == "GET" {
            return Reply::sse().feed(&pushed);
        }
        Reply::status(202)
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let session = client_session("c1", &json!({"roots": {}}));
    let mut stream = side
        .upstreams
        .session_stream(&side.replica, &session, super::soon())
        .await
        .unwrap();
    let get = server.request("GET").await;
    assert_eq!(get.header("mcp-session-id"), Some("s1"));
    feed.push("data: {\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}\n\n");
    feed.push("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n");
    feed.push("data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}\n\n");
    let first = stream.next().await.unwrap();
    assert!(
        matches!(first, mcp_fleet::upstream::Event::Notification(_)),
        "{first:?}"
    );
    let mcp_fleet::upstream::Event::Ask(ask) = stream.next().await.unwrap() else {
        panic!("no question");
    };
    let answer = mcp_fleet::mcp::message::Answer::Result(super::raw(&json!({"roots": []})));
    stream.answer(&ask.key, &answer).await.unwrap();
    let again = stream.answer(&ask.key, &answer).await;
    assert!(matches!(again, Err(UpstreamError::NoSuchQuestion)));
    let replies = server
        .until("the replies", |server| {
            let replies: Vec<Value> = server
                .requests()
                .iter()
                .filter(|r| r.method == "POST" && r.rpc_method().is_empty())
                .map(RawRequest::json)
                .collect();
            (replies.len() == 2).then_some(replies)
        })
        .await;
    assert!(replies.contains(&json!({"jsonrpc": "2.0", "id": "p", "result": {}})));
    assert!(replies.contains(&json!({"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})));
    // Nobody listens any more: the stream is closed, so that another node can open it.
    drop(stream);
    server
        .until("the end of the stream", |s| {
            (s.hangups() == 1).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_question_on_the_standalone_stream_goes_to_the_only_call() {
    let feed = crate::support::raw_server::Feed::default();
    let pushed = feed.clone();
    let go = Arc::new(tokio::sync::Notify::new());
    let gate = Arc::clone(&go);
    let server = RawServer::start(legacy(move |request| {
        if request.method == "GET" {
            return Reply::sse().feed(&pushed);
        }
        if request.rpc_method() == "tools/call" {
            return Reply::sse()
                .then(crate::support::raw_server::Step::Until(Arc::clone(&gate)))
                .event(&request.result(json!({"done": true})))
                .end();
        }
        Reply::status(202)
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let asked = json!({"elicitation": {}});
    let call = || {
        side.call(
            "tools/call",
            json!({"name": "x"}),
            &asked,
            SessionUse::Pooled,
        )
    };
    let question = |id: &str| {
        let params = json!({"message": "?", "requestedSchema": {"type": "object"}});
        let ask =
            json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params});
        format!("data: {ask}\n\n")
    };
    let mut one = call().await.unwrap();
    feed.push(question("a"));
    let event = one.next().await.unwrap();
    assert!(
        matches!(event, mcp_fleet::upstream::Event::Ask(_)),
        "{event:?}"
    );
    // With two calls in flight it cannot be told whose it is.
    let two = call().await.unwrap();
    feed.push(question("b"));
    let refused = server
        .until("a refusal", |server| {
            let replies = server.requests();
            replies
                .into_iter()
                .map(|r| r.json())
                .find(|r| r["id"] == "b")
        })
        .await;
    assert!(refused["error"]["code"].is_number(), "{refused}");
    go.notify_waiters();
    go.notify_one();
    answer_of(two).await.unwrap();
}

#[tokio::test]
async fn a_removed_replica_leaves_nothing_behind() {
    let server = RawServer::start(legacy(ok)).await;
    let mut settings = settings();
    settings.session_idle = Duration::from_millis(200);
    let endpoint = Endpoint::Http(server.url("/mcp").parse().unwrap());
    let mut side = Side::of(endpoint, settings, Arc::new(MemoryStore::new()));
    side.ask("tools/list", json!({})).await.unwrap();
    let other = Endpoint::Demo;
    side.replica = Arc::new(mcp_fleet::servers::Replica::new(server_id(), other, 1));
    server.request("DELETE").await;
}
