//! From the configuration to the settings of each part.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;

use crate::{
    bridge::signer::Signer,
    cache, certificates,
    config::Config,
    deployments::{self, plan::Pace},
    engine, health,
    http::{listener::ListenerSettings, mcp::about},
    registry, relay, session, upstream,
};

/// Header lines of one request.
const MAX_HEADER_LINES: usize = 100;
/// Bytes of a cache for what there is little of.
const SMALL: u64 = 16 << 20;

pub(super) fn cache(config: &Config) -> cache::Settings {
    let cache = &config.cache;
    cache::Settings {
        l1_bytes: cache.memory,
        min_fresh: cache.min_fresh,
        max_fresh: cache.max_fresh,
        lock_ttl: cache.lock_ttl,
        fetch_limit: cache.fetch_timeout,
        early_refresh: cache.early_refresh,
        retry_first: cache.retry_min,
        retry_stale: cache.retry_max,
        ..cache::Settings::default()
    }
}

/// For what there is little of: templates.
pub(super) fn small_cache(config: &Config) -> cache::Settings {
    let usual = cache(config);
    cache::Settings {
        l1_bytes: usual.l1_bytes.min(SMALL),
        ..usual
    }
}

pub(super) fn registry(config: &Config) -> registry::Settings {
    registry::Settings {
        most: config.limits.registered_servers,
        check: config.cluster.lease_ttl,
    }
}

pub(super) fn docker(config: &Config) -> engine::Settings {
    let engine = &config.engine.docker;
    engine.settings(config.cache.engines.fresh)
}

pub(super) fn deployments(config: &Config, listen: SocketAddr) -> deployments::Settings {
    // Without a shared store and a secret of its own, the next life of this
    // node is another fleet: nobody could use what it leaves.
    let is_alone = config.redis.is_none() && config.node.secret.is_none();
    deployments::Settings {
        most: config.limits.deployments,
        check: config.cluster.lease_ttl,
        timeout: Duration::from_secs(30),
        grace: config.engine.docker.stop_timeout,
        pace: Pace {
            drain: config.node.drain,
            ..Pace::default()
        },
        owner: is_alone.then(|| owner(listen)),
    }
}

/// This machine and the address: whoever listens there next is this node's successor.
fn owner(listen: SocketAddr) -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}/{listen}", machine.trim())
}

pub(super) fn upstream(config: &Config, signer: &Signer) -> anyhow::Result<upstream::Settings> {
    let upstream = &config.upstream;
    let tls = certificates::client(upstream.ca_file.as_deref()).context("upstream.ca_file")?;
    Ok(upstream::Settings {
        tls: Arc::new(tls),
        connect_timeout: upstream.connect_timeout,
        pool_idle: upstream.connection_idle,
        max_idle_per_host: upstream.idle_connections,
        verdict_horizon: upstream.version_ttl,
        probe_timeout: upstream.probe_timeout,
        sessions_per_replica: upstream.sessions,
        streams_per_replica: upstream.sessions,
        dedicated_sessions: config.limits.sessions,
        session_idle: upstream.session_idle,
        process_idle: config.limits.session_idle,
        max_message_bytes: config.limits.message,
        client_info: about::gateway_info(),
        keep_dedicated: config.redis.is_some(),
        signer: signer.clone(),
    })
}

pub(super) fn relay(config: &Config) -> relay::Settings {
    let limits = &config.limits;
    relay::Settings {
        max_duration: limits.call,
        answer_timeout: limits.wait,
        max_rounds: limits.rounds,
        max_parked: limits.waiting,
        max_events: limits.stream_events,
        events_ttl: limits.stream_ttl,
        stream_retry: Duration::from_secs(5),
        retries: config.upstream.retries,
        retry_budget: config.upstream.retry_budget,
        server_info: about::gateway_info(),
    }
}

pub(super) fn health(config: &Config) -> health::Settings {
    let health = &config.health;
    health::Settings {
        interval: health.interval,
        timeout: health.timeout,
        thresholds: health::Thresholds {
            unhealthy_after: health.unhealthy_after,
            healthy_after: health.healthy_after,
        },
        probe: health.probe,
    }
}

pub(super) fn session(config: &Config) -> session::Settings {
    let limits = &config.limits;
    session::Settings {
        max_age: limits.session_max_age,
        idle: limits.session_idle,
        remembered: limits.sessions as u64,
        max_subscriptions: limits.subscriptions,
    }
}

pub(super) fn listener(config: &Config) -> ListenerSettings {
    let limits = &config.limits;
    ListenerSettings {
        max_connections: limits.connections,
        max_header_bytes: limits.headers,
        max_headers: MAX_HEADER_LINES,
        header_timeout: limits.header_timeout,
        max_http2_streams: limits.http2_streams,
        drain: config.node.drain,
    }
}
