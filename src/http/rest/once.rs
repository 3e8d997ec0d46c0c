//! One request to a server without a conversation: nothing can be asked,
//! nothing is heard on the way, the result is all there is.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{
    cache::CacheStatus,
    gateway::Gateway,
    http::{error::RestError, record::Record},
    ids::Principal,
    lists::{Caller, Tool},
    mcp::{
        Raw, capabilities::ClientCapabilities, envelope::TraceContext, json::RawObject,
        message::Answer, method,
    },
    rates::{Client, Limited},
    relay::{Call, RelayError},
    servers::Server,
    telemetry::{metrics::Outcome, traces},
    upstream::UpstreamError,
};

/// A request that is made once.
#[derive(Debug)]
pub(in crate::http) struct Once<'a> {
    pub(in crate::http) server: &'a Arc<Server>,
    /// The pattern of the path it came by.
    pub(in crate::http) route: &'static str,
    pub(in crate::http) method: &'static str,
    pub(in crate::http) params: &'a Raw,
    pub(in crate::http) principal: Principal,
    /// Whose limits it counts against.
    pub(in crate::http) client: Client,
    pub(in crate::http) trace: &'a TraceContext,
}

impl Once<'_> {
    /// The result as the server gave it.
    pub(in crate::http) async fn run(&self, gateway: &Gateway) -> Result<Box<Raw>, RestError> {
        let record = self.admitted(gateway).await?;
        self.carry(gateway, record).await
    }

    /// Begins to measure, unless the client has to wait.
    async fn admitted(&self, gateway: &Gateway) -> Result<Record, Limited> {
        let record = self.record(gateway);
        let admitted = gateway
            .admit(self.client, self.server, self.method, Some(self.params))
            .await;
        match admitted {
            Ok(()) => Ok(record),
            Err(limited) => {
                record.end(Outcome::Shed);
                Err(limited)
            }
        }
    }

    async fn carry(&self, gateway: &Gateway, record: Record) -> Result<Box<Raw>, RestError> {
        match self.answer(gateway).instrument(record.span()).await {
            Ok(answer) => {
                record.answered(&answer);
                match answer {
                    Answer::Result(result) => Ok(result),
                    Answer::Error(error) => Err(RestError::answered(&error)),
                }
            }
            Err(error) => {
                record.end(outcome(&error));
                Err(error.into())
            }
        }
    }

    /// A resource, from the cache where its server allows that.
    pub(super) async fn read(
        &self,
        gateway: &Gateway,
    ) -> Result<(Box<Raw>, CacheStatus), RestError> {
        let caller = Caller::plain(self.principal);
        let record = self.admitted(gateway).await?;
        let deadline = Instant::now() + self.server.timeout;
        let kept = gateway
            .lists
            .read(self.server, &caller, self.params, deadline);
        match kept.instrument(record.span()).await {
            Ok(Some(read)) => {
                record.end(Outcome::Ok);
                Ok((read.result, read.status))
            }
            Ok(None) => Ok((self.carry(gateway, record).await?, CacheStatus::Bypass)),
            Err(error) => {
                record.failed();
                Err(error.into())
            }
        }
    }

    fn record(&self, gateway: &Gateway) -> Record {
        let params = RawObject::parse(self.params).unwrap_or_default();
        let name = method::name_param(self.method).and_then(|name| params.get_str(name));
        Record::plain(
            &gateway.metrics,
            ("POST", self.route),
            self.method,
            Some(&self.server.id),
            name.as_deref(),
            self.trace,
        )
    }

    async fn answer(&self, gateway: &Gateway) -> Result<Answer, RelayError> {
        let deadline = Instant::now() + self.server.timeout;
        let params = RawObject::parse(self.params).unwrap_or_default();
        let tool = self.tool(gateway, &params, deadline).await;
        let headers = tool.as_ref().map_or_else(Vec::new, |tool| {
            tool.param_headers.headers_for(params.get("arguments"))
        });
        let call = Call {
            server: Arc::clone(self.server),
            method: self.method.to_owned(),
            params: Some(self.params.to_owned()),
            principal: self.principal,
            capabilities: ClientCapabilities::none(),
            log_level: None,
            progress_token: None,
            trace: traces::outgoing(self.trace),
            headers,
            repeatable: tool.is_some_and(|tool| tool.is_repeatable(self.server)),
            session: None,
        };
        gateway.relay.call_once(&call, deadline).await
    }

    /// The definition of the tool that is called.
    async fn tool(
        &self,
        gateway: &Gateway,
        params: &RawObject<'_>,
        deadline: Instant,
    ) -> Option<Arc<Tool>> {
        if self.method != method::TOOLS_CALL {
            return None;
        }
        let name = params.get_str("name")?;
        let caller = Caller::plain(self.principal);
        let deadline = deadline.min(Instant::now() + gateway.config.cache.list_deadline);
        gateway
            .lists
            .tool(self.server, &caller, &name, deadline)
            .await
    }
}

fn outcome(error: &RelayError) -> Outcome {
    match error {
        RelayError::Upstream { source, .. } => match source.root() {
            UpstreamError::TimedOut { .. } => Outcome::TimedOut,
            UpstreamError::Busy(_) | UpstreamError::NotTaken(..) => Outcome::Shed,
            _ => Outcome::Unavailable,
        },
        RelayError::TooManyParked => Outcome::Shed,
        RelayError::Rpc(_) => Outcome::Refused,
        RelayError::NoReplica { .. } | RelayError::Unavailable => Outcome::Unavailable,
    }
}
