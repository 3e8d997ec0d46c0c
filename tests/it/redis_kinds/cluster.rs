//! A Cluster: the contract over several masters, and what becomes of the store
//! when one of them goes.

use mcp_fleet::{lifecycle::Tasks, store::RecordKey};

use super::{reachable, store_with};
use crate::{
    store::contract_on,
    support::{eventually, redis::RedisServer, redis_groups::RedisCluster, store_traffic::Traffic},
};

#[tokio::test]
async fn the_contract_is_kept_over_three_masters() {
    let cluster = RedisCluster::start(false, &[]);
    contract_on(|| cluster.settings()).await;
    let is_used = |master: &&RedisServer| master.cli(&["dbsize"]).trim() != "0";
    let used = cluster.masters.iter().filter(is_used).count();
    assert!(used > 1, "all was at one master");
}

#[tokio::test]
async fn a_killed_master_is_replaced_by_its_replica() {
    let mut cluster = RedisCluster::start(true, &[]);
    let tasks = Tasks::new();
    let store = store_with(&cluster.settings(), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    // Also one the client was told of, and each has a third of the keys.
    for master in &mut cluster.masters[..2] {
        master.kill();
        traffic.fails().await;
        traffic.gap().await;
        traffic.flows().await;
    }
    // Replicas may not have heard of the last writes.
    traffic.ends_well(false).await;
    tasks.finished().await;
}

#[tokio::test]
async fn a_hung_master_is_replaced_by_its_replica() {
    let cluster = RedisCluster::start(true, &[]);
    let tasks = Tasks::new();
    let store = store_with(&cluster.settings(), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    cluster.masters[0].pause();
    traffic.fails().await;
    traffic.gap().await;
    traffic.flows().await;
    cluster.masters[0].resume();
    let role = async || cluster.masters[0].cli(&["role"]).starts_with("slave");
    eventually("the one of before is a replica", role).await;
    traffic.flows().await;
    traffic.ends_well(false).await;
    tasks.finished().await;
}

#[tokio::test]
async fn a_planned_failover_is_followed() {
    let cluster = RedisCluster::start(true, &[]);
    let tasks = Tasks::new();
    let store = store_with(&cluster.settings(), &tasks).await;
    let traffic = Traffic::on(&store).await;
    for replica in &cluster.replicas {
        replica.cli(&["cluster", "failover"]);
        let promoted = async || replica.cli(&["role"]).starts_with("master");
        eventually("the replica is promoted", promoted).await;
        traffic.flows().await;
    }
    traffic.ends_well(true).await;
    tasks.finished().await;
}

#[tokio::test]
async fn without_a_replica_the_store_is_away_until_the_master_is_back() {
    let mut cluster = RedisCluster::start(false, &[]);
    let tasks = Tasks::new();
    let settings = cluster.settings();
    let store = store_with(&settings, &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    let key = format!("{}:session:{{elsewhere}}", settings.prefix);
    let lost = (cluster.place_of(&key) + 1) % 3;
    cluster.masters[lost].kill();
    traffic.fails().await;
    eventually("the circuit opens", async || !store.is_reachable()).await;
    // Also for keys of masters that are well: half a store is none.
    let elsewhere = RecordKey::Session("elsewhere".into());
    store.get(&elsewhere).await.expect_err("not reachable");
    cluster.masters[lost].run();
    traffic.gap().await;
    traffic.flows().await;
    reachable(&store).await;
    traffic.ends_well(false).await;
    tasks.finished().await;
}
