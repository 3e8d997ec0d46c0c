//! A process that dies takes only what it was working on with it.

use std::time::Instant;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::support::{
    bridge::{Setup, request, tool_call},
    eventually,
};

fn kill_process(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
}

#[tokio::test]
async fn calls_in_flight_learn_how_it_died_and_what_it_said() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({})).await;
    let other = bridge.session("b", json!({})).await;
    let mut open = other
        .open(&tool_call(7, "slow", json!({"name": "x"})))
        .await;
    open.message().await;
    let died = node.call("die", json!({"code": 7})).await;
    let failed = open.answered().await;
    for answered in [&died, &failed] {
        let error = &answered.response["error"];
        assert_eq!(error["code"], -32603);
        let message = error["message"].as_str().expect("text");
        assert!(message.contains("exit code 7"), "{message}");
        assert!(message.contains("last words"), "{message}");
        assert_eq!(error["data"]["exitCode"], 7);
        let said = error["data"]["stderr"].as_array().expect("a list");
        assert_eq!(said[0], "about to die");
    }
    assert_eq!(failed.response["id"], 7);
    let killed = node.call("kill", json!({})).await;
    assert_eq!(killed.response["error"]["data"]["signal"], 9);
    assert!(bridge.lines().iter().any(|line| line == "last words"));
}

#[tokio::test]
async fn what_a_crashing_process_says_of_secrets_is_told_nobody() {
    let bridge = Setup::scripted("legacy")
        .env("API_TOKEN", "s3cr3t-value")
        .env("CERTIFICATE", "-----BEGIN-----\nfirst-line\n")
        .with(&["--secret-variables", "API_TOKEN,CERTIFICATE"])
        .with(&["--secret-words", "2"])
        .start()
        .await;
    let node = bridge.session("a", json!({})).await;
    let cut = format!("{}s3cr3t-value", "x".repeat(1995));
    let words =
        format!("{cut}\nfirst-line of it\nlogin of legacy failed with token s3cr3t-value\n");
    let died = node.call("die", json!({ "words": words })).await;
    let error = &died.response["error"];
    let shown = "login of *** failed with token ***";
    let message = error["message"].as_str().expect("text");
    assert!(message.ends_with(shown), "{message}");
    assert_eq!(
        error["data"]["stderr"],
        json!([cut.replace("s3cr3t-value", "***"), "*** of it", shown])
    );
    eventually("it is in the container's log", async || {
        bridge.lines().iter().any(|line| line == shown)
    })
    .await;
    let lines = bridge.lines();
    assert!(!lines.concat().contains("s3cr3t"), "{lines:?}");
}

#[tokio::test]
async fn a_killed_process_is_replaced_and_told_what_the_first_was() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({"roots": {}})).await;
    let level = json!({"level": "warning"});
    node.send(&request(1, "logging/setLevel", level.clone()))
        .await
        .result();
    for uri in ["x://1", "x://2"] {
        let params = json!({ "uri": uri });
        node.send(&request(2, "resources/subscribe", params))
            .await
            .result();
    }
    let gone = json!({"uri": "x://2"});
    node.send(&request(3, "resources/unsubscribe", gone))
        .await
        .result();
    let before = node.process().await;
    let begun = Instant::now();
    kill_process(before["pid"].as_i64().expect("a number") as i32);
    // Not before a call comes, but by itself.
    eventually("it is started again", async || {
        let starts = bridge.lines();
        starts
            .iter()
            .filter(|l| l.contains("the server was started"))
            .count()
            == 2
    })
    .await;
    let after = node.process().await;
    println!("answered again {:?} after kill -9", begun.elapsed());
    assert_ne!(before["pid"], after["pid"]);
    let seen = after["seen"].as_array().expect("a list");
    let initialize = &before["seen"][0]["params"];
    assert_eq!(seen[0]["method"], "initialize");
    assert_eq!(&seen[0]["params"], initialize);
    let methods: Vec<_> = seen
        .iter()
        .map(|m| m["method"].as_str().expect("text"))
        .collect();
    assert_eq!(
        methods,
        [
            "initialize",
            "notifications/initialized",
            "logging/setLevel",
            "resources/subscribe",
            "tools/call"
        ]
    );
    assert_eq!(seen[2]["params"], level);
    assert_eq!(seen[3]["params"], json!({"uri": "x://1"}));
}

#[tokio::test]
async fn sessions_of_all_modes_survive_their_process() {
    for mode in ["shared", "per-session", "per-call"] {
        let bridge = Setup::scripted("legacy")
            .with(&["--mode", mode])
            .start()
            .await;
        let node = bridge.session("a", json!({})).await;
        for _ in 0..3 {
            let died = node.call("kill", json!({})).await;
            assert_eq!(died.response["error"]["data"]["signal"], 9, "{mode}");
            assert_eq!(
                node.text("echo", json!({"text": "on"})).await,
                "on",
                "{mode}"
            );
        }
    }
}

#[tokio::test]
async fn a_modern_process_is_replaced_without_a_handshake() {
    let bridge = Setup::scripted("modern").start().await;
    let node = bridge.node("a");
    node.modern("kill", json!({})).await.code();
    let answered = node.modern("echo", json!({"text": "on"})).await;
    assert_eq!(answered.result()["content"][0]["text"], "on");
}

#[tokio::test]
async fn questions_of_a_dead_process_are_not_answered_to_the_next() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({"elicitation": {}})).await;
    let mut first = node.open(&tool_call(1, "ask", json!({}))).await;
    let old = first.message().await;
    node.call("kill", json!({})).await;
    assert_eq!(first.answered().await.code(), -32603);
    let mut second = node.open(&tool_call(2, "ask", json!({}))).await;
    let new = second.message().await;
    assert_ne!(old["id"], new["id"]);
    let reply = |id: &Value, action: &str| json!({"jsonrpc": "2.0", "id": id, "result": {"action": action}});
    node.open(&reply(&old["id"], "old")).await;
    node.open(&reply(&new["id"], "new")).await;
    let answered = second.answered().await;
    assert_eq!(answered.result()["answered"]["action"], "new");
}

#[tokio::test]
async fn a_server_that_never_lives_is_explained_and_not_started_without_pause() {
    let command = ["sh", "-c", "echo 'no database' >&2; exit 4"];
    let bridge = Setup::command(&command).start().await;
    let node = bridge.node("a");
    // At first it is worth waiting for the next attempt; then it is refused.
    eventually("it is refused", async || {
        let answered = node.open(&request(1, "initialize", json!({}))).await;
        if answered.status != 503 {
            return false;
        }
        assert!(answered.header("retry-after").is_some());
        let text = answered.text().await;
        assert!(
            text.contains("exit code 4") && text.contains("no database"),
            "{text}"
        );
        true
    })
    .await;
    let starts = bridge.lines();
    let starts = starts
        .iter()
        .filter(|l| l.contains("the server was started"));
    assert!(starts.count() <= 8);
}
