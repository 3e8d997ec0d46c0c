//! Spans of requests, and the W3C trace context that ties them to the spans of
//! callers and servers.
//!
//! Handlers make a [`request_span`], [`describe`] it when the message has been
//! read and [`finish`] it with the answer. Spans are recorded only when a
//! collector is configured; then [`outgoing`] names the current one, otherwise
//! it passes on what the caller sent.

use std::collections::HashMap;

use opentelemetry::{
    KeyValue,
    propagation::TextMapPropagator as _,
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::{Level, Span, Subscriber, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    registry::LookupSpan,
};

use super::{
    Identity,
    collector::{self, Collector},
    metrics::Outcome,
    names,
};
use crate::{
    ids::ServerId,
    mcp::{envelope::TraceContext, method},
};

/// The exporter of spans: batches from a bounded queue, on a thread of its own.
pub(super) fn provider(
    collector: &Collector,
    identity: &Identity,
    ratio: f64,
) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(collector.clone())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(collector.address("v1/traces"))
        .with_timeout(collector::TIMEOUT)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(identity.service.clone())
        .with_attribute(KeyValue::new(
            names::SERVICE_VERSION,
            env!("CARGO_PKG_VERSION"),
        ))
        .with_attribute(KeyValue::new(
            names::SERVICE_INSTANCE_ID,
            identity.instance.clone(),
        ))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .with_sampler(sampler)
        .build())
}

/// Records our own spans only: those of the client that pushes them would
/// cause new ones for ever.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let ours = Targets::new()
        .with_default(LevelFilter::OFF)
        .with_target(env!("CARGO_CRATE_NAME"), Level::INFO);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_filter(ours)
}

/// A span for one request of a client over HTTP, child of the caller's span
/// when it brought one. `route` is a pattern, never a path.
#[must_use]
pub fn request_span(http_method: &str, route: &'static str, parent: &TraceContext) -> Span {
    let span = info_span!(
        target: names::REQUEST_TARGET,
        "request",
        otel.kind = "server",
        otel.name = Empty,
        otel.status_code = Empty,
        { names::HTTP_REQUEST_METHOD } = http_method,
        { names::HTTP_ROUTE } = route,
        { names::HTTP_RESPONSE_STATUS_CODE } = Empty,
        { names::MCP_METHOD_NAME } = Empty,
        { names::MCP_PROTOCOL_VERSION } = Empty,
        { names::MCP_SESSION_ID } = Empty,
        { names::MCP_RESOURCE_URI } = Empty,
        { names::JSONRPC_REQUEST_ID } = Empty,
        { names::RPC_RESPONSE_STATUS_CODE } = Empty,
        { names::GEN_AI_OPERATION_NAME } = Empty,
        { names::GEN_AI_TOOL_NAME } = Empty,
        { names::GEN_AI_PROMPT_NAME } = Empty,
        { names::SERVER } = Empty,
        { names::CACHE_STATUS } = Empty,
        { names::ERROR_TYPE } = Empty,
    );
    follow(&span, parent);
    span
}

/// Makes `span` a child of the caller's. The `_meta` of a message outranks the
/// headers, and is known later: the last call before the span is entered counts.
pub fn follow(span: &Span, parent: &TraceContext) {
    let Some(traceparent) = parent.traceparent.as_ref().filter(|_| !span.is_disabled()) else {
        return;
    };
    let mut carrier = HashMap::from([("traceparent".to_owned(), traceparent.clone())]);
    if let Some(tracestate) = &parent.tracestate {
        carrier.insert("tracestate".to_owned(), tracestate.clone());
    }
    let context = TraceContextPropagator::new().extract(&carrier);
    // Refused only when spans are not recorded at all.
    span.set_parent(context).ok();
}

/// Says what the request asks for: the MCP method and its tool, prompt or
/// resource. The span is then called `tools/call get_weather`.
pub fn describe(span: &Span, server: Option<&ServerId>, mcp_method: &str, target: Option<&str>) {
    if span.is_disabled() {
        return;
    }
    span.record(names::MCP_METHOD_NAME, mcp_method);
    if let Some(server) = server {
        span.record(names::SERVER, server.as_str());
    }
    let Some(target) = target else {
        span.record(names::SPAN_NAME, mcp_method);
        return;
    };
    match mcp_method {
        method::TOOLS_CALL => {
            span.record(names::GEN_AI_TOOL_NAME, target);
            span.record(names::GEN_AI_OPERATION_NAME, "execute_tool");
        }
        method::PROMPTS_GET => {
            span.record(names::GEN_AI_PROMPT_NAME, target);
        }
        // A URI is no name: it would make the span's name unbounded.
        _ => {
            span.record(names::MCP_RESOURCE_URI, target);
            span.record(names::SPAN_NAME, mcp_method);
            return;
        }
    }
    span.record(names::SPAN_NAME, format!("{mcp_method} {target}"));
}

/// Says how the request ended.
pub fn finish(span: &Span, outcome: Outcome) {
    let error_type = outcome.error_type();
    if !error_type.is_empty() {
        span.record(names::ERROR_TYPE, error_type);
        span.record(names::SPAN_STATUS, "ERROR");
    }
}

/// A span for one request to a replica.
#[must_use]
pub fn upstream_span(server: &ServerId, replica: &str, mcp_method: &str) -> Span {
    info_span!(
        target: names::REQUEST_TARGET,
        "upstream",
        otel.kind = "client",
        otel.name = mcp_method,
        otel.status_code = Empty,
        { names::MCP_METHOD_NAME } = mcp_method,
        { names::SERVER } = server.as_str(),
        { names::REPLICA } = replica,
        { names::MCP_PROTOCOL_VERSION } = Empty,
        { names::ERROR_TYPE } = Empty,
    )
}

/// What to tell a server: the current span's context; `incoming` itself when
/// spans are not recorded.
#[must_use]
pub fn outgoing(incoming: &TraceContext) -> TraceContext {
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return incoming.clone();
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    TraceContext {
        traceparent: carrier.remove("traceparent"),
        tracestate: carrier
            .remove("tracestate")
            .filter(|state| !state.is_empty()),
    }
}

#[cfg(test)]
mod tests;
