//! Who is let in, and that messages arrive as they were sent.

use std::time::Duration;

use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::{
    bridge::{Caller, Setup, modern, request, tool_call},
    wire::{self, Reply},
};

#[tokio::test]
async fn only_nodes_of_the_fleet_are_let_in() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({})).await;
    let minute = Duration::from_secs(60);
    let other_bridge = bridge.authorization("a", "another-bridge", minute);
    let long_lived = bridge.authorization("a", "bridge-under-test", Duration::from_secs(3600));
    let stranger = mcp_fleet::bridge::token::SigningKey::derive(&[8; 32]).sign(
        "a",
        "bridge-under-test",
        std::time::SystemTime::now() + minute,
    );
    let stranger = format!("MCP-Fleet-Node {stranger}");
    for bad in ["", "Bearer x", &other_bridge, &long_lived, &stranger] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let mut request = node.request(method, "{}");
            let header = HeaderValue::from_str(bad).expect("a header");
            request.headers_mut().insert("authorization", header);
            let reply = wire::send(bridge.address, request).await;
            assert_eq!(reply.status, 401, "{bad}");
            assert_eq!(reply.header("www-authenticate"), Some("MCP-Fleet-Node"));
            assert_eq!(reply.text().await, "unauthorized\n");
        }
    }
    assert_eq!(node.text("echo", json!({"text": "still"})).await, "still");
    let mut health = node.request(Method::GET, "");
    health.headers_mut().remove("authorization");
    *health.uri_mut() = "/healthz".parse().expect("a path");
    let reply = wire::send(bridge.address, health).await;
    assert_eq!((reply.status, &*reply.text().await), (200, "ok\n"));
}

#[tokio::test]
async fn bytes_pass_unchanged_but_for_the_id() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({})).await;
    // The server's own words, number precision included, with the client's id as it was written.
    let error = node
        .send(&tool_call("i\"d", "no-such-tool", json!({})))
        .await;
    assert_eq!(
        error.text,
        r#"{"jsonrpc":"2.0","id":"i\"d","error":{"code":-32602,"message":"unknown tool","data":[1.5]}}"#
    );
    // Line breaks between members are spaces for the server; nothing else changes.
    let pretty = "{\n \"jsonrpc\": \"2.0\",\r\n \"id\": 5,\n \"method\": \"tools/call\", \"params\":\n \
                  {\"name\": \"echo\", \"arguments\": {\"text\": \"a\\nb\\u2028 é 😀\"}}\n}";
    let answered = node.post(pretty).await.answered().await;
    assert_eq!(answered.response["id"], 5);
    assert_eq!(answered.result()["content"][0]["text"], "a\nb\u{2028} é 😀");
    for (body, status, code) in [
        ("", 400, -32600),
        ("[]", 400, -32600),
        ("{\"id\":1}", 202, 0),
    ] {
        let answered = node.post(body).await.answered().await;
        assert_eq!(answered.status, status, "{body}");
        if code != 0 {
            assert_eq!(answered.code(), code, "{body}");
        }
    }
}

#[tokio::test]
async fn progress_goes_to_the_call_whose_token_it_names_also_when_tokens_collide() {
    let bridge = Setup::scripted("legacy").start().await;
    let (one, two) = (
        bridge.session("a", json!({})).await,
        bridge.session("b", json!({})).await,
    );
    let slow = |token: Value| {
        let mut call = tool_call(1, "slow", json!({"name": token}));
        call["params"]["_meta"] = json!({"progressToken": token});
        call
    };
    // Their tokens stay in use while both are open.
    let mut first = one.open(&slow(json!("t"))).await;
    assert_eq!(first.message().await["method"], "notifications/message");
    let mut call = tool_call(2, "progress", json!({"steps": 3}));
    call["params"]["_meta"] = json!({"progressToken": "t", "kept": [1]});
    let answered = two.send(&call).await;
    assert_eq!(answered.messages.len(), 3);
    for message in &answered.messages {
        assert_eq!(message["params"]["progressToken"], "t");
    }
    one.call("release", json!({"name": "t"})).await.result();
    let rest = first.answered().await;
    assert!(rest.messages.is_empty(), "{:?}", rest.messages);
    assert_eq!(rest.result()["content"][0]["text"], "released");
}

#[tokio::test]
async fn a_question_goes_to_the_session_at_work_and_its_answer_comes_back() {
    let bridge = Setup::scripted("legacy").start().await;
    let idle = bridge.session("a", json!({"elicitation": {}})).await;
    let asking = bridge.session("b", json!({"elicitation": {}})).await;
    let unable = bridge.session("c", json!({})).await;
    for (call_id, answer) in [(json!("c1"), "accept"), (json!(7), "decline")] {
        let mut call = asking
            .open(&tool_call(call_id.clone(), "ask", json!({})))
            .await;
        let question = call.message().await;
        assert_eq!(question["method"], "elicitation/create");
        let id = question["id"].clone();
        // Nobody else can answer it, nor is it answered twice.
        let reply = json!({"jsonrpc": "2.0", "id": id, "result": {"action": "forged"}});
        assert_eq!(idle.open(&reply).await.status, 202);
        let reply = json!({"jsonrpc": "2.0", "id": id, "result": {"action": answer}});
        assert_eq!(asking.open(&reply).await.status, 202);
        assert_eq!(asking.open(&reply).await.status, 202);
        let answered = call.answered().await;
        assert_eq!(answered.response["id"], call_id);
        assert_eq!(answered.result()["answered"], json!({"action": answer}));
    }
    // Of two that may be meant, neither is asked.
    let mut other = idle.open(&tool_call(1, "ask", json!({"number": 1}))).await;
    assert_eq!(other.message().await["method"], "elicitation/create");
    let refused = asking.call("ask", json!({"number": 2})).await;
    assert_eq!(refused.result()["refused"]["code"], -32603);
    drop(other);
    let refused = unable
        .call(
            "ask",
            json!({"number": 3, "method": "sampling/createMessage"}),
        )
        .await;
    assert_eq!(refused.result()["refused"]["code"], -32601);
}

#[tokio::test]
async fn what_belongs_to_no_call_comes_on_the_sessions_stream() {
    let bridge = Setup::scripted("legacy").start().await;
    let (one, two) = (
        bridge.session("a", json!({})).await,
        bridge.session("b", json!({})).await,
    );
    let mut stream = one.listen().await;
    assert!(stream.is_stream());
    two.text("changed", json!({})).await;
    let changed = "notifications/tools/list_changed";
    assert_eq!(stream.message().await["method"], changed);
    // It was kept for the session that did not listen.
    let mut kept = two.listen().await;
    assert_eq!(kept.message().await["method"], changed);
    // Changes of a resource go to those who want to hear of it.
    let subscribe = |method: &str| request(3, method, json!({"uri": "x://1"}));
    two.send(&subscribe("resources/subscribe")).await.result();
    one.text("updated", json!({"uri": "x://1"})).await;
    one.text("changed", json!({})).await;
    assert_eq!(kept.message().await["params"]["uri"], "x://1");
    assert_eq!(stream.message().await["method"], changed);
    // Who never asked, or is gone, is told so.
    let stranger = Caller {
        session: Some("00".repeat(16)),
        ..one.clone()
    };
    assert_eq!(stranger.listen().await.status, 404);
    assert_eq!(stranger.call("echo", json!({})).await.status, 404);
    assert_eq!(two.close().await, 204);
    assert_eq!(two.call("echo", json!({})).await.status, 404);
    assert!(
        kept.message_event()
            .await
            .is_some_and(|e| e.json()["method"] == changed)
    );
    assert_eq!(kept.message_event().await, None);
    let nobody = Caller {
        session: None,
        ..one.clone()
    };
    assert_eq!(
        nobody.call("echo", json!({})).await.refusal(),
        (400, -32600)
    );
    assert_eq!(nobody.listen().await.status, 405);
}

#[tokio::test]
async fn giving_up_is_told_to_the_server_once() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({})).await;
    let cancellations = async |node: &Caller| {
        let seen = node.process().await;
        let seen = seen["seen"].as_array().expect("a list").clone();
        let is_cancelled = |message: &&Value| message["method"] == "notifications/cancelled";
        seen.iter().filter(is_cancelled).count()
    };
    // The client goes away.
    let mut call: Reply = node.open(&tool_call(1, "slow", json!({"name": "x"}))).await;
    call.message().await;
    drop(call);
    crate::support::eventually("it is told", async || cancellations(&node).await == 1).await;
    // The client says so.
    let mut call = node.open(&tool_call(2, "slow", json!({"name": "y"}))).await;
    call.message().await;
    let notice = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 2, "reason": "as it likes"}});
    assert_eq!(node.open(&notice).await.status, 202);
    assert_eq!(call.message_event().await, None);
    assert_eq!(cancellations(&node).await, 2);
    let seen = node.process().await["seen"].clone();
    let told: Vec<_> = seen
        .as_array()
        .expect("a list")
        .iter()
        .filter(|message| message["method"] == "notifications/cancelled")
        .collect();
    assert_eq!(told[1]["params"]["reason"], "as it likes");
    assert!(told[1]["params"]["requestId"].as_u64().expect("ours") > 2);
}

#[tokio::test]
async fn the_modern_era_needs_no_session() {
    let bridge = Setup::scripted("modern").start().await;
    let node = bridge.node("a");
    let discovered = node.send(&modern("d", "server/discover", json!({}))).await;
    assert_eq!(discovered.result()["supportedVersions"][0], "2026-07-28");
    assert_eq!(discovered.response["id"], "d");
    let answered = node.modern("echo", json!({"text": "hello"})).await;
    assert_eq!(answered.result()["content"][0]["text"], "hello");
    let mut stream = node
        .open(&modern(
            "l",
            "subscriptions/listen",
            json!({"notifications": {"toolsListChanged": true}}),
        ))
        .await;
    for method in [
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
    ] {
        let message = stream.message().await;
        assert_eq!(message["method"], method);
        let id = &message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
        assert_eq!(id, "l");
    }
    drop(stream);
    let params = json!({"notifications": {}, "brief": true});
    let ended = node.send(&modern(9, "subscriptions/listen", params)).await;
    let id = &ended.result()["_meta"]["io.modelcontextprotocol/subscriptionId"];
    assert_eq!(id, &json!(9));
    let unknown = node.send(&modern(1, "no/such", json!({}))).await;
    assert_eq!(unknown.refusal(), (404, -32601));
    assert_eq!(node.initialize(json!({})).await.code(), -32601);
}

#[tokio::test]
async fn servers_of_before_are_recognised_by_whatever_they_do() {
    for era in ["legacy", "exits", "silent"] {
        for mode in ["shared", "per-session", "per-call"] {
            let bridge = Setup::scripted(era).with(&["--mode", mode]).start().await;
            let node = bridge.node("a");
            let discover = modern(1, "server/discover", json!({}));
            let refused = node.send(&discover).await;
            assert_eq!(refused.refusal(), (404, -32601), "{era} {mode}");
            let session = bridge.session("a", json!({})).await;
            let text = session.text("echo", json!({"text": era})).await;
            assert_eq!(text, era, "{mode}");
            let again = node.send(&discover).await;
            assert_eq!(again.refusal(), (404, -32601), "{era} {mode}");
        }
    }
}
