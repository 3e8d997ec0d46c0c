//! Logs, traces and metrics.
//!
//! Logs go to standard error through a bounded queue and a thread of their
//! own; traces and metrics are pushed to a collector when one is configured,
//! and metrics can always be read as Prometheus text. Nothing here may block
//! or fail a request. Names are in [`names`].

use std::{sync::Arc, time::Duration};

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

mod collector;
mod logs;
pub mod metrics;
pub mod names;
mod push;
pub mod traces;

use self::{collector::Collector, metrics::Metrics, push::MetricsPush};
use crate::config;

/// How long what is waiting may take to be sent at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Keeps the writers of logs, traces and metrics alive.
#[derive(Debug)]
pub struct Telemetry {
    pushes: Option<Pushes>,
    _logs: WorkerGuard,
}

#[derive(Debug)]
struct Pushes {
    tracer: SdkTracerProvider,
    metrics: MetricsPush,
}

/// Who speaks, as a collector sees it.
#[derive(Debug, Clone)]
struct Identity {
    service: String,
    instance: String,
}

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
    let (log_layer, logs) = logs::layer(settings, metrics)?;
    let identity = Identity {
        service: settings.service_name.clone(),
        instance: instance.to_owned(),
    };
    let Some(endpoint) = &settings.otlp_endpoint else {
        tracing_subscriber::registry().with(log_layer).try_init()?;
        let pushes = None;
        return Ok(Telemetry {
            pushes,
            _logs: logs,
        });
    };
    let collector = Collector::new(endpoint, settings.otlp_headers.clone())?;
    let tracer = traces::provider(&collector, &identity, settings.trace_ratio)?;
    tracing_subscriber::registry()
        .with(log_layer)
        .with(traces::layer(&tracer))
        .try_init()?;
    let metrics = MetricsPush::start(
        collector,
        identity,
        Arc::clone(metrics),
        settings.metrics_interval,
    );
    let pushes = Some(Pushes { tracer, metrics });
    Ok(Telemetry {
        pushes,
        _logs: logs,
    })
}

impl Telemetry {
    /// Sends what is waiting, for at most a few seconds.
    pub async fn shutdown(self) {
        let Some(Pushes { tracer, metrics }) = self.pushes else {
            return;
        };
        // Blocks its thread until the exporter's own thread is done.
        let traces = tokio::task::spawn_blocking(move || tracer.shutdown_with_timeout(LAST_WORDS));
        let (traces, ()) = tokio::join!(traces, metrics.stop(LAST_WORDS));
        if let Ok(Err(error)) = traces {
            tracing::debug!(error = %error, "the last traces were not sent");
        }
    }
}

#[cfg(test)]
mod tests;
