//! A fleet of real nodes and a real Redis, and what happens to it when
//! something breaks. Each file is about what breaks, each test is named after it.

mod churn;
mod clocks;
mod histories;
mod nodes;
mod partition;
mod redis_loss;
mod replicas;

use crate::support::{
    eventually,
    fake_server::FakeServer,
    monitor::{History, Monitor, node},
    node::{Listens, NodeProcess, Setup, readiness},
    redis::RedisServer,
    wire,
};

/// Servers of [`many`], each of one replica. Whose turn a duty is is a matter of
/// hashes: of so many each of three nodes gets some.
const REPLICAS: usize = 21;

/// A server under many names.
fn many(server: &FakeServer) -> Setup {
    let setup = Setup::up(server)
        .set("health.probe", "true")
        .set("health.interval", "\"1s\"")
        .set("health.timeout", "\"1s\"");
    (1..REPLICAS).fold(setup, |setup, n| {
        setup.server(&format!("also-{n}"), &server.url())
    })
}

/// Waits until so many nodes know of each other.
async fn members(redis: &RedisServer, count: usize) {
    eventually("the fleet has its members", async || {
        redis.cli(&["hlen", "mcp-fleet:members"]).trim() == count.to_string()
    })
    .await;
}

/// Waits until all duties of a kind are somebody's, and so many; answers
/// whose: duty and holder.
async fn leased(redis: &RedisServer, kind: &str, count: usize) -> Vec<(String, String)> {
    let holders = || {
        let keys = redis.cli(&["keys", &format!("mcp-fleet:lease:{{{kind}:*}}")]);
        let holders = keys.lines().filter(|key| !key.is_empty()).map(|key| {
            let duty = key.trim_start_matches("mcp-fleet:lease:{");
            let holder = redis.cli(&["get", key]).trim().to_owned();
            (duty.trim_end_matches('}').to_owned(), holder)
        });
        // `lease:{..}:fence` and the like are of another form.
        let held = holders.filter(|(duty, holder)| !holder.is_empty() && !duty.contains('}'));
        held.collect::<Vec<_>>()
    };
    eventually("all duties are somebody's", async || {
        holders().len() == count
    })
    .await;
    holders()
}

/// Waits until that node has some of them too; answers which.
async fn leased_to(redis: &RedisServer, kind: &str, count: usize, name: &str) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + wire::PATIENCE;
    loop {
        let all = leased(redis, kind, count).await.into_iter();
        let its = all.filter(|(_, holder)| node(holder) == name);
        let its: Vec<_> = its.map(|(duty, _)| duty).collect();
        if !its.is_empty() {
            return its;
        }
        let now = tokio::time::Instant::now();
        assert!(now < deadline, "{name} got no duty to {kind}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Waits until the monitor has seen something.
async fn seen(monitor: &Monitor, what: &str, condition: impl Fn(&History) -> bool) {
    eventually(what, async || condition(&monitor.history())).await;
}

async fn becomes(node: &impl Listens, wanted: &str) {
    eventually(&format!("the node becomes {wanted}"), async || {
        readiness(node).await == wanted
    })
    .await;
}

fn addresses(nodes: &[NodeProcess]) -> Vec<std::net::SocketAddr> {
    nodes.iter().map(|node| node.address).collect()
}
