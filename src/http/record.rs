//! Measures one request from its first byte to its last, however it ends.

use std::sync::Arc;

use tokio::time::Instant;

use super::mcp::Incoming;
use crate::{
    ids::ServerId,
    lists::Target,
    mcp::{Raw, json::RawObject, message::Answer},
    telemetry::metrics::{Era, Metrics, Outcome},
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
}

impl Record {
    pub(crate) fn begin(incoming: &Incoming, method: &str, era: Era) -> Self {
        let server = match &incoming.target {
            Target::One(server) => Some(server.id.clone()),
            Target::All => None,
        };
        Self {
            metrics: Arc::clone(&incoming.gateway.metrics),
            server,
            method: method.to_owned(),
            era,
            begun: Instant::now(),
            outcome: Outcome::Cancelled,
        }
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

fn is_tool_error(result: &Raw) -> bool {
    // Reading the members costs more than looking for the word, which is rare.
    result.get().contains("\"isError\"")
        && RawObject::parse(result)
            .is_ok_and(|result| result.get("isError").is_some_and(|is| is.get() == "true"))
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.request(
            self.server.as_ref(),
            &self.method,
            self.era,
            self.outcome,
            self.begun.elapsed(),
        );
    }
}
