//! Why a replica gave no answer, split by what the caller can do about it.
//!
//! A JSON-RPC error is an answer, not one of these: it is handed up as it came.

use std::{error::Error, sync::Arc};

use http::{HeaderValue, StatusCode};

use crate::{
    breaker::{Failure, Told},
    bridge::not_taken::{NotTaken, Reason},
    mcp::{error::RpcError, message::Answer},
};

/// The cause below an error, shared because errors are handed to many waiters.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a replica gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or a pooled one ended before the request was written. Nothing was sent.
    #[error("cannot connect to the replica")]
    ConnectFailed(#[source] Cause),
    /// The server's process could not be started, or was started too often
    /// lately: what its bridge says. Nothing was sent.
    #[error("{0}")]
    SpawnFailed(Box<str>),
    /// The era of the replica could not be found out, or no session could be
    /// opened. The request itself was not sent.
    #[error("the replica is not ready")]
    NotReady(#[source] Box<UpstreamError>),
    /// All sessions or processes for such calls are taken and stayed so until the deadline. Nothing was sent.
    #[error("{0}")]
    Busy(&'static str),
    /// The bridge did not give the request to its server.
    #[error("the server does not take calls now{}", explain(.1))]
    NotTaken(NotTaken, Box<str>),
    /// The node is stopping. Nothing was sent.
    #[error("the node is stopping")]
    Stopping,
    /// No answer before the deadline. When `sent`, the server may have run the request.
    #[error("no answer before the deadline")]
    TimedOut {
        /// Whether the request had left.
        sent: bool,
    },
    /// The connection or process ended before the answer. The server may have run the request.
    #[error("the connection ended before the answer")]
    Closed {
        /// Whether it ended before the response's headers.
        before_headers: bool,
        /// What the transport said, if anything.
        #[source]
        cause: Option<Cause>,
    },
    /// An HTTP status that carries no JSON-RPC answer.
    #[error("the replica answered {status}{}", explain(.text))]
    Http {
        /// The status.
        status: StatusCode,
        /// The beginning of a textual body.
        text: Box<str>,
        /// For 401 and 403; describes the upstream's realm and is never relayed to clients.
        www_authenticate: Option<Box<HeaderValue>>,
        /// `Retry-After`, as given.
        retry_after: Option<Box<HeaderValue>>,
    },
    /// `initialize` or `server/discover` was answered with a JSON-RPC error.
    #[error("the replica refused to be opened{}", explain(&answer_text(.answer)))]
    Refused {
        /// The HTTP status it came with; `None` from a pipe.
        status: Option<StatusCode>,
        /// The error.
        answer: Answer,
    },
    /// A message is longer than the configured limit.
    #[error("a message of the replica is longer than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// What arrived is not MCP.
    #[error("the replica's answer cannot be understood: {0}")]
    Malformed(String),
    /// It speaks none of the versions this node speaks.
    #[error("no common protocol version: {0}")]
    Incompatible(String),
    /// The upstream session ended during the request.
    #[error("the upstream session was lost")]
    SessionLost,
    /// The client's session lived in a process of a node that is gone. It does
    /// not come back.
    #[error("the session has ended with the node that ran the server's process")]
    SessionGone,
    /// The replica does not offer this: a stream answered 405, a missing capability.
    #[error("the replica does not offer {0}")]
    NotOffered(&'static str),
    /// There is no question of that id to answer.
    #[error("no such question is open")]
    NoSuchQuestion,
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Error(raw) => RpcError::parse(raw).map_or_else(String::new, |error| error.message),
        Answer::Result(_) => String::new(),
    }
}

fn explain(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl UpstreamError {
    /// Whether the request certainly did not run, so that it may be sent to
    /// another replica whatever it does.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            Self::ConnectFailed(_)
            | Self::SpawnFailed(_)
            | Self::NotReady(_)
            | Self::Busy(_)
            | Self::NotTaken(..)
            | Self::Stopping
            | Self::TimedOut { sent: false } => true,
            Self::TimedOut { sent: true }
            | Self::Closed { .. }
            | Self::Http { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::Malformed(_)
            | Self::Incompatible(_)
            | Self::SessionLost
            | Self::SessionGone
            | Self::NotOffered(_)
            | Self::NoSuchQuestion => false,
        }
    }

    /// What it tells of the replica, for its circuit breaker: not our deadline
    /// while waiting in a queue, not an answer we dislike.
    #[must_use]
    pub fn tells(&self) -> Told {
        match self {
            Self::ConnectFailed(_) | Self::SpawnFailed(_) => Told::Failed(Failure::Unreachable),
            Self::TimedOut { sent: true }
            | Self::Closed { .. }
            | Self::Malformed(_)
            | Self::Incompatible(_) => Told::Failed(Failure::Broken),
            Self::Http { status, .. } if status.is_server_error() => Told::Failed(Failure::Broken),
            Self::NotReady(inner) => inner.tells(),
            Self::Busy(_) | Self::Stopping | Self::TimedOut { sent: false } | Self::SessionGone => {
                Told::Nothing
            }
            Self::NotTaken(not_taken, _) => match not_taken.reason {
                Reason::Busy => Told::Nothing,
                Reason::Down => Told::Failed(Failure::Broken),
                Reason::Stopping => Told::Failed(Failure::Unreachable),
            },
            Self::Http { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::SessionLost
            | Self::NotOffered(_)
            | Self::NoSuchQuestion => Told::Alive,
        }
    }

    /// Whether another replica may do better at a request that does no harm
    /// when it runs twice.
    #[must_use]
    pub fn is_worth_repeating(&self) -> bool {
        match self {
            Self::Closed { .. } | Self::SessionLost => true,
            Self::Http { status, .. } => status.is_server_error(),
            Self::TimedOut { sent: true }
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::Malformed(_)
            | Self::Incompatible(_)
            | Self::SessionGone
            | Self::NotOffered(_)
            | Self::NoSuchQuestion => false,
            Self::ConnectFailed(_)
            | Self::SpawnFailed(_)
            | Self::NotReady(_)
            | Self::Busy(_)
            | Self::NotTaken(..)
            | Self::Stopping
            | Self::TimedOut { sent: false } => self.is_safe_to_retry(),
        }
    }

    /// The error below [`NotReady`](Self::NotReady), for messages and statuses.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::NotReady(inner) => inner.root(),
            other => other,
        }
    }

    /// Whether the client has to open another session.
    #[must_use]
    pub fn is_end_of_session(&self) -> bool {
        matches!(self.root(), Self::SessionGone)
    }

    /// Marks an error met before the request itself was sent.
    pub(super) fn before_request(self) -> Self {
        if self.is_safe_to_retry() {
            self
        } else {
            Self::NotReady(Box::new(self))
        }
    }

    pub(super) fn malformed(why: impl std::fmt::Display) -> Self {
        Self::Malformed(why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn closed() -> UpstreamError {
        UpstreamError::Closed {
            before_headers: true,
            cause: None,
        }
    }

    #[test]
    fn only_what_was_never_sent_is_safe_to_retry() {
        assert!(!closed().is_safe_to_retry());
        assert!(closed().before_request().is_safe_to_retry());
        assert!(UpstreamError::Busy("busy").is_safe_to_retry());
        let stopping = NotTaken {
            reason: Reason::Stopping,
            after: Duration::ZERO,
        };
        let stopping = UpstreamError::NotTaken(stopping, "stopping".into());
        assert!(stopping.is_safe_to_retry());
        assert_eq!(stopping.tells(), Told::Failed(Failure::Unreachable));
        assert!(UpstreamError::TimedOut { sent: false }.is_safe_to_retry());
        assert!(!UpstreamError::TimedOut { sent: true }.is_safe_to_retry());
    }

    #[test]
    fn the_root_of_not_ready_is_what_happened() {
        let error = closed().before_request().before_request();
        assert!(matches!(error.root(), UpstreamError::Closed { .. }));
        assert_eq!(error.tells(), Told::Failed(Failure::Broken));
    }

    #[test]
    fn messages_name_the_status_and_its_text() {
        let error = UpstreamError::Http {
            status: StatusCode::BAD_GATEWAY,
            text: "no backend".into(),
            www_authenticate: None,
            retry_after: None,
        };
        assert_eq!(
            error.to_string(),
            "the replica answered 502 Bad Gateway: no backend"
        );
    }
}
