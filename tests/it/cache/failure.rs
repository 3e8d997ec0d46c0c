//! Fetches that fail, hang or are given up.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use mcp_fleet::{
    cache::{CacheError, CacheKey, CacheStatus, Durations, Fetch, Settings},
    ids::Principal,
};
use tokio::time::{Instant, timeout};

use super::{
    Broken, Fleet, LONG_LIVED, MOMENT, SOON_EXPIRED, Upstream, fill, key, on_both_stores, server,
    settings, tools,
};
use crate::support::eventually;

on_both_stores!(
    a_failure_on_one_node_is_a_pause_for_all,
    a_failing_upstream_is_not_hammered,
    a_failed_refresh_keeps_the_old_entry_until_max_stale,
    an_empty_list_after_a_non_empty_one_is_checked_once,
    a_caller_that_goes_away_does_not_cancel_the_fetch,
    a_fetch_that_panics_does_not_wedge_the_key,
    an_upstream_that_hangs_costs_the_deadline_and_no_more,
);

async fn a_failure_on_one_node_is_a_pause_for_all(fleet: Fleet) {
    let patient = Settings {
        retry_first: Duration::from_millis(800),
        ..settings()
    };
    let first = fleet.node_with(patient.clone()).await;
    let second = fleet.node_with(patient).await;
    let upstream = Upstream::new("x");
    upstream.breaks(true);
    let failed = first.ask("anyone", &upstream, LONG_LIVED).await;
    failed.expect_err("the upstream is broken");
    let begun = Instant::now();
    let failed = second.ask("anyone", &upstream, LONG_LIVED).await;
    assert!(
        matches!(failed, Err(CacheError::Fetch(Broken))),
        "its own failure"
    );
    assert_eq!(upstream.fetches(), 2);
    let paused = begun.elapsed();
    assert!(paused > Duration::from_millis(300), "{paused:?}");
}

async fn a_failing_upstream_is_not_hammered(fleet: Fleet) {
    let nodes = fleet.nodes(3).await;
    let upstream = Upstream::new("x");
    upstream.breaks(true);
    let end = Instant::now() + Duration::from_secs(2);
    let asks = nodes.iter().flat_map(|node| {
        let upstream = &upstream;
        (0..10).map(move |_| async move {
            while Instant::now() < end {
                let error = node.ask("anyone", upstream, LONG_LIVED).await;
                let error = error.expect_err("the upstream is broken");
                assert!(matches!(error, CacheError::Fetch(Broken)), "{error}");
            }
        })
    });
    join_all(asks).await;
    let fetches = upstream.fetches();
    println!("{fetches} fetches in 2 s by 30 callers that ask again at once");
    assert!((3..=40).contains(&fetches), "{fetches}");
    upstream.breaks(false);
    let mended = Instant::now();
    eventually("it is used again", async || {
        let served = nodes[0].ask("anyone", &upstream, LONG_LIVED).await;
        served.is_ok()
    })
    .await;
    assert!(mended.elapsed() < Duration::from_secs(4));
}

async fn a_failed_refresh_keeps_the_old_entry_until_max_stale(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("old");
    let life = Duration::from_millis(1500);
    let brief = Durations {
        max_stale: life,
        ..SOON_EXPIRED
    };
    let born = Instant::now();
    fill(&node, &upstream, brief, CacheStatus::Stale).await;
    upstream.breaks(true);
    let mut served_stale = 0;
    loop {
        let asked = Instant::now();
        match node.ask("anyone", &upstream, brief).await {
            Ok(served) => {
                assert_eq!(served.status, CacheStatus::Stale);
                // When it was asked for; the answer may have taken a while on a busy machine.
                let age = served.age.saturating_sub(asked.elapsed());
                assert!(age < life, "served at {age:?}");
                assert!(asked.elapsed() < Duration::from_secs(2));
                served_stale += 1;
            }
            Err(error) => {
                assert!(matches!(error, CacheError::Fetch(Broken)), "{error}");
                assert!(born.elapsed() >= life, "gone after {:?}", born.elapsed());
                break;
            }
        }
        tokio::time::sleep(MOMENT).await;
    }
    assert!(served_stale > 100, "{served_stale}");
    let fetches = upstream.fetches();
    assert!(fetches < 20, "{fetches} fetches while it failed");
}

async fn an_empty_list_after_a_non_empty_one_is_checked_once(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("tools");
    fill(&node, &upstream, SOON_EXPIRED, CacheStatus::Stale).await;
    upstream.says("");
    let served = node.get(&upstream).await;
    assert_eq!(served.value.0, "");
    assert_eq!(upstream.fetches(), 3, "fill, empty, and once more");
    node.cache.invalidate(&tools()).await;
    node.get(&upstream).await;
    assert_eq!(upstream.fetches(), 4, "empty after empty is believed");
}

async fn a_caller_that_goes_away_does_not_cancel_the_fetch(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let impatient = timeout(Duration::from_millis(50), node.get(&upstream)).await;
    assert!(impatient.is_err());
    eventually("the fetch began", async || upstream.fetches() == 1).await;
    upstream.opens(true);
    eventually("the fetch is used", async || {
        node.cache.peek(&key("anyone")).is_some()
    })
    .await;
    assert_eq!(node.get(&upstream).await.status, CacheStatus::Hit);
    assert_eq!(upstream.fetches(), 1);
}

async fn a_fetch_that_panics_does_not_wedge_the_key(fleet: Fleet) {
    // A crash leaves the lock to its time to live; here it is not that which
    // makes the next fetch wait.
    let brief = Settings {
        lock_ttl: 20 * MOMENT,
        ..settings()
    };
    let node = fleet.node_with(brief).await;
    let upstream = Upstream::new("x");
    let panics = Arc::new(AtomicU32::new(0));
    let fetch: Fetch<Broken> = {
        let (upstream, panics) = (Arc::clone(&upstream), Arc::clone(&panics));
        Arc::new(move || {
            let crash = panics.fetch_add(1, Ordering::SeqCst) < 2;
            let answer = Arc::clone(&upstream).answer("anyone");
            Box::pin(async move {
                assert!(!crash, "a bug in the fetch, on purpose");
                answer.await
            })
        })
    };
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(10);
    let served = node
        .cache
        .get(&key("anyone"), &LONG_LIVED, fetch, deadline)
        .await;
    assert_eq!(served.expect("an answer").value.0, "x");
    assert_eq!(panics.load(Ordering::SeqCst), 3);
    // A crash is a failure: the next fetch waits.
    assert!(begun.elapsed() > settings().retry_first);
}

async fn an_upstream_that_hangs_costs_the_deadline_and_no_more(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("old");
    upstream.opens(false);
    let ask = async || {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(300);
        let fetch = upstream.fetch("anyone");
        let served = node
            .cache
            .get(&key("anyone"), &SOON_EXPIRED, fetch, deadline)
            .await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        served
    };
    let error = ask().await.expect_err("nothing to serve");
    assert!(matches!(error, CacheError::TimedOut { .. }), "{error}");
    upstream.opens(true);
    eventually("the entry has come and aged", async || {
        let held = node.cache.peek(&key("anyone"));
        held.is_some_and(|held| held.age > 5 * MOMENT)
    })
    .await;
    upstream.opens(false);
    let served = ask().await.expect("the old entry");
    assert_eq!(served.status, CacheStatus::Stale);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_fetches_at_once_are_refused() {
    let fleet = Fleet::embedded();
    let few = Settings {
        max_flights: 3,
        ..settings()
    };
    let node = fleet.node_with(few).await;
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let asks = (0..10).map(|n: u32| {
        let key = CacheKey::new(
            &server(),
            "tools/list",
            None,
            &n.to_string(),
            Principal::ANONYMOUS,
        );
        let (node, upstream) = (&node, &upstream);
        async move {
            let deadline = Instant::now() + Duration::from_secs(10);
            let fetch = upstream.fetch("anyone");
            node.cache.get(&key, &LONG_LIVED, fetch, deadline).await
        }
    });
    let open = async {
        eventually("three fetches", async || upstream.fetches() == 3).await;
        upstream.opens(true);
    };
    let (answers, ()) = tokio::join!(join_all(asks), open);
    let refused = answers
        .iter()
        .filter(|answer| matches!(answer, Err(CacheError::Busy { .. })))
        .count();
    assert_eq!(refused, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_end_when_the_node_stops() {
    let fleet = Fleet::on_redis();
    let node = fleet.node().await;
    let upstream = Upstream::new("x");
    node.get(&upstream).await;
    node.tasks.stop();
    timeout(Duration::from_secs(3), node.tasks.finished())
        .await
        .expect("all tasks end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_does_not_wait_for_fetches_nobody_waits_for() {
    let fleet = Fleet::embedded();
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let impatient = timeout(Duration::from_millis(50), nodes[0].get(&upstream)).await;
    assert!(impatient.is_err());
    nodes[0].tasks.stop();
    timeout(Duration::from_secs(3), nodes[0].tasks.finished())
        .await
        .expect("all tasks end");
    upstream.opens(true);
    let begun = Instant::now();
    nodes[1].get(&upstream).await;
    assert!(
        begun.elapsed() < settings().lock_ttl,
        "the lock was given back"
    );
}
