//! A node that is cut off from Redis, but not from its clients.

use std::time::Duration;

use super::{REPLICAS, becomes, leased_to, many, members, seen};
use crate::support::{
    fake_server::{FakeServer, Speaks},
    load::Load,
    monitor::{History, Monitor, Sent, now},
    node::{NodeProcess, Setup},
    proxy::{Proxy, Road},
    redis::RedisServer,
};

const TTL: Duration = Duration::from_secs(4);

/// Node `a` reaches Redis over a road of its own, node `b` directly.
struct Fleet {
    redis: RedisServer,
    monitor: Monitor,
    road: Proxy,
    a: NodeProcess,
    b: NodeProcess,
}

impl Fleet {
    async fn start(setup: Setup) -> Self {
        let redis = RedisServer::start();
        let monitor = Monitor::on(&redis).await;
        let road = Proxy::before(redis.port()).await;
        let setup = setup
            .redis(&redis)
            .set("redis.command_timeout", "\"1s\"")
            .set("redis.connect_timeout", "\"1s\"")
            .set("cluster.lease_ttl", "\"4s\"")
            .set("node.secret", "\"the same at every node of this test\"");
        let far = setup.clone().named("a").redis_at(road.address);
        let near = setup.named("b");
        let (a, b) = tokio::join!(NodeProcess::start(&far), NodeProcess::start(&near));
        members(&redis, 2).await;
        Self {
            redis,
            monitor,
            road,
            a,
            b,
        }
    }
}

/// When each of these was first given to `b` after that time.
fn taken_by_b(history: &History, duties: &[String], since: Duration) -> Vec<Option<Duration>> {
    let given = history.given();
    let taken = duties.iter().map(|duty| {
        let mut its = given.iter().filter(|given| given.duty == *duty);
        let taken = its.find(|given| given.at > since && given.node() == "b");
        taken.map(|given| given.at - since)
    });
    taken.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_from_redis_serves_its_clients_and_its_duties_move() {
    let server = FakeServer::start(Speaks::Modern).await;
    let fleet = Fleet::start(many(&server)).await;
    let load = Load::on(&[fleet.a.address, fleet.b.address]).await;
    let held = leased_to(&fleet.redis, "probe", REPLICAS, "a").await;
    let cut = now();
    fleet.road.set(Road::Lost);
    becomes(&fleet.a, "degraded").await;
    seen(&fleet.monitor, "the other takes its duties", |history| {
        taken_by_b(history, &held, cut).iter().all(Option::is_some)
    })
    .await;
    let last = taken_by_b(&fleet.monitor.history(), &held, cut);
    let last = last.into_iter().max().flatten();
    println!("taken over after at most {last:?}");
    assert!(last < Some(2 * TTL), "{last:?}");
    members(&fleet.redis, 1).await;
    load.flows().await;

    fleet.road.set(Road::Open);
    let healed = now();
    becomes(&fleet.a, "ready").await;
    members(&fleet.redis, 2).await;
    seen(&fleet.monitor, "it has duties again", |history| {
        let given = history.given();
        given.iter().any(|one| one.at > healed && one.node() == "a")
    })
    .await;
    let report = load.ends().await;
    report.nobody_failed();
    fleet.monitor.history().is_in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_wrote_before_it_lost_its_lease_is_refused_when_it_arrives_late() {
    let server = FakeServer::start(Speaks::Modern).await;
    let fleet = Fleet::start(many(&server)).await;
    let held = leased_to(&fleet.redis, "probe", REPLICAS, "a").await;
    fleet.road.set(Road::Held);
    let since = now();
    let written = |history: &History| {
        let sent = history.sent();
        let is_written = |duty: &String| {
            let mut late = sent.iter().filter(|sent| sent.at > since && sent.accepted);
            late.any(|sent| sent.record.node == "b" && duty.ends_with(&sent.replica))
        };
        held.iter().all(is_written)
    };
    seen(&fleet.monitor, "the other writes what it probed", written).await;
    let released = now();
    fleet.road.set(Road::Open);
    becomes(&fleet.a, "ready").await;
    members(&fleet.redis, 2).await;
    // What was on its way when it lost its lease, under the fence of that time.
    let late = |history: &History| {
        let its = history.held("a", since);
        let given = history.given();
        let is_late = |sent: &Sent| {
            let duty = format!("probe:{}", sent.replica);
            let mut newer = given.iter().filter(|given| given.at < sent.at);
            sent.at > released
                && its.contains(&duty)
                && newer.any(|given| given.duty == duty && given.fence > sent.fence)
        };
        let late = history.sent().into_iter().filter(is_late);
        late.collect::<Vec<_>>()
    };
    seen(&fleet.monitor, "something arrives late", |history| {
        !late(history).is_empty()
    })
    .await;
    let late = late(&fleet.monitor.history());
    println!("{} writes came too late", late.len());
    let accepted = late.iter().find(|sent| sent.accepted);
    assert!(accepted.is_none(), "{accepted:?}");
    fleet.monitor.history().is_in_order();
}
