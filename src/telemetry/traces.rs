//! Spans of requests, and the W3C trace context that ties them to the spans of
//! callers and servers.

use tracing::Span;

/// A W3C trace context as text, as it stands in headers and in `_meta`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceText {
    /// `traceparent`
    pub traceparent: Option<String>,
    /// `tracestate`; never without a `traceparent`.
    pub tracestate: Option<String>,
}

/// A span for one request of a client, child of the caller's span when it
/// brought one. Call [`SpanExt`] on it as the facts come in.
#[must_use]
pub fn request_span(http_method: &str, route: &'static str, parent: &TraceText) -> Span {
    todo!("{http_method} {route} {parent:?}")
}

/// What to tell a server: the current span's context; `incoming` itself when
/// spans are not recorded.
#[must_use]
pub fn outgoing(incoming: &TraceText) -> TraceText {
    incoming.clone()
}
