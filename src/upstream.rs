//! Talking to replicas: connections, eras, sessions, exchanges.
//!
//! Callers see one interface whatever the replica speaks: [`Upstreams::call`]
//! sends a request and yields an [`Exchange`]. Which replica is called is not
//! decided here, and nothing here knows what a client looks like.

mod demo;
mod error;
mod http;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

pub use self::error::{Cause, UpstreamError};
use crate::{
    ids::ReplicaId,
    lifecycle::Tasks,
    mcp::{
        Raw,
        capabilities::{ClientCapabilities, ServerCapabilities},
        envelope::{LogLevel, TraceContext},
        message::{Answer, RequestId},
        method::ListKind,
        version::{Era, Version},
    },
    servers::{Replica, Server},
    store::Store,
    telemetry::metrics::Metrics,
};

/// Bounds and waiting times toward replicas.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// An unused connection is closed after this.
    pub pool_idle: Duration,
    /// Unused connections kept per host.
    pub max_idle_per_host: usize,
    /// After this a *legacy* verdict is checked again, in the background.
    pub verdict_horizon: Duration,
    /// How long a replica may take to say which era it speaks.
    pub probe_timeout: Duration,
    /// Pooled sessions per replica over HTTP.
    pub sessions_per_replica: usize,
    /// Child processes per stdio replica, and streams per HTTP+SSE replica.
    pub processes_per_replica: usize,
    /// Sessions of clients that this node remembers without asking the store.
    pub dedicated_sessions: usize,
    /// An unused session is ended after this.
    pub session_idle: Duration,
    /// Longest message accepted from a replica.
    pub max_message_bytes: usize,
    /// This node's `{name, version, ..}`, sent where the client gave no name.
    pub client_info: Box<Raw>,
    /// Whether sessions of clients outlive this node: true with a shared store.
    pub keep_dedicated: bool,
}

/// What is known of a replica: who it is and what it can do.
#[derive(Debug)]
pub struct Description {
    /// The version spoken with it.
    pub version: Version,
    /// All versions it names; for a legacy replica the negotiated one.
    pub supported: Vec<String>,
    /// What it can do.
    pub capabilities: ServerCapabilities,
    /// `{name, version, ..}` as the server gave it.
    pub server_info: Option<Box<Raw>>,
    /// Its advice for models, a JSON string.
    pub instructions: Option<Box<Raw>>,
    /// The whole result of `server/discover` or `initialize`.
    pub raw: Box<Raw>,
    /// How long it may be kept, and whether it is the same for everyone.
    pub ttl: Option<(Duration, bool)>,
}

impl Description {
    /// Whether it takes legacy sessions, which is what legacy clients are
    /// served through: bytes pass unchanged, and nothing has to be translated.
    #[must_use]
    pub fn speaks_legacy(&self) -> bool {
        let is_legacy = |version: &String| {
            Version::parse(version).is_some_and(|version| version.era() == Era::Legacy)
        };
        self.version.era() == Era::Legacy || self.supported.iter().any(is_legacy)
    }
}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a str,
    /// The parameters as the client wrote them; our `_meta` keys are replaced.
    pub params: Option<&'a Raw>,
    /// What the client can be asked for.
    pub capabilities: &'a ClientCapabilities,
    /// Log messages wanted.
    pub log_level: Option<LogLevel>,
    /// The client's progress token; absent: no progress wanted.
    pub progress_token: Option<Box<Raw>>,
    /// The trace this request belongs to.
    pub trace: TraceContext,
    /// `Mcp-Param-*` headers, sent to modern HTTP replicas.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Which legacy session a request travels in. Modern replicas have none.
#[derive(Debug, Clone)]
pub enum SessionUse {
    /// Any session opened with the request's capabilities.
    Pooled,
    /// The one that belongs to a client's session.
    Dedicated(ClientSession),
}

/// A client's session, as far as upstream sessions follow from it.
#[derive(Debug, Clone)]
pub struct ClientSession {
    /// The session's digest, part of the store's key.
    pub key: Arc<str>,
    /// What the client declared in `initialize`.
    pub capabilities: ClientCapabilities,
    /// Who the client says it is.
    pub client_info: Option<Box<Raw>>,
    /// The version negotiated with the client, offered to the replica.
    pub version: Version,
    /// How long the record lives after its last use.
    pub ttl: Duration,
}

/// What happens during an exchange.
#[derive(Debug)]
pub enum Event {
    /// A whole JSON-RPC notification. A progress token is the client's again.
    Notification(Bytes),
    /// A question to the client.
    Ask(Ask),
    /// The answer. Nothing follows.
    Done(Answer),
}

/// A server's request in the middle of a call.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The server's id for it; goes into [`Exchange::answer`].
    pub key: RequestId,
    /// `elicitation/create`, `sampling/createMessage` or `roots/list`.
    pub method: String,
    /// Its parameters.
    pub params: Option<Box<Raw>>,
}

/// A change a replica reported.
#[derive(Debug, Clone)]
pub enum Change {
    /// The watch is established; what was learned before may be out of date.
    Watching,
    /// A list changed.
    List(ListKind),
    /// A resource changed.
    Resource {
        /// Its URI.
        uri: String,
        /// The notification's parameters, without a subscription id.
        params: Box<Raw>,
    },
}

/// One request and what comes back.
#[derive(Debug)]
pub struct Exchange {}

impl Exchange {
    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// When no answer can come any more.
    pub async fn next(&mut self) -> Result<Event, UpstreamError> {
        todo!()
    }

    /// Answers an open question.
    ///
    /// # Errors
    /// When the replica cannot be told.
    pub async fn answer(&mut self, key: &RequestId, answer: &Answer) -> Result<(), UpstreamError> {
        todo!()
    }

    /// The version spoken with the replica.
    #[must_use]
    pub fn upstream_version(&self) -> Version {
        todo!()
    }

    /// Sets when waiting ends; `None` waits as long as the replica lives.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        todo!()
    }
}

/// All that a node holds toward replicas.
#[derive(Debug)]
pub struct Upstreams {}

impl Upstreams {
    /// Opens nothing yet; starts the task that ends idle sessions.
    #[must_use]
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        todo!()
    }

    /// Era and self-description of a replica.
    ///
    /// # Errors
    /// When the replica cannot be reached or understood.
    pub async fn describe(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        deadline: Instant,
    ) -> Result<Arc<Description>, UpstreamError> {
        todo!()
    }

    /// Sends a request. Dropping the future or the exchange cancels it upstream.
    ///
    /// # Errors
    /// When no answer can come; see [`UpstreamError::is_safe_to_retry`].
    pub async fn call(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        request: Outgoing<'_>,
        session: SessionUse,
        deadline: Instant,
    ) -> Result<Exchange, UpstreamError> {
        todo!()
    }

    /// Sends a notification on a client's session. Nothing is sent to a modern replica.
    ///
    /// # Errors
    /// When the replica did not take it.
    pub async fn notify(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        session: &ClientSession,
        method: &str,
        params: Option<&Raw>,
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        todo!()
    }

    /// Messages of a client's session that belong to no call. Opens the session
    /// if needed; the exchange is never done.
    ///
    /// # Errors
    /// When there is no such stream: [`UpstreamError::NotOffered`].
    pub async fn session_stream(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        session: &ClientSession,
        deadline: Instant,
    ) -> Result<Exchange, UpstreamError> {
        todo!()
    }

    /// The replica that holds the upstream session of a client's session.
    pub async fn bound_replica(&self, session: &Arc<str>, server: &Server) -> Option<ReplicaId> {
        todo!()
    }

    /// Ends the upstream session of a client's session and forgets it.
    pub async fn retire(&self, session: &Arc<str>, server: &Server) {
        todo!()
    }

    /// Reports changes of a replica until its stream ends.
    ///
    /// # Errors
    /// Why the stream ended; [`UpstreamError::NotOffered`] when there is none to have.
    pub async fn watch(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        uris: watch::Receiver<BTreeSet<String>>,
        changes: mpsc::Sender<Change>,
    ) -> Result<(), UpstreamError> {
        todo!()
    }

    /// Ends pooled sessions and child processes.
    pub async fn shutdown(&self, deadline: Instant) {
        todo!()
    }
}
