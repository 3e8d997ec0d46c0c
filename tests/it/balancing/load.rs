//! Requests in flight, shared by tick.

use serde_json::json;

use crate::support::{
    client::call,
    eventually,
    fake_server::{FakeServer, Speaks},
    node::{NodeProcess, Setup, TestCluster, TestNode},
    wire::Owned,
};

/// Holds a call of `wait` open.
fn hold(address: std::net::SocketAddr) -> Owned<()> {
    Owned(tokio::spawn(async move {
        call("wait", json!({}))
            .open_at(address)
            .await
            .answered()
            .await;
    }))
}

async fn servers() -> ([FakeServer; 3], Setup) {
    let servers = [
        FakeServer::start(Speaks::Modern).await,
        FakeServer::start(Speaks::Modern).await,
        FakeServer::start(Speaks::Modern).await,
    ];
    let urls = servers.each_ref().map(FakeServer::url);
    (servers, Setup::new().replicas("up", &urls, ""))
}

/// Replica by replica.
fn own(node: &TestNode) -> Vec<u32> {
    node.replicas().iter().map(|r| r.load().own).collect()
}

fn others(node: &TestNode) -> Vec<u32> {
    node.replicas().iter().map(|r| r.load().others).collect()
}

fn waiting(servers: &[FakeServer]) -> Vec<usize> {
    let calls = servers.iter().map(|server| server.seen("tools/call").len());
    calls.collect()
}

#[tokio::test]
async fn calls_through_three_nodes_spread_evenly_over_three_replicas() {
    let (servers, setup) = servers().await;
    let cluster = TestCluster::three(setup).await;
    let mut held = Vec::new();
    for round in 1..=12usize {
        for node in &cluster.nodes {
            held.push(hold(node.address));
        }
        eventually("the calls have arrived", async || {
            waiting(&servers).iter().sum::<usize>() == 3 * round
        })
        .await;
    }
    let spread = waiting(&servers);
    assert!(
        spread.iter().all(|count| (6..=18).contains(count)),
        "{spread:?}"
    );
    // Each node knows what the two others do.
    eventually("all nodes know everything", async || {
        cluster.nodes.iter().all(|node| {
            let known = own(node).into_iter().zip(others(node));
            let known: Vec<_> = known.map(|(own, others)| (own + others) as usize).collect();
            known == spread
        })
    })
    .await;
    servers.iter().for_each(|server| server.open_gate("go"));
    eventually("nothing is in flight", async || {
        let all = cluster.nodes.iter();
        all.flat_map(|node| [own(node), others(node)])
            .flatten()
            .all(|count| count == 0)
    })
    .await;
    // Nobody has anything to tell: the lines are taken out.
    eventually("the roster is empty", async || {
        cluster.redis.cli(&["exists", "mcp-fleet:load"]).trim() == "0"
    })
    .await;
}

#[tokio::test]
async fn a_killed_nodes_load_vanishes() {
    let (servers, setup) = servers().await;
    let cluster = TestCluster::pair(setup.clone()).await;
    let shared = setup.redis(&cluster.redis).set("node.name", "\"victim\"");
    let victim = NodeProcess::start(&shared).await;
    let _theirs: Vec<_> = (0..6).map(|_| hold(victim.address)).collect();
    let _ours = hold(cluster.a().address);
    eventually("the node knows of the other's calls", async || {
        others(cluster.a()).iter().sum::<u32>() == 6
    })
    .await;
    victim.signal("-KILL");
    victim.ended().await;
    eventually("the node has forgotten them", async || {
        others(cluster.a()).iter().sum::<u32>() == 0
    })
    .await;
    assert_eq!(own(cluster.a()).iter().sum::<u32>(), 1);
    drop(servers);
}

#[tokio::test]
async fn without_the_store_own_counts_are_left() {
    let (servers, setup) = servers().await;
    let mut cluster = TestCluster::pair(setup).await;
    let _theirs = hold(cluster.b().address);
    let _ours = hold(cluster.a().address);
    eventually("a knows of b's call", async || {
        others(cluster.a()).iter().sum::<u32>() == 1
    })
    .await;
    cluster.redis.kill();
    eventually("a goes by its own count", async || {
        others(cluster.a()).iter().sum::<u32>() == 0
    })
    .await;
    for _ in 0..20 {
        call("echo", json!({})).result(cluster.a()).await;
    }
    drop(servers);
}

#[tokio::test]
async fn what_sharing_costs_redis_does_not_depend_on_requests() {
    let (_servers, setup) = servers().await;
    let cluster = TestCluster::pair(setup).await;
    for node in &cluster.nodes {
        call("echo", json!({})).result(node).await;
    }
    let begun = tokio::time::Instant::now();
    let before = cluster.redis.commands_run();
    let mut requests = 0u64;
    for _ in 0..500 {
        for node in &cluster.nodes {
            call("echo", json!({})).result(node).await;
            requests += 1;
        }
    }
    let cost = cluster.redis.commands_run() - before;
    // Per node: a line every 450 ms at most (the script, and what it runs),
    // a beat and a pass over duties every other second.
    let ticks = 2 * (begun.elapsed().as_millis() / 450 + 2);
    let most = u64::try_from(ticks * 8).expect("a test's time");
    assert!(
        cost <= most,
        "{cost} commands for {requests} requests, at most {most}"
    );
}
