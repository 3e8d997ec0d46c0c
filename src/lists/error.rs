//! Why a list cannot be answered.

use crate::{
    cache::CacheError,
    ids::ServerId,
    mcp::{cursor::BadCursor, error::METHOD_NOT_FOUND, message::Answer},
    upstream::UpstreamError,
};

/// Why a list, a description or a resource cannot be answered from the cache
/// or by a fetch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ListError {
    /// The cursor is not of this list, this caller or this generation of the list.
    #[error(transparent)]
    BadCursor(#[from] BadCursor),
    /// The server answered with an error of its own.
    #[error("server {server} answered with an error")]
    Answered {
        /// The server.
        server: ServerId,
        /// The error as it was written.
        answer: Answer,
    },
    /// The server gave no answer.
    #[error("server {server} gave no answer")]
    Upstream {
        /// The server.
        server: ServerId,
        /// Why.
        #[source]
        error: Box<UpstreamError>,
    },
    /// The server's answer is not a list.
    #[error("server {server} answered {method} with something else: {why}")]
    Malformed {
        /// The server.
        server: ServerId,
        /// What it was asked.
        method: &'static str,
        /// What is wrong with the answer.
        why: String,
    },
    /// The list is longer than this node takes.
    #[error("the {method} of server {server} has more than {limit} {what} ({setting})")]
    TooLong {
        /// The server.
        server: ServerId,
        /// What it was asked.
        method: &'static str,
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: usize,
        /// The configuration key that says so.
        setting: &'static str,
    },
    /// Nobody brought an answer in time.
    #[error("no answer for {what} within the deadline")]
    TimedOut {
        /// What was asked of whom.
        what: String,
    },
    /// What was brought cannot be read: our own fault.
    #[error("the answer for {what} cannot be read")]
    Unreadable {
        /// What was asked of whom.
        what: String,
        /// What is wrong with it; for the log.
        why: String,
    },
    /// This node runs as many fetches as it may.
    #[error("too many fetches at once; {what} was not fetched")]
    Busy {
        /// What was asked of whom.
        what: String,
    },
}

impl ListError {
    /// Whether the server says that it has no such list.
    #[must_use]
    pub fn is_not_offered(&self) -> bool {
        matches!(self, Self::Answered { answer, .. } if answer.error_code() == Some(METHOD_NOT_FOUND))
    }

    /// Whether whoever asked waited in vain, and would again.
    #[must_use]
    pub fn is_late(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Upstream { error, .. } => {
                matches!(error.root(), UpstreamError::TimedOut { .. })
            }
            _ => false,
        }
    }

    /// Why the server is missing from a merged list, in a few words for
    /// clients: nothing about addresses or our own parts.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Upstream { error, .. } => error.root().to_string(),
            Self::TimedOut { .. } => "no answer in time".to_owned(),
            Self::Busy { .. } => "the node is busy".to_owned(),
            Self::Answered { .. }
            | Self::Malformed { .. }
            | Self::TooLong { .. }
            | Self::Unreadable { .. }
            | Self::BadCursor(_) => self.to_string(),
        }
    }
}

impl From<CacheError<Self>> for ListError {
    fn from(error: CacheError<Self>) -> Self {
        match error {
            CacheError::Fetch(error) => error,
            CacheError::TimedOut { key } => Self::TimedOut { what: key },
            CacheError::Unreadable { key, why } => Self::Unreadable { what: key, why },
            CacheError::Busy { key } => Self::Busy { what: key },
        }
    }
}
