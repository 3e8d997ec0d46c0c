//! What is counted and measured.
//!
//! Cells are the `prometheus` crate's: one read lock and an atomic addition
//! per record, no allocation, and series can be removed with the server they
//! belong to (OpenTelemetry's own meters keep every series for ever). Labels
//! are bounded: servers are configured, everything else is an enum or a list.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::{
    HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
    core::{Collector, Metric, MetricVec, MetricVecBuilder},
    proto::MetricFamily,
};
use tracing_appender::non_blocking::ErrorCounter;

use super::names;
use crate::{
    cache::CacheStatus,
    deployments::record::{Phase, Record, ReplicaState},
    ids::ServerId,
    servers::Replica,
    store::Failures,
};

pub(crate) mod instruments;
#[cfg(test)]
mod tests;

pub use crate::mcp::version::Era;

/// How a request ended; all but [`Ok`](Self::Ok) are values of `error.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Ok,
    /// With a result that says `isError`.
    ToolError,
    /// With an error of the server itself, passed on.
    RpcError,
    /// Refused as not well formed, not allowed or not known.
    Refused,
    /// The server could not be reached or answered nonsense.
    Unavailable,
    /// No answer in time.
    TimedOut,
    /// Turned away because a limit was reached.
    Shed,
    /// The caller went away.
    Cancelled,
    /// Our fault.
    Internal,
}

/// What became of a refresh of a cache entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Fetched and stored.
    Stored,
    /// Fetched, but a newer generation was stored meanwhile.
    Refused,
    /// The fetch failed.
    Failed,
    /// Another node did it.
    Elsewhere,
}

/// Why a call was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not connected, so nothing was sent.
    NotSent,
    /// A pooled connection closed before it was used.
    PoolRace,
    /// The tool says that repeating does no harm.
    Idempotent,
    /// The upstream session was lost and made anew.
    SessionLost,
    /// The server turned out to speak another version.
    VersionChanged,
}

/// How a call's wait for a place at a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueWait {
    /// It got one.
    Passed,
    /// It did not wait: too many did.
    Full,
    /// It waited as long as it may.
    TooLong,
}

impl QueueWait {
    fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Full => "full",
            Self::TooLong => "too_long",
        }
    }
}

/// Things of which there are so many at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauge {
    /// Client connections.
    Connections,
    /// Requests in work.
    Requests,
    /// Open event streams to clients.
    Streams,
    /// Legacy client sessions this node keeps state of.
    Sessions,
    /// Calls that wait for their client's answers.
    Waiting,
    /// Sessions at legacy servers.
    UpstreamSessions,
    /// Change streams held open at servers.
    Watches,
    /// Child processes.
    Processes,
    /// Duties done for the fleet.
    Duties,
}

/// Counts one until it is dropped, also when its request is cancelled.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is counted of the circuit breakers of one server's replicas. Holds its
/// cells, so that what happens after the server is forgotten makes no new series.
#[derive(Debug)]
pub struct BreakerMetrics {
    open: IntGauge,
    opened: IntCounter,
    closed: IntCounter,
}

impl BreakerMetrics {
    /// A breaker turned. One that opened is counted as open until the guard is
    /// dropped, also when its replica is removed.
    #[must_use]
    pub fn turned(&self, opened: bool) -> Option<Counted> {
        if !opened {
            self.closed.inc();
            return None;
        }
        self.opened.inc();
        self.open.inc();
        Some(Counted(self.open.clone()))
    }
}

fn era_label(era: Era) -> &'static str {
    match era {
        Era::Modern => "modern",
        Era::Legacy => "legacy",
    }
}

impl Outcome {
    /// The value of `error.type`; empty when there was no error.
    #[must_use]
    pub fn error_type(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::ToolError => "tool_error",
            Self::RpcError => "rpc_error",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timeout",
            Self::Shed => "shed",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

impl Refresh {
    const ALL: [Self; 4] = [Self::Stored, Self::Refused, Self::Failed, Self::Elsewhere];

    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl Retry {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::PoolRace => "pool_race",
            Self::Idempotent => "idempotent",
            Self::SessionLost => "session_lost",
            Self::VersionChanged => "version_changed",
        }
    }
}

impl Gauge {
    const ALL: [Self; 9] = [
        Self::Connections,
        Self::Requests,
        Self::Streams,
        Self::Sessions,
        Self::Waiting,
        Self::UpstreamSessions,
        Self::Watches,
        Self::Processes,
        Self::Duties,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Sessions => "sessions",
            Self::Waiting => "waiting",
            Self::UpstreamSessions => "upstream_sessions",
            Self::Watches => "watches",
            Self::Processes => "processes",
            Self::Duties => "duties",
        }
    }
}

/// Everything a node counts and measures.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    server_operation: HistogramVec,
    client_operation: HistogramVec,
    cache: IntCounterVec,
    refreshes: IntCounterVec,
    retries: IntCounterVec,
    queue_waits: HistogramVec,
    breakers_open: IntGaugeVec,
    breaker_turns: IntCounterVec,
    store_unreachable: IntCounter,
    store_refused: IntCounter,
    store_reachable: IntGauge,
    in_use: [IntGauge; Gauge::ALL.len()],
    replica_healthy: IntGaugeVec,
    deployments: IntGaugeVec,
    deployed_replicas: IntGaugeVec,
    restarts: IntCounterVec,
    answered: AtomicU64,
    log_lines_dropped: IntCounter,
    dropped_lines: OnceLock<ErrorCounter>,
    source: OnceLock<Source>,
}

/// What other parts count by themselves.
#[derive(Debug, Clone, Copy)]
pub struct Sampled {
    /// Whether the store answers.
    pub store_reachable: bool,
    /// Store commands without a usable answer.
    pub store_failures: Failures,
    /// Refreshes of the cache so far.
    pub refreshes: [(Refresh, u64); 4],
}

struct Source(Box<dyn Fn() -> Sampled + Send + Sync>);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All instruments, at zero where their labels are known.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let none: [&str; 0] = [];
        let store_failures = instruments::STORE_FAILURES.counter(&registry);
        let in_use: IntGaugeVec = instruments::IN_USE.gauge(&registry);
        instruments::BUILD
            .gauge(&registry)
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let metrics = Self {
            server_operation: instruments::SERVER_OPERATION.histogram(&registry),
            client_operation: instruments::CLIENT_OPERATION.histogram(&registry),
            cache: instruments::CACHE.counter(&registry),
            refreshes: instruments::REFRESHES.counter(&registry),
            retries: instruments::RETRIES.counter(&registry),
            queue_waits: instruments::QUEUE_WAITS.histogram(&registry),
            breakers_open: instruments::BREAKERS_OPEN.gauge(&registry),
            breaker_turns: instruments::BREAKER_TURNS.counter(&registry),
            store_unreachable: store_failures.with_label_values(&["unreachable"]),
            store_refused: store_failures.with_label_values(&["refused"]),
            store_reachable: instruments::STORE_REACHABLE
                .gauge(&registry)
                .with_label_values(&none),
            in_use: Gauge::ALL.map(|gauge| in_use.with_label_values(&[gauge.as_str()])),
            replica_healthy: instruments::REPLICA_HEALTHY.gauge(&registry),
            deployments: instruments::DEPLOYMENTS.gauge(&registry),
            deployed_replicas: instruments::DEPLOYED_REPLICAS.gauge(&registry),
            restarts: instruments::RESTARTS.counter(&registry),
            answered: AtomicU64::new(0),
            log_lines_dropped: instruments::LOG_LINES_DROPPED
                .counter(&registry)
                .with_label_values(&none),
            dropped_lines: OnceLock::new(),
            source: OnceLock::new(),
            registry,
        };
        metrics.start_at_zero();
        metrics
    }

    fn start_at_zero(&self) {
        let statuses = [
            CacheStatus::Hit,
            CacheStatus::Stale,
            CacheStatus::Miss,
            CacheStatus::Bypass,
        ];
        for method in names::CACHED_METHODS {
            for status in statuses {
                self.cache.with_label_values(&[method, status.as_str()]);
            }
        }
        for outcome in Refresh::ALL {
            self.refreshes.with_label_values(&[outcome.as_str()]);
        }
        self.deployments(std::iter::empty());
    }

    /// For tests of other modules.
    #[must_use]
    pub fn for_tests() -> Arc<Self> {
        Arc::new(Self::new())
    }

    /// A client's request has been answered. `None` as `server`: the merged endpoint.
    pub fn request(
        &self,
        server: Option<&ServerId>,
        method: &str,
        era: Era,
        outcome: Outcome,
        took: Duration,
    ) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let server = server.map_or("*", ServerId::as_str);
        let method = names::known_method(method);
        self.server_operation
            .with_label_values(&[server, method, era_label(era), outcome.error_type()])
            .observe(took.as_secs_f64());
    }

    /// Requests answered since the start, whatever their servers.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// A server has answered a request, or failed to.
    pub fn upstream_request(&self, server: &ServerId, era: Era, outcome: Outcome, took: Duration) {
        self.client_operation
            .with_label_values(&[server.as_str(), era_label(era), outcome.error_type()])
            .observe(took.as_secs_f64());
    }

    /// A list or document was looked up in the cache.
    pub fn cache(&self, method: &str, status: CacheStatus) {
        self.cache
            .with_label_values(&[names::known_method(method), status.as_str()])
            .inc();
    }

    /// A call is sent again.
    pub fn retry(&self, server: &ServerId, why: Retry) {
        self.retries
            .with_label_values(&[server.as_str(), why.as_str()])
            .inc();
    }

    /// A call could not begin at once.
    pub fn queue_wait(&self, server: &ServerId, how: QueueWait, took: Duration) {
        self.queue_waits
            .with_label_values(&[server.as_str(), how.as_str()])
            .observe(took.as_secs_f64());
    }

    /// The instruments of a server's circuit breakers, from zero.
    #[must_use]
    pub fn breakers(&self, server: &ServerId) -> Arc<BreakerMetrics> {
        let server = server.as_str();
        let turns = |state| self.breaker_turns.with_label_values(&[server, state]);
        Arc::new(BreakerMetrics {
            open: self.breakers_open.with_label_values(&[server]),
            opened: turns("open"),
            closed: turns("closed"),
        })
    }

    /// Has what other parts count by themselves asked for when the values are read.
    pub fn sample(&self, source: impl Fn() -> Sampled + Send + Sync + 'static) {
        // A second source (a second node in a test) is not asked.
        self.source.set(Source(Box::new(source))).ok();
    }

    fn take_samples(&self) {
        let Some(Source(source)) = self.source.get() else {
            return;
        };
        let sampled = source();
        let raise = |counter: &IntCounter, to: u64| {
            counter.inc_by(to.saturating_sub(counter.get()));
        };
        self.store_reachable.set(i64::from(sampled.store_reachable));
        raise(&self.store_unreachable, sampled.store_failures.unreachable);
        raise(&self.store_refused, sampled.store_failures.refused);
        for (outcome, count) in sampled.refreshes {
            let counter = self.refreshes.with_label_values(&[outcome.as_str()]);
            raise(&counter, count);
        }
    }

    /// Counts one thing until the guard is dropped.
    #[must_use]
    pub fn count(&self, gauge: Gauge) -> Counted {
        let cell = &self.in_use[gauge as usize];
        cell.inc();
        Counted(cell.clone())
    }

    /// How many there are now.
    #[must_use]
    pub fn current(&self, gauge: Gauge) -> i64 {
        self.in_use[gauge as usize].get()
    }

    /// What probes found of a replica.
    pub fn replica_healthy(&self, replica: &Replica, healthy: bool) {
        let labels = [replica.server.as_str(), replica.id.as_str()];
        self.replica_healthy
            .with_label_values(&labels)
            .set(i64::from(healthy));
    }

    /// These are the deployments there are.
    pub fn deployments<'a>(&self, records: impl Iterator<Item = &'a Record> + Clone) {
        for phase in Phase::ALL {
            let count = records.clone().filter(|one| one.phase == phase).count();
            let cell = self.deployments.with_label_values(&[phase.as_str()]);
            cell.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for state in ReplicaState::ALL {
            let replicas = records.clone().flat_map(|one| &one.replicas);
            let count = replicas.filter(|one| one.state == state).count();
            let cell = self.deployed_replicas.with_label_values(&[state.as_str()]);
            cell.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A container that had ended was started again.
    pub fn restarted(&self, server: &ServerId) {
        self.restarts.with_label_values(&[server.as_str()]).inc();
    }

    /// Removes the series of a replica that is gone.
    pub fn forget_replica(&self, replica: &Replica) {
        let labels = [replica.server.as_str(), replica.id.as_str()];
        // One that was never probed has none.
        self.replica_healthy.remove_label_values(&labels).ok();
    }

    /// Removes the series of a server that is gone.
    pub fn forget_server(&self, server: &ServerId) {
        forget(&self.server_operation, server);
        forget(&self.client_operation, server);
        forget(&self.retries, server);
        forget(&self.queue_waits, server);
        forget(&self.breakers_open, server);
        forget(&self.breaker_turns, server);
        forget(&self.restarts, server);
    }

    /// Counts the lines that the log's writer drops.
    pub(super) fn watch_dropped_lines(&self, counter: ErrorCounter) {
        // A second log (tests) is not counted.
        self.dropped_lines.set(counter).ok();
    }

    /// The values now.
    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.take_samples();
        if let Some(counter) = self.dropped_lines.get() {
            let dropped = counter.dropped_lines() as u64;
            let known = self.log_lines_dropped.get();
            self.log_lines_dropped.inc_by(dropped.saturating_sub(known));
        }
        self.registry.gather()
    }

    /// The values as Prometheus text (content type [`Self::CONTENT_TYPE`]).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail, and the names have been checked.
        TextEncoder::new()
            .encode_utf8(&self.gather(), &mut text)
            .ok();
        text
    }

    /// Content type of [`render`](Self::render).
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";
}

/// Removes all series whose first label is `server`.
fn forget<B: MetricVecBuilder>(family: &MetricVec<B>, server: &ServerId)
where
    B::M: Metric,
{
    let label = names::SERVER.replace('.', "_");
    for collected in family.collect() {
        for metric in collected.get_metric() {
            let pairs = metric.get_label();
            let is_of_server = |pair: &prometheus::proto::LabelPair| {
                pair.name() == label && pair.value() == server.as_str()
            };
            if pairs.iter().any(is_of_server) {
                let labels: HashMap<&str, &str> = pairs
                    .iter()
                    .map(|pair| (pair.name(), pair.value()))
                    .collect();
                // Gone already: somebody else forgot it.
                family.remove(&labels).ok();
            }
        }
    }
}
