//! Whether a replica is alive: one cheap request of the era it speaks, on a
//! pooled connection or session, so that probing opens nothing that calls
//! would not use.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    UpstreamError, Upstreams,
    peer::{Peer, Speaks},
    pool::{Need, SlotKey},
    request::{Failure, simple_request},
};
use crate::{
    mcp::{Raw, capabilities::ClientCapabilities, json, method},
    servers::Replica,
};

/// How far a probe came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// No connection, or the process did not start.
    Connect,
    /// Connected, but no whole answer came.
    Answer,
    /// An HTTP status that says that it cannot serve.
    Status,
    /// What came is not MCP, or of no common version.
    Protocol,
    /// Sessions are lost as soon as they are opened.
    Session,
}

impl Stage {
    /// The word for people and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Answer => "answer",
            Self::Status => "status",
            Self::Protocol => "protocol",
            Self::Session => "session",
        }
    }
}

/// What a probe that did not fail found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// An answer, after this time.
    Answer(Duration),
    /// Nothing: this node could not ask (it is stopping, or all its sessions
    /// with the replica are taken).
    NotAsked,
}

/// Why a replica does not count as alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// How far the probe came.
    pub stage: Stage,
    /// What happened, for people.
    pub message: String,
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage.as_str(), self.message)
    }
}

impl Upstreams {
    /// Asks a replica for a sign of life.
    ///
    /// # Errors
    /// When there was none before `deadline`. A refusal (401, 403, 405, a
    /// JSON-RPC error) is a sign of life.
    pub async fn probe(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        deadline: Instant,
    ) -> Result<Sign, ProbeFailure> {
        let begun = Instant::now();
        let peer = self.peer(replica);
        match self.sign_of_life(&peer, deadline).await {
            Ok(()) => Ok(Sign::Answer(begun.elapsed())),
            Err(error) => match error.root() {
                UpstreamError::Stopping | UpstreamError::Busy(_) => Ok(Sign::NotAsked),
                error => judge(error).map_or_else(|| Ok(Sign::Answer(begun.elapsed())), Err),
            },
        }
    }

    async fn sign_of_life(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        self.check_open()?;
        let known = peer.speaks().is_some();
        let verdict = peer.verdict(&self.shared, deadline).await?;
        let nobody = ClientCapabilities::none();
        match verdict.speaks {
            Speaks::Demo => Ok(()),
            // Finding out what it speaks was the same request.
            Speaks::ModernHttp(_) if !known => Ok(()),
            Speaks::ModernHttp(_) => {
                let again = peer.probe_again(&self.shared, deadline, &verdict).await;
                again.map(drop)
            }
            Speaks::LegacyHttp { .. } | Speaks::LegacySse => {
                let empty = json::raw(&serde_json::json!({}));
                let key = SlotKey::Capabilities(Arc::clone(nobody.fingerprint()));
                let first = self.ask(peer, &key, method::PING, &empty, deadline).await;
                match first {
                    // A server that was restarted has forgotten its sessions.
                    Err(UpstreamError::SessionLost) => {
                        self.ask(peer, &key, method::PING, &empty, deadline).await
                    }
                    other => other,
                }
            }
        }
    }

    async fn ask(
        &self,
        peer: &Arc<Peer>,
        key: &SlotKey,
        method: &str,
        params: &Raw,
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        let need = Need {
            key,
            capabilities: &ClientCapabilities::none(),
            client: None,
            alone: false,
        };
        let lease = peer.slots.lease(peer, &self.shared, need, deadline).await?;
        let link = Arc::clone(&lease.session.link);
        let asked = simple_request(peer, &self.shared, lease, method, params, deadline).await;
        if matches!(
            asked,
            Err(Failure::SessionLost(_) | Failure::Error(UpstreamError::SessionLost))
        ) {
            link.mark_lost();
        }
        asked.map(drop).map_err(Failure::into_error)
    }
}

/// What an error says of the replica; `None`: that it lives.
fn judge(error: &UpstreamError) -> Option<ProbeFailure> {
    let stage = match error {
        UpstreamError::ConnectFailed(_)
        | UpstreamError::SpawnFailed(_)
        | UpstreamError::TimedOut { sent: false } => Stage::Connect,
        UpstreamError::TimedOut { sent: true } | UpstreamError::Closed { .. } => Stage::Answer,
        UpstreamError::Http { status, .. } => match status.as_u16() {
            404 | 410 | 500.. => Stage::Status,
            _ => return None,
        },
        UpstreamError::TooLarge { .. }
        | UpstreamError::Malformed(_)
        | UpstreamError::Incompatible(_) => Stage::Protocol,
        UpstreamError::NotTaken(..) => Stage::Status,
        UpstreamError::SessionLost | UpstreamError::SessionGone => Stage::Session,
        // An answer; the last four do not come here.
        UpstreamError::Refused { .. }
        | UpstreamError::NotOffered(_)
        | UpstreamError::NotReady(_)
        | UpstreamError::Busy(_)
        | UpstreamError::Stopping
        | UpstreamError::NoSuchQuestion => return None,
    };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Some(ProbeFailure { stage, message })
}
