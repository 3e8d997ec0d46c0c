//! `[telemetry]`: logs, traces and metrics.

use std::time::Duration;

/// Logs, traces and metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// What is logged, in the language of `tracing`'s `EnvFilter`; `RUST_LOG`
    /// sets it too. Default `info`.
    pub log: String,
    /// Shape of a log line. Default text.
    pub log_format: LogFormat,
    /// Lines that may wait to be written; more are dropped and counted. Default 8192.
    pub log_buffer: usize,
    /// Name in traces and pushed metrics; `OTEL_SERVICE_NAME` sets it too. Default `mcp-fleet`.
    pub service_name: String,
    /// Collector that traces and metrics are pushed to (OTLP over HTTP, its
    /// base address); `OTEL_EXPORTER_OTLP_ENDPOINT` sets it too. Default: none.
    pub otlp_endpoint: Option<String>,
    /// Header lines sent to the collector (`name=value,...`);
    /// `OTEL_EXPORTER_OTLP_HEADERS` sets it too. Default: none.
    pub otlp_headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Time between two pushes of metrics. Default 30 s.
    pub metrics_interval: Duration,
    /// Share of new traces that is recorded, 0 to 1; a caller that brings a
    /// trace has decided already. Default 1.
    pub trace_ratio: f64,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object.
    Json,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log: "info".into(),
            log_format: LogFormat::Text,
            log_buffer: 8192,
            service_name: "mcp-fleet".into(),
            otlp_endpoint: None,
            otlp_headers: Vec::new(),
            metrics_interval: Duration::from_secs(30),
            trace_ratio: 1.0,
        }
    }
}
