//! Circuit breakers: open soon, one trial per fleet, closed everywhere.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use mcp_fleet::fleet::{Heard, News};
use serde_json::json;

use super::{is_open, nobody};
use crate::support::{
    client::call,
    eventually,
    fake_server::{FakeServer, SESSIONS, Speaks},
    node::{Setup, TestCluster},
    wire::within,
};

fn turn(policy: &str) -> String {
    format!("balance = \"{policy}\"")
}

#[tokio::test]
async fn a_replica_that_refuses_is_left_alone_after_two_calls() {
    let server = FakeServer::start(Speaks::Modern).await;
    let urls = [nobody(), server.url()];
    let setup = Setup::new().replicas("up", &urls, &turn("round_robin"));
    let node = setup.start().await;
    let mut calls = 0;
    while !is_open(&node, 0) {
        call("echo", json!({})).result(&node).await;
        calls += 1;
        // Every other one goes there first; being asked for its list counts too.
        assert!(calls <= 4, "{:?}", node.replicas()[0].breaker());
    }
    assert!(!node.replicas()[0].is_usable() && node.replicas()[1].is_usable());
}

#[tokio::test]
async fn the_only_replica_of_a_server_is_tried_whatever_its_breaker_says() {
    let server = FakeServer::start(Speaks::Modern).await;
    let node = Setup::up(&server).start().await;
    call("echo", json!({})).result(&node).await;
    let ill = Arc::new(AtomicBool::new(true));
    let is_ill = Arc::clone(&ill);
    server.intercept(move |request| {
        let is_call = request.method() == "tools/call";
        (is_call && is_ill.load(Ordering::SeqCst)).then(|| (503, String::new()))
    });
    while !is_open(&node, 0) {
        assert_eq!(call("echo", json!({})).send(&node).await.code(), -32603);
    }
    assert_eq!(call("echo", json!({})).send(&node).await.code(), -32603);
    ill.store(false, Ordering::SeqCst);
    call("echo", json!({})).result(&node).await;
}

#[tokio::test]
async fn refusals_and_errors_of_tools_are_no_failures() {
    for status in [401, 403, 404] {
        let server = FakeServer::start(SESSIONS).await;
        let node = Setup::up(&server).start().await;
        call("echo", json!({})).result(&node).await;
        server.intercept(move |request| {
            (request.method() == "tools/call").then(|| (status, String::new()))
        });
        for _ in 0..8 {
            call("echo", json!({})).send(&node).await.code();
        }
        assert!(!is_open(&node, 0), "{status}");
    }
}

#[tokio::test]
async fn a_fleet_makes_one_trial_at_a_time_and_all_nodes_hear_of_the_recovery() {
    let servers = [
        FakeServer::start(Speaks::Modern).await,
        FakeServer::start(Speaks::Modern).await,
    ];
    let urls = servers.each_ref().map(FakeServer::url);
    let setup = Setup::new().replicas("up", &urls, &turn("round_robin"));
    let cluster = TestCluster::three(setup).await;
    for node in &cluster.nodes {
        for _ in 0..2 {
            call("echo", json!({})).result(node).await;
        }
    }
    let ill = Arc::new(AtomicBool::new(true));
    let is_ill = Arc::clone(&ill);
    servers[0].intercept(move |_| is_ill.load(Ordering::SeqCst).then(|| (500, String::new())));
    let mut news = cluster.a().gateway.fleet.listen();
    for node in &cluster.nodes {
        while !is_open(node, 0) {
            call("echo", json!({})).send(node).await;
        }
    }
    // Three nodes find it out; together they try once per pause, and each
    // failure makes the next pause longer for all.
    let mut trials = Vec::new();
    let failing = async {
        while trials.len() < 3 {
            match news.next().await.expect("the node lives") {
                Heard::News(news) => match &*news {
                    News::TrialFailed { openings, .. } => trials.push(*openings),
                    News::ReplicaRecovered { .. } => panic!("it has not recovered"),
                    _ => {}
                },
                Heard::Gap => panic!("something was missed"),
            }
        }
    };
    within("three trials", failing).await;
    assert_eq!(trials, [2, 3, 4]);
    ill.store(false, Ordering::SeqCst);
    eventually("all nodes have closed it", async || {
        cluster.nodes.iter().all(|node| !is_open(node, 0))
    })
    .await;
    for node in &cluster.nodes {
        let before = servers[0].seen("tools/call").len();
        for _ in 0..4 {
            call("echo", json!({})).result(node).await;
        }
        assert!(servers[0].seen("tools/call").len() > before);
    }
}

#[tokio::test]
async fn a_replica_recovers_while_the_store_is_away() {
    let servers = [
        FakeServer::start(Speaks::Modern).await,
        FakeServer::start(Speaks::Modern).await,
    ];
    let urls = servers.each_ref().map(FakeServer::url);
    let setup = Setup::new().replicas("up", &urls, &turn("round_robin"));
    let mut cluster = TestCluster::three(setup).await;
    for node in &cluster.nodes {
        for _ in 0..2 {
            call("echo", json!({})).result(node).await;
        }
    }
    cluster.redis.kill();
    let ill = Arc::new(AtomicBool::new(true));
    let is_ill = Arc::clone(&ill);
    servers[0].intercept(move |_| is_ill.load(Ordering::SeqCst).then(|| (500, String::new())));
    for node in &cluster.nodes {
        while !is_open(node, 0) {
            call("echo", json!({})).send(node).await;
        }
    }
    ill.store(false, Ordering::SeqCst);
    eventually("each node finds out by itself", async || {
        cluster.nodes.iter().all(|node| !is_open(node, 0))
    })
    .await;
}
