//! Nodes that are killed, stopped, told to end.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{REPLICAS, addresses, becomes, leased, leased_to, many, members, seen};
use crate::{
    redis_keys::{is_listed, listed},
    support::{
        client::{call, modern},
        eventually,
        fake_server::{FakeServer, SESSIONS, Speaks},
        legacy_client::legacy,
        load::{CLIENTS, Load},
        monitor::{Given, History, Monitor, now},
        node::{NodeProcess, Setup},
        raw_server::{RawServer, Reply},
        redis::RedisServer,
        wire,
    },
    upstream::eras,
};

/// Long enough that a busy machine does not matter for what is bound to it.
const TTL: Duration = Duration::from_secs(4);

fn patient(setup: Setup, redis: &RedisServer) -> Setup {
    setup
        .redis(redis)
        .set("cluster.lease_ttl", "\"4s\"")
        .set("node.secret", "\"the same at every node of this test\"")
}

/// How often each call reached the server.
fn runs(server: &FakeServer) -> BTreeMap<u64, usize> {
    let mut runs = BTreeMap::new();
    for call in server.seen("tools/call") {
        if let Some(number) = call.params()["arguments"]["n"].as_u64() {
            *runs.entry(number).or_default() += 1;
        }
    }
    runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_under_load_loses_what_it_had_in_work_and_nothing_else() {
    let server = FakeServer::start(SESSIONS).await;
    let redis = RedisServer::start();
    let monitor = Monitor::on(&redis).await;
    let mut nodes = NodeProcess::fleet(&patient(many(&server), &redis), 3).await;
    members(&redis, 3).await;
    leased(&redis, "watch", REPLICAS).await;
    leased_to(&redis, "probe", REPLICAS, "a").await;
    let load = Load::on(&addresses(&nodes)).await;
    let mut sessions = Vec::new();
    for _ in 0..5 {
        let session = legacy("2025-11-25").open(&nodes[0]).await;
        session.call("echo", json!({"s": 1})).await.result();
        sessions.push(session);
    }

    let killed_at = now();
    let mut dead = nodes.remove(0);
    dead.kill();
    let killed = Instant::now();
    let held = monitor.history().held("a", killed_at);
    assert!(!held.is_empty());
    for session in &sessions {
        for node in &nodes {
            let there = session.through(node);
            there.call("echo", json!({"s": 2})).await.result();
        }
    }
    let others = |history: &History| {
        let mut first = BTreeMap::new();
        for given in history.given() {
            if given.at > killed_at && given.node() != "a" {
                first.entry(given.duty).or_insert(given.at - killed_at);
            }
        }
        first
    };
    seen(&monitor, "others do its duties", |history| {
        let first = others(history);
        held.iter().all(|duty| first.contains_key(duty))
    })
    .await;
    let taken = others(&monitor.history());
    let last = held.iter().map(|duty| taken[duty]).max();
    println!(
        "{} duties were taken over after at most {last:?}",
        held.len()
    );
    assert!(last < Some(2 * TTL), "{taken:?}");
    members(&redis, 2).await;

    load.flows().await;
    let report = load.ends().await;
    for failed in &report.failed {
        assert_eq!(failed.node, dead.address, "{failed:?}");
        assert!(failed.begun <= killed, "begun when it was dead: {failed:?}");
    }
    assert!(report.failed.len() <= CLIENTS, "{:?}", report.failed);
    let runs = runs(&server);
    let lost: Vec<_> = report.failed.iter().map(|failed| failed.number).collect();
    let all = report.answered + u64::try_from(lost.len()).expect("few");
    for number in 0..all {
        let times = runs.get(&number).copied().unwrap_or(0);
        let expected = if lost.contains(&number) { 0..=1 } else { 1..=1 };
        assert!(expected.contains(&times), "call {number} ran {times} times");
    }
    monitor.history().is_in_order();
    is_listed(&redis, &listed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stopped_for_longer_than_a_lease_goes_on_as_one_of_many() {
    let server = FakeServer::start(Speaks::Modern).await;
    let redis = RedisServer::start();
    let monitor = Monitor::on(&redis).await;
    let setup = patient(many(&server), &redis).set("cluster.lease_ttl", "\"2s\"");
    let nodes = NodeProcess::fleet(&setup, 2).await;
    members(&redis, 2).await;
    let held = leased_to(&redis, "probe", REPLICAS, "a").await;
    let stopped_at = now();
    nodes[0].signal("-STOP");
    seen(&monitor, "the other probes what it probed", |history| {
        let sent = history.sent();
        held.iter().all(|duty| {
            let is_its = |replica: &str| duty.strip_prefix("probe:") == Some(replica);
            sent.iter().any(|sent| {
                sent.at > stopped_at && sent.record.node == "b" && is_its(&sent.replica)
            })
        })
    })
    .await;
    nodes[0].signal("-CONT");
    let went_on = now();
    members(&redis, 2).await;
    becomes(&nodes[0], "ready").await;
    for node in &nodes {
        let echo = call("echo", json!({"n": 1})).open_at(node.address).await;
        echo.answered().await.result();
    }
    seen(&monitor, "it has duties again", |history| {
        let its = |given: &Given| given.node() == "a";
        history.given().iter().any(|g| g.at > went_on && its(g))
    })
    .await;
    monitor.history().is_in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_told_to_end_under_load_fails_nobody_and_gives_its_duties_back() {
    let server = FakeServer::start(Speaks::Modern).await;
    let redis = RedisServer::start();
    let monitor = Monitor::on(&redis).await;
    let mut nodes = NodeProcess::fleet(&patient(many(&server), &redis), 3).await;
    members(&redis, 3).await;
    leased(&redis, "probe", REPLICAS).await;
    let load = Load::on(&addresses(&nodes)).await;
    // One after the other, until one is left.
    while nodes.len() > 1 {
        let ending = nodes.remove(0);
        let name = ["a", "b"][2 - nodes.len()];
        leased_to(&redis, "probe", REPLICAS, name).await;
        let told = now();
        ending.signal("-TERM");
        assert_eq!(ending.ended().await.code(), Some(0));
        let ended = now();
        load.flows().await;
        seen(&monitor, "its duties are another's", |history| {
            let held = history.held(name, told);
            assert!(!held.is_empty());
            let given = history.given();
            held.iter().all(|duty| {
                let mut later = given.iter().filter(|given| given.at > told);
                later.any(|given| given.duty == *duty && given.node() != name)
            })
        })
        .await;
        // Given back, not left to expire.
        assert_eq!(monitor.history().held(name, ended), Vec::<String>::new());
        members(&redis, nodes.len()).await;
    }
    let report = load.ends().await;
    assert!(report.retried > 0, "{report:?}");
    report.nobody_failed();
    assert!(runs(&server).values().all(|runs| *runs == 1));
    monitor.history().is_in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_while_it_refreshes_a_list_costs_one_more_fetch() {
    let asked = AtomicUsize::new(0);
    let list = json!({
        "tools": [{"name": "one", "inputSchema": {"type": "object"}}],
        "ttlMs": 60_000, "cacheScope": "public", "resultType": "complete",
    });
    let server = RawServer::start(move |request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(200, &request.result(eras::discovery())),
        "tools/list" if asked.fetch_add(1, Ordering::SeqCst) == 0 => Reply::hang(),
        "tools/list" => Reply::json(200, &request.result(list.clone())),
        _ => Reply::json(400, &request.error(-32602, "not here")),
    })
    .await;
    let redis = RedisServer::start();
    let setup = patient(Setup::new().server("up", &server.url("/mcp")), &redis)
        .set("cache.fetch_timeout", "\"4s\"")
        .set("cache.lock_ttl", "\"5s\"");
    let mut nodes = NodeProcess::fleet(&setup, 3).await;
    let fetches = || {
        let methods = server.methods();
        methods
            .iter()
            .filter(|method| *method == "tools/list")
            .count()
    };
    let mut refreshing = nodes.remove(0);
    let address = refreshing.address;
    let lost = tokio::spawn(async move { modern("tools/list").try_at(address).await });
    eventually("it fetches", async || fetches() == 1).await;
    let waiting: Vec<_> = (0..40)
        .map(|n| {
            let address = nodes[n % 2].address;
            wire::Owned(tokio::spawn(async move {
                let reply = modern("tools/list").open_at(address).await;
                reply.answered().await.result()["tools"].clone()
            }))
        })
        .collect();
    refreshing.kill();
    assert!(
        wire::within("its end", lost)
            .await
            .expect("no panic")
            .is_err()
    );
    for mut one in waiting {
        let tools = wire::within("a list", &mut one.0).await.expect("no panic");
        assert_eq!(tools[0]["name"], "one");
    }
    assert_eq!(fetches(), 2);
}
