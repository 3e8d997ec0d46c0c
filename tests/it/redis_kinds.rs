//! Redis of every kind: behind sentinels, as a Cluster, with TLS, with passwords
//! and users. What is said about them in `docs/redis.md` is tried here.

mod access;
mod cluster;
mod sentinel;
mod tls;

use std::sync::Arc;

use mcp_fleet::{
    lifecycle::Tasks,
    store::{
        Store,
        redis::{RedisSettings, RedisStore},
    },
};

use crate::support::eventually;

/// A store under a prefix of its own.
async fn store_with(settings: &RedisSettings, tasks: &Tasks) -> Arc<dyn Store> {
    let store = RedisStore::connect(settings.clone(), tasks).await;
    Arc::new(store.expect("good settings"))
}

async fn reachable(store: &Arc<dyn Store>) {
    eventually("redis answers", async || store.is_reachable()).await;
}
