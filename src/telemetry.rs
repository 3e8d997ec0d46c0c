//! Logs, traces and metrics.
//!
//! Logs go to standard error through a bounded queue and a thread of their
//! own; traces and metrics are pushed to a collector when one is configured,
//! and metrics can always be read as Prometheus text. Nothing here may block
//! or fail a request. Names are in [`names`].

use std::sync::Arc;

pub mod metrics;
pub mod names;
pub mod traces;

use self::metrics::Metrics;
use crate::config;

/// Keeps the writers of logs, traces and metrics alive.
#[derive(Debug)]
pub struct Telemetry {}

/// Starts logs, and pushing when a collector is configured. Once per process,
/// inside the runtime. `instance` is the node's name.
///
/// # Errors
/// When a setting cannot be used or a subscriber is installed already.
pub fn init(
    settings: &config::Telemetry,
    instance: &str,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Telemetry> {
    todo!("{settings:?} {instance} {metrics:?}")
}

impl Telemetry {
    /// Sends what is waiting, for at most two seconds.
    pub async fn shutdown(self) {}
}
