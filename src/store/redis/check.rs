//! Whether a Redis can be used: all its masters answer, and are new enough.

use std::time::Duration;

use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientLike, ClusterInterface},
    types::{
        ClusterHash, InfoKind, Value,
        config::{Options, Server},
    },
    util::redis_keyslot,
};
use futures_util::future::join_all;
use tokio::time::timeout;

/// The oldest Redis that knows everything the scripts use.
const OLDEST: u32 = 7;

/// Whether every master answers a PING within `limit`. In a cluster fred would
/// ask any one of them, and a master that hangs beside others that answer
/// would never be noticed.
pub(super) async fn answers(client: &Client, limit: Duration) -> bool {
    let pings = masters(client).into_iter().map(|master| {
        let client = client.with_options(&options(master, limit));
        async move { matches!(timeout(limit, client.ping::<Value>(None)).await, Ok(Ok(_))) }
    });
    join_all(pings).await.into_iter().all(|answered| answered)
}

/// Completes when Redis has done what `client` subscribed to. fred takes a
/// SUBSCRIBE for done when it is written, and a refusal of it for the answer to
/// what is asked next: so something is asked, where fred sends subscriptions.
pub(super) async fn caught_up(client: &Client, limit: Duration) -> Result<(), Error> {
    let slot = redis_keyslot(client.id().as_bytes());
    let asked = Options {
        cluster_hash: Some(ClusterHash::Custom(slot)),
        ..options(None, limit)
    };
    client.with_options(&asked).ping::<Value>(None).await?;
    Ok(())
}

/// The version of a master that is too old, if one is. A server that does not
/// tell its version (a user may be forbidden to ask) is taken as it is.
pub(super) async fn too_old(client: &Client, limit: Duration) -> Option<String> {
    let versions = masters(client).into_iter().map(|master| {
        let client = client.with_options(&options(master, limit));
        async move {
            let info = timeout(limit, client.info::<String>(Some(InfoKind::Server)));
            version(&info.await.ok()?.ok()?).map(str::to_owned)
        }
    });
    let versions = join_all(versions).await;
    versions
        .into_iter()
        .flatten()
        .find(|version| is_too_old(version))
}

/// `None` stands for the only one.
pub(super) fn masters(client: &Client) -> Vec<Option<Server>> {
    match client.cached_cluster_state() {
        Some(cluster) => cluster
            .unique_primary_nodes()
            .into_iter()
            .map(Some)
            .collect(),
        None => vec![None],
    }
}

pub(super) fn options(master: Option<Server>, limit: Duration) -> Options {
    Options {
        max_attempts: Some(1),
        timeout: Some(limit),
        fail_fast: true,
        cluster_node: master,
        ..Options::default()
    }
}

pub(super) fn version(info: &str) -> Option<&str> {
    info.lines()
        .find_map(|line| line.strip_prefix("redis_version:"))
        .map(str::trim)
}

pub(super) fn is_too_old(version: &str) -> bool {
    let major = version.split('.').next().unwrap_or_default();
    major.parse::<u32>().is_ok_and(|major| major < OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_judged() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_git_sha1:0\r\n";
        assert_eq!(version(info), Some("7.0.15"));
        assert_eq!(version("# Server\r\n"), None);
        for old in ["6.2.14", "5.0.14", "6"] {
            assert!(is_too_old(old), "{old}");
        }
        // What does not look like a version is none to be judged.
        for good in ["7.0.0", "7.2.4", "8.4.0", "10.0.0", "unstable", ""] {
            assert!(!is_too_old(good), "{good}");
        }
    }
}
