//! What needs a Redis of its own: hung, gone, or with a writer paused.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use mcp_fleet::{
    cache::{CacheKey, CacheStatus, Fetch, Subject},
    ids::Principal,
    lifecycle::Tasks,
    store::redis::RedisSettings,
};
use tokio::time::Instant;

use super::{
    Broken, Fleet, HOUR, LONG_LIVED, MOMENT, Node, Upstream, fill, hears, key, server, settings,
    tools,
};
use crate::{support::eventually, support::redis::RedisServer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_entry_costs_no_store_command() {
    let fleet = Fleet::on_redis();
    let node = fleet.node().await;
    let upstream = Upstream::new("x");
    fill(&node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    let server = fleet.server.as_ref().expect("on redis");
    let before = server.commands_run();
    let key = key("anyone");
    let fetch = upstream.fetch("anyone");
    let count = 20_000;
    let begun = std::time::Instant::now();
    for _ in 0..count {
        let deadline = Instant::now() + HOUR;
        let served = node
            .cache
            .get(&key, &LONG_LIVED, Arc::clone(&fetch), deadline)
            .await;
        assert_eq!(served.expect("an answer").status, CacheStatus::Hit);
    }
    println!("{:?} per hit in L1 (test build)", begun.elapsed() / count);
    assert_eq!(server.commands_run(), before);
}

/// Runs a node in a runtime of its own, which can be stopped in mid-air or
/// blocked as a whole.
struct Lonely {
    runtime: tokio::runtime::Runtime,
    node: Node,
}

fn lonely(server: &RedisServer, settings_of: &RedisSettings) -> Lonely {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let node = runtime.block_on(async {
        let tasks = Tasks::new();
        let store = Arc::new(server.store(settings_of, &tasks).await);
        hears(&*store).await;
        Node::new(store, settings(), tasks)
    });
    Lonely { runtime, node }
}

#[test]
fn a_writer_paused_past_its_lock_does_not_overwrite_newer_data() {
    let server = RedisServer::start();
    let redis = server.settings();
    let paused = lonely(&server, &redis);
    let next = lonely(&server, &redis);
    let upstream = Upstream::new("old");
    // The fetch blocks the only thread of its node, as SIGSTOP would: nothing
    // there runs, neither the renewal of the lock nor the following of events.
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let resumed = Mutex::new(resumed);
    let (began, begun) = std::sync::mpsc::channel();
    let blocked = Arc::new(AtomicBool::new(false));
    let fetch: Fetch<Broken> = {
        let upstream = Arc::clone(&upstream);
        let resumed = Arc::new(resumed);
        Arc::new(move || {
            let answer = Arc::clone(&upstream).answer("anyone");
            let (resumed, began) = (Arc::clone(&resumed), began.clone());
            let first = !blocked.swap(true, Ordering::SeqCst);
            Box::pin(async move {
                let fetched = answer.await;
                if first {
                    began.send(()).expect("the test waits");
                    resumed
                        .lock()
                        .expect("unpoisoned")
                        .recv()
                        .expect("the test resumes");
                }
                fetched
            })
        })
    };
    let cache = Arc::clone(&paused.node.cache);
    let asked = paused.runtime.spawn(async move {
        let deadline = Instant::now() + Duration::from_secs(20);
        cache
            .get(&key("anyone"), &LONG_LIVED, fetch, deadline)
            .await
    });
    begun.recv().expect("the fetch begins");
    upstream.says("new");
    // The other node takes over when the lock has ended, and writes.
    let taken_over = next.runtime.block_on(next.node.get(&upstream));
    assert_eq!(taken_over.value.0, "new");
    resume.send(()).expect("the fetch waits");
    let late = next
        .runtime
        .block_on(asked)
        .expect("no panic")
        .expect("an answer");
    assert_eq!(late.value.0, "new", "the paused node adopts what is newer");
    assert_eq!(paused.node.cache.counters().writes_refused.get(), 1);
    let third = lonely(&server, &redis);
    for node in [&paused, &next, &third] {
        let served = node.runtime.block_on(node.node.get(&upstream));
        assert_eq!(served.value.0, "new");
    }
    assert_eq!(upstream.fetches(), 2);
}

#[test]
fn a_waiter_takes_over_when_the_holder_dies() {
    let server = RedisServer::start();
    let redis = server.settings();
    let dying = lonely(&server, &redis);
    let waiting = lonely(&server, &redis);
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let cache = Arc::clone(&dying.node.cache);
    let fetch = upstream.fetch("anyone");
    dying.runtime.spawn(async move {
        let deadline = Instant::now() + HOUR;
        cache
            .get(&key("anyone"), &LONG_LIVED, fetch, deadline)
            .await
            .ok();
    });
    let begun = std::time::Instant::now();
    while upstream.fetches() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "no fetch");
        std::thread::sleep(MOMENT);
    }
    // Dies with everything it runs; nothing is given back.
    dying.runtime.shutdown_background();
    upstream.opens(true);
    let died = std::time::Instant::now();
    let served = waiting.runtime.block_on(waiting.node.get(&upstream));
    let took = died.elapsed();
    println!(
        "taken over after {took:?} with a lock of {:?}",
        settings().lock_ttl
    );
    assert_eq!(served.value.0, "x");
    assert_eq!(upstream.fetches(), 2);
    assert!(took < 2 * settings().lock_ttl, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_nodes_serve_what_they_have_and_fetch_once_each() {
    let mut fleet = Fleet::on_redis();
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("known");
    for node in &nodes {
        fill(node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    }
    fleet.redis_server().kill();
    for node in &nodes {
        let served = node.get(&upstream).await;
        assert_eq!(
            (served.value.0.as_str(), served.status),
            ("known", CacheStatus::Hit)
        );
        eventually("the circuit opens", async || !node.store.is_reachable()).await;
    }
    // A miss: one flight per node, however many ask.
    let prompts = |node: &'static str| {
        CacheKey::new(&server(), "prompts/list", None, node, Principal::ANONYMOUS)
    };
    let fetches = upstream.fetches();
    let asked = nodes.iter().flat_map(|node| {
        let upstream = &upstream;
        (0..100).map(move |_| async move {
            let deadline = Instant::now() + Duration::from_secs(10);
            let fetch = upstream.fetch("anyone");
            let served = node
                .cache
                .get(&prompts(""), &LONG_LIVED, fetch, deadline)
                .await;
            served.expect("an answer")
        })
    });
    let begun = Instant::now();
    join_all(asked).await;
    println!(
        "200 misses on 2 nodes without redis took {:?}",
        begun.elapsed()
    );
    assert_eq!(upstream.fetches(), fetches + 2);
    // An invalidation without the store: this node at once, the others when
    // the store is back.
    upstream.says("changed");
    nodes[0].cache.invalidate(&tools()).await;
    assert_eq!(nodes[0].get(&upstream).await.value.0, "changed");
    assert_eq!(nodes[1].get(&upstream).await.value.0, "known");
    let all_prompts = Subject {
        method: "prompts/list",
        ..tools()
    };
    nodes[0].cache.invalidate(&all_prompts).await;

    // Back, and empty: the nodes put back what they have, and nobody fetches.
    let fetches = upstream.fetches();
    fleet.redis_server().run();
    for node in &nodes {
        eventually("the circuit closes", async || node.store.is_reachable()).await;
    }
    eventually("the other node knows of the change", async || {
        nodes[1].get(&upstream).await.value.0 == "changed"
    })
    .await;
    eventually(
        "the other node knows of what was not fetched anew",
        async || {
            let deadline = Instant::now() + Duration::from_secs(10);
            let fetch = upstream.fetch("anyone");
            let key = prompts("");
            let served = nodes[1].cache.get(&key, &LONG_LIVED, fetch, deadline).await;
            served.expect("an answer").value.0 == "changed"
        },
    )
    .await;
    let after = upstream.fetches();
    assert!(after <= fetches + 2, "{after} after {fetches}: a stampede");
    let written = |name: &str| {
        fleet
            .server
            .as_ref()
            .expect("on redis")
            .cli(&["keys", name])
    };
    eventually("the entries are back", async || {
        written("*:entry:*")
            .lines()
            .filter(|line| !line.is_empty())
            .count()
            == 2
    })
    .await;
    let late = fleet.node().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let fetch = upstream.fetch("anyone");
    let served = late
        .cache
        .get(&prompts(""), &LONG_LIVED, fetch, deadline)
        .await;
    assert_eq!(served.expect("an answer").status, CacheStatus::Hit);
    assert_eq!(late.get(&upstream).await.value.0, "changed");
    assert_eq!(upstream.fetches(), after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_redis_delays_a_miss_by_its_time_out_and_hits_by_nothing() {
    let fleet = Fleet::on_redis();
    let node = fleet.node().await;
    let upstream = Upstream::new("x");
    fill(&node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    fleet.server.as_ref().expect("on redis").pause();
    let begun = Instant::now();
    assert_eq!(node.get(&upstream).await.status, CacheStatus::Hit);
    assert!(begun.elapsed() < Duration::from_millis(200));
    let miss = |n: u32| {
        CacheKey::new(
            &server(),
            "tools/list",
            None,
            &n.to_string(),
            Principal::ANONYMOUS,
        )
    };
    let mut times = Vec::new();
    for n in 0..20 {
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(10);
        let fetch = upstream.fetch("anyone");
        let served = node.cache.get(&miss(n), &LONG_LIVED, fetch, deadline).await;
        served.expect("an answer");
        times.push(begun.elapsed());
    }
    println!("misses while redis hangs: {times:?}");
    assert!(times[0] < Duration::from_secs(2), "{times:?}");
    let slow = times
        .iter()
        .filter(|time| **time > Duration::from_millis(200))
        .count();
    assert!(slow <= 4, "{times:?}");
}
