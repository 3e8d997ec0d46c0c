//! `max_in_flight`: a bound for the fleet, as the server itself counts.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;

use crate::support::{
    client::call,
    eventually,
    fake_server::{Contents, FakeServer, Speaks, call::Outcome, contents::tool},
    legacy_client::legacy,
    node::{NodeProcess, Setup, TestCluster},
    wire::{Answered, Owned, within},
};

/// A server that counts the calls it is at work for. `brief` takes a moment,
/// `long` waits for the gate.
struct Counting {
    server: FakeServer,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Counting {
    async fn start() -> Self {
        let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, peak) = (Arc::clone(&now), Arc::clone(&most));
        let contents = Contents::tools(&[&tool("brief"), &tool("long")]);
        let server = FakeServer::with(Speaks::Modern, contents, move |call| {
            let (counted, peak) = (Arc::clone(&counted), Arc::clone(&peak));
            async move {
                let at_work = counted.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(at_work, Ordering::SeqCst);
                match call.name().as_str() {
                    "long" => call.gate("go").await,
                    _ => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
                counted.fetch_sub(1, Ordering::SeqCst);
                Outcome::text("done")
            }
        })
        .await;
        Self { server, now, most }
    }

    fn setup(&self, keys: &str) -> Setup {
        Setup::new().replicas("up", &[self.server.url()], keys)
    }

    fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

fn begin(address: std::net::SocketAddr, tool: &'static str) -> Owned<Answered> {
    Owned(tokio::spawn(async move {
        call(tool, json!({}))
            .open_at(address)
            .await
            .answered()
            .await
    }))
}

async fn all_done(calls: Vec<Owned<Answered>>) {
    for mut call in calls {
        let answered = within("an answer", &mut call.0).await.expect("no panic");
        answered.result();
    }
}

#[tokio::test]
async fn three_nodes_together_keep_the_bound_and_each_gets_its_share() {
    let counting = Counting::start().await;
    let setup = counting.setup("max_in_flight = 10\nqueue = 1000\nqueue_timeout = \"60s\"");
    let cluster = TestCluster::three(setup).await;
    // One node alone may use it all.
    let first: Vec<_> = (0..30)
        .map(|_| begin(cluster.a().address, "long"))
        .collect();
    eventually("one node has all places", async || counting.now() == 10).await;
    // The others wait for their share, of which none is free.
    let mut others = Vec::new();
    for node in &cluster.nodes[1..] {
        others.extend((0..40).map(|_| begin(node.address, "brief")));
    }
    counting.server.open_gate("go");
    all_done(first).await;
    all_done(others).await;
    // All at once, and for longer.
    let mut calls = Vec::new();
    for _ in 0..60 {
        calls.extend(
            cluster
                .nodes
                .iter()
                .map(|node| begin(node.address, "brief")),
        );
    }
    all_done(calls).await;
    assert_eq!(counting.most(), 10);
    eventually("nothing is held", async || {
        let kept = cluster.redis.cli(&["--scan", "--pattern", "*permits*"]);
        kept.trim().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_busy_node_makes_room_for_one_that_starves() {
    let counting = Counting::start().await;
    let setup = counting.setup("max_in_flight = 4\nqueue = 1000\nqueue_timeout = \"60s\"");
    let cluster = TestCluster::pair(setup).await;
    let address = cluster.a().address;
    let stop = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..12)
        .map(|_| {
            let stop = Arc::clone(&stop);
            Owned(tokio::spawn(async move {
                while stop.load(Ordering::SeqCst) == 0 {
                    let answered = call("brief", json!({})).open_at(address).await.answered();
                    answered.await.result();
                }
            }))
        })
        .collect();
    eventually("node a uses it all", async || counting.most() == 4).await;
    for _ in 0..20 {
        call("brief", json!({})).result(cluster.b()).await;
    }
    stop.store(1, Ordering::SeqCst);
    for mut caller in callers {
        within("the callers", &mut caller.0)
            .await
            .expect("no panic");
    }
    assert_eq!(counting.most(), 4);
}

#[tokio::test]
async fn what_overflows_is_turned_away_with_a_time_to_come_back() {
    let counting = Counting::start().await;
    let keys = "max_in_flight = 1\nqueue = 1\nqueue_timeout = \"60s\"";
    let node = counting.setup(keys).start().await;
    let session = legacy("2025-11-25").open(&node).await;
    let at_work = begin(node.address, "long");
    eventually("one is at work", async || counting.now() == 1).await;
    let waiting = begin(node.address, "long");
    let gate = node.replicas()[0].gate().cloned().expect("it is limited");
    eventually("one waits", async || gate.waiting() == 1).await;
    let turned = call("long", json!({})).send(&node).await;
    assert_eq!(turned.refusal(), (503, -32603));
    assert!(turned.header("retry-after").is_some());
    let turned = session.call("long", json!({})).await;
    assert_eq!(turned.refusal(), (503, -32603));
    assert!(turned.header("retry-after").is_some());
    let plain = r#"{"name":"long","arguments":{}}"#;
    let plain = crate::support::client::post(&node, "/mcp/up/tools/call", &[], plain).await;
    assert_eq!(plain.status, 503);
    // Who goes away leaves the queue.
    drop(waiting);
    eventually("nobody waits", async || gate.waiting() == 0).await;
    let next = begin(node.address, "brief");
    counting.server.open_gate("go");
    all_done(vec![at_work, next]).await;
    assert_eq!(counting.most(), 1);
    // Lists are not calls.
    crate::support::client::modern("tools/list")
        .result(&node)
        .await;
}

#[tokio::test]
async fn a_wait_in_the_queue_ends() {
    let counting = Counting::start().await;
    let keys = "max_in_flight = 1\nqueue = 10\nqueue_timeout = \"100ms\"";
    let node = counting.setup(keys).start().await;
    let _at_work = begin(node.address, "long");
    eventually("one is at work", async || counting.now() == 1).await;
    let turned = call("long", json!({})).send(&node).await;
    assert_eq!(turned.refusal(), (503, -32603));
    assert_eq!(counting.server.seen("tools/call").len(), 1);
}

#[tokio::test]
async fn calls_wait_only_where_no_other_replica_has_room() {
    let servers = [Counting::start().await, Counting::start().await];
    let urls = servers.each_ref().map(|counting| counting.server.url());
    let keys = "max_in_flight = 2\nqueue = 10\nqueue_timeout = \"60s\"";
    let node = Setup::new().replicas("up", &urls, keys).start().await;
    let calls: Vec<_> = (0..4).map(|_| begin(node.address, "long")).collect();
    eventually("all four are at work", async || {
        servers.iter().map(Counting::now).sum::<usize>() == 4
    })
    .await;
    assert!(servers.iter().all(|counting| counting.most() == 2));
    servers
        .iter()
        .for_each(|counting| counting.server.open_gate("go"));
    all_done(calls).await;
}

#[tokio::test]
async fn a_killed_nodes_permits_come_back() {
    let counting = Counting::start().await;
    let setup = counting.setup("max_in_flight = 2\nqueue = 10\nqueue_timeout = \"60s\"");
    let cluster = TestCluster::pair(setup.clone()).await;
    let victim = setup.redis(&cluster.redis).set("node.name", "\"victim\"");
    let victim = NodeProcess::start(&victim).await;
    let _theirs = [begin(victim.address, "long"), begin(victim.address, "long")];
    eventually("it has both places", async || counting.now() == 2).await;
    let waiting = begin(cluster.a().address, "brief");
    victim.signal("-KILL");
    victim.ended().await;
    all_done(vec![waiting]).await;
}

#[tokio::test]
async fn without_the_store_each_node_has_its_share() {
    let counting = Counting::start().await;
    let keys = "max_in_flight = 6\nqueue = 1000\nqueue_timeout = \"60s\"";
    let mut cluster = TestCluster::three(counting.setup(keys)).await;
    for node in &cluster.nodes {
        call("brief", json!({})).result(node).await;
        eventually("all nodes are known", async || {
            node.gateway.membership.view().count() == 3
        })
        .await;
    }
    cluster.redis.kill();
    for node in &cluster.nodes {
        eventually("the store is away", async || {
            !node.gateway.store.is_reachable()
        })
        .await;
    }
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.extend(cluster.nodes.iter().map(|node| begin(node.address, "long")));
    }
    eventually("each has its two places", async || counting.now() == 6).await;
    counting.server.open_gate("go");
    all_done(calls).await;
    assert_eq!(counting.most(), 6);
}
