//! Log lines: written by a thread of their own, so that a slow terminal or
//! disk costs a request nothing. When the queue is full, lines are dropped and
//! counted.

use std::io::{IsTerminal as _, stderr};

use anyhow::Context as _;
use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Layer, fmt, registry::LookupSpan};

use super::{metrics::Metrics, names::REQUEST_TARGET};
use crate::config::{self, LogFormat};

/// The layer that writes, and the guard that keeps its thread alive.
pub(super) fn layer<S>(
    settings: &config::Telemetry,
    metrics: &Metrics,
) -> anyhow::Result<(Box<dyn Layer<S> + Send + Sync>, WorkerGuard)>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filter = filter(&settings.log).context("telemetry.log")?;
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

/// What is to be logged. Formatting the fields of a span that hardly any line
/// is written in costs more than the rest of its request's telemetry, so spans
/// of requests are for the collector unless they are asked for by name.
fn filter(directives: &str) -> anyhow::Result<EnvFilter> {
    // The engine's client would write whole requests, and with them the
    // secrets of deployments: nobody can ask for that.
    let others = directives
        .split(',')
        .filter(|directive| !directive.trim_start().starts_with("bollard"));
    let filter = EnvFilter::builder()
        .parse(others.collect::<Vec<_>>().join(","))?
        .add_directive("bollard=error".parse()?);
    if directives.contains(REQUEST_TARGET) {
        return Ok(filter);
    }
    Ok(filter.add_directive(format!("{REQUEST_TARGET}=off").parse()?))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::{mcp::envelope::TraceContext, telemetry::traces::request_span};

    fn is_recorded(directives: &str) -> bool {
        let layer = fmt::layer()
            .with_writer(std::io::sink)
            .with_filter(filter(directives).expect("directives"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            !request_span("POST", "/mcp", &TraceContext::default()).is_disabled()
        })
    }

    #[test]
    fn the_engines_client_never_writes_what_it_sends() {
        let filter = filter("trace,bollard=trace,bollard::docker=trace").expect("directives");
        let subscriber = tracing_subscriber::registry().with(fmt::layer().with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(target: "bollard::docker", tracing::Level::DEBUG));
            assert!(!tracing::enabled!(target: "bollard::read", tracing::Level::DEBUG));
        });
    }

    #[test]
    fn spans_of_requests_cost_nothing_unless_they_are_asked_for() {
        assert!(!is_recorded("info"));
        assert!(!is_recorded("debug,mcp_fleet::relay=trace"));
        assert!(is_recorded("warn,mcp_fleet::request=info"));
    }
}
