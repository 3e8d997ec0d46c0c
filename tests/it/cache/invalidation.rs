//! Entries that are marked as out of date.

use std::{sync::Arc, time::Duration};

use mcp_fleet::{
    cache::{CacheKey, CacheStatus, Subject},
    ids::Principal,
    lifecycle::Tasks,
    store::Event,
};
use tokio::{sync::broadcast, time::Instant};

use super::{Fleet, LONG_LIVED, Node, Upstream, fill, on_both_stores, server, settings, tools};
use crate::{support::deaf::DeafStore, support::eventually};

on_both_stores!(
    an_invalidation_reaches_the_other_nodes,
    an_invalidation_reaches_a_fetch_under_way,
    who_asks_after_an_invalidation_is_not_served_what_was_fetched_before,
    an_invalidation_of_one_resource_leaves_the_others,
    messages_that_were_missed_are_made_up_for,
);

async fn an_invalidation_reaches_the_other_nodes(fleet: Fleet) {
    let nodes = fleet.nodes(3).await;
    let upstream = Upstream::new("old");
    for node in &nodes {
        fill(node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    }
    assert_eq!(upstream.fetches(), 1);
    upstream.says("new");
    nodes[0].cache.invalidate(&tools()).await;
    let served = nodes[0].get(&upstream).await;
    assert_eq!(served.value.0, "new");
    for node in &nodes {
        eventually("the other nodes know", async || {
            node.get(&upstream).await.value.0 == "new"
        })
        .await;
    }
    assert_eq!(upstream.fetches(), 2);
    // A node that comes now finds the new entry.
    let late = fleet.node().await;
    let served = late.get(&upstream).await;
    assert_eq!(
        (served.value.0.as_str(), served.status),
        ("new", CacheStatus::Hit)
    );
}

async fn an_invalidation_reaches_a_fetch_under_way(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("old");
    upstream.opens(false);
    let change = async {
        eventually("the fetch begins", async || upstream.fetches() == 1).await;
        upstream.says("new");
        nodes[1].cache.invalidate(&tools()).await;
        upstream.opens(true);
    };
    let (before, ()) = tokio::join!(nodes[0].get(&upstream), change);
    assert_eq!(before.value.0, "old", "it was asked before the change");
    for node in nodes.iter().rev() {
        assert_eq!(node.get(&upstream).await.value.0, "new");
    }
    assert_eq!(upstream.fetches(), 2);
}

async fn who_asks_after_an_invalidation_is_not_served_what_was_fetched_before(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("old");
    upstream.opens(false);
    let change = async {
        eventually("the fetch begins", async || upstream.fetches() == 1).await;
        upstream.says("new");
        node.cache.invalidate(&tools()).await;
        // Joins the flight that asked before the change.
        let asked = node.get(&upstream);
        let open = async { upstream.opens(true) };
        tokio::join!(asked, open).0
    };
    let (_, after) = tokio::join!(node.get(&upstream), change);
    assert_eq!(after.value.0, "new");
}

async fn an_invalidation_of_one_resource_leaves_the_others(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("old");
    let read = async |node: &Node, uri: &str| {
        let key = CacheKey::new(
            &server(),
            "resources/read",
            Some(uri),
            "",
            Principal::ANONYMOUS,
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        let fetch = upstream.fetch("anyone");
        let served = node.cache.get(&key, &LONG_LIVED, fetch, deadline).await;
        served.expect("an answer").value.0.clone()
    };
    for node in &nodes {
        for uri in ["file:///1", "file:///2"] {
            assert_eq!(read(node, uri).await, "old");
        }
    }
    upstream.says("new");
    let mut changed = Subject {
        server: server(),
        method: "resources/read",
        uri: Some("file:///1".to_owned()),
    };
    nodes[0].cache.invalidate(&changed).await;
    for node in &nodes {
        eventually("the change is seen", async || {
            read(node, "file:///1").await == "new"
        })
        .await;
        assert_eq!(read(node, "file:///2").await, "old");
    }
    changed.uri = None;
    nodes[0].cache.invalidate(&changed).await;
    for node in &nodes {
        eventually("the change is seen", async || {
            read(node, "file:///2").await == "new"
        })
        .await;
    }
}

async fn messages_that_were_missed_are_made_up_for(fleet: Fleet) {
    let tasks = Tasks::new();
    let (deaf, events) = DeafStore::new(fleet.store(&tasks).await);
    let node = Node::new(Arc::new(deaf), settings(), tasks);
    let other = fleet.node().await;
    let upstream = Upstream::new("old");
    fill(&node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    // Something changes while this node hears nothing.
    upstream.says("new");
    other.cache.invalidate(&tools()).await;
    assert_eq!(other.get(&upstream).await.value.0, "new");
    let unaware = node.get(&upstream).await;
    assert_eq!(
        (unaware.value.0.as_str(), unaware.status),
        ("old", CacheStatus::Hit)
    );
    // It learns that it may have missed something; not what.
    send(&events, Event::Gap);
    eventually("the change is seen", async || {
        node.get(&upstream).await.value.0 == "new"
    })
    .await;
    assert_eq!(upstream.fetches(), 2, "the new entry came from the store");

    // Nothing has changed: the copies are good again, without a fetch.
    send(&events, Event::Gap);
    eventually("served again", async || {
        node.get(&upstream).await.status == CacheStatus::Hit
    })
    .await;
    assert_eq!(upstream.fetches(), 2);
}

fn send(events: &broadcast::Sender<Event>, event: Event) {
    events.send(event).expect("the node follows");
}
