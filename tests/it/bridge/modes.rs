//! One process for all, one per session, one per call.

use serde_json::json;

use crate::support::{
    bridge::{Caller, Setup, request, tool_call},
    eventually,
};

fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn shared_means_one_process_that_is_initialized_once() {
    let bridge = Setup::scripted("legacy").start().await;
    let first = bridge.session("a", json!({"roots": {}})).await;
    let pid = first.pid().await;
    for name in ["a", "b", "c"] {
        let other = bridge.session(name, json!({})).await;
        assert_ne!(other.session, first.session);
        assert_eq!(other.pid().await, pid);
    }
    let seen = first.seen().await;
    let initialized = seen.iter().filter(|method| *method == "initialize");
    assert_eq!(initialized.count(), 1);
    assert_eq!(first.close().await, 204);
    assert_eq!(first.close().await, 404);
    assert!(runs(pid));
}

#[tokio::test]
async fn per_session_means_a_process_that_ends_with_its_session() {
    let setup = Setup::scripted("legacy").with(&["--mode", "per-session"]);
    let bridge = setup.start().await;
    let one = bridge.session("a", json!({"roots": {}})).await;
    let two = bridge.session("a", json!({"sampling": {}})).await;
    let (first, second) = (one.process().await, two.process().await);
    assert_ne!(first["pid"], second["pid"]);
    assert_eq!(
        first["seen"][0]["params"]["capabilities"],
        json!({"roots": {}})
    );
    assert_eq!(
        second["seen"][0]["params"]["capabilities"],
        json!({"sampling": {}})
    );
    assert_eq!(one.close().await, 204);
    let pid = first["pid"].as_i64().expect("a number") as i32;
    eventually("its process ends", async || !runs(pid)).await;
    two.pid().await;
}

#[tokio::test]
async fn sessions_that_nobody_uses_end_and_processes_are_bounded() {
    let arguments = [
        "--mode",
        "per-session",
        "--session-idle",
        "2s",
        "--max-processes",
        "2",
    ];
    let bridge = Setup::scripted("legacy").with(&arguments).start().await;
    let (idle, used) = (
        bridge.session("a", json!({})).await,
        bridge.session("a", json!({})).await,
    );
    let pid = idle.pid().await;
    let mut brief = idle.open(&tool_call(1, "slow", json!({"name": "x"}))).await;
    brief.message().await;
    let mut open = used.open(&tool_call(1, "slow", json!({"name": "x"}))).await;
    open.message().await;
    let refused = bridge
        .node("a")
        .open(&request(1, "initialize", json!({})))
        .await;
    assert_eq!(refused.status, 503);
    idle.call("release", json!({"name": "x"})).await.result();
    brief.answered().await.result();
    eventually("its process ends", async || !runs(pid)).await;
    assert_eq!(idle.call("echo", json!({})).await.status, 404);
    bridge.session("a", json!({})).await.pid().await;
    used.call("release", json!({"name": "x"})).await.result();
    open.answered().await.result();
}

#[tokio::test]
async fn per_call_means_a_process_that_ends_with_its_call() {
    for era in ["legacy", "modern"] {
        let setup = Setup::scripted(era).with(&["--mode", "per-call", "--max-processes", "2"]);
        let bridge = setup.start().await;
        let node = match era {
            "modern" => bridge.node("a"),
            _ => bridge.session("a", json!({})).await,
        };
        let pid = async |node: &Caller| {
            let answered = match era {
                "modern" => node.modern("pid", json!({})).await,
                _ => node.call("pid", json!({})).await,
            };
            answered.result()["pid"].as_i64().expect("a number") as i32
        };
        let (one, two) = (pid(&node).await, pid(&node).await);
        assert_ne!(one, two, "{era}");
        eventually("both end", async || !runs(one) && !runs(two)).await;
        // More calls than processes wait for their turn.
        let calls = (0..6).map(|_| pid(&node));
        let pids = futures_util::future::join_all(calls).await;
        let distinct: std::collections::BTreeSet<_> = pids.iter().collect();
        assert_eq!(distinct.len(), 6, "{era}");
    }
}

#[tokio::test]
async fn a_question_in_a_process_of_its_own_is_answered_there() {
    for mode in ["per-session", "per-call"] {
        let bridge = Setup::scripted("legacy")
            .with(&["--mode", mode])
            .start()
            .await;
        let capabilities = json!({"elicitation": {}});
        let one = bridge.session("a", capabilities.clone()).await;
        let two = bridge.session("b", capabilities).await;
        let mut calls = Vec::new();
        for caller in [&one, &two] {
            let mut call = caller.open(&tool_call(1, "ask", json!({}))).await;
            let question = call.message().await;
            calls.push((caller, question["id"].clone(), call));
        }
        for (n, (caller, id, call)) in calls.into_iter().enumerate() {
            let reply = json!({"jsonrpc": "2.0", "id": id, "result": {"n": n}});
            assert_eq!(caller.open(&reply).await.status, 202);
            let answered = call.answered().await;
            assert_eq!(answered.result()["answered"], json!({"n": n}), "{mode}");
        }
    }
}
