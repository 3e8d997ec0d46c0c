//! Replicas and sessions come and go: what they leave behind goes too.
//! `loadtests` may do the same with more of them.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::Uri;
use mcp_fleet::{
    balance::Policy,
    ids::{Principal, ServerId},
    mcp::{capabilities::ClientCapabilities, envelope::LogLevel, version::Version},
    servers::{Endpoint, Replica, Server},
    session::Hello,
};
use serde_json::json;

use crate::support::{
    eventually,
    node::{Setup, TestCluster, TestNode},
    raw_server::{RawServer, Reply},
    redis::RedisServer,
};
use crate::upstream::eras;

const REPLICAS: usize = 500;

/// How many times as much as in an ordinary run: `loadtests/churn` sets it.
fn times() -> usize {
    let times = std::env::var("MCP_FLEET_CHURN").ok();
    times.map_or(1, |times| times.parse().expect("a number"))
}

/// Rounds of as many replicas.
fn rounds() -> usize {
    5 * times()
}

fn sessions() -> usize {
    2500 * times()
}

fn keys(redis: &RedisServer) -> u64 {
    let size = redis.cli(&["dbsize"]);
    size.trim().parse().expect("a number")
}

fn memory(redis: &RedisServer) -> u64 {
    let info = redis.cli(&["info", "memory"]);
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.expect("it is told").trim().parse().expect("a number")
}

/// Lines of metrics, each a series of one node.
fn series(node: &TestNode) -> usize {
    node.gateway.metrics.render().lines().count()
}

/// A server of that round, whose replicas nobody has known before.
fn server(round: usize, url: &str) -> Arc<Server> {
    let id = ServerId::try_from(format!("churn-{round}").as_str()).expect("a name");
    let replicas = (0..REPLICAS).map(|n| {
        let uri = format!("{url}?replica={round}-{n}");
        let endpoint = Endpoint::Http(uri.parse::<Uri>().expect("an address"));
        Arc::new(Replica::new(id.clone(), endpoint, 1))
    });
    let timeout = Duration::from_secs(60);
    Arc::new(Server::new(
        id.clone(),
        replicas.collect(),
        Policy::default(),
        timeout,
        "config",
    ))
}

/// How long what a duty and a record leave behind lives: ten of these.
const SHORT: &str = "\"500ms\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_came_and_went_leave_nothing_behind() {
    let upstream = RawServer::start(|request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(200, &request.result(eras::discovery())),
        _ => Reply::json(400, &request.error(-32602, "not here")),
    })
    .await;
    let setup = Setup::new()
        .set("health.probe", "true")
        .set("health.interval", "\"1s\"")
        .set("health.timeout", "\"1s\"")
        .set("cluster.lease_ttl", SHORT);
    let cluster = TestCluster::pair(setup).await;
    let redis = &cluster.redis;
    let baseline = (keys(redis), series(cluster.a()), series(cluster.b()));
    let used = memory(redis);
    let mut most = 0;
    for round in 0..rounds() {
        let servers = vec![server(round, &upstream.url("/mcp"))];
        for node in &cluster.nodes {
            node.gateway.servers.replace(servers.clone());
        }
        eventually("every replica was probed", async || {
            let health = &cluster.a().gateway.health;
            let mut replicas = servers[0].replicas.iter();
            replicas.all(|replica| health.record(&replica.id).is_some())
        })
        .await;
        most = most.max(keys(redis));
    }
    let last = server(rounds() - 1, &upstream.url("/mcp"));
    for node in &cluster.nodes {
        node.gateway.servers.replace(Vec::new());
    }
    println!(
        "{} replicas: {} keys at first, {most} at most, {} series",
        rounds() * REPLICAS,
        baseline.0,
        series(cluster.a())
    );
    assert!(most > baseline.0 + REPLICAS as u64, "nothing was written");
    eventually("the keys are gone", async || keys(redis) <= baseline.0).await;
    for (node, before) in cluster.nodes.iter().zip([baseline.1, baseline.2]) {
        eventually("the node has forgotten them", async || {
            let gone = |replica: &Arc<Replica>| node.gateway.health.record(&replica.id).is_none();
            last.replicas.iter().all(gone)
                && node.gateway.duties.all().is_empty()
                && node.gateway.duties.held().is_empty()
        })
        .await;
        let text = node.gateway.metrics.render();
        assert!(!text.contains("churn-"), "series of what is gone: {text}");
        println!("series: {before} before, {} after", series(node));
    }
    let now = memory(redis);
    println!("redis: {used} bytes before, {now} after");
    assert!(now < used + 4_000_000, "{used} bytes became {now}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_came_and_went_leave_nothing_behind() {
    let setup = Setup::new()
        .set("limits.session_max_age", "\"3s\"")
        .set("limits.session_idle", "\"3s\"")
        .set("limits.sessions", "100");
    let cluster = TestCluster::pair(setup).await;
    let (redis, node) = (&cluster.redis, cluster.a());
    let (before, used) = (keys(redis), memory(redis));
    let here = &node.gateway.sessions;
    let raw = json!({"elicitation": {}}).to_string();
    let one = async |n: usize| {
        let hello = Hello {
            endpoint: "up".to_owned(),
            version: Version::parse("2025-11-25").expect("a version"),
            capabilities: ClientCapabilities::parse(
                &mcp_fleet::mcp::Raw::from_string(raw.clone()).expect("JSON"),
            )
            .expect("capabilities"),
            client_info: None,
        };
        let principal = Principal::ANONYMOUS;
        let (id, session) = here.open(hello, principal).expect("a session");
        let level = LogLevel::parse("debug").expect("a level");
        here.set_log_level(&session, level).await;
        here.subscribe(&session, "doc://a").await.expect("room");
        let there = &cluster.b().gateway.sessions;
        assert!(there.find(&id, "up", &principal).await.is_some());
        if n.is_multiple_of(2) {
            here.end(&session).await;
        }
    };
    let mut most = 0;
    for batch in 0..sessions() / 100 {
        join_all((0..100).map(|n| one(batch * 100 + n))).await;
        most = most.max(keys(redis));
    }
    let count = sessions();
    println!("{count} sessions: {before} keys at first, {most} at most");
    assert!(most > before + 100, "nothing was written");
    eventually("the keys are gone", async || keys(redis) <= before).await;
    let now = memory(redis);
    println!("redis: {used} bytes before, {now} after");
    assert!(now < used + 4_000_000, "{used} bytes became {now}");
}
