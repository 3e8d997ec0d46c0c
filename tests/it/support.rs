//! What the tests stand on.

pub(crate) mod bridge;
pub(crate) mod client;
pub(crate) mod deaf;
pub(crate) mod dockerd;
pub(crate) mod fake_engine;
pub(crate) mod fake_server;
pub(crate) mod legacy_client;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod monitor;
pub(crate) mod node;
pub(crate) mod proxy;
pub(crate) mod raw_server;
pub(crate) mod redis;
pub(crate) mod redis_groups;
pub(crate) mod store_traffic;
pub(crate) mod wire;

use std::{future::Future, time::Duration};

use tokio::time::Instant;

/// Waits until `condition` holds; fails the test when it does not within a minute.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
