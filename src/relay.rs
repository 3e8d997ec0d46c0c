//! Carries a call between a client and a server of any two eras.
//!
//! The replica's side is an [`Exchange`](crate::upstream::Exchange): notifications, questions, an answer.
//! The client's side is one of two flows: [`modern`], where a question ends
//! the request and the answer comes with a new one, and [`legacy`], where a
//! question travels on the call's stream while the request stays open. What
//! either flow has to leave with a node while its client is away is in
//! `park`; how other nodes reach it, in `mailbox`. Which replica a call goes
//! to, and to which next, is in `attempts`; when it waits for one, `comeback`.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    fleet::Fleet,
    ids::{Principal, ServerId},
    lifecycle::Tasks,
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        envelope::{LogLevel, TraceContext},
        error::RpcError,
        message::Answer,
        seal::Sealer,
    },
    servers::{Server, Servers},
    store::Store,
    telemetry::metrics::Metrics,
    upstream::{ClientSession, Description, Event, UpstreamError, Upstreams},
};

mod ask;
mod attempts;
mod comeback;
pub(crate) mod event_log;
pub mod legacy;
mod mailbox;
pub mod modern;
mod park;
mod room;
pub(crate) mod standalone;

pub(crate) use attempts::Begun;
pub(crate) use mailbox::{Delivery, Letter, Mailbox, Mailboxes};

/// Bounds on calls.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A call is over after this time, however much progress it reports.
    pub max_duration: Duration,
    /// How long a question waits for its answer.
    pub answer_timeout: Duration,
    /// Rounds of questions within one call.
    pub max_rounds: u32,
    /// Calls that wait for answers on this node.
    pub max_parked: usize,
    /// Events kept per stream for a client that resumes.
    pub max_events: u32,
    /// How long they are kept.
    pub events_ttl: Duration,
    /// Pause before a lost stream to a server is opened again.
    pub stream_retry: Duration,
    /// Further replicas tried for one call that may be sent again.
    pub retries: u32,
    /// Retries as a share of a server's calls.
    pub retry_budget: f64,
    /// Who answers for a server that does not say who it is.
    pub server_info: Box<Raw>,
}

/// One request on its way to a server, whatever the client speaks.
#[derive(Debug, Clone)]
pub struct Call {
    /// The server it goes to.
    pub server: Arc<Server>,
    /// The method.
    pub method: String,
    /// The parameters as the client wrote them, names as the server knows them.
    pub params: Option<Box<Raw>>,
    /// On whose behalf.
    pub principal: Principal,
    /// What the client can be asked.
    pub capabilities: ClientCapabilities,
    /// The least severe log message the client wants; `None`: none at all.
    pub log_level: Option<LogLevel>,
    /// The client's progress token, if it wants progress.
    pub progress_token: Option<Box<Raw>>,
    /// The client's trace.
    pub trace: TraceContext,
    /// `Mcp-Param-*` headers to send along.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Whether running twice does no more than running once, as its tool says.
    pub repeatable: bool,
    /// The session of a legacy client; `None` uses a pooled one where the server needs one.
    pub session: Option<ClientSession>,
}

/// Why a call has no answer from the server.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Every replica was tried that could be tried safely.
    #[error("server {server} cannot be reached")]
    Upstream {
        /// The server.
        server: ServerId,
        /// What the last replica tried did.
        source: UpstreamError,
    },
    /// The server has no replica left to try.
    #[error("server {server} has no replica")]
    NoReplica {
        /// The server.
        server: ServerId,
    },
    /// The caller's fault, or something to tell it in the protocol's terms.
    #[error(transparent)]
    Rpc(RpcError),
    /// Needs another node or the store, which cannot be asked now.
    #[error("the node that holds this call cannot be reached now")]
    Unavailable,
    /// A bound was reached.
    #[error("too many calls wait for answers on this node")]
    TooManyParked,
}

/// The parts of a node that a relay works with.
#[derive(Debug)]
pub struct Parts {
    /// The way to replicas.
    pub upstreams: Arc<Upstreams>,
    /// The servers that are known.
    pub servers: Arc<Servers>,
    /// What seals request states.
    pub sealer: Arc<Sealer>,
    /// The shared state.
    pub store: Arc<dyn Store>,
    /// What nodes tell each other.
    pub fleet: Arc<Fleet>,
    /// The node's tasks.
    pub tasks: Tasks,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Relays calls. One per node.
#[derive(Debug)]
pub struct Relay {
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) servers: Arc<Servers>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: Settings,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) running: legacy::Running,
    pub(crate) room: room::Room,
    parked: Arc<tokio::sync::Semaphore>,
}

impl RelayError {
    /// Whether the client has to open another session.
    #[must_use]
    pub fn is_end_of_session(&self) -> bool {
        matches!(self, Self::Upstream { source, .. } if source.is_end_of_session())
    }

    /// The error in the protocol's terms, without our internals.
    #[must_use]
    pub fn to_rpc(&self) -> RpcError {
        match self {
            Self::Rpc(error) => error.clone(),
            Self::Upstream { server, source } => {
                RpcError::internal(format!("server {server}: {source}"))
            }
            Self::NoReplica { .. } | Self::Unavailable | Self::TooManyParked => {
                RpcError::internal(self.to_string())
            }
        }
    }
}

impl Relay {
    /// A relay without calls.
    #[must_use]
    pub fn new(settings: Settings, parts: Parts) -> Self {
        let Parts {
            upstreams,
            servers,
            sealer,
            store,
            fleet,
            tasks,
            metrics,
        } = parts;
        let mailboxes = Mailboxes::new(Arc::clone(&store), tasks.clone(), settings.max_duration);
        Self {
            upstreams,
            servers,
            sealer,
            store,
            fleet,
            tasks,
            metrics,
            mailboxes,
            running: legacy::Running::default(),
            room: room::Room::new(),
            parked: Arc::new(tokio::sync::Semaphore::new(settings.max_parked)),
            settings,
        }
    }

    /// One call without a conversation: no question can be asked and nobody
    /// hears notifications. For plain REST.
    ///
    /// # Errors
    /// When the server cannot be reached in time.
    pub async fn call_once(
        self: &Arc<Self>,
        call: &Call,
        deadline: Instant,
    ) -> Result<Answer, RelayError> {
        let mut begun = self.begin(call, deadline).await?;
        loop {
            match begun.next(deadline).await? {
                Event::Notification(_) | Event::Paused { .. } => {}
                Event::Done(answer) => return Ok(answer),
                // Nothing was declared, so a server that asks all the same gets no answer.
                Event::Ask(ask) => {
                    let refusal = Answer::error(&RpcError::method_not_found(&ask.method));
                    begun.answer(&ask.key, &refusal).await?;
                }
            }
        }
    }

    /// What the server says of itself and which era it speaks, as one of its
    /// replicas told lately.
    pub(crate) async fn describe(
        &self,
        server: &Arc<Server>,
        deadline: Instant,
    ) -> Result<Arc<Description>, RelayError> {
        let mut tried = Vec::new();
        loop {
            let Some(replica) = server.any(&tried) else {
                return Err(RelayError::NoReplica {
                    server: server.id.clone(),
                });
            };
            let begun = Instant::now();
            let source = match self.upstreams.describe(&replica, deadline).await {
                Ok(description) => return Ok(description),
                Err(source) => source,
            };
            replica.learn(source.tells(), begun, Instant::now());
            tried.push(replica.id.clone());
            if tried.len() == server.replicas.len() || Instant::now() >= deadline {
                return Err(RelayError::Upstream {
                    server: server.id.clone(),
                    source,
                });
            }
        }
    }
}
