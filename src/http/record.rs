//! Measures one request from its first byte to its last, however it ends.

use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;
use tokio::time::Instant;
use tracing::Span;

use super::mcp::Incoming;
use crate::{
    ids::ServerId,
    lists::Target,
    mcp::{
        Raw,
        envelope::TraceContext,
        json::RawObject,
        message::{Answer, Request},
        method,
    },
    telemetry::{
        metrics::{Era, Metrics, Outcome},
        traces,
    },
};

/// One request. A record that is dropped counts as a caller that went away.
#[derive(Debug)]
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    server: Option<ServerId>,
    method: String,
    era: Era,
    begun: Instant,
    outcome: Outcome,
    span: Span,
}

impl Record {
    /// A request that has been read, in the trace its sender named.
    pub(crate) fn begin(
        incoming: &Incoming,
        request: &Request<'_>,
        era: Era,
        trace: &TraceContext,
    ) -> Self {
        let (server, route) = match &incoming.target {
            Target::One(server) => (Some(server.id.clone()), "/mcp/{server}"),
            Target::All => (None, "/mcp"),
        };
        let span = traces::request_span("POST", route, trace);
        if !span.is_disabled() {
            let name = method::name_param(&request.method);
            let name = name.and_then(|name| request.known.get_str(name));
            traces::describe(&span, server.as_ref(), &request.method, name.as_deref());
        }
        let metrics = &incoming.gateway.metrics;
        Self::new(metrics, server, &request.method, era, span)
    }

    /// A plain request, which is no message of the protocol; it is served in
    /// the shape of the modern era and counts there. `name` is what is asked
    /// for: a tool, a prompt, a resource.
    pub(crate) fn plain(
        metrics: &Arc<Metrics>,
        (http_method, route): (&'static str, &'static str),
        method: &'static str,
        server: Option<&ServerId>,
        name: Option<&str>,
        trace: &TraceContext,
    ) -> Self {
        let span = traces::request_span(http_method, route, trace);
        traces::describe(&span, server, method, name);
        Self::new(metrics, server.cloned(), method, Era::Modern, span)
    }

    fn new(
        metrics: &Arc<Metrics>,
        server: Option<ServerId>,
        method: &str,
        era: Era,
        span: Span,
    ) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            server,
            method: method.to_owned(),
            era,
            begun: Instant::now(),
            outcome: Outcome::Cancelled,
            span,
        }
    }

    /// The span of the request, to work in.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The request goes to this server.
    pub(crate) fn server(&mut self, server: &ServerId) {
        self.server = Some(server.clone());
    }

    /// It ended so.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// The server could not be reached.
    pub(crate) fn failed(self) {
        self.end(Outcome::Unavailable);
    }

    /// It ended with an answer.
    pub(crate) fn answered(self, answer: &Answer) {
        let outcome = match answer {
            Answer::Error(_) => Outcome::RpcError,
            Answer::Result(result) if is_tool_error(result) => Outcome::ToolError,
            Answer::Result(_) => Outcome::Ok,
        };
        self.end(outcome);
    }
}

static IS_ERROR: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("\"isError\""));

fn is_tool_error(result: &Raw) -> bool {
    // Reading the members costs more than looking for the word, which is rare.
    IS_ERROR.find(result.get().as_bytes()).is_some()
        && RawObject::parse(result)
            .is_ok_and(|result| result.get("isError").is_some_and(|is| is.get() == "true"))
}

impl Drop for Record {
    fn drop(&mut self) {
        traces::finish(&self.span, self.outcome);
        self.metrics.request(
            self.server.as_ref(),
            &self.method,
            self.era,
            self.outcome,
            self.begun.elapsed(),
        );
    }
}
