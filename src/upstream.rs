//! Talking to replicas: connections, eras, sessions, exchanges.
//!
//! Callers see one interface whatever the replica speaks: [`Upstreams::call`]
//! sends a request and yields an [`Exchange`]. Which replica is called is not
//! decided here, and nothing here knows what a client looks like.

mod alive;
mod changes;
mod client;
mod dedicated;
mod demo;
mod elsewhere;
mod era;
mod error;
mod exchange;
mod incoming;
mod kept;
mod legacy_sse;
mod link;
mod local;
mod open;
mod peer;
mod pool;
mod request;
mod resume;
mod router;
mod session;
mod shared;
mod standalone;
mod upstreams;
mod watch;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::sync::watch as latest;

pub(crate) use self::elsewhere::PATH as BRIDGE_PATH;
use self::shared::Shared;
pub use self::{
    alive::{ProbeFailure, Sign, Stage},
    error::{Cause, UpstreamError},
    exchange::Exchange,
    upstreams::Upstreams,
};
use crate::bridge::signer::Signer;
use crate::mcp::{
    Raw,
    capabilities::{ClientCapabilities, ServerCapabilities},
    envelope::{LogLevel, TraceContext},
    message::{Answer, RequestId},
    method::ListKind,
    version::{Era, Version},
};

/// Bounds and waiting times toward replicas.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// How TLS is spoken; whose certificates are trusted.
    pub tls: Arc<rustls::ClientConfig>,
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
    /// Streams per HTTP+SSE replica.
    pub streams_per_replica: usize,
    /// Sessions of clients that this node remembers without asking the store.
    pub dedicated_sessions: usize,
    /// An unused session is ended after this.
    pub session_idle: Duration,
    /// A process of a stdio server whose session nobody uses is ended after this.
    pub process_idle: Duration,
    /// Longest message accepted from a replica.
    pub max_message_bytes: usize,
    /// This node's `{name, version, ..}`, sent where the client gave no name.
    pub client_info: Box<Raw>,
    /// Whether sessions of clients outlive this node: true with a shared store.
    pub keep_dedicated: bool,
    /// How this node proves itself to bridges.
    pub signer: Signer,
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
    /// A legacy server ended the call's stream on purpose and goes on after
    /// this time. The exchange does so by itself; a client may be told to do alike.
    Paused {
        /// The server's `retry`.
        retry: Duration,
    },
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

/// The resources whose changes a watch is to report.
#[derive(Debug)]
pub struct Resources {
    /// Their URIs, now and later.
    pub wanted: latest::Receiver<BTreeSet<String>>,
    /// Which of them the replica will tell of.
    pub confirmed: latest::Sender<Confirmed>,
}

impl Resources {
    /// What the replica said it tells of.
    fn confirm(&self, uris: BTreeSet<String>) {
        self.confirmed.send_replace(Confirmed::These(uris));
    }

    /// What is not wanted any more counts as unconfirmed from now on: by the
    /// time it is wanted again, the replica may have been told to stop.
    fn only(&self, wanted: &BTreeSet<String>) {
        self.confirmed.send_if_modified(|confirmed| {
            let Confirmed::These(uris) = confirmed else {
                return false;
            };
            let before = uris.len();
            uris.retain(|uri| wanted.contains(uri));
            uris.len() != before
        });
    }
}

/// What a replica has agreed to tell of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Confirmed {
    /// Nothing so far.
    #[default]
    Nothing,
    /// Changes of these resources; what it refused is among them, since
    /// waiting for it is no use.
    These(BTreeSet<String>),
    /// Nothing, nor will it: there is no stream of changes.
    Never,
}

impl Confirmed {
    /// Whether there is nothing to wait for any more with this resource.
    #[must_use]
    pub fn is_settled(&self, uri: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::These(uris) => uris.contains(uri),
            Self::Never => true,
        }
    }
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

impl Change {
    /// Whether both tell the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Watching, Self::Watching) => true,
            (Self::List(one), Self::List(other)) => one == other,
            (Self::Resource { uri: one, .. }, Self::Resource { uri: other, .. }) => one == other,
            _ => false,
        }
    }
}
