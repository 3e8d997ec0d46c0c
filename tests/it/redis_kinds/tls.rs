//! TLS, with certificates that only `ca_file` makes trustworthy.

use mcp_fleet::{lifecycle::Tasks, store::redis::RedisSettings};

use super::{reachable, store_with};
use crate::{
    store::contract_on,
    support::{
        eventually,
        logs::Logs,
        redis::{Certificate, RedisServer},
        redis_groups::RedisCluster,
    },
};

#[tokio::test]
async fn the_contract_is_kept() {
    let (server, certificate) = RedisServer::start_tls();
    contract_on(|| RedisSettings {
        url: format!("rediss://localhost:{}", server.port()),
        ca_file: Some(certificate.clone()),
        ..server.settings()
    })
    .await;
}

#[tokio::test]
async fn the_contract_is_kept_by_a_cluster() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let certificate = Certificate::make(directory.path());
    let options = certificate.options();
    let mut options: Vec<_> = options.iter().map(String::as_str).collect();
    options.extend(["--tls-cluster", "yes"]);
    let cluster = RedisCluster::start(false, &options);
    contract_on(|| {
        let settings = cluster.settings();
        RedisSettings {
            url: settings.url.replace("redis-cluster:", "rediss-cluster:"),
            ca_file: Some(certificate.file.clone()),
            ..settings
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_certificate_is_not_trusted_and_the_log_says_what_to_do() {
    let (server, certificate) = RedisServer::start_tls();
    let logs = Logs::begin();
    let tasks = Tasks::new();
    let trusting = RedisSettings {
        url: format!("rediss://localhost:{}", server.port()),
        ca_file: Some(certificate),
        ..server.settings()
    };
    reachable(&store_with(&trusting, &tasks).await).await;
    assert!(!logs.text().contains("redis.ca_file"), "{}", logs.text());
    let wary = RedisSettings {
        ca_file: None,
        ..trusting
    };
    let store = store_with(&wary, &tasks).await;
    let is_said = async || logs.text().contains("redis.ca_file");
    eventually("the log names the setting", is_said).await;
    assert!(!store.is_reachable());
    tasks.finished().await;
}
