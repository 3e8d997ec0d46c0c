//! The one place where errors become HTTP statuses and JSON-RPC codes.
//!
//! What clients are told names the server, what happened in a few words and
//! the cure where there is one: no addresses, no sources, nothing of our parts.
//! The whole chain goes to the log.

mod absent;
mod deployments;
mod limited;
mod registry;
mod rest;
mod templates;
#[cfg(test)]
mod tests;

use std::{error::Error, fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};

pub(crate) use self::absent::Absent;
pub use self::{
    limited::{rate_error, rate_failure},
    rest::RestError,
};
use super::body::BodyError;
use crate::{
    lists::ListError,
    mcp::{
        error::{self as codes, RpcError},
        message::Answer,
        version::Era,
    },
    relay::RelayError,
    servers::Servers,
    upstream::UpstreamError,
};

/// When to come back after having been turned away.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// Says when to come back, in whole seconds.
pub(crate) fn set_retry_after(headers: &mut HeaderMap, after: Option<Duration>) {
    if let Some(after) = after {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
}

/// Why an MCP request failed, for whoever writes the response.
#[derive(Debug, Clone)]
pub struct RpcFailure {
    /// The HTTP status, when the response has not begun.
    pub status: StatusCode,
    /// The `error` member; an upstream's own is in its own shape still.
    pub answer: Answer,
    /// When to come back.
    pub retry_after: Option<Duration>,
}

/// What kind of trouble a server made.
struct Blame {
    status: StatusCode,
    code: &'static str,
    retry_after: Option<Duration>,
}

impl From<BodyError> for RestError {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::TooLarge { .. } => "body_too_large",
            BodyError::TooSlow { .. } => "timeout",
            BodyError::Broken => "bad_request",
        };
        Self::new(body_status(&error), code, error.to_string())
    }
}

impl From<ListError> for RestError {
    fn from(error: ListError) -> Self {
        match &error {
            ListError::Answered {
                answer: Answer::Error(answer),
                ..
            } => Self::answered(answer),
            ListError::BadCursor(_) => Self::bad_request(error.to_string()),
            ListError::Upstream { .. }
            | ListError::Answered { .. }
            | ListError::Malformed { .. }
            | ListError::TooLong { .. }
            | ListError::Unreadable { .. }
            | ListError::TimedOut { .. }
            | ListError::Busy { .. } => Self::blamed(&list_blame(&error), list_message(&error)),
        }
    }
}

impl From<RelayError> for RestError {
    fn from(error: RelayError) -> Self {
        match &error {
            RelayError::Rpc(answer) => Self::answered(&answer.to_raw()),
            RelayError::Upstream { .. }
            | RelayError::NoReplica { .. }
            | RelayError::Unavailable
            | RelayError::TooManyParked => {
                Self::blamed(&relay_blame(&error), relay_message(&error))
            }
        }
    }
}

/// Answers paths that do not exist.
pub async fn unknown_path(uri: http::Uri) -> RestError {
    let path: String = uri.path().chars().take(128).collect();
    let message = format!("there is no path {path:?}; /api/openapi.json describes those there are");
    RestError::new(StatusCode::NOT_FOUND, "unknown_path", message)
}

/// The HTTP status of a body that was not read.
#[must_use]
pub fn body_status(error: &BodyError) -> StatusCode {
    match error {
        BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
        BodyError::Broken => StatusCode::BAD_REQUEST,
    }
}

/// The HTTP status that carries a JSON-RPC error. Legacy clients look into the
/// body only; the modern transport fixes some (specification, transports).
#[must_use]
pub fn rpc_status(era: Era, code: i64) -> StatusCode {
    match (era, code) {
        (Era::Legacy, _) => StatusCode::OK,
        (Era::Modern, codes::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        (
            Era::Modern,
            codes::PARSE_ERROR
            | codes::INVALID_REQUEST
            | codes::HEADER_MISMATCH
            | codes::MISSING_CAPABILITY
            | codes::UNSUPPORTED_VERSION,
        ) => StatusCode::BAD_REQUEST,
        (Era::Modern, _) => StatusCode::OK,
    }
}

/// How an MCP client is told that a list cannot be answered.
#[must_use]
pub fn list_failure(error: &ListError, era: Era) -> RpcFailure {
    match error {
        ListError::Answered { answer, .. } => {
            let code = answer.error_code().unwrap_or(codes::INTERNAL_ERROR);
            RpcFailure {
                status: rpc_status(era, code),
                answer: answer.clone(),
                retry_after: None,
            }
        }
        ListError::BadCursor(_) => {
            let refusal = RpcError::invalid_params(error.to_string());
            RpcFailure {
                status: rpc_status(era, refusal.code),
                answer: Answer::error(&refusal),
                retry_after: None,
            }
        }
        ListError::Upstream { .. }
        | ListError::Malformed { .. }
        | ListError::TooLong { .. }
        | ListError::Unreadable { .. }
        | ListError::TimedOut { .. }
        | ListError::Busy { .. } => internal(&list_blame(error), list_message(error)),
    }
}

/// How an MCP client is told that a call has no answer.
#[must_use]
pub fn relay_failure(error: &RelayError, era: Era) -> RpcFailure {
    match error {
        RelayError::Rpc(refusal) => RpcFailure {
            status: rpc_status(era, refusal.code),
            answer: Answer::error(refusal),
            retry_after: None,
        },
        RelayError::Upstream { .. }
        | RelayError::NoReplica { .. }
        | RelayError::Unavailable
        | RelayError::TooManyParked => internal(&relay_blame(error), relay_message(error)),
    }
}

/// `-32603`. Only being turned away shows in the HTTP status: to the transport
/// the rest are answers.
fn internal(blame: &Blame, message: String) -> RpcFailure {
    RpcFailure {
        status: if blame.retry_after.is_some() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        },
        answer: Answer::error(&RpcError::internal(message)),
        retry_after: blame.retry_after,
    }
}

impl Blame {
    fn new(status: StatusCode, code: &'static str) -> Self {
        Self {
            status,
            code,
            retry_after: None,
        }
    }

    fn busy() -> Self {
        Self {
            retry_after: Some(SOON),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy")
        }
    }

    fn timed_out() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout")
    }

    fn bad_gateway() -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "bad_gateway")
    }
}

fn list_blame(error: &ListError) -> Blame {
    match error {
        ListError::Upstream { error, .. } => upstream_blame(error),
        ListError::TimedOut { .. } => Blame::timed_out(),
        ListError::Busy { .. } => Blame::busy(),
        ListError::Unreadable { .. } => Blame::new(StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        ListError::Answered { .. }
        | ListError::Malformed { .. }
        | ListError::TooLong { .. }
        | ListError::BadCursor(_) => Blame::bad_gateway(),
    }
}

fn relay_blame(error: &RelayError) -> Blame {
    match error {
        RelayError::Upstream { source, .. } => upstream_blame(source),
        RelayError::NoReplica { .. } => Blame::new(StatusCode::SERVICE_UNAVAILABLE, "no_replica"),
        RelayError::Unavailable | RelayError::TooManyParked => Blame::busy(),
        RelayError::Rpc(_) => Blame::bad_gateway(),
    }
}

fn upstream_blame(error: &UpstreamError) -> Blame {
    match error.root() {
        UpstreamError::TimedOut { .. } => Blame::timed_out(),
        UpstreamError::Busy(_) | UpstreamError::Stopping => Blame::busy(),
        UpstreamError::NotTaken(not_taken, _) => Blame {
            retry_after: Some(not_taken.after.max(SOON)),
            ..Blame::busy()
        },
        UpstreamError::ConnectFailed(_) | UpstreamError::SpawnFailed(_) => {
            Blame::new(StatusCode::BAD_GATEWAY, "unreachable")
        }
        UpstreamError::NotReady(_)
        | UpstreamError::Closed { .. }
        | UpstreamError::Http { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::TooLarge { .. }
        | UpstreamError::Malformed(_)
        | UpstreamError::Incompatible(_)
        | UpstreamError::SessionLost
        | UpstreamError::SessionGone
        | UpstreamError::NotOffered(_)
        | UpstreamError::NoSuchQuestion => Blame::bad_gateway(),
    }
}

fn list_message(error: &ListError) -> String {
    log(error);
    match error {
        ListError::Upstream { server, error } => format!("server {server}: {}", error.root()),
        ListError::BadCursor(_)
        | ListError::Answered { .. }
        | ListError::Malformed { .. }
        | ListError::TooLong { .. }
        | ListError::Unreadable { .. }
        | ListError::TimedOut { .. }
        | ListError::Busy { .. } => error.to_string(),
    }
}

fn relay_message(error: &RelayError) -> String {
    log(error);
    match error {
        RelayError::Upstream { server, source } => format!("server {server}: {}", source.root()),
        RelayError::NoReplica { .. }
        | RelayError::Rpc(_)
        | RelayError::Unavailable
        | RelayError::TooManyParked => error.to_string(),
    }
}

fn log(error: &(dyn Error + 'static)) {
    tracing::info!(error, "a request could not be answered");
}

/// Says which servers there are: the nearest name, or a few of them.
#[must_use]
pub fn unknown_server_message(servers: &Servers, name: &str) -> String {
    const SHOWN: usize = 10;
    let known = servers.all();
    let names: Vec<&str> = known.iter().map(|server| server.id.as_str()).collect();
    let shown: String = name.chars().take(64).collect();
    let mut message = format!("there is no server {shown:?}");
    let nearest = names
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, &shown), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3));
    // Writing to a String cannot fail.
    match nearest {
        Some((_, nearest)) => write!(message, "; did you mean {nearest:?}?").ok(),
        None if names.is_empty() => write!(message, "; none is configured").ok(),
        None => {
            let more = names.len().saturating_sub(SHOWN);
            let listed = names[..names.len().min(SHOWN)].join(", ");
            let rest = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            write!(message, "; known are {listed}{rest}").ok()
        }
    };
    message
}
