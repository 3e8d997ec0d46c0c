//! Fresh, stale, expired: who fetches, and how often.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use mcp_fleet::{
    cache::{CacheStatus, Durations, Settings},
    lifecycle::Tasks,
    store::Store,
};
use tokio::time::Instant;

use super::{
    Fleet, LONG_LIVED, MOMENT, Node, SOON_EXPIRED, SOON_STALE, Upstream, fill, on_both_stores,
    settings, tools,
};
use crate::{support::deaf::DeafStore, support::eventually};

on_both_stores!(
    a_thousand_requests_on_an_expired_entry_fetch_once,
    a_thousand_requests_on_an_absent_entry_fetch_once,
    a_stale_entry_is_served_while_one_refresh_runs,
    a_hot_entry_is_refreshed_before_it_goes_stale,
    a_refresh_reaches_nodes_whose_copies_are_fresh,
    a_writer_that_finishes_between_look_and_lock_is_noticed,
    waiting_nodes_are_woken_by_the_writer,
);

async fn a_thousand_requests_on_an_expired_entry_fetch_once(fleet: Fleet) {
    let nodes = fleet.nodes(5).await;
    let upstream = Upstream::new("old");
    fill(&nodes[0], &upstream, SOON_EXPIRED, CacheStatus::Stale).await;
    upstream.says("new");
    let asked = nodes
        .iter()
        .flat_map(|node| (0..200).map(|_| node.get(&upstream)));
    let begun = Instant::now();
    for served in join_all(asked).await {
        assert_eq!(served.value.0, "new");
    }
    println!("1000 requests on 5 nodes took {:?}", begun.elapsed());
    assert_eq!(upstream.fetches(), 2, "one to fill, one for all");
}

async fn a_thousand_requests_on_an_absent_entry_fetch_once(fleet: Fleet) {
    let nodes = fleet.nodes(5).await;
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let asked = nodes
        .iter()
        .flat_map(|node| (0..200).map(|_| node.get(&upstream)));
    let open = async {
        eventually("the fetch begins", async || upstream.fetches() > 0).await;
        // Longer than the lock's time to live: the holder renews it.
        tokio::time::sleep(2 * settings().lock_ttl).await;
        upstream.opens(true);
    };
    let (served, ()) = tokio::join!(join_all(asked), open);
    assert!(served.iter().all(|served| served.value.0 == "x"));
    assert_eq!(upstream.fetches(), 1);
}

async fn a_stale_entry_is_served_while_one_refresh_runs(fleet: Fleet) {
    let nodes = fleet.nodes(3).await;
    let upstream = Upstream::new("old");
    fill(&nodes[0], &upstream, SOON_STALE, CacheStatus::Stale).await;
    upstream.says("new");
    upstream.opens(false);
    for _ in 0..50 {
        for served in join_all(nodes.iter().map(|node| node.get(&upstream))).await {
            assert_eq!(served.value.0, "old");
            assert_eq!(served.status, CacheStatus::Stale);
            assert_eq!(served.remaining, Duration::ZERO);
        }
    }
    eventually("a refresh runs", async || upstream.fetches() == 2).await;
    upstream.opens(true);
    for node in &nodes {
        eventually("the refreshed entry is served", async || {
            let served = node.get(&upstream).await;
            served.value.0 == "new" && served.status == CacheStatus::Hit
        })
        .await;
    }
    assert_eq!(upstream.fetches(), 2);
}

async fn a_hot_entry_is_refreshed_before_it_goes_stale(fleet: Fleet) {
    let eager = Settings {
        early_refresh: 50.0,
        ..settings()
    };
    let node = fleet.node_with(eager).await;
    let upstream = Upstream::new("x");
    let brief = Durations {
        fresh: Duration::from_millis(1500),
        ..LONG_LIVED
    };
    let end = Instant::now() + Duration::from_secs(5);
    let mut last = Instant::now();
    while Instant::now() < end {
        // Traffic is steady only while this machine is.
        let steady = last.elapsed() < Duration::from_millis(50);
        last = Instant::now();
        let served = node
            .ask("anyone", &upstream, brief)
            .await
            .expect("an answer");
        assert!(
            served.status != CacheStatus::Stale || !steady,
            "aged {:?}",
            served.age
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let fetches = upstream.fetches();
    assert!(
        (3..=8).contains(&fetches),
        "{fetches} fetches in three lives"
    );
}

async fn a_refresh_reaches_nodes_whose_copies_are_fresh(fleet: Fleet) {
    let eager = Settings {
        early_refresh: 1000.0,
        ..settings()
    };
    let lazy = Settings {
        early_refresh: 0.0,
        ..settings()
    };
    let (eager, lazy) = (fleet.node_with(eager).await, fleet.node_with(lazy).await);
    let upstream = Upstream::new("old");
    let fresh = Duration::from_secs(3);
    let brief = Durations {
        fresh,
        ..LONG_LIVED
    };
    for node in [&eager, &lazy] {
        fill(node, &upstream, brief, CacheStatus::Hit).await;
    }
    upstream.says("new");
    let end = Instant::now() + fresh - Duration::from_millis(200);
    loop {
        eager
            .ask("anyone", &upstream, brief)
            .await
            .expect("an answer");
        let served = lazy
            .ask("anyone", &upstream, brief)
            .await
            .expect("an answer");
        assert_eq!(served.status, CacheStatus::Hit);
        if served.value.0 == "new" {
            break;
        }
        assert!(Instant::now() < end, "it was not told of the refresh");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(upstream.fetches(), 2);
}

async fn a_writer_that_finishes_between_look_and_lock_is_noticed(fleet: Fleet) {
    let tasks = Tasks::new();
    let (staged, _events) = DeafStore::new(fleet.store(&tasks).await);
    let staged = Arc::new(staged);
    let node = Node::new(Arc::clone(&staged) as Arc<dyn Store>, settings(), tasks);
    let other = fleet.node().await;
    let upstream = Upstream::new("x");
    let pause = staged.pause_before_lock();
    let meanwhile = async {
        pause.reached.notified().await;
        other.get(&upstream).await;
        pause.go_on.notify_one();
    };
    let (served, ()) = tokio::join!(node.get(&upstream), meanwhile);
    assert_eq!(served.value.0, "x");
    assert_eq!(upstream.fetches(), 1);
}

async fn waiting_nodes_are_woken_by_the_writer(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let mut waited = Duration::ZERO;
    for _ in 0..5 {
        let upstream = Upstream::new("x");
        upstream.opens(false);
        nodes[0].cache.invalidate(&tools()).await;
        let open = async {
            eventually("one fetches", async || upstream.fetches() == 1).await;
            tokio::time::sleep(20 * MOMENT).await;
            upstream.opens(true);
            Instant::now()
        };
        let asked = nodes.iter().map(|node| node.get(&upstream));
        let (_, opened) = tokio::join!(join_all(asked), open);
        waited += opened.elapsed();
        assert_eq!(upstream.fetches(), 1);
    }
    println!("woken after {:?} on average", waited / 5);
    // Without the wake-up it is half a second each time.
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}
