//! Behind sentinels: the store finds the master, whoever it is.

use mcp_fleet::lifecycle::Tasks;

use super::store_with;
use crate::{
    store::contract_on,
    support::{eventually, redis_groups::Sentinels, store_traffic::Traffic},
};

#[tokio::test]
async fn the_contract_is_kept() {
    let group = Sentinels::start(None);
    contract_on(|| group.settings("")).await;
}

#[tokio::test]
async fn a_killed_master_is_replaced() {
    let mut group = Sentinels::start(None);
    let tasks = Tasks::new();
    let store = store_with(&group.settings(""), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    group.master.kill();
    traffic.fails().await;
    traffic.gap().await;
    traffic.flows().await;
    assert!(group.replica.cli(&["role"]).starts_with("master"));
    // The replica may not have heard of the last writes.
    traffic.ends_well(false).await;
    tasks.finished().await;
}

#[tokio::test]
async fn a_hung_master_is_replaced_although_a_sentinel_hangs_too() {
    let group = Sentinels::start(None);
    let tasks = Tasks::new();
    let store = store_with(&group.settings(""), &tasks).await;
    let mut traffic = Traffic::on(&store).await;
    // Both sentinels that fred may ask first, one after the other.
    group.sentinels[0].pause();
    group.master.pause();
    traffic.fails().await;
    traffic.gap().await;
    traffic.flows().await;
    assert!(group.replica.cli(&["role"]).starts_with("master"));
    group.master.resume();
    traffic.flows().await;
    traffic.ends_well(false).await;
    tasks.finished().await;
}

#[tokio::test]
async fn a_planned_failover_is_followed() {
    let group = Sentinels::start(None);
    let tasks = Tasks::new();
    let store = store_with(&group.settings(""), &tasks).await;
    let traffic = Traffic::on(&store).await;
    let answer = group.sentinels[0].cli(&["sentinel", "failover", "main"]);
    assert_eq!(answer.trim(), "OK");
    let demoted = async || group.master.cli(&["role"]).starts_with("slave");
    eventually("the master is a replica", demoted).await;
    traffic.flows().await;
    // What the old master took before it knew is lost.
    traffic.ends_well(false).await;
    tasks.finished().await;
}

#[tokio::test]
async fn redis_may_have_a_password_and_the_sentinels_none() {
    let group = Sentinels::start(Some("hunter2"));
    let tasks = Tasks::new();
    let store = store_with(&group.settings(":hunter2@"), &tasks).await;
    let traffic = Traffic::on(&store).await;
    traffic.ends_well(true).await;
    tasks.finished().await;
}
