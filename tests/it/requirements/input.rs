//! G63-G65, G70: a server's questions in the middle of a request.

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{Modern, call, modern},
    fake_server::{
        Contents, FakeServer, SESSIONS, Speaks,
        call::{Call, Outcome},
        scripts,
    },
    legacy_client::legacy,
    node::{Setup, TestNode, node_with},
};

fn able(request: Modern) -> Modern {
    request.capabilities(json!({"elicitation": {"form": {}}, "sampling": {}, "roots": {}}))
}

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

/// The only question of an `input_required` result.
fn question(result: &Value) -> (String, Value) {
    assert_eq!(result["resultType"], "input_required", "{result}");
    let questions = result["inputRequests"].as_object().expect("questions");
    assert_eq!(questions.len(), 1, "{result}");
    let (key, question) = questions.iter().next().expect("one");
    assert!(
        question.get("id").is_none() && question.get("jsonrpc").is_none(),
        "{question}"
    );
    (key.clone(), question.clone())
}

/// The retry of a request that was asked something.
fn retry(request: &Modern, result: &Value, answers: Value) -> Modern {
    let retry = request
        .clone()
        .id(json!("retry"))
        .params(json!({"inputResponses": answers}));
    match result.get("requestState") {
        Some(state) => retry.params(json!({ "requestState": state })),
        None => retry,
    }
}

#[tokio::test]
async fn g63_calls_prompts_and_resources_may_ask() {
    for speaks in BOTH {
        for (method, params, done) in [
            (
                "tools/call",
                json!({"name": "echo", "arguments": {}}),
                json!({"content": []}),
            ),
            (
                "prompts/get",
                json!({"name": "greet"}),
                json!({"messages": []}),
            ),
            (
                "resources/read",
                json!({"uri": "doc://a"}),
                json!({"contents": [{"uri": "doc://a", "text": "x"}]}),
            ),
        ] {
            let result = done.clone();
            let (node, _server) = scripted(speaks, move |call| {
                let done = result.clone();
                async move {
                    if !call.is_modern() {
                        let answer = call.ask("roots/list", json!({})).await;
                        assert_eq!(answer["result"]["roots"], json!([]));
                        return Outcome::value(&done);
                    }
                    match call.request.params()["inputResponses"].get("r") {
                        Some(answer) if answer["roots"] == json!([]) => Outcome::value(&done),
                        _ => Outcome::value(&json!({"resultType": "input_required",
                            "inputRequests": {"r": {"method": "roots/list", "params": {}}}})),
                    }
                }
            })
            .await;
            let request = able(modern(method).params(params));
            let asked = request.result(&node).await;
            let (key, question) = question(&asked);
            assert_eq!(question["method"], "roots/list", "{speaks:?} {method}");
            let again = retry(&request, &asked, json!({key: {"roots": []}}));
            let finished = again.result(&node).await;
            for (member, value) in done.as_object().expect("an object") {
                assert_eq!(&finished[member], value, "{speaks:?} {method}");
            }
        }
    }
}

#[tokio::test]
async fn g63_other_requests_may_not_ask() {
    let (node, _server) = scripted(SESSIONS, |call| async move {
        let answer = call.ask("elicitation/create", scripts::question()).await;
        assert!(
            answer.get("error").is_some(),
            "the question was passed on: {answer}"
        );
        Outcome::Result(r#"{"completion":{"values":["unasked"]}}"#.into())
    })
    .await;
    let params = json!({"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": ""}});
    let answered = able(modern("completion/complete").params(params))
        .result(&node)
        .await;
    assert_eq!(answered["resultType"], "complete");
    assert_eq!(answered["completion"]["values"], json!(["unasked"]));
}

#[tokio::test]
async fn g64_a_question_carries_requests_or_a_state() {
    let (node, _server) = node_with(SESSIONS).await;
    let asked = able(call("ask", json!({}))).result(&node).await;
    let (_, question) = question(&asked);
    assert_eq!(question["params"], scripts::question());
    assert!(asked["requestState"].is_string());

    // A server that asks for nothing does not make its fault ours.
    let (node, _server) = scripted(Speaks::Modern, |_call| async {
        Outcome::Result(r#"{"resultType":"input_required"}"#.into())
    })
    .await;
    let answered = able(call("ask", json!({}))).send(&node).await;
    assert_eq!(answered.code(), -32603, "{}", answered.text);
    // Only a state: try again later, a legal answer.
    let (node, _server) = scripted(Speaks::Modern, |_call| async {
        Outcome::Result(r#"{"resultType":"input_required","requestState":"later"}"#.into())
    })
    .await;
    let answered = able(call("ask", json!({}))).result(&node).await;
    assert_eq!(answered["requestState"], "later");
}

#[tokio::test]
async fn g65_a_legacy_server_is_refused_what_the_client_did_not_declare() {
    let url =
        json!({"mode": "url", "url": "https://example.com", "message": "x", "elicitationId": "e"});
    for (capabilities, method, params) in [
        (json!({}), "elicitation/create", scripts::question()),
        (
            json!({"elicitation": {}}),
            "sampling/createMessage",
            json!({"messages": [], "maxTokens": 1}),
        ),
        (json!({"sampling": {}}), "roots/list", json!({})),
        (
            json!({"elicitation": {"form": {}}}),
            "elicitation/create",
            url.clone(),
        ),
        (json!({"elicitation": {}}), "elicitation/create", url),
        (
            json!({"elicitation": {"url": {}}}),
            "elicitation/create",
            scripts::question(),
        ),
        (
            json!({"sampling": {}}),
            "sampling/createMessage",
            json!({"messages": [], "maxTokens": 1, "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}),
        ),
    ] {
        let what = format!("{method} {params} with {capabilities}");
        let (node, _server) = scripted(SESSIONS, move |call| {
            let params = params.clone();
            async move {
                let answer = call.ask(method, params).await;
                Outcome::text(&format!("refused: {}", answer["error"]["code"].is_i64()))
            }
        })
        .await;
        let answered = call("echo", json!({}))
            .capabilities(capabilities)
            .result(&node)
            .await;
        assert_eq!(answered["resultType"], "complete", "{what}: {answered}");
        assert_eq!(answered["content"][0]["text"], "refused: true", "{what}");
    }
}

#[tokio::test]
async fn g65_a_modern_servers_undeclared_question_is_not_passed_on() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let answered = call("ask", json!({})).send(&node).await;
    let result = &answered.response["result"];
    assert_ne!(result["resultType"], "input_required", "{}", answered.text);
    assert_eq!(answered.refusal(), (400, -32021));
    let required = &answered.response["error"]["data"]["requiredCapabilities"];
    assert!(required["elicitation"].is_object(), "{required}");
}

#[tokio::test]
async fn g70_missing_answers_are_asked_for_again_and_extra_ones_ignored() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        let request = able(call("ask", json!({})));
        let first = request.result(&node).await;
        question(&first);
        let second = retry(&request, &first, json!({})).result(&node).await;
        let (key, again) = question(&second);
        assert_eq!(again["params"], scripts::question(), "{speaks:?}");
        let stranger = json!({"other": {"action": "accept", "content": {"name": "no"}}});
        let third = retry(&request, &second, stranger.clone())
            .result(&node)
            .await;
        let (third_key, _) = question(&third);
        let _ = key;
        let mut answers = stranger;
        answers[&third_key] = json!({"action": "accept", "content": {"name": "Ann"}});
        let done = retry(&request, &third, answers).result(&node).await;
        assert_eq!(done["content"][0]["text"], "hello Ann", "{speaks:?}");
        if speaks == SESSIONS {
            // The call ran once; only its answer came late.
            server.only("tools/call");
            server.only("response");
        }
    }
}

#[tokio::test]
async fn g70_several_rounds_of_questions_belong_to_one_call() {
    let (node, server) = scripted(SESSIONS, |call| async move {
        let mut names = Vec::new();
        for _ in 0..3 {
            let answer = call.ask("elicitation/create", scripts::question()).await;
            names.push(
                answer["result"]["content"]["name"]
                    .as_str()
                    .expect("a name")
                    .to_owned(),
            );
        }
        Outcome::text(&names.join(" "))
    })
    .await;
    let request = able(call("ask", json!({})));
    let mut result = request.result(&node).await;
    for name in ["a", "b", "c"] {
        let (key, _) = question(&result);
        let answers = json!({key: {"action": "accept", "content": {"name": name}}});
        result = retry(&request, &result, answers).result(&node).await;
    }
    assert_eq!(result["content"][0]["text"], "a b c");
    server.only("tools/call");
}

#[tokio::test]
async fn g65_legacy_clients_are_asked_on_the_calls_own_stream() {
    for speaks in BOTH {
        for answer in ["accept", "decline", "cancel"] {
            let (node, _server) = node_with(speaks).await;
            let client = legacy("2025-11-25").capabilities(json!({"elicitation": {"form": {}}}));
            let session = client.open(&node).await;
            let mut stream = session
                .open(json!(7), "tools/call", json!({"name": "ask"}))
                .await;
            let asked = stream.message().await;
            assert_eq!(asked["method"], "elicitation/create", "{speaks:?}");
            assert_eq!(asked["params"]["message"], "Who?");
            let mut reply = json!({"action": answer});
            if answer == "accept" {
                reply["content"] = json!({"name": "Ann"});
            }
            assert_eq!(session.respond(&asked["id"], reply).await, 202);
            let done = stream.answered().await;
            assert_eq!(done.response["id"], 7);
            let text = done.result()["content"][0]["text"]
                .as_str()
                .expect("text")
                .to_owned();
            let expected = match answer {
                "accept" => "hello Ann".to_owned(),
                other => format!("nobody: \"{other}\""),
            };
            assert_eq!(text, expected, "{speaks:?}");
        }
    }
}

#[tokio::test]
async fn g65_legacy_clients_are_not_asked_what_they_did_not_declare() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        let session = legacy("2025-11-25").open(&node).await;
        let answered = session.call("ask", json!({})).await;
        assert_eq!(answered.messages, Vec::<Value>::new(), "{speaks:?}");
        if speaks.is_modern() {
            assert_eq!(answered.result()["isError"], true);
        }
    }
}
