//! Nodes whose clocks differ: `libfaketime` makes one of them live in another time.

use std::process::Stdio;

use serde_json::json;

use super::{REPLICAS, leased, many, members, seen};
use crate::support::{
    client::modern,
    eventually,
    fake_server::{FakeServer, SESSIONS},
    legacy_client::legacy,
    load::Load,
    monitor::{Monitor, node},
    node::{Listens, NodeProcess},
    redis::RedisServer,
    wire,
};

/// Where Debian puts it; the dynamic linker knows the rest.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";

/// When the node that answers says it started.
async fn started_at(node: &impl Listens) -> String {
    let request = http::Request::get("/api/cluster").header("host", "localhost");
    let request = request.body(Default::default()).expect("a request");
    let cluster = wire::send(node.address(), request).await.json().await;
    let nodes = cluster["nodes"].as_array().expect("nodes").iter();
    let mut me = nodes.filter(|node| node["self"] == true);
    let started = &me.next().expect("itself")["started_at"];
    started.as_str().expect("a time").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_ten_minutes_apart_make_no_difference() {
    let server = FakeServer::start(SESSIONS).await;
    let redis = RedisServer::start();
    let monitor = Monitor::on(&redis).await;
    let setup = many(&server)
        .redis(&redis)
        .set("cluster.lease_ttl", "\"3s\"")
        .set("node.secret", "\"the same at every node of this test\"");
    let elsewhen = |offset| {
        [
            ("LD_PRELOAD", FAKETIME),
            ("FAKETIME", offset),
            // Timers run on the clock that nobody sets.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    };
    let (late, early) = (elsewhen("-10m"), elsewhen("+10m"));
    let [a, b, c] = ["a", "b", "c"].map(|name| setup.clone().named(name));
    let (a, b, c) = tokio::join!(
        NodeProcess::start(&a),
        NodeProcess::start_in(&b, Stdio::null(), &late),
        NodeProcess::start_in(&c, Stdio::null(), &early),
    );
    let nodes = [&a, &b, &c];
    let (of_a, of_b, of_c) = (
        started_at(&a).await,
        started_at(&b).await,
        started_at(&c).await,
    );
    assert!(of_b < of_a && of_a < of_c, "{of_b} {of_a} {of_c}");
    members(&redis, 3).await;

    // All take part, and hand over to each other.
    seen(&monitor, "each has probed", |history| {
        let sent = history.sent();
        let has = |name: &str| {
            sent.iter()
                .any(|sent| sent.accepted && sent.record.node == name)
        };
        ["a", "b", "c"].into_iter().all(has)
    })
    .await;
    // A session of each is known to all, and what one fetched is fresh to all.
    let load = Load::on(&nodes.map(|node| node.address)).await;
    for from in nodes {
        let session = legacy("2025-11-25").open(from).await;
        for through in nodes {
            let there = session.through(through);
            there.call("echo", json!({})).await.result();
        }
    }
    let lists = async || {
        for node in nodes {
            let answered = modern("prompts/list").open_at(node.address).await;
            answered.answered().await.result();
        }
        server.seen("prompts/list").len()
    };
    // Past the fetches that follow the first watch.
    eventually("what one fetched is fresh to all", async || {
        lists().await == lists().await
    })
    .await;
    // Times on records are the store's, whoever writes them.
    for sent in monitor.history().sent() {
        let apart = u64::try_from(sent.at.as_millis())
            .expect("fits")
            .abs_diff(sent.record.probed_at);
        assert!(apart < 60_000, "{apart} ms apart: {sent:?}");
    }
    // The one that goes leaves its duties to the others, whatever time it is there.
    c.signal("-TERM");
    assert_eq!(c.ended().await.code(), Some(0));
    members(&redis, 2).await;
    let is_of_c = |(_, holder): &(String, String)| node(holder) == "c";
    assert!(!leased(&redis, "probe", REPLICAS).await.iter().any(is_of_c));
    load.ends().await.nobody_failed();
    monitor.history().is_in_order();
}
