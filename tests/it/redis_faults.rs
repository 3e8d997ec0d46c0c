//! Every way a Redis can fail, under traffic of every kind of call: no call
//! takes longer than the command timeout allows, nothing is done twice, and
//! when Redis is back everything works and a gap is announced, without a restart.

use std::{sync::Arc, time::Duration};

use mcp_fleet::{
    lifecycle::Tasks,
    store::{
        Store,
        redis::{RedisSettings, RedisStore},
    },
};

use crate::support::{
    eventually,
    logs::Logs,
    proxy::{Proxy, Road},
    redis::RedisServer,
    store_traffic::Traffic,
};

/// A store, with all its tasks, that ends with the test.
async fn store_with(settings: RedisSettings, tasks: &Tasks) -> Arc<dyn Store> {
    let store = RedisStore::connect(settings, tasks).await;
    Arc::new(store.expect("good settings"))
}

fn through(proxy: &Proxy, server: &RedisServer) -> RedisSettings {
    RedisSettings {
        url: format!("redis://{}", proxy.address),
        ..server.settings()
    }
}

#[tokio::test]
async fn refused() {
    let mut server = RedisServer::start();
    let tasks = Tasks::new();
    let store = store_with(server.settings(), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    server.kill();
    traffic.fails().await;
    eventually("the circuit opens", async || !store.is_reachable()).await;
    // Restarted empty: all there was is gone, scripts and streams included.
    server.run();
    traffic.gap().await;
    traffic.flows().await;
    traffic.ends_well(false).await;
    tasks.finished().await;
}

#[tokio::test]
async fn hung() {
    let server = RedisServer::start();
    let tasks = Tasks::new();
    let store = store_with(server.settings(), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    for _ in 0..2 {
        server.pause();
        traffic.fails().await;
        eventually("the circuit opens", async || !store.is_reachable()).await;
        server.resume();
        traffic.gap().await;
        traffic.flows().await;
    }
    // What was sent to the hung process was executed when it went on: not more than once.
    traffic.ends_well(true).await;
    tasks.finished().await;
}

#[tokio::test]
async fn flapping() {
    let mut server = RedisServer::start();
    let tasks = Tasks::new();
    let store = store_with(server.settings(), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    for _ in 0..5 {
        server.kill();
        traffic.fails().await;
        server.run();
        let before = traffic.tally().answered;
        eventually("some are answered", async || {
            traffic.tally().answered > before
        })
        .await;
    }
    traffic.gap().await;
    traffic.flows().await;
    traffic.ends_well(false).await;
    tasks.finished().await;
}

#[tokio::test]
async fn slow_within_the_timeout() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let tasks = Tasks::new();
    let settings = RedisSettings {
        // A script that is not known there takes two ways.
        command_timeout: Duration::from_secs(1),
        ..through(&proxy, &server)
    };
    let store = store_with(settings, &tasks).await;
    let traffic = Traffic::on(&store).await;
    proxy.set(Road::Slow(Duration::from_millis(20)));
    traffic.flows().await;
    proxy.set(Road::Open);
    traffic.flows().await;
    let tally = traffic.ends_well(true).await;
    assert_eq!(tally.unreachable, 0);
    tasks.finished().await;
}

#[tokio::test]
async fn slow_beyond_the_timeout() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let tasks = Tasks::new();
    let store = store_with(through(&proxy, &server), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    proxy.set(Road::Slow(Duration::from_secs(3)));
    traffic.fails().await;
    eventually("the circuit opens", async || !store.is_reachable()).await;
    proxy.set(Road::Open);
    traffic.gap().await;
    traffic.flows().await;
    traffic.ends_well(true).await;
    tasks.finished().await;
}

#[tokio::test]
async fn cut_but_not_closed() {
    let server = RedisServer::start();
    let proxy = Proxy::before(server.port()).await;
    let tasks = Tasks::new();
    let store = store_with(through(&proxy, &server), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    for _ in 0..2 {
        proxy.set(Road::Lost);
        traffic.fails().await;
        eventually("the circuit opens", async || !store.is_reachable()).await;
        // The connections of before are never heard of again.
        proxy.set(Road::Open);
        traffic.gap().await;
        traffic.flows().await;
    }
    traffic.ends_well(true).await;
    tasks.finished().await;
}

#[tokio::test]
async fn too_old_is_said_and_not_used_until_it_is_new_enough() {
    let server = RedisServer::start();
    let ours = server.cli(&["info", "server"]);
    let ours = ours
        .lines()
        .find(|line| line.starts_with("redis_version:"))
        .expect("a version")
        .to_owned();
    let old = "redis_version:6.2.999999999";
    let proxy = Proxy::before(server.port()).await;
    proxy.rewrite(Some((ours.clone(), old[..ours.len()].to_owned())));
    let logs = Logs::begin();
    let tasks = Tasks::new();
    let store = store_with(through(&proxy, &server), &tasks).await;
    assert!(!store.is_reachable());
    let said = logs.text();
    assert!(
        said.contains("its version is 6.2") && said.contains("upgrade to Redis 7 or later"),
        "{said}"
    );
    proxy.rewrite(None);
    eventually("it is used", async || store.is_reachable()).await;
    let said = logs.text().matches("cannot be used as it is").count();
    assert_eq!(said, 1, "{}", logs.text());
    tasks.finished().await;
}
