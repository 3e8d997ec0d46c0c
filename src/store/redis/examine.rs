//! What can be said of a Redis by looking at it once: for `mcp-fleet doctor`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fred::{
    clients::Client,
    error::Error,
    interfaces::ClientLike,
    types::{
        CustomCommand, InfoKind,
        config::{Options, Server},
    },
};
use tokio::time::{Instant, timeout};

use super::{
    RedisSettings,
    advice::cure,
    check::{is_too_old, masters, options, version},
    config::{builder, describe},
};

/// Answers that latency is taken from.
const PINGS: usize = 20;

/// A master, as it was found. What a user may not ask is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// Its address.
    pub address: String,
    /// Its version.
    pub version: Option<String>,
    /// Whether that is older than what the fleet needs.
    pub is_too_old: bool,
    /// `maxmemory-policy`.
    pub policy: Option<String>,
    /// `maxmemory` in bytes; 0: no bound.
    pub max_memory: Option<u64>,
    /// Bytes it uses.
    pub used_memory: Option<u64>,
    /// How long an answer takes; the middle of some.
    pub latency: Duration,
    /// How far its clock is from this machine's.
    pub clock_off: Option<Duration>,
}

/// Why a Redis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unusable {
    /// What was met.
    pub why: String,
    /// What an operator can do about it.
    pub cure: &'static str,
}

/// Looks at every master once.
///
/// # Errors
/// When it cannot be reached or used.
pub async fn examine(settings: &RedisSettings) -> Result<Vec<Examined>, Unusable> {
    let unusable = |error: &Error| Unusable {
        why: format!("{}: {}", describe(&settings.url), sentence(error.details())),
        cure: cure(error).unwrap_or("start Redis, or correct redis.url"),
    };
    let mut builder = builder(settings).map_err(|error| Unusable {
        why: error.to_string(),
        cure: "correct redis.url",
    })?;
    builder.with_config(|config| config.fail_fast = true);
    let client = builder.build().map_err(|error| unusable(&error))?;
    // Sentinels and clusters are asked for their masters first.
    let limit = settings.connect_timeout.saturating_mul(4);
    let outcome = match timeout(limit, client.init()).await {
        Ok(Ok(_)) => each_master(&client, settings).await,
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let why = format!("{}: no answer within {limit:?}", describe(&settings.url));
            return Err(Unusable {
                why,
                cure: "start Redis, or correct redis.url; if it is far away, raise redis.connect_timeout",
            });
        }
    };
    client.quit().await.ok();
    outcome.map_err(|error| unusable(&error))
}

async fn each_master(client: &Client, settings: &RedisSettings) -> Result<Vec<Examined>, Error> {
    let mut found = Vec::new();
    for master in masters(client) {
        let address = match &master {
            Some(server) => server.to_string(),
            None => describe(&settings.url),
        };
        found.push(one(client, master, settings.command_timeout, address).await?);
    }
    Ok(found)
}

async fn one(
    client: &Client,
    master: Option<Server>,
    limit: Duration,
    address: String,
) -> Result<Examined, Error> {
    let asked = Options {
        fail_fast: false,
        ..options(master, limit.saturating_mul(4))
    };
    let client = client.with_options(&asked);
    let mut times = Vec::new();
    for _ in 0..PINGS {
        let begun = Instant::now();
        client.ping::<()>(None).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let latency = times[PINGS / 2];
    let server: Option<String> = client.info(Some(InfoKind::Server)).await.ok();
    let memory: Option<String> = client.info(Some(InfoKind::Memory)).await.ok();
    let field = |name: &str| {
        let line = memory.as_ref()?.lines().find_map(|line| {
            let value = line.strip_prefix(name)?;
            value.strip_prefix(':')
        })?;
        Some(line.trim().to_owned())
    };
    let number = |name: &str| field(name)?.parse().ok();
    let time = CustomCommand::new_static("TIME", None, false);
    let time: Option<(u64, u64)> = client.custom(time, Vec::<String>::new()).await.ok();
    let version = server.as_deref().and_then(version).map(str::to_owned);
    Ok(Examined {
        address,
        is_too_old: version.as_deref().is_some_and(is_too_old),
        version,
        policy: field("maxmemory_policy"),
        max_memory: number("maxmemory"),
        used_memory: number("used_memory"),
        latency,
        clock_off: time.map(|(seconds, micros)| {
            let there = Duration::from_secs(seconds) + Duration::from_micros(micros);
            // The answer is as old as half of what it took.
            let here = now().saturating_sub(latency / 2);
            there.abs_diff(here)
        }),
    })
}

/// fred gives errors of the system as they are debugged.
fn sentence(details: &str) -> &str {
    let message = details
        .split_once("message: \"")
        .and_then(|(_, rest)| rest.split_once('"'));
    message.map_or(details, |(message, _)| message)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock itself is what is looked at"
)]
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
