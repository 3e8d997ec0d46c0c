//! G66-G69: `requestState`, the gateway's own and those of servers.

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{Modern, call, modern},
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, call::Outcome, scripts},
    legacy_client::legacy,
    node::{Setup, TestCluster, TestNode, node_with},
    wire::Answered,
};

fn ask() -> Modern {
    call("ask", json!({"n": 1})).capabilities(json!({"elicitation": {"form": {}}}))
}

fn answered_by(request: Modern, asked: &Value, name: &str) -> Modern {
    let questions = asked["inputRequests"].as_object().expect("questions");
    let key = questions.keys().next().expect("one");
    let answer = json!({key: {"action": "accept", "content": {"name": name}}});
    request
        .id(json!("retry"))
        .params(json!({"inputResponses": answer, "requestState": asked["requestState"]}))
}

fn with_state(request: Modern, state: &str) -> Modern {
    request.params(json!({ "requestState": state }))
}

async fn refused(node: &TestNode, what: &str, request: Modern) {
    let refused = request.send(node).await;
    assert_eq!(refused.code(), -32602, "{what}: {}", refused.text);
}

#[tokio::test]
async fn g66_tampered_and_foreign_states_are_refused() {
    let (node, server) = node_with(SESSIONS).await;
    let asked = ask().result(&node).await;
    let good = answered_by(ask(), &asked, "Ann");
    let state = asked["requestState"].as_str().expect("a state");
    for at in [0, 3, state.len() / 2, state.len() - 1] {
        let mut bytes = state.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(bytes).expect("text");
        refused(
            &node,
            &format!("byte {at}"),
            with_state(good.clone(), &tampered),
        )
        .await;
    }
    for made_up in ["", "x", &state[1..], &format!("{state}A"), "caf\u{e9}"] {
        refused(&node, made_up, with_state(good.clone(), made_up)).await;
    }
    refused(
        &node,
        "foreign",
        good.clone().also("authorization", "Bearer somebody"),
    )
    .await;
    assert!(server.seen("response").is_empty());
    // All that changed nothing for the one it belongs to.
    assert_eq!(good.result(&node).await["content"][0]["text"], "hello Ann");
    server.only("tools/call");
}

#[tokio::test]
async fn g66_an_expired_state_is_refused_and_its_call_cancelled() {
    let server = FakeServer::start(SESSIONS).await;
    let node = Setup::up(&server)
        .set("limits.wait", "\"1s\"")
        .start()
        .await;
    let asked = ask().result(&node).await;
    let cancelled = server.wait_for("notifications/cancelled", 1).await;
    assert_eq!(
        cancelled[0].params()["requestId"],
        server.only("tools/call").json["id"]
    );
    refused(&node, "expired", answered_by(ask(), &asked, "Ann")).await;
    assert!(server.seen("response").is_empty());
    server.only("tools/call");
}

#[tokio::test]
async fn g67_a_state_is_good_for_its_own_request_only() {
    let (node, server) = node_with(SESSIONS).await;
    let asked = ask().result(&node).await;
    let with = |request: Modern| {
        answered_by(
            request.capabilities(json!({"elicitation": {}})),
            &asked,
            "Ann",
        )
    };
    for (what, other) in [
        ("other tool", call("echo", json!({"n": 1}))),
        ("other arguments", call("ask", json!({"n": 2}))),
        (
            "other method",
            modern("prompts/get").params(json!({"name": "ask", "arguments": {"n": 1}})),
        ),
        ("more arguments", call("ask", json!({"n": 1, "m": 2}))),
    ] {
        refused(&node, what, with(other)).await;
    }
    assert!(server.seen("response").is_empty() && server.seen("prompts/get").is_empty());
    let done = answered_by(ask(), &asked, "Ann").result(&node).await;
    assert_eq!(done["content"][0]["text"], "hello Ann");
    server.only("tools/call");
}

const STATE: &str = r#""v1.\u00e9\/é 👩‍👩‍👧 \"quoted\" a b==""#;

/// Asks once; the retry tells in what form the state came back.
async fn state_server(state: Option<&'static str>) -> (TestNode, FakeServer) {
    let server = FakeServer::with(
        Speaks::Modern,
        Contents::default(),
        move |call| async move {
            if call.request.params().get("inputResponses").is_some() {
                return Outcome::text("done");
            }
            let question = json!({"method": "elicitation/create", "params": scripts::question()});
            let state = state.map_or(String::new(), |state| format!(r#","requestState":{state}"#));
            Outcome::Result(format!(
                r#"{{"resultType":"input_required","inputRequests":{{"k":{question}}}{state}}}"#
            ))
        },
    )
    .await;
    (Setup::up(&server).start().await, server)
}

#[tokio::test]
async fn g68_a_servers_state_returns_byte_for_byte() {
    let (node, server) = state_server(Some(STATE)).await;
    // Toward a modern client it is the client that returns it; it has to get it as it is.
    let asked: Answered = ask().send(&node).await;
    assert!(
        asked.text.contains(&format!(r#""requestState":{STATE}"#)),
        "{}",
        asked.text
    );
    let retry = answered_by(ask(), asked.result(), "Ann");
    let body = retry
        .text()
        .replace(&asked.result()["requestState"].to_string(), STATE);
    retry.body(body).result(&node).await;
    // For a legacy client the gateway returns it.
    let client = legacy("2025-11-25").capabilities(json!({"elicitation": {"form": {}}}));
    let session = client.open(&node).await;
    let mut stream = session
        .open(json!(7), "tools/call", json!({"name": "ask"}))
        .await;
    let question = stream.message().await;
    session
        .respond(
            &question["id"],
            json!({"action": "accept", "content": {"name": "A"}}),
        )
        .await;
    stream.answered().await.result();
    let calls = server.seen("tools/call");
    assert_eq!(calls.len(), 4);
    for retry in [&calls[1], &calls[3]] {
        assert!(
            retry.body.contains(&format!(r#""requestState":{STATE}"#)),
            "{}",
            retry.body
        );
        assert_eq!(retry.params()["inputResponses"]["k"]["action"], "accept");
    }
}

#[tokio::test]
async fn g68_where_there_was_no_state_none_returns() {
    let (node, server) = state_server(None).await;
    let asked = ask().result(&node).await;
    assert_eq!(asked.get("requestState"), None);
    let answer = json!({"k": {"action": "accept", "content": {"name": "A"}}});
    ask()
        .params(json!({"inputResponses": answer}))
        .result(&node)
        .await;
    let client = legacy("2025-06-18").capabilities(json!({"elicitation": {}}));
    let session = client.open(&node).await;
    let mut stream = session
        .open(json!(7), "tools/call", json!({"name": "ask"}))
        .await;
    let question = stream.message().await;
    session
        .respond(
            &question["id"],
            json!({"action": "accept", "content": {"name": "A"}}),
        )
        .await;
    stream.answered().await.result();
    let calls = server.seen("tools/call");
    assert_eq!(calls.len(), 4);
    for call in calls {
        assert_eq!(call.params().get("requestState"), None, "{}", call.body);
    }
}

#[tokio::test]
async fn g69_a_retry_is_taken_by_any_node_and_once() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let asked = ask().result(cluster.a()).await;
        let retry = answered_by(ask(), &asked, "Ann");
        assert_eq!(
            retry.result(cluster.b()).await["content"][0]["text"],
            "hello Ann",
            "{speaks:?}"
        );
        if speaks == SESSIONS {
            for node in &cluster.nodes {
                refused(node, "claimed before", retry.clone()).await;
            }
            server.only("tools/call");
            server.only("response");
        }
    }
}

#[tokio::test]
async fn g69_of_two_retries_at_once_one_gets_the_call() {
    let server = FakeServer::start(SESSIONS).await;
    let cluster = TestCluster::pair(Setup::up(&server)).await;
    for _ in 0..5 {
        let asked = ask().result(cluster.a()).await;
        let retry = answered_by(ask(), &asked, "Ann");
        let (one, two) = tokio::join!(retry.send(cluster.a()), retry.send(cluster.b()));
        let won = [&one, &two]
            .iter()
            .filter(|a| a.response.get("result").is_some())
            .count();
        assert_eq!(won, 1, "{} {}", one.text, two.text);
        let lost = if one.response.get("result").is_some() {
            two
        } else {
            one
        };
        // That it lost, or that it could not find out in time.
        let unsure = lost.text.contains("the node that held this call is gone");
        assert!(lost.code() == -32602 || unsure, "{}", lost.text);
    }
    assert_eq!(server.seen("response").len(), 5);
    assert_eq!(server.seen("tools/call").len(), 5);
}
