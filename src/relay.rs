//! Carries a call between a client and a server of any two eras.
//!
//! The replica's side is an [`Exchange`]: notifications, questions, an answer.
//! The client's side is one of two flows: [`modern`], where a question ends
//! the request and the answer comes with a new one, and [`legacy`], where a
//! question travels on the call's stream while the request stays open. What
//! either flow has to leave with a node while its client is away is in
//! `park`; how other nodes reach it, in `mailbox`.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    fleet::Fleet,
    ids::{Principal, ReplicaId, ServerId},
    lifecycle::Tasks,
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        envelope::{LogLevel, TraceContext},
        error::RpcError,
        message::Answer,
        seal::Sealer,
        version::Era,
    },
    servers::{InFlight, Replica, Server},
    store::Store,
    telemetry::metrics::{Metrics, Retry},
    upstream::{
        ClientSession, Description, Event, Exchange, Outgoing, SessionUse, UpstreamError, Upstreams,
    },
};

mod ask;
pub(crate) mod event_log;
pub mod legacy;
mod mailbox;
pub mod modern;
mod park;
pub(crate) mod standalone;

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

/// Relays calls. One per node.
#[derive(Debug)]
pub struct Relay {
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: Settings,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) running: legacy::Running,
    parked: Arc<tokio::sync::Semaphore>,
}

impl RelayError {
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
    pub fn new(
        settings: Settings,
        upstreams: Arc<Upstreams>,
        sealer: Arc<Sealer>,
        store: Arc<dyn Store>,
        fleet: Arc<Fleet>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mailboxes = Mailboxes::new(Arc::clone(&store), tasks.clone(), settings.max_duration);
        Self {
            upstreams,
            sealer,
            store,
            fleet,
            tasks,
            metrics,
            mailboxes,
            running: legacy::Running::default(),
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
            let Some(replica) = server.pick(&tried) else {
                return Err(RelayError::NoReplica {
                    server: server.id.clone(),
                });
            };
            match self.upstreams.describe(&replica, deadline).await {
                Ok(description) => return Ok(description),
                Err(source) if tried.len() + 1 == server.replicas.len() => {
                    return Err(RelayError::Upstream {
                        server: server.id.clone(),
                        source,
                    });
                }
                Err(_) => tried.push(replica.id.clone()),
            }
        }
    }

    /// Sends the call to a replica: to another one when the first certainly
    /// did not run it.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        call: &Call,
        deadline: Instant,
    ) -> Result<Begun, RelayError> {
        let server = &call.server;
        let mut tried: Vec<ReplicaId> = Vec::new();
        let mut last = None;
        while let Some(replica) = choose(server, call.session.as_ref(), &tried) {
            let in_flight = replica.begin();
            let outgoing = Outgoing {
                method: &call.method,
                params: call.params.as_deref(),
                capabilities: &call.capabilities,
                log_level: call.log_level,
                progress_token: call.progress_token.clone(),
                trace: call.trace.clone(),
                headers: call.headers.clone(),
            };
            let session = call
                .session
                .clone()
                .map_or(SessionUse::Pooled, SessionUse::Dedicated);
            match self
                .upstreams
                .call(&replica, outgoing, session, deadline)
                .await
            {
                Ok(exchange) => {
                    return Ok(Begun {
                        exchange,
                        server: server.id.clone(),
                        _in_flight: in_flight,
                    });
                }
                Err(error) if error.is_safe_to_retry() => {
                    tracing::info!(%replica.id, error = &error as &dyn std::error::Error, "a replica did not take a call");
                    self.metrics.retry(&server.id, Retry::NotSent);
                    tried.push(replica.id.clone());
                    last = Some(error);
                }
                Err(source) => {
                    return Err(RelayError::Upstream {
                        server: server.id.clone(),
                        source,
                    });
                }
            }
        }
        let server = server.id.clone();
        Err(match last {
            Some(source) => RelayError::Upstream { server, source },
            None => RelayError::NoReplica { server },
        })
    }
}

/// The replica for a call. A client session stays with one replica, which all
/// nodes compute alike (rendezvous hashing), unless that one did not answer.
fn choose(
    server: &Server,
    session: Option<&ClientSession>,
    tried: &[ReplicaId],
) -> Option<Arc<Replica>> {
    match session {
        Some(session) => server.home_of(&session.key, tried),
        None => server.pick(tried),
    }
}

/// A call a replica has taken; counted as in flight until dropped.
#[derive(Debug)]
pub(crate) struct Begun {
    exchange: Exchange,
    server: ServerId,
    _in_flight: InFlight,
}

impl Begun {
    /// What the replica says next, at the latest at `deadline`. Cancel safe.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Event, RelayError> {
        self.exchange.set_deadline(Some(deadline));
        self.exchange
            .next()
            .await
            .map_err(|source| self.failed(source))
    }

    /// Answers a question of the replica.
    pub(crate) async fn answer(
        &mut self,
        key: &crate::mcp::message::RequestId,
        answer: &Answer,
    ) -> Result<(), RelayError> {
        self.exchange
            .answer(key, answer)
            .await
            .map_err(|source| self.failed(source))
    }

    /// The era spoken with the replica.
    pub(crate) fn era(&self) -> Era {
        self.exchange.upstream_version().era()
    }

    fn failed(&self, source: UpstreamError) -> RelayError {
        RelayError::Upstream {
            server: self.server.clone(),
            source,
        }
    }
}
