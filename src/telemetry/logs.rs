//! Log lines: written by a thread of their own, so that a slow terminal or
//! disk costs a request nothing. When the queue is full, lines are dropped and
//! counted.

use std::io::{IsTerminal as _, stderr};

use anyhow::Context as _;
use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Layer, fmt, registry::LookupSpan};

use super::metrics::Metrics;
use crate::config::{self, LogFormat};

/// The layer that writes, and the guard that keeps its thread alive.
pub(super) fn layer<S>(
    settings: &config::Telemetry,
    metrics: &Metrics,
) -> anyhow::Result<(Box<dyn Layer<S> + Send + Sync>, WorkerGuard)>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filter = EnvFilter::builder()
        .parse(&settings.log)
        .context("telemetry.log")?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(settings.log_buffer)
        .thread_name("logs")
        .finish(stderr());
    metrics.watch_dropped_lines(writer.error_counter());
    let layer = fmt::layer()
        .with_writer(writer)
        .with_ansi(stderr().is_terminal());
    let layer = match settings.log_format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
    };
    Ok((layer, guard))
}
