//! Nodes that share work: who lives, whose turn it is, what moves when a node
//! joins or leaves. What happens when they are killed or paused is in `faults`.

use std::collections::BTreeMap;

use mcp_fleet::store::leases::Duty;
use serde_json::json;

use crate::support::{
    client::modern,
    eventually,
    fake_server::{FakeServer, Speaks},
    node::{Setup, TestCluster, TestNode},
};

/// A fleet with duties to share: two per server.
fn busy(server: &FakeServer) -> Setup {
    (0..12).fold(Setup::new().set("health.probe", "true"), |setup, n| {
        setup.server(&format!("s{n}"), &server.url())
    })
}

/// Which node holds what, as the store has it.
async fn holders(node: &TestNode) -> BTreeMap<Duty, String> {
    let duties = node.gateway.duties.all();
    let holders = node.gateway.store.lease_holders(&duties).await;
    let holders = holders.expect("the store answers");
    let held = duties.into_iter().zip(holders);
    held.filter_map(|(duty, holder)| Some((duty, holder?)))
        .collect()
}

async fn all_held_by(node: &TestNode, members: &[&str]) -> bool {
    let held = holders(node).await;
    let by = |member: &&str| {
        let prefix = format!("{member}/");
        held.values().any(|holder| holder.starts_with(&prefix))
    };
    let known = |holder: &String| members.iter().any(|m| holder.starts_with(&format!("{m}/")));
    held.len() == 24 && held.values().all(known) && members.iter().all(by)
}

#[tokio::test]
async fn every_node_gets_its_share_and_a_stopping_one_gives_it_back_at_once() {
    let server = FakeServer::start(Speaks::Modern).await;
    // Longer than a test may wait: nothing here happens because a lease ran out.
    let setup = busy(&server).set("cluster.lease_ttl", "\"6s\"");
    let mut cluster = TestCluster::three(setup).await;
    let first = &cluster.nodes[0];
    eventually("all three hold leases", async || {
        all_held_by(first, &["a", "b", "c"]).await
    })
    .await;
    let gone = cluster.nodes.pop().expect("three");
    gone.stop();
    gone.stopped().await;
    let first = &cluster.nodes[0];
    // What was given back is not held by the one that is gone, not even now.
    let held = holders(first).await;
    assert!(
        held.values().all(|holder| !holder.starts_with("c/")),
        "{held:?}"
    );
    eventually("two nodes hold everything", async || {
        all_held_by(first, &["a", "b"]).await
    })
    .await;
    eventually("the third is forgotten", async || {
        first.gateway.membership.view().members.len() == 2
    })
    .await;
}

#[tokio::test]
async fn what_the_store_and_the_cache_count_is_in_the_metrics() {
    let server = FakeServer::start(Speaks::Modern).await;
    let cluster = TestCluster::pair(Setup::up(&server)).await;
    let node = &cluster.nodes[0];
    modern("tools/list").params(json!({})).result(node).await;
    let has = |line: &str| node.gateway.metrics.render().lines().any(|l| l == line);
    eventually("the refresh is counted", async || {
        has("mcp_fleet_cache_refreshes_total{mcp_fleet_outcome=\"stored\"} 1")
            || has("mcp_fleet_cache_refreshes_total{mcp_fleet_outcome=\"stored\"} 2")
    })
    .await;
    assert!(has("mcp_fleet_store_reachable 1"));
    drop(cluster.redis);
    eventually("the store is away", async || {
        has("mcp_fleet_store_reachable 0")
    })
    .await;
}
