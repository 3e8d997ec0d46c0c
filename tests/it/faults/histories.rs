//! What holds over a whole run, from what Redis and the servers recorded.

use std::collections::BTreeMap;

use super::seen;
use crate::support::{
    eventually,
    fake_server::{FakeServer, Speaks},
    monitor::Monitor,
    node::Setup,
    redis::RedisServer,
};

const INTERVAL_MS: u64 = 1000;
const REPLICAS: usize = 12;
/// Probes of each replica that are looked at.
const ROUNDS: usize = 5;

/// Every probe that a server got is one accepted record, and those of one
/// replica lie an interval apart: nobody else probed between.
async fn probes_of(count: usize) {
    let server = FakeServer::start(Speaks::Modern).await;
    let redis = RedisServer::start();
    let monitor = Monitor::on(&redis).await;
    let setup = Setup::new()
        .redis(&redis)
        .set("health.probe", "true")
        .set("health.interval", "\"1s\"")
        .set("health.timeout", "\"1s\"")
        .set("cluster.lease_ttl", "\"2s\"");
    let setup = (0..REPLICAS).fold(setup, |setup, n| {
        setup.server(&format!("server-{n}"), &server.url())
    });
    let mut nodes = Vec::new();
    for n in 0..count {
        nodes.push(setup.clone().named(&format!("node-{n}")).start().await);
    }
    let by_replica = || {
        let mut by_replica: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for sent in monitor.history().sent() {
            assert!(sent.accepted, "two nodes probe: {sent:?}");
            let probes = by_replica.entry(sent.replica).or_default();
            probes.push(sent.record.probed_at);
        }
        by_replica
    };
    eventually("everything was probed several times", async || {
        let all = by_replica();
        all.len() == REPLICAS && all.values().all(|probes| probes.len() >= ROUNDS)
    })
    .await;
    if count > 1 {
        seen(&monitor, "others probe too", |history| {
            let sent = history.sent();
            let first = sent.first().map(|sent| sent.record.node.clone());
            sent.iter()
                .any(|sent| Some(&sent.record.node) != first.as_ref())
        })
        .await;
    }
    for node in &nodes {
        node.stop();
    }
    for node in nodes {
        node.stopped().await;
    }
    // One that was broken off by a hand-over was seen by the server only; one
    // that a busy machine let time out perhaps never got there.
    let history = monitor.history();
    let records = history.sent();
    let passed = records
        .iter()
        .filter(|sent| sent.record.tally.failures == 0);
    let (passed, probed) = (passed.count(), records.len());
    let asked = server.seen("server/discover").len();
    let broken_off = history.given().len();
    assert!(
        (passed..=probed + broken_off).contains(&asked),
        "{asked} probes, {probed} records, {passed} of them passed"
    );
    let mut gaps: BTreeMap<u64, usize> = BTreeMap::new();
    let mut phases = vec![0usize; 10];
    for (replica, probes) in by_replica() {
        for pair in probes.windows(2) {
            let gap = pair[1].saturating_sub(pair[0]);
            *gaps.entry(gap / 100 * 100).or_default() += 1;
            assert!(gap >= INTERVAL_MS / 2, "{replica}: {gap} ms after another");
        }
        for probe in probes {
            phases[usize::try_from(probe % INTERVAL_MS / 100).expect("small")] += 1;
        }
    }
    println!(
        "{count} nodes: {probed} probes; gaps by 100 ms: {gaps:?}; by tenth of the interval: {phases:?}"
    );
    monitor.history().is_in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_probed_once_per_interval_by_1_3_or_10_nodes() {
    tokio::join!(probes_of(1), probes_of(3), probes_of(10));
}
