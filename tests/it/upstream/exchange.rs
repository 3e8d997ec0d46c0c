//! What travels during one request: streams, cancelling, resuming.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mcp_fleet::{
    mcp::message::Answer,
    upstream::{Event, SessionUse, UpstreamError},
};
use serde_json::{Value, json};

use super::{
    Side, answer_of, dedicated,
    eras::{discovery, legacy, sse_server},
    raw, value_of, within,
};
use crate::support::raw_server::{RawRequest, RawServer, Reply, Step};

fn modern(
    rest: impl Fn(&RawRequest) -> Reply + Send + Sync + 'static,
) -> impl Fn(&RawRequest) -> Reply + Send + Sync + 'static {
    move |request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(200, &request.result(discovery())),
        _ => rest(request),
    }
}

fn notice(method: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": {"x": 1}})
}

#[tokio::test]
async fn bytes_pass_unchanged() {
    let odd = "{\"z\":1e2,\"a\":12345678901234567890123,\"\u{a0}\":\"\u{1f469}\u{200d}\u{1f680}\",\"a\":\"\\u00e9\"}";
    let server = RawServer::start(modern(move |request| {
        let id = request.rpc_id();
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{odd}}}");
        Reply::full(200, &[("content-type", "application/json")], body)
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let call = side.call(
        "tools/call",
        json!({"name": "x"}),
        json!({}),
        SessionUse::Pooled,
    );
    let mut exchange = call.await.unwrap();
    let Event::Done(Answer::Result(result)) = exchange.next().await.unwrap() else {
        panic!("no result");
    };
    assert_eq!(result.get(), odd);
}

#[tokio::test]
async fn events_come_in_order_wherever_chunks_end() {
    let server = RawServer::start(modern(|request| {
        let mut reply = Reply::sse();
        let text = format!(
            ": hi\r\n\r\nevent: ping\r\ndata: {{}}\r\n\r\nevent: message\r\ndata: {}\r\n\r\ndata: {}\n\ndata: {}\n\n",
            notice("notifications/one"),
            notice("notifications/two"),
            request.result(json!({"ok": true})),
        );
        for byte in text.split_inclusive(|_| true) {
            reply = reply.text(byte);
        }
        reply.end()
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    for _ in 0..2 {
        let call = side.call(
            "tools/call",
            json!({"name": "x"}),
            json!({}),
            SessionUse::Pooled,
        );
        let mut exchange = call.await.unwrap();
        for expected in ["notifications/one", "notifications/two"] {
            let Event::Notification(message) = exchange.next().await.unwrap() else {
                panic!("no notification");
            };
            let message: Value = serde_json::from_slice(&message).unwrap();
            assert_eq!(message["method"], expected);
        }
        let Event::Done(answer) = exchange.next().await.unwrap() else {
            panic!("no answer");
        };
        assert_eq!(value_of(&answer), json!({"ok": true}));
        // The end of the body comes after the answer, in bytes of its own.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        server.connections(),
        1,
        "an ended stream gives its connection back"
    );
}

#[tokio::test]
async fn dropping_a_modern_exchange_closes_its_stream() {
    let server = RawServer::start(modern(|_| {
        Reply::sse()
            .event(&notice("notifications/one"))
            .then(Step::Hang)
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let call = side.call(
        "tools/call",
        json!({"name": "x"}),
        json!({}),
        SessionUse::Pooled,
    );
    let mut exchange = call.await.unwrap();
    exchange.next().await.unwrap();
    drop(exchange);
    server
        .until("the hang-up", |s| (s.hangups() == 1).then_some(()))
        .await;
    // Also before there are headers.
    let server = RawServer::start(modern(|_| Reply::hang())).await;
    let side = Side::http(&server.url("/mcp"));
    let call = side.call(
        "tools/call",
        json!({"name": "x"}),
        json!({}),
        SessionUse::Pooled,
    );
    let cancelled = tokio::time::timeout(Duration::from_millis(200), call).await;
    assert!(cancelled.is_err());
    server
        .until("the hang-up", |s| (s.hangups() == 1).then_some(()))
        .await;
    assert!(
        !server
            .methods()
            .contains(&"notifications/cancelled".to_owned())
    );
}

#[tokio::test]
async fn dropping_a_legacy_exchange_sends_a_notification() {
    for started in [true, false] {
        let server = RawServer::start(legacy(move |_| {
            if started {
                Reply::sse()
                    .event(&notice("notifications/one"))
                    .then(Step::Hang)
            } else {
                Reply::hang()
            }
        }))
        .await;
        let side = Side::http(&server.url("/mcp"));
        let call = side.call(
            "tools/call",
            json!({"name": "x"}),
            json!({}),
            dedicated("c1"),
        );
        if started {
            let mut exchange = call.await.unwrap();
            exchange.next().await.unwrap();
            drop(exchange);
        } else {
            let cancelled = tokio::time::timeout(Duration::from_millis(200), call).await;
            assert!(cancelled.is_err());
        }
        let notice = server.request("notifications/cancelled").await;
        let called = server.request("tools/call").await;
        assert_eq!(notice.json()["params"]["requestId"], called.rpc_id());
        assert_eq!(notice.header("mcp-session-id"), Some("s1"));
    }
}

#[tokio::test]
async fn nothing_is_cancelled_after_the_answer() {
    let server = RawServer::start(legacy(|request| {
        Reply::sse().event(&request.result(json!({}))).end()
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    side.ask("tools/call", json!({"name": "x"})).await.unwrap();
    side.stop().await;
    assert!(
        !server
            .methods()
            .contains(&"notifications/cancelled".to_owned())
    );
}

/// Sends `first` and breaks off; after a GET with the last id, `then`.
async fn breaking(
    first: impl Fn(&RawRequest) -> Reply + Send + Sync + 'static,
    then: impl Fn(Value) -> Reply + Send + Sync + 'static,
) -> RawServer {
    let id = std::sync::Mutex::new(Value::Null);
    RawServer::start(legacy(move |request| {
        if request.method == "GET" {
            return then(id.lock().expect("not poisoned").clone());
        }
        *id.lock().expect("not poisoned") = request.rpc_id();
        first(request)
    }))
    .await
}

fn result(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"resumed": true}})
}

#[tokio::test]
async fn a_broken_stream_is_resumed_after_its_last_event() {
    let server = breaking(
        |_| {
            Reply::sse()
                .text("id: e0\nretry: 120\ndata:\n\n")
                .event_with_id("e1", &notice("notifications/one"))
                .end()
        },
        |id| Reply::sse().event_with_id("e2", &result(&id)).end(),
    )
    .await;
    let side = Side::http(&server.url("/mcp"));
    let begun = std::time::Instant::now();
    let call = side.call(
        "tools/call",
        json!({"name": "x"}),
        json!({}),
        dedicated("c1"),
    );
    let mut exchange = call.await.unwrap();
    assert!(matches!(
        exchange.next().await.unwrap(),
        Event::Notification(_)
    ));
    let paused = exchange.next().await.unwrap();
    let Event::Paused { retry } = paused else {
        panic!("{paused:?}");
    };
    assert_eq!(retry, Duration::from_millis(120));
    assert_eq!(answer_of(exchange).await.unwrap()["resumed"], true);
    assert!(
        begun.elapsed() >= Duration::from_millis(120),
        "G86: retry is respected"
    );
    let get = server.request("GET").await;
    assert_eq!(get.header("last-event-id"), Some("e1"));
    assert_eq!(get.header("mcp-session-id"), Some("s1"));
    assert_eq!(get.header("accept"), Some("text/event-stream"));
    assert!(
        !server
            .methods()
            .contains(&"notifications/cancelled".to_owned())
    );
}

#[tokio::test]
async fn reading_can_be_given_up_while_a_stream_is_resumed() {
    let server = breaking(
        |_| {
            Reply::sse()
                .text("id: e0\nretry: 50\ndata:\n\n")
                .then(Step::Close)
        },
        |id| {
            Reply::sse()
                .then(Step::Pause(Duration::from_millis(50)))
                .event(&result(&id))
                .end()
        },
    )
    .await;
    let side = Side::http(&server.url("/mcp"));
    let call = side.call(
        "tools/call",
        json!({"name": "x"}),
        json!({}),
        dedicated("c1"),
    );
    let mut exchange = call.await.unwrap();
    let mut given_up = 0;
    let answer = loop {
        match tokio::time::timeout(Duration::from_millis(7), exchange.next()).await {
            Ok(Ok(Event::Paused { .. })) => {}
            Ok(event) => break event.unwrap(),
            Err(_) => given_up += 1,
        }
    };
    assert!(given_up > 3, "given up {given_up} times");
    assert!(matches!(answer, Event::Done(_)));
    assert_eq!(server.methods().iter().filter(|m| *m == "GET").count(), 1);
}

#[tokio::test]
async fn without_an_event_id_a_broken_stream_is_lost() {
    let server = breaking(
        |_| Reply::sse().event(&notice("notifications/one")).end(),
        |id| Reply::sse().event(&result(&id)).end(),
    )
    .await;
    let side = Side::http(&server.url("/mcp"));
    let error = side
        .ask("tools/call", json!({"name": "x"}))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            UpstreamError::Closed {
                before_headers: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!error.is_safe_to_retry());
    assert!(!server.methods().contains(&"GET".to_owned()));
}

#[tokio::test]
async fn resuming_is_bounded() {
    let gets = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&gets);
    let server = breaking(
        |_| Reply::sse().text("id: e0\nretry: 10\ndata:\n\n").end(),
        move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Reply::sse().end()
        },
    )
    .await;
    let side = Side::http(&server.url("/mcp"));
    let error = side
        .ask("tools/call", json!({"name": "x"}))
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::Closed { .. }), "{error:?}");
    assert_eq!(gets.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_session_lost_while_resuming_is_an_error_not_a_second_run() {
    let server = breaking(
        |_| Reply::sse().text("id: e0\nretry: 10\ndata:\n\n").end(),
        |_| Reply::status(404),
    )
    .await;
    let side = Side::http(&server.url("/mcp"));
    let error = side
        .ask("tools/call", json!({"name": "x"}))
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::SessionLost), "{error:?}");
    assert!(!error.is_safe_to_retry());
    let runs = server
        .methods()
        .iter()
        .filter(|m| *m == "tools/call")
        .count();
    assert_eq!(runs, 1);
}

#[tokio::test]
async fn questions_follow_what_the_client_declared() {
    let asks = |id: &str, method: &str, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let server = RawServer::start(legacy(move |request| {
        if request.rpc_method().is_empty() {
            return Reply::status(202);
        }
        Reply::sse()
            .event(&asks("ping", "ping", json!({})))
            .event(&asks("roots", "roots/list", json!({})))
            .event(&asks(
                "url",
                "elicitation/create",
                json!({"mode": "url", "url": "https://x", "message": "?"}),
            ))
            .event(&asks(
                "form",
                "elicitation/create",
                json!({"message": "?", "requestedSchema": {}}),
            ))
            .event(&asks("odd", "vendor/question", json!({})))
            .then(Step::Pause(Duration::from_millis(100)))
            .event(&request.result(json!({})))
            .end()
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let form_only = json!({"elicitation": {"form": {}}});
    let call = side.call(
        "tools/call",
        json!({"name": "x"}),
        &form_only,
        SessionUse::Pooled,
    );
    let mut exchange = call.await.unwrap();
    let Event::Ask(ask) = exchange.next().await.unwrap() else {
        panic!("no question");
    };
    assert_eq!(ask.key.as_raw().get(), "\"form\"");
    assert_eq!(
        ask.params.unwrap().get(),
        "{\"message\":\"?\",\"requestedSchema\":{}}"
    );
    let answer = Answer::Result(raw(&json!({"action": "decline"})));
    exchange.answer(&ask.key, &answer).await.unwrap();
    answer_of(exchange).await.unwrap();
    side.stop().await;
    let reply = |id: &str| {
        let all = server.requests();
        let found = all.iter().map(RawRequest::json).find(|r| r["id"] == id);
        found.unwrap_or_else(|| panic!("no reply to {id}"))
    };
    assert_eq!(reply("ping")["result"], json!({}));
    assert_eq!(reply("roots")["error"]["code"], -32601);
    assert_eq!(reply("url")["error"]["code"], -32602);
    assert_eq!(reply("odd")["error"]["code"], -32601);
    assert_eq!(reply("form")["result"]["action"], "decline");
}

#[tokio::test]
async fn the_deadline_ends_with_the_first_question() {
    let server = RawServer::start(legacy(|request| {
        if request.rpc_method().is_empty() {
            return Reply::status(202);
        }
        let ask = json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"});
        Reply::sse()
            .event(&ask)
            .then(Step::Pause(Duration::from_millis(400)))
            .event(&request.result(json!({})))
            .end()
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let capabilities = super::caps(&json!({"roots": {}}));
    let request = mcp_fleet::upstream::Outgoing {
        method: "tools/call",
        params: None,
        capabilities: &capabilities,
        log_level: None,
        progress_token: None,
        trace: Default::default(),
        headers: Vec::new(),
    };
    let call = side
        .upstreams
        .call(&side.replica, request, SessionUse::Pooled, within(300));
    let mut exchange = call.await.unwrap();
    assert!(matches!(exchange.next().await.unwrap(), Event::Ask(_)));
    answer_of(exchange).await.unwrap();
}

#[tokio::test]
async fn on_http_sse_one_call_at_a_time_can_ask() {
    // The server answers only when the question was answered; it asks about each call.
    let calls = AtomicUsize::new(0);
    let server = sse_server(move |request| match request.rpc_method().as_str() {
        "initialize" => super::eras::initialized("2024-11-05"),
        _ => json!({"call": calls.fetch_add(1, Ordering::SeqCst)}),
    })
    .await;
    let side = Side::http(&server.url("/sse"));
    let asked = json!({"roots": {}});
    let call = || {
        side.call(
            "tools/call",
            json!({"name": "x"}),
            &asked,
            SessionUse::Pooled,
        )
    };
    let first = call().await.unwrap();
    // A second one needs a stream of its own.
    let second = call().await.unwrap();
    let gets = server.methods().iter().filter(|m| *m == "GET").count();
    assert_eq!(gets, 2, "{:?}", server.methods());
    drop(first);
    drop(second);
    // Lists never ask: they share.
    let list = side.call("tools/list", json!({}), &asked, SessionUse::Pooled);
    drop(list.await.unwrap());
    let gets = server.methods().iter().filter(|m| *m == "GET").count();
    assert_eq!(gets, 2);
}

#[tokio::test]
async fn trace_and_operator_headers_are_sent() {
    let server = RawServer::start(modern(|request| {
        Reply::json(200, &request.result(json!({})))
    }))
    .await;
    let mut side = Side::http(&server.url("/mcp"));
    let name = http::HeaderName::from_static("x-operator");
    let value = http::HeaderValue::from_static("yes");
    let endpoint = side.replica.endpoint.clone();
    let replica = mcp_fleet::servers::Replica::new(super::server_id(), endpoint, 1);
    side.replica = Arc::new(replica.with_headers(vec![(name, value)]));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let capabilities = super::caps(&json!({}));
    let request = mcp_fleet::upstream::Outgoing {
        method: "tools/list",
        params: None,
        capabilities: &capabilities,
        log_level: None,
        progress_token: None,
        trace: mcp_fleet::mcp::envelope::TraceContext::new(Some(parent), None),
        headers: Vec::new(),
    };
    let call = side
        .upstreams
        .call(&side.replica, request, SessionUse::Pooled, super::soon());
    answer_of(call.await.unwrap()).await.unwrap();
    let sent = server.request("tools/list").await;
    assert_eq!(sent.header("traceparent"), Some(parent));
    assert_eq!(sent.json()["params"]["_meta"]["traceparent"], parent);
    assert_eq!(sent.header("x-operator"), Some("yes"));
    assert_eq!(sent.header("authorization"), None);
}
