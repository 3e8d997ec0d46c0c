//! Every instrument: its name, unit, description and labels, and how it is
//! written in Prometheus' way.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::telemetry::names;

/// One instrument as OpenTelemetry names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instrument {
    /// Dotted name.
    pub(crate) name: &'static str,
    /// UCUM unit.
    pub(crate) unit: &'static str,
    /// What it says, for people.
    pub(crate) about: &'static str,
    /// Dotted names of its labels.
    pub(crate) labels: &'static [&'static str],
}

/// Upper bounds of duration buckets in seconds: OpenTelemetry's advice for
/// MCP, with finer ones below, where cached lists are.
pub(crate) const SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

pub(crate) const SERVER_OPERATION: Instrument = Instrument {
    name: names::SERVER_OPERATION_DURATION,
    unit: "s",
    about: "Duration of requests from clients",
    labels: &[
        names::SERVER,
        names::MCP_METHOD_NAME,
        names::ERA,
        names::ERROR_TYPE,
    ],
};
pub(crate) const CLIENT_OPERATION: Instrument = Instrument {
    name: names::CLIENT_OPERATION_DURATION,
    unit: "s",
    about: "Duration of requests to servers",
    labels: &[names::SERVER, names::ERA, names::ERROR_TYPE],
};
pub(crate) const CACHE: Instrument = Instrument {
    name: "mcp_fleet.cache.lookups",
    unit: "{lookup}",
    about: "Lookups in the shared list cache, by how they were served",
    labels: &[names::MCP_METHOD_NAME, names::CACHE_STATUS],
};
pub(crate) const REFRESHES: Instrument = Instrument {
    name: "mcp_fleet.cache.refreshes",
    unit: "{refresh}",
    about: "Refreshes of cache entries, by what became of them",
    labels: &[names::OUTCOME],
};
pub(crate) const RETRIES: Instrument = Instrument {
    name: "mcp_fleet.retries",
    unit: "{retry}",
    about: "Calls that were sent again, by why",
    labels: &[names::SERVER, names::REASON],
};
pub(crate) const QUEUE_WAITS: Instrument = Instrument {
    name: "mcp_fleet.queue.wait",
    unit: "s",
    about: "Waits of calls for a place at a server with max_in_flight, by how they ended",
    labels: &[names::SERVER, names::OUTCOME],
};
pub(crate) const BREAKERS_OPEN: Instrument = Instrument {
    name: "mcp_fleet.breaker.open",
    unit: "{replica}",
    about: "Replicas that this node's circuit breakers keep calls from",
    labels: &[names::SERVER],
};
pub(crate) const BREAKER_TURNS: Instrument = Instrument {
    name: "mcp_fleet.breaker.turns",
    unit: "{turn}",
    about: "Turns of circuit breakers, by the state they turned to",
    labels: &[names::SERVER, names::STATE],
};
pub(crate) const STORE_FAILURES: Instrument = Instrument {
    name: "mcp_fleet.store.failures",
    unit: "{failure}",
    about: "Store commands without a usable answer, by why",
    labels: &[names::REASON],
};
pub(crate) const STORE_REACHABLE: Instrument = Instrument {
    name: "mcp_fleet.store.reachable",
    unit: "1",
    about: "1 while the store answers, 0 while it does not",
    labels: &[],
};
pub(crate) const IN_USE: Instrument = Instrument {
    name: "mcp_fleet.in_use",
    unit: "{item}",
    about: "Things this node holds at the moment, by kind",
    labels: &[names::KIND],
};
pub(crate) const REPLICA_HEALTHY: Instrument = Instrument {
    name: "mcp_fleet.replica.healthy",
    unit: "1",
    about: "1 while probes find a replica fit for traffic, 0 while they do not",
    labels: &[names::SERVER, names::REPLICA],
};
pub(crate) const DEPLOYMENTS: Instrument = Instrument {
    name: "mcp_fleet.deployments",
    unit: "{deployment}",
    about: "Deployments of the fleet as this node knows them, by how far they are",
    labels: &[names::PHASE],
};
pub(crate) const DEPLOYED_REPLICAS: Instrument = Instrument {
    name: "mcp_fleet.deployment.replicas",
    unit: "{replica}",
    about: "Replicas of deployments as this node knows them, by what they do",
    labels: &[names::STATE],
};
pub(crate) const RESTARTS: Instrument = Instrument {
    name: "mcp_fleet.deployment.restarts",
    unit: "{restart}",
    about: "Containers that this node started again after they had ended",
    labels: &[names::SERVER],
};
pub(crate) const LOG_LINES_DROPPED: Instrument = Instrument {
    name: "mcp_fleet.log.dropped",
    unit: "{line}",
    about: "Log lines dropped because the writer could not keep up",
    labels: &[],
};
pub(crate) const BUILD: Instrument = Instrument {
    name: "mcp_fleet.build",
    unit: "1",
    about: "Always 1; says which version runs",
    labels: &[names::SERVICE_VERSION],
};

/// All of them; the exporter finds a family's OpenTelemetry name here.
pub(crate) const ALL: [Instrument; 17] = [
    SERVER_OPERATION,
    CLIENT_OPERATION,
    CACHE,
    REFRESHES,
    RETRIES,
    QUEUE_WAITS,
    BREAKERS_OPEN,
    BREAKER_TURNS,
    STORE_FAILURES,
    STORE_REACHABLE,
    IN_USE,
    REPLICA_HEALTHY,
    DEPLOYMENTS,
    DEPLOYED_REPLICAS,
    RESTARTS,
    LOG_LINES_DROPPED,
    BUILD,
];

impl Instrument {
    fn snake(name: &str) -> String {
        name.replace('.', "_")
    }

    fn label_names(&self) -> Vec<String> {
        self.labels.iter().map(|label| Self::snake(label)).collect()
    }

    /// The family's name: seconds and totals are told by a suffix.
    pub(crate) fn histogram_name(&self) -> String {
        format!("{}_seconds", Self::snake(self.name))
    }

    /// The family's name as a counter.
    pub(crate) fn counter_name(&self) -> String {
        format!("{}_total", Self::snake(self.name))
    }

    /// The family's name as a gauge.
    pub(crate) fn gauge_name(&self) -> String {
        Self::snake(self.name)
    }

    /// Whether a family of that name is this instrument.
    pub(crate) fn is_called(&self, family: &str) -> bool {
        family == self.gauge_name()
            || family == self.counter_name()
            || family == self.histogram_name()
    }

    pub(crate) fn histogram(&self, registry: &Registry) -> HistogramVec {
        let options =
            HistogramOpts::new(self.histogram_name(), self.about).buckets(SECONDS.to_vec());
        register(
            registry,
            HistogramVec::new(options, &strs(&self.label_names())),
        )
    }

    pub(crate) fn counter(&self, registry: &Registry) -> IntCounterVec {
        let options = Opts::new(self.counter_name(), self.about);
        register(
            registry,
            IntCounterVec::new(options, &strs(&self.label_names())),
        )
    }

    pub(crate) fn gauge(&self, registry: &Registry) -> IntGaugeVec {
        let options = Opts::new(self.gauge_name(), self.about);
        register(
            registry,
            IntGaugeVec::new(options, &strs(&self.label_names())),
        )
    }
}

fn strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

#[expect(
    clippy::expect_used,
    reason = "names are constants, and a test registers them all"
)]
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: prometheus::Result<C>,
) -> C {
    let family = family.expect("instrument names are valid");
    registry
        .register(Box::new(family.clone()))
        .expect("instrument names are distinct");
    family
}
