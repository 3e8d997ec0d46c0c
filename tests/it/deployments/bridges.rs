//! Calls to servers behind real bridges that do not take them: they are sent
//! elsewhere, or to the same server once it is back, and never lost.

use std::sync::Arc;

use futures_util::future::join_all;
use mcp_fleet::deployments::record::{Record, ReplicaRecord, ReplicaState};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{ask, definition, deployed, record, write};
use crate::support::{
    bridge::{AUDIENCE, Bridge, Setup as BridgeSetup},
    client::bare,
    eventually,
    node::{Setup, TestNode},
    raw_server::{RawServer, Reply},
};

/// A bridge that lets this node in.
async fn bridge(node: &TestNode, setup: BridgeSetup) -> Bridge {
    let key = node.gateway.signer.public().to_string();
    setup.letting_in(&key).start().await
}

fn routed_to(bridges: &[&Bridge], serial: u64) -> Record {
    let replica = |(ordinal, bridge): (usize, &&Bridge)| ReplicaRecord {
        container: format!("c-{ordinal}"),
        url: Some(format!("http://{}/mcp", bridge.address)),
        audience: Some(AUDIENCE.to_owned()),
        spec: definition("notes").hash().to_string(),
        state: ReplicaState::Ready,
        routed: true,
        served: true,
        ..ReplicaRecord::default()
    };
    Record {
        replicas: bridges.iter().enumerate().map(replica).collect(),
        serial,
        ..record(&definition("notes"), "")
    }
}

/// A node that sends the calls of `notes` to these bridges.
async fn serving(node: &TestNode, bridges: &[&Bridge]) {
    deployed(node, "notes", "http://127.0.0.1:1/mcp").await;
    write(node, &routed_to(bridges, 2)).await;
    let last = bridges.last().expect("one").address.to_string();
    eventually("it is served", async || {
        let server = node.gateway.servers.get("notes");
        server.is_some_and(|server| {
            let last_replica = server.replicas.last().expect("one");
            last_replica.endpoint.to_string().contains(&last)
        })
    })
    .await;
}

async fn call(node: &TestNode, tool: &str, arguments: Value) -> (u16, Value) {
    let body = json!({"name": tool, "arguments": arguments});
    ask(node, "/mcp/notes/tools/call", body).await
}

fn has_heard(bridge: &Bridge, word: &str) -> bool {
    bridge.lines().iter().any(|line| line == word)
}

/// How often calls were sent again that had not been taken.
async fn retries(node: &TestNode) -> u64 {
    let metrics = bare(node, "GET", "/metrics", &[]).await.text().await;
    let lines = metrics.lines();
    let counted = lines.filter(|line| line.contains("retries") && line.contains("not_sent"));
    let counts = counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    counts.sum()
}

/// Ends the first bridge while it has a call to finish, as have the others.
async fn drain(node: &Arc<TestNode>, bridges: &[&Bridge]) -> JoinSet<(u16, Value)> {
    let mut slow = JoinSet::new();
    for number in 1..=bridges.len() {
        let calling = Arc::clone(node);
        slow.spawn(async move { call(&calling, "later", json!({"seconds": 5})).await });
        eventually("a call is in flight", async || {
            let busy = bridges.iter().filter(|bridge| has_heard(bridge, "later"));
            busy.count() == number
        })
        .await;
    }
    bridges[0].signal(Signal::SIGTERM);
    eventually("it ends", async || {
        let lines = bridges[0].lines();
        lines.iter().any(|line| line.contains("told to stop"))
    })
    .await;
    slow
}

/// What was in flight was answered.
async fn finished(mut slow: JoinSet<(u16, Value)>) {
    while let Some(answered) = slow.join_next().await {
        let (status, answer) = answered.expect("no panic");
        assert_eq!(status, 200, "{answer}");
    }
}

#[tokio::test]
async fn what_a_draining_bridge_does_not_take_goes_to_another_replica() {
    let node = Arc::new(Setup::new().start().await);
    let one = bridge(&node, BridgeSetup::scripted("legacy")).await;
    let other = bridge(&node, BridgeSetup::scripted("modern")).await;
    serving(&node, &[&one, &other]).await;
    let mut slow = drain(&node, &[&one, &other]).await;
    // At once: both are asked, as neither has less to do.
    let calls = (0..20).map(|number| {
        let text = json!({"text": format!("call {number}")});
        call(&node, "echo", text)
    });
    for (number, (status, answer)) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["content"][0]["text"], format!("call {number}"));
    }
    let first = slow.try_join_next();
    assert!(first.is_none(), "it was to be draining all the time");
    assert!(retries(&node).await > 0, "the draining one was never asked");
    finished(slow).await;
}

#[tokio::test]
async fn the_only_replica_is_waited_for_wherever_it_comes_back() {
    let node = Arc::new(Setup::new().start().await);
    let old = bridge(&node, BridgeSetup::scripted("legacy")).await;
    serving(&node, &[&old]).await;
    let slow = drain(&node, &[&old]).await;
    let waiting = async { call(&node, "echo", json!({"text": "patient"})).await };
    let replacing = async {
        eventually("the call was turned away", async || {
            retries(&node).await > 0
        })
        .await;
        let new = bridge(&node, BridgeSetup::scripted("legacy")).await;
        write(&node, &routed_to(&[&new], 3)).await;
        new
    };
    let ((status, answer), _new) = tokio::join!(waiting, replacing);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["content"][0]["text"], "patient");
    finished(slow).await;
}

#[tokio::test]
async fn a_server_that_was_killed_with_its_bridge_is_waited_for() {
    let node = Arc::new(Setup::new().start().await);
    let old = bridge(&node, BridgeSetup::scripted("legacy")).await;
    serving(&node, &[&old]).await;
    assert_eq!(call(&node, "echo", json!({"text": "x"})).await.0, 200);
    old.signal(Signal::SIGKILL);
    old.ended().await;
    let waiting = async { call(&node, "echo", json!({"text": "patient"})).await };
    let replacing = async {
        eventually("nobody was there", async || retries(&node).await > 0).await;
        let new = bridge(&node, BridgeSetup::scripted("legacy")).await;
        write(&node, &routed_to(&[&new], 3)).await;
        new
    };
    let ((status, answer), _new) = tokio::join!(waiting, replacing);
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_server_that_fails_to_start_is_waited_for_as_long_as_its_bridge_says() {
    let node = Arc::new(Setup::new().start().await);
    let directory = tempfile::tempdir().expect("a directory");
    let flag = directory.path().join("database");
    let script = r#"test -e "$1" || { echo 'no database' >&2; exit 4; }; exec python3 "$0" legacy"#;
    let server = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/support/scripted_stdio.py"
    );
    let flag_text = flag.to_str().expect("a path");
    let command = BridgeSetup::command(&["sh", "-c", script, server, flag_text]);
    let bridge = bridge(&node, command).await;
    serving(&node, &[&bridge]).await;
    eventually("it is down for seconds", async || {
        let lines = bridge.lines();
        lines.iter().any(|line| line.contains("again_ms=3200"))
    })
    .await;
    std::fs::write(&flag, "").expect("written");
    let (status, answer) = call(&node, "echo", json!({"text": "patient"})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["content"][0]["text"], "patient");
}

#[tokio::test]
async fn only_a_bridge_is_believed() {
    let server = RawServer::start(|_| {
        let refusal = "HTTP/1.1 503 Service Unavailable\r\n\
                       x-mcp-fleet-not-taken: down 10\r\ncontent-length: 0\r\n\r\n";
        Reply::raw(refusal)
    })
    .await;
    let node = Setup::new()
        .server("notes", &server.url("/mcp"))
        .start()
        .await;
    let (status, answer) = call(&node, "echo", json!({})).await;
    assert_eq!(status, 502, "{answer}");
    assert_eq!(retries(&node).await, 0);
}
