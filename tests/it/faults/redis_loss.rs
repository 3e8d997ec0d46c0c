//! The contract for the loss of Redis, cell by cell: `docs/redis-loss.md`
//! names the test of each. "Lost" is each of [`KINDS`].

mod table;

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mcp_fleet::{health::State, store::leases::DutyKind};
use serde_json::json;

use super::becomes;
use crate::support::{
    client::{call, modern},
    eventually,
    fake_server::{Contents, FakeServer, SESSIONS, Speaks},
    legacy_client::{Legacy, legacy},
    load::Load,
    node::{Listens, NodeProcess, Setup, TestNode},
    proxy::{Proxy, Road},
    redis::RedisServer,
    wire::Reply,
};

/// How Redis is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Killed, and empty when it is back: connections are refused.
    Refused,
    /// Stopped: it accepts and never answers.
    Hung,
    /// Killed and started again several times; each time it is empty.
    Flapping,
    /// Answers come after the command timeout.
    Slow,
    /// What is sent is lost without a word.
    Cut,
}

const KINDS: [Kind; 5] = [
    Kind::Refused,
    Kind::Hung,
    Kind::Flapping,
    Kind::Slow,
    Kind::Cut,
];

impl Kind {
    /// Whether Redis has what it had when it is back.
    fn keeps(self) -> bool {
        matches!(self, Self::Hung | Self::Slow | Self::Cut)
    }
}

/// A Redis that can be lost.
struct Losable {
    kind: Kind,
    redis: Mutex<RedisServer>,
    road: Proxy,
}

impl Losable {
    async fn start(kind: Kind) -> Self {
        let redis = RedisServer::start();
        Self {
            kind,
            road: Proxy::before(redis.port()).await,
            redis: Mutex::new(redis),
        }
    }

    fn redis(&self) -> std::sync::MutexGuard<'_, RedisServer> {
        self.redis.lock().expect("not poisoned")
    }

    /// Nodes on it notice soon that it is lost.
    fn setup(&self, setup: Setup) -> Setup {
        setup
            .redis_at(self.road.address)
            .set("redis.command_timeout", "\"700ms\"")
            .set("redis.connect_timeout", "\"700ms\"")
            .set("cluster.lease_ttl", "\"2s\"")
            .set("node.secret", "\"the same at every node of this test\"")
    }

    async fn nodes(&self, setup: Setup, count: usize) -> Vec<TestNode> {
        self.started(self.setup(setup), count).await
    }

    /// Two that would wait for it for a long time.
    async fn patient_nodes(&self, setup: Setup) -> Vec<TestNode> {
        let setup = self.setup(setup);
        let setup = setup.set("redis.command_timeout", "\"30s\"");
        self.started(setup, 2).await
    }

    async fn started(&self, setup: Setup, count: usize) -> Vec<TestNode> {
        let mut nodes = Vec::new();
        for name in ["a", "b", "c"].into_iter().take(count) {
            nodes.push(setup.clone().named(name).start().await);
        }
        for node in &nodes {
            becomes(node, "ready").await;
            eventually("they know each other", async || {
                node.gateway.membership.view().count() == count
            })
            .await;
        }
        nodes
    }

    fn lose(&self) {
        match self.kind {
            Kind::Refused => self.redis().kill(),
            Kind::Hung => self.redis().pause(),
            Kind::Flapping => {
                let mut redis = self.redis();
                for _ in 0..3 {
                    redis.kill();
                    redis.run();
                }
                redis.kill();
            }
            Kind::Slow => self.road.set(Road::Slow(Duration::from_secs(3))),
            Kind::Cut => self.road.set(Road::Lost),
        }
    }

    /// Loses it and waits until the nodes know.
    async fn is_lost(&self, nodes: &[TestNode]) {
        self.lose();
        for node in nodes {
            becomes(node, "degraded").await;
        }
    }

    fn bring_back(&self) {
        match self.kind {
            Kind::Refused | Kind::Flapping => self.redis().run(),
            Kind::Hung => self.redis().resume(),
            Kind::Slow | Kind::Cut => self.road.set(Road::Open),
        }
    }

    async fn is_back(&self, nodes: &[TestNode]) {
        self.bring_back();
        for node in nodes {
            becomes(node, "ready").await;
        }
    }
}

/// Does it for every kind, all at once.
async fn each_kind<F: Future<Output = ()>>(cell: impl Fn(Losable) -> F) {
    let cell = &cell;
    join_all(KINDS.map(|kind| async move { cell(Losable::start(kind).await).await })).await;
}

async fn echo(node: &impl Listens) {
    let answered = call("echo", json!({"n": 1})).open_at(node.address()).await;
    answered.answered().await.result();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_started_without_redis_serves_and_joins_without_a_restart() {
    each_kind(|losable| async move {
        let server = FakeServer::start(Speaks::Modern).await;
        losable.lose();
        let setup = losable.setup(Setup::up(&server));
        let nodes = NodeProcess::fleet(&setup, 2).await;
        for node in &nodes {
            assert_eq!(node.readiness().await, "degraded", "{:?}", losable.kind);
            echo(node).await;
            let list = modern("tools/list").open_at(node.address).await;
            assert_eq!(list.answered().await.result()["tools"][0]["name"], "echo");
        }
        losable.bring_back();
        for node in &nodes {
            becomes(node, "ready").await;
        }
        eventually("the fleet has its members", async || {
            losable.redis().cli(&["hlen", "mcp-fleet:members"]).trim() == "2"
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_is_degraded_without_redis_and_ready_again_with_it() {
    each_kind(|losable| async move {
        let server = FakeServer::start(Speaks::Modern).await;
        let nodes = losable.nodes(Setup::up(&server), 2).await;
        for _ in 0..2 {
            losable.is_lost(&nodes).await;
            losable.is_back(&nodes).await;
        }
    })
    .await;
}

/// So long may Redis take to answer that a call which asked it would be noticed.
const NOTICED: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_unaffected_by_the_loss_of_redis() {
    each_kind(|losable| async move {
        let server = FakeServer::start(SESSIONS).await;
        let nodes = losable.patient_nodes(Setup::up(&server)).await;
        let session = legacy("2025-11-25").open(&nodes[0]).await;
        session.call("echo", json!({"s": 1})).await.result();
        let load = Load::on(&[nodes[0].address, nodes[1].address]).await;
        losable.lose();
        load.flows().await;
        let begun = Instant::now();
        session.call("echo", json!({"s": 2})).await.result();
        assert!(begun.elapsed() < NOTICED, "{:?}", losable.kind);
        losable.bring_back();
        load.flows().await;
        let report = load.ends().await;
        report.nobody_failed();
        assert!(
            report.longest < NOTICED,
            "{:?}: {:?}",
            losable.kind,
            report.longest
        );
    })
    .await;
}

/// How a list was served.
async fn list(node: &TestNode, method: &str) -> String {
    let answered = modern(method).send(node).await;
    answered.result();
    let status = answered.header("x-mcp-fleet-cache");
    status.expect("a status").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_from_memory_or_one_fetch_per_node_without_redis() {
    each_kind(|losable| async move {
        // It tells no changes, so that nothing but Redis is a reason to fetch again.
        let contents = Contents {
            capabilities: r#"{"tools":{},"prompts":{}}"#.to_owned(),
            ..Contents::default()
        };
        let server = FakeServer::offering(Speaks::Modern, contents).await;
        let nodes = losable.nodes(Setup::up(&server), 2).await;
        for node in &nodes {
            list(node, "tools/list").await;
        }
        assert_eq!(server.seen("tools/list").len(), 1);
        losable.is_lost(&nodes).await;
        for node in &nodes {
            assert_eq!(list(node, "tools/list").await, "hit", "{:?}", losable.kind);
            join_all((0..20).map(|_| list(node, "prompts/list"))).await;
        }
        assert_eq!(server.seen("tools/list").len(), 1, "{:?}", losable.kind);
        assert_eq!(server.seen("prompts/list").len(), 2, "{:?}", losable.kind);

        losable.is_back(&nodes).await;
        // What was fetched without Redis is put there: a new node need not fetch it.
        let entries = || losable.redis().cli(&["keys", "*:entry:*"]);
        eventually("the entries are written", async || {
            let entries = entries();
            ["tools/list", "prompts/list"]
                .iter()
                .all(|list| entries.contains(list))
        })
        .await;
        let late = losable
            .setup(Setup::up(&server))
            .named("late")
            .start()
            .await;
        becomes(&late, "ready").await;
        for method in ["tools/list", "prompts/list"] {
            assert_eq!(list(&late, method).await, "hit", "{:?}", losable.kind);
        }
        assert_eq!(server.seen("tools/list").len(), 1, "{:?}", losable.kind);
        assert_eq!(server.seen("prompts/list").len(), 2, "{:?}", losable.kind);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_balance_by_their_own_counts_without_redis() {
    each_kind(|losable| async move {
        let one = FakeServer::start(Speaks::Modern).await;
        let other = FakeServer::start(Speaks::Modern).await;
        let setup = Setup::new().replicas(
            "up",
            &[one.url(), other.url()],
            "balance = \"least_in_flight\"",
        );
        let nodes = losable.nodes(setup, 2).await;
        losable.is_lost(&nodes).await;
        let node = &nodes[0];
        let mut busy = call("wait", json!({}))
            .meta("progressToken", json!(1))
            .open(node)
            .await;
        busy.message().await;
        for _ in 0..10 {
            echo(node).await;
        }
        let calls = |server: &FakeServer| server.seen("tools/call").len();
        let mut counts = [calls(&one), calls(&other)];
        counts.sort_unstable();
        assert_eq!(counts, [1, 10], "{:?}", losable.kind);
        one.open_gate("go");
        other.open_gate("go");
        busy.answered().await.result();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_states_stay_and_nodes_probe_for_themselves_but_not_more() {
    each_kind(|losable| async move {
        let server = FakeServer::start(Speaks::Modern).await;
        let refusing = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let nowhere = format!("http://{}/mcp", refusing.local_addr().expect("bound"));
        drop(refusing);
        let setup = Setup::up(&server)
            .server("dead", &nowhere)
            .set("health.probe", "true")
            .set("health.interval", "\"1s\"")
            .set("health.timeout", "\"1s\"")
            .set("health.unhealthy_after", "1");
        let nodes = losable.nodes(setup, 3).await;
        let states = |node: &TestNode| {
            ["up", "dead"].map(|name| {
                let server = node.gateway.servers.get(name).expect("configured");
                let record = node.gateway.health.record(&server.replicas[0].id);
                record.map_or(State::Unknown, |record| record.tally.state)
            })
        };
        let known = [State::Healthy, State::Unhealthy];
        eventually("all nodes know", async || {
            nodes.iter().all(|node| states(node) == known)
        })
        .await;
        losable.is_lost(&nodes).await;
        assert!(nodes.iter().all(|node| states(node) == known));
        let probed_by = |node: &TestNode| {
            let server = node.gateway.servers.get("up").expect("configured");
            let record = node.gateway.health.record(&server.replicas[0].id);
            record.map(|record| record.node)
        };
        eventually("each probes for itself", async || {
            let mut names = ["a", "b", "c"].iter();
            nodes
                .iter()
                .all(|node| probed_by(node).as_deref() == names.next().copied())
        })
        .await;
        // For as long as this lasts, not more than each its share.
        let (begun, before) = (Instant::now(), server.seen("server/discover").len());
        tokio::time::sleep(Duration::from_secs(6)).await;
        let probes = server.seen("server/discover").len() - before;
        let share = begun.elapsed().as_secs() / 3 + 2;
        println!(
            "{:?}: {probes} probes of 3 nodes in {:?}",
            losable.kind,
            begun.elapsed()
        );
        assert!(probes as u64 <= 3 * share, "{:?}: {probes}", losable.kind);
        assert!(nodes.iter().all(|node| states(node) == known));

        losable.is_back(&nodes).await;
        eventually("each duty is one node's", async || {
            let mut held = Vec::new();
            for node in &nodes {
                let its = node.gateway.duties.held();
                held.extend(its.into_iter().filter(|duty| duty.kind == DutyKind::Probe));
            }
            let count = held.len();
            held.sort_unstable();
            held.dedup();
            count == 2 && held.len() == 2
        })
        .await;
        eventually("all say the same", async || {
            let first = probed_by(&nodes[0]);
            nodes
                .iter()
                .all(|node| probed_by(node) == first && states(node) == known)
        })
        .await;
    })
    .await;
}

/// 503 with a time to come back.
fn is_put_off(reply: &Reply) -> bool {
    reply.status == 503 && reply.header("retry-after").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_sessions_work_without_redis_and_what_needs_another_node_is_put_off() {
    each_kind(|losable| async move {
        let kind = losable.kind;
        let server = FakeServer::start(SESSIONS).await;
        let nodes = losable.nodes(Setup::up(&server), 2).await;
        let client = legacy("2025-11-25").capabilities(json!({"elicitation": {}}));
        let old = client.open(&nodes[0]).await;
        let mut asked = old
            .open(json!(7), "tools/call", json!({"name": "ask"}))
            .await;
        let question = asked.message().await;
        losable.is_lost(&nodes).await;

        let new = client.open(&nodes[1]).await;
        for session in [&old, &new] {
            for node in &nodes {
                let there = session.through(node);
                there.call("echo", json!({"n": 1})).await.result();
                there.result("tools/list", json!({})).await;
            }
        }
        // The call waits on the first node; its answer has no way there.
        let answer = json!({
            "jsonrpc": "2.0", "id": question["id"],
            "result": {"action": "accept", "content": {"name": "Ann"}},
        });
        let there = old.through(&nodes[1]);
        let reply = there.post(answer.to_string()).await;
        assert!(
            is_put_off(&reply),
            "{kind:?}: {} {:?}",
            reply.status,
            reply.headers
        );
        // On that node itself nothing is in its way.
        assert_eq!(old.post(answer.to_string()).await.status, 202, "{kind:?}");
        let done = asked.answered().await;
        assert_eq!(done.result()["content"][0]["text"], "hello Ann", "{kind:?}");

        losable.is_back(&nodes).await;
        delivery_is_back(&losable, &client, &nodes).await;
    })
    .await;
}

/// A question asked through one node is answered through the other, and the
/// answer read there.
async fn delivery_is_back(losable: &Losable, client: &Legacy, nodes: &[TestNode]) {
    let here = client.open(&nodes[0]).await;
    let there = here.through(&nodes[1]);
    let mut asked = here
        .open(json!(8), "tools/call", json!({"name": "ask"}))
        .await;
    let event = asked.message_event().await.expect("a question");
    let question = event.json();
    drop(asked);
    let resumed = there.resume(&event.id.expect("an event id")).await;
    assert_eq!(resumed.status, 200, "{:?}", losable.kind);
    let answer = json!({"action": "accept", "content": {"name": "Bob"}});
    assert_eq!(there.respond(&question["id"], answer).await, 202);
    let done = resumed.answered().await;
    assert_eq!(done.result()["content"][0]["text"], "hello Bob");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_broke_while_redis_was_lost_is_resumed_when_it_is_back() {
    each_kind(|losable| async move {
        if !losable.kind.keeps() {
            // The stream is gone with what Redis had.
            return;
        }
        let server = FakeServer::start(SESSIONS).await;
        let nodes = losable.nodes(Setup::up(&server), 2).await;
        let here = legacy("2025-11-25").open(&nodes[0]).await;
        let there = here.through(&nodes[1]);
        let params = json!({"name": "wait", "_meta": {"progressToken": "first"}});
        let mut broken = here.open(json!(1), "tools/call", params).await;
        let last = broken.message_event().await.expect("progress").id;
        let last = last.expect("an event id");
        losable.is_lost(&nodes).await;
        drop(broken);
        let reply = there.resume(&last).await;
        assert!(is_put_off(&reply), "{:?}: {}", losable.kind, reply.status);
        losable.is_back(&nodes).await;
        let resumed = there.resume(&last).await;
        server.open_gate("go");
        let rest = resumed.answered().await;
        assert_eq!(rest.response["id"], 1, "{:?}", losable.kind);
        assert_eq!(rest.result()["content"][0]["text"], "waited");
    })
    .await;
}
