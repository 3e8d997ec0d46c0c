//! G36-G40, G43-G45: the stream of a modern request.

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{LOG_LEVEL, call, modern},
    fake_server::{
        Contents, FakeServer, Speaks,
        call::{Call, Outcome},
        scripts,
    },
    legacy_client::legacy,
    node::{Setup, TestNode, node_with},
};

async fn scripted<F>(
    speaks: Speaks,
    script: impl Fn(Call) -> F + Send + Sync + 'static,
) -> (TestNode, FakeServer)
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let server = FakeServer::with(speaks, Contents::default(), script).await;
    (Setup::up(&server).start().await, server)
}

#[tokio::test]
async fn g36_no_stream_carries_a_request() {
    for speaks in BOTH {
        let (node, _server) = scripted(speaks, |call| async move {
            call.progress(1.0);
            if call.is_modern() {
                return scripts::standard(call).await;
            }
            call.ask("roots/list", json!({})).await;
            Outcome::text("asked")
        })
        .await;
        let able = json!({"roots": {}, "elicitation": {"form": {}}});
        let request = call("ask", json!({}))
            .capabilities(able)
            .meta("progressToken", json!("t"));
        let mut stream = request.open(&node).await;
        assert!(stream.is_stream());
        let mut kinds = Vec::new();
        while let Some(event) = stream.message_event().await {
            let message = event.json();
            let is_request = message.get("method").is_some() && message.get("id").is_some();
            assert!(!is_request, "{speaks:?}: {message}");
            kinds.push(message.get("result").is_some());
            if let Some(result) = message.get("result") {
                assert_eq!(result["resultType"], "input_required");
            }
        }
        assert_eq!(kinds, [false, true], "{speaks:?}");
    }
}

#[tokio::test]
async fn g37_a_stream_carries_only_what_belongs_to_its_request() {
    for speaks in BOTH {
        let (node, server) = scripted(speaks, |call| async move {
            call.progress(1.0);
            // A server may say such things, but not to this request's client.
            call.notify("notifications/tools/list_changed", json!({}));
            call.notify(
                "notifications/progress",
                json!({"progressToken": "strange", "progress": 5}),
            );
            call.gate("go").await;
            call.progress(2.0);
            Outcome::text("done")
        })
        .await;
        let one = call("echo", json!({}))
            .id(json!(1))
            .meta("progressToken", json!("one"));
        let two = call("echo", json!({}))
            .id(json!(2))
            .meta("progressToken", json!("two"));
        let (one, two) = tokio::join!(one.open(&node), two.open(&node));
        server.open_gate("go");
        for (stream, id, token) in [(one, 1, "one"), (two, 2, "two")] {
            let answered = stream.answered().await;
            assert_eq!(answered.response["id"], id);
            let tokens: Vec<_> = answered
                .messages
                .iter()
                .map(|m| m["params"]["progressToken"].clone())
                .collect();
            assert_eq!(
                tokens,
                [token, token],
                "{speaks:?}: {:?}",
                answered.messages
            );
        }
    }
}

#[tokio::test]
async fn g38_the_response_ends_the_stream() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        let request = call("report", json!({})).meta(LOG_LEVEL, json!("debug"));
        let mut stream = request.open(&node).await;
        loop {
            let message = stream.message().await;
            if message.get("id").is_some() {
                break;
            }
        }
        assert_eq!(stream.event().await, None, "{speaks:?}");
    }
}

#[tokio::test]
async fn g39_event_streams_tell_proxies_not_to_buffer() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let session = legacy("2025-11-25").open(&node).await;
    let sse = legacy("2024-11-05").open_sse(&node, "/sse/up").await;
    let listen =
        modern("subscriptions/listen").params(json!({"notifications": {"toolsListChanged": true}}));
    let streams = [
        call("report", json!({}))
            .meta(LOG_LEVEL, json!("debug"))
            .open(&node)
            .await,
        listen.open(&node).await,
        session.stream().await,
        session
            .open(json!(9), "tools/call", json!({"name": "report"}))
            .await,
        sse.stream,
    ];
    for (at, stream) in streams.iter().enumerate() {
        assert!(stream.is_stream(), "stream {at}");
        assert_eq!(
            stream.header("x-accel-buffering"),
            Some("no"),
            "stream {at}"
        );
    }
}

#[tokio::test]
async fn g40_modern_streams_know_no_event_ids() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        let request = call("report", json!({})).meta(LOG_LEVEL, json!("debug"));
        for request in [request.clone(), request.also("last-event-id", "s1-4")] {
            let mut stream = request.open(&node).await;
            assert_eq!(stream.status, 200);
            let mut events = 0;
            while let Some(event) = stream.event().await {
                assert_eq!((event.id, event.retry), (None, None), "{speaks:?}");
                events += 1;
            }
            assert_eq!(events, scripts::LEVELS.len() + 1, "{speaks:?}");
        }
    }
}

#[tokio::test]
async fn g43_log_messages_need_a_level_and_reach_it() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for (level, expected) in [
            (None, &[][..]),
            (Some("debug"), &scripts::LEVELS[..]),
            (Some("warning"), &["warning", "error"]),
            (Some("notice"), &["warning", "error"]),
            (Some("critical"), &[]),
        ] {
            let request = call("report", json!({}));
            let request = match level {
                Some(level) => request.meta(LOG_LEVEL, json!(level)),
                None => request,
            };
            let answered = request.send(&node).await;
            let levels: Vec<_> = answered
                .messages
                .iter()
                .map(|m| m["params"]["level"].clone())
                .collect();
            assert_eq!(levels, expected, "{speaks:?} {level:?}");
            assert_eq!(answered.result()["content"][0]["text"], "reported");
        }
        let wrong = call("report", json!({}))
            .meta(LOG_LEVEL, json!("loud"))
            .send(&node)
            .await;
        assert_eq!(wrong.code(), -32602, "{speaks:?}");
    }
}

/// Progress that stands still, goes back, and belongs to nobody.
async fn stumbling(call: Call) -> Outcome {
    for progress in [1.0, 1.0, 3.0, 2.0, 3.5] {
        call.progress(progress);
    }
    call.notify(
        "notifications/progress",
        json!({"progressToken": "other", "progress": 9}),
    );
    Outcome::text("done")
}

fn progress(messages: &[Value]) -> Vec<(Value, f64)> {
    let progress = messages
        .iter()
        .filter(|m| m["method"] == "notifications/progress");
    progress
        .map(|m| {
            (
                m["params"]["progressToken"].clone(),
                m["params"]["progress"].as_f64().expect("a number"),
            )
        })
        .collect()
}

#[tokio::test]
async fn g44_progress_carries_the_clients_token_and_increases() {
    for speaks in BOTH {
        let (node, _server) = scripted(speaks, stumbling).await;
        for token in [json!("p-9"), json!(7), json!("7")] {
            let answered = call("echo", json!({}))
                .meta("progressToken", token.clone())
                .send(&node)
                .await;
            let expected = [1.0, 3.0, 3.5].map(|progress| (token.clone(), progress));
            assert_eq!(progress(&answered.messages), expected, "{speaks:?}");
            answered.result();
        }
        let silent = call("echo", json!({})).send(&node).await;
        assert_eq!(silent.messages, Vec::<Value>::new(), "{speaks:?}");
    }
}

#[tokio::test]
async fn g44_legacy_clients_get_their_token_back_too() {
    for speaks in BOTH {
        let (node, _server) = scripted(speaks, stumbling).await;
        let session = legacy("2025-11-25").open(&node).await;
        for token in [json!("p-9"), json!(7)] {
            let params = json!({"name": "echo", "_meta": {"progressToken": token}});
            let answered = session.send("tools/call", params).await;
            let expected = [1.0, 3.0, 3.5].map(|progress| (token.clone(), progress));
            assert_eq!(progress(&answered.messages), expected, "{speaks:?}");
        }
        let answered = session.send("tools/call", json!({"name": "echo"})).await;
        assert_eq!(progress(&answered.messages), [], "{speaks:?}");
    }
}

#[tokio::test]
async fn g44_a_retry_gets_progress_under_its_own_token() {
    for speaks in BOTH {
        let (node, _server) = scripted(speaks, |call| async move {
            if !call.is_modern() {
                call.ask("elicitation/create", scripts::question()).await;
            } else if call.request.params().get("inputResponses").is_none() {
                return scripts::standard(call).await;
            }
            call.progress(1.0);
            Outcome::text("done")
        })
        .await;
        let request = call("ask", json!({})).capabilities(json!({"elicitation": {"form": {}}}));
        let first = request.clone().meta("progressToken", json!("first"));
        let asked = first.result(&node).await;
        let questions = asked["inputRequests"].as_object().expect("questions");
        let key = questions.keys().next().expect("a question");
        let answers = json!({key: {"action": "accept", "content": {"name": "Ann"}}});
        let state = &asked["requestState"];
        let retry = request
            .params(json!({"inputResponses": answers, "requestState": state}))
            .meta("progressToken", json!("second"));
        let answered = retry.send(&node).await;
        let expected = [(json!("second"), 1.0)];
        assert_eq!(progress(&answered.messages), expected, "{speaks:?}");
        answered.result();
    }
}

#[tokio::test]
async fn g45_ids_and_tokens_of_two_clients_do_not_meet_at_the_server() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        let request = call("wait", json!({}))
            .id(json!(1))
            .meta("progressToken", json!("same"));
        let (mut one, mut two) = tokio::join!(request.open(&node), request.open(&node));
        for stream in [&mut one, &mut two] {
            assert_eq!(stream.message().await["params"]["progressToken"], "same");
        }
        let seen = server.seen("tools/call");
        assert_eq!(seen.len(), 2);
        assert_ne!(seen[0].json["id"], seen[1].json["id"], "{speaks:?}");
        assert_ne!(
            seen[0].meta("progressToken"),
            seen[1].meta("progressToken"),
            "{speaks:?}"
        );
        server.open_gate("go");
        for stream in [one, two] {
            let answered = stream.answered().await;
            assert_eq!(answered.response["id"], 1);
            answered.result();
        }
    }
}
