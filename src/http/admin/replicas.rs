//! What is told of a replica: where it is, what it speaks, how it fares.

use serde::Serialize;

use crate::{
    gateway::Gateway,
    health::{Failure, Record},
    mcp::version::{Era, Version},
    servers::Replica,
};

#[derive(Serialize)]
pub(super) struct ReplicaEntry<'a> {
    id: &'a str,
    endpoint: String,
    /// What probes found; true until they found otherwise.
    healthy: bool,
    /// `closed` or `open`: what calls of this node met lately.
    breaker: &'static str,
    in_flight: u32,
    /// `modern` or `legacy`; `null` until the server has been asked.
    era: Option<&'static str>,
    version: Option<&'static str>,
    /// What probes found, by whichever node; `null` before the first.
    health: Option<HealthEntry>,
}

#[derive(Serialize)]
struct HealthEntry {
    /// `unknown`, `healthy`, `unhealthy`.
    state: &'static str,
    since_s: f64,
    probed_s_ago: f64,
    /// The node that probed.
    probed_by: String,
    latency_ms: Option<u64>,
    /// Also when it is over.
    last_failure: Option<FailureEntry>,
}

#[derive(Serialize)]
struct FailureEntry {
    stage: &'static str,
    message: String,
    s_ago: f64,
}

impl<'a> ReplicaEntry<'a> {
    pub(super) fn new(gateway: &Gateway, replica: &'a Replica, spoken: Option<Version>) -> Self {
        let era = spoken.map(|version| match version.era() {
            Era::Modern => "modern",
            Era::Legacy => "legacy",
        });
        let health = gateway.health.record(&replica.id);
        let now = gateway.health.store_now();
        let is_open = replica.breaker().is_open();
        Self {
            id: replica.id.as_str(),
            endpoint: replica.endpoint.to_string(),
            healthy: replica.is_healthy(),
            breaker: if is_open { "open" } else { "closed" },
            in_flight: replica.in_flight(),
            era,
            version: spoken.map(Version::as_str),
            health: health.map(|record| HealthEntry::new(record, now)),
        }
    }
}

impl HealthEntry {
    fn new(record: Record, now: u64) -> Self {
        Self {
            state: record.tally.state.as_str(),
            since_s: seconds(now, record.since),
            probed_s_ago: seconds(now, record.probed_at),
            probed_by: record.node,
            latency_ms: record.latency,
            last_failure: record
                .failure
                .map(|failure| FailureEntry::new(failure, now)),
        }
    }
}

impl FailureEntry {
    fn new(failure: Failure, now: u64) -> Self {
        Self {
            stage: failure.stage.as_str(),
            message: failure.message,
            s_ago: seconds(now, failure.at),
        }
    }
}

/// Milliseconds as seconds, for people.
fn seconds(now: u64, then: u64) -> f64 {
    let millis = u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX);
    f64::from(millis) / 1000.0
}
