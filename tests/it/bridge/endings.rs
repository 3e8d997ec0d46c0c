//! What the first process of a container owes: secrets kept, orphans reaped,
//! an end in order.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{
    bridge::{Setup, tool_call},
    eventually,
};

#[tokio::test]
async fn the_server_sees_its_environment_without_the_bridges() {
    let bridge = Setup::scripted("legacy")
        .env("MCP_FLEET_BRIDGE_SESSION_IDLE", "1h")
        .env("API_KEY", "of the server")
        .start()
        .await;
    let node = bridge.session("a", json!({})).await;
    let answered = node.call("environment", json!({})).await;
    let names = answered.result()["names"]
        .as_array()
        .expect("a list")
        .clone();
    assert!(names.contains(&json!("API_KEY")));
    let ours = names
        .iter()
        .filter(|name| name.as_str().is_some_and(|n| n.contains("FLEET_BRIDGE")));
    assert_eq!(ours.count(), 0, "{names:?}");
    // Nobody of the same user can look into it: it belongs to root now.
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", bridge.pid())).expect("it runs");
    assert!(status.contains("Name:"), "{status}");
}

#[tokio::test]
async fn orphans_are_reaped() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({})).await;
    for _ in 0..3 {
        node.text("orphan", json!({})).await;
    }
    let pid = bridge.pid();
    let children = || {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let mut all = std::fs::read_to_string(path).unwrap_or_default();
        for thread in threads.flatten() {
            all.push(' ');
            all += &std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        }
        let mut all: Vec<_> = all.split_whitespace().map(str::to_owned).collect();
        all.sort();
        all.dedup();
        all
    };
    // Only the server itself is left.
    eventually("orphans are gone", async || children().len() == 1).await;
    assert_eq!(node.text("echo", json!({"text": "on"})).await, "on");
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_is_in_flight() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({"elicitation": {}})).await;
    let pid = node.pid().await;
    let mut stream = node.listen().await;
    let mut asking = node.open(&tool_call(1, "ask", json!({}))).await;
    let question = asking.message().await;
    let late = node.clone();
    let late = tokio::spawn(async move { late.call("later", json!({"seconds": 3})).await });
    eventually("the call has arrived", async || {
        bridge.lines().iter().any(|line| line == "later")
    })
    .await;
    bridge.signal(Signal::SIGTERM);
    assert_eq!(stream.message_event().await, None);
    let refused = node.open(&tool_call(2, "echo", json!({}))).await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    // What is in flight may still need an answer.
    let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}});
    assert_eq!(node.open(&reply).await.status, 202);
    let answered = asking.answered().await;
    assert_eq!(answered.result()["answered"]["action"], "accept");
    let answered = late.await.expect("no panic");
    assert_eq!(answered.result()["content"][0]["text"], "late");
    assert_eq!(bridge.ended().await.code(), Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_and_a_stubborn_server_killed() {
    let script = "trap '' TERM; sleep 1000 & exec python3 \"$0\" legacy";
    let server = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/support/scripted_stdio.py"
    );
    let bridge = Setup::command(&["sh", "-c", script, server])
        .with(&["--grace", "300ms"])
        .start()
        .await;
    let node = bridge.session("a", json!({})).await;
    let pid = node.pid().await;
    let mut open = node.open(&tool_call(1, "slow", json!({"name": "x"}))).await;
    open.message().await;
    bridge.signal(Signal::SIGTERM);
    let cut = open.answered().await;
    assert!(cut.response["error"]["code"].is_i64() || cut.response.is_null());
    assert_eq!(bridge.ended().await.code(), Some(0));
    let group = ["-g", &pid.to_string(), "-r", "D,R,S,T"];
    let left = std::process::Command::new("pgrep").args(group).output();
    assert!(left.expect("pgrep").stdout.is_empty(), "something is left");
}

#[tokio::test]
async fn it_ends_when_no_node_needs_it() {
    let setup = Setup::scripted("legacy").with(&["--idle-exit", "1s"]);
    let bridge = setup.start().await;
    let node = bridge.session("a", json!({})).await;
    // A node that listens is there.
    let stream = node.listen().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(node.text("echo", json!({"text": "on"})).await, "on");
    drop(stream);
    assert_eq!(bridge.ended().await.code(), Some(0));
    assert!(bridge.lines().iter().any(|line| line.contains("no node")));
}

#[tokio::test]
async fn strangers_do_not_keep_it_alive() {
    let setup = Setup::scripted("legacy").with(&["--idle-exit", "1s"]);
    let bridge = setup.start().await;
    let mut stranger = bridge.node("a");
    stranger.authorization = "MCP-Fleet-Node x.y".to_owned();
    let knocking = async {
        loop {
            let request = stranger.request(http::Method::GET, "");
            crate::support::wire::try_send(stranger.address, request)
                .await
                .ok();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = knocking => {}
        status = bridge.ended() => assert_eq!(status.code(), Some(0)),
    }
}

#[tokio::test]
async fn a_command_that_is_not_there_is_said_at_once() {
    let bridge = Setup::command(&["/no/such/program"]).spawn();
    assert_eq!(bridge.ended().await.code(), Some(127));
    eventually("it is said", async || {
        bridge
            .lines()
            .iter()
            .any(|line| line.contains("/no/such/program: command not found"))
    })
    .await;
}
