//! `[telemetry]`: logs, traces and metrics.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tracing_subscriber::EnvFilter;

use super::{
    section::Section,
    tree::Located,
    values::{self, Problem},
};

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
    pub otlp_headers: Vec<(HeaderName, HeaderValue)>,
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

impl Telemetry {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let second = Duration::from_secs(1);
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let telemetry = Self {
            log: section.read("log", defaults.log, filter),
            log_format: section.read("log_format", defaults.log_format, values::choice(&formats)),
            log_buffer: section.read(
                "log_buffer",
                defaults.log_buffer,
                values::count(16..=1_000_000),
            ),
            service_name: section.read("service_name", defaults.service_name, values::some_text),
            otlp_endpoint: section.optional("otlp_endpoint", collector),
            otlp_headers: headers(&mut section),
            metrics_interval: section.read(
                "metrics_interval",
                defaults.metrics_interval,
                values::duration(second..=second * 3600),
            ),
            trace_ratio: section.read(
                "trace_ratio",
                defaults.trace_ratio,
                values::number(0.0..=1.0),
            ),
        };
        section.finish();
        telemetry
    }
}

fn filter(located: &Located) -> Result<String, Problem> {
    let text = values::some_text(located)?;
    match EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Problem::new(format!(
            "expected a level (error, warn, info, debug, trace) or directives such as \
             \"info,mcp_fleet::upstream=debug\", found {text:?}: {error}"
        ))),
    }
}

fn collector(located: &Located) -> Result<String, Problem> {
    let text = values::some_text(located)?;
    let is_http = url::Url::parse(&text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if is_http {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(Problem::new(format!(
            "expected the base address of a collector that takes OTLP over HTTP, such as \
             \"http://127.0.0.1:4318\", found {text:?}"
        )))
    }
}

/// `name=value,name=value`, values percent-encoded (OpenTelemetry's environment specification).
fn headers(section: &mut Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let Some((text, place)) = section.secret("otlp_headers") else {
        return Vec::new();
    };
    let mut headers = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        match header(pair) {
            Some(header) => headers.push(header),
            None => {
                let path = section.path_of("otlp_headers");
                let message = "expected `name=value` pairs with commas between them";
                section.findings.error(&place, path, message);
            }
        }
    }
    headers
}

fn header(pair: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = pair.split_once('=')?;
    let name = HeaderName::try_from(name.trim()).ok()?;
    let value = percent_decoded(value.trim());
    let mut value = HeaderValue::from_bytes(&value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}
