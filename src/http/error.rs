//! The one place where errors become HTTP statuses and JSON-RPC codes.
//!
//! What clients are told names the server, what happened in a few words and
//! the cure where there is one: no addresses, no sources, nothing of our parts.
//! The whole chain goes to the log.

use std::{error::Error, fmt::Write as _, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use super::body::BodyError;
use crate::{
    lists::ListError,
    mcp::{
        Raw,
        error::{self as codes, RpcError},
        json::{self, RawObject},
        message::Answer,
        version::Era,
    },
    relay::RelayError,
    servers::Servers,
    upstream::UpstreamError,
};

/// When to come back after having been turned away.
const SOON: Duration = Duration::from_secs(1);

/// Why a plain REST request failed: `{"error":{"code","message"}}`.
#[derive(Debug, Clone)]
pub struct RestError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
    /// The server's own error, as it was written.
    rpc: Option<Box<Raw>>,
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

impl RestError {
    /// An error with a stable `code` for programs and a `message` for people.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
            rpc: None,
        }
    }

    /// The request is not what the path takes.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// There is no server of that name.
    #[must_use]
    pub fn unknown_server(servers: &Servers, name: &str) -> Self {
        let message = unknown_server_message(servers, name);
        Self::new(StatusCode::NOT_FOUND, "unknown_server", message)
    }

    /// A server answered with a JSON-RPC error.
    #[must_use]
    pub fn answered(error: &Raw) -> Self {
        let parsed = RpcError::parse(error);
        let code = parsed
            .as_ref()
            .map_or(codes::INTERNAL_ERROR, |error| error.code);
        let status = match code {
            codes::METHOD_NOT_FOUND | codes::RESOURCE_NOT_FOUND => StatusCode::NOT_FOUND,
            codes::INVALID_PARAMS | codes::INVALID_REQUEST | codes::MISSING_CAPABILITY => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::BAD_GATEWAY,
        };
        Self {
            rpc: Some(error.to_owned()),
            ..Self::new(
                status,
                "rpc_error",
                parsed.map_or_else(
                    || "the server answered with an error".into(),
                    |error| error.message,
                ),
            )
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The `error` member: `{"code","message"}`, and `rpc` with a server's own error.
    #[must_use]
    pub fn to_raw(&self) -> Box<Raw> {
        let mut object = RawObject::new();
        object.set("code", json::raw_str(self.code));
        object.set("message", json::raw_str(&self.message));
        if let Some(rpc) = &self.rpc {
            object.set("rpc", &**rpc);
        }
        object.to_raw()
    }

    fn blamed(blame: &Blame, message: String) -> Self {
        Self {
            retry_after: blame.retry_after,
            ..Self::new(blame.status, blame.code, message)
        }
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let body = [b"{\"error\":", self.to_raw().get().as_bytes(), b"}"].concat();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        balance::Policy,
        ids::ServerId,
        mcp::cursor::BadCursor,
        servers::{Endpoint, Replica, Server},
    };

    fn servers(names: &[&str]) -> Servers {
        let server = |name: &&str| {
            let id = ServerId::try_from(*name).expect("good name");
            let replica = Arc::new(Replica::new(id.clone(), Endpoint::Demo, 1));
            Arc::new(Server::new(id, vec![replica], Policy::P2c, SOON, "config"))
        };
        Servers::new(names.iter().map(server).collect())
    }

    fn id(name: &str) -> ServerId {
        ServerId::try_from(name).expect("good name")
    }

    #[test]
    fn an_unknown_server_is_answered_with_the_nearest_or_all() {
        let known = servers(&["demo", "notes"]);
        assert_eq!(
            unknown_server_message(&known, "dmeo"),
            "there is no server \"dmeo\"; did you mean \"demo\"?"
        );
        assert_eq!(
            unknown_server_message(&known, "filesystem"),
            "there is no server \"filesystem\"; known are demo, notes"
        );
        assert!(unknown_server_message(&servers(&[]), "x").ends_with("none is configured"));
        let many: Vec<String> = (0..12).map(|n| format!("server-number-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let message = unknown_server_message(&servers(&many), &"y".repeat(5000));
        assert!(
            message.ends_with("and 2 more") && message.len() < 400,
            "{message}"
        );
    }

    #[test]
    fn the_modern_transport_fixes_some_statuses() {
        for (code, status) in [
            (codes::METHOD_NOT_FOUND, 404),
            (codes::HEADER_MISMATCH, 400),
            (codes::MISSING_CAPABILITY, 400),
            (codes::UNSUPPORTED_VERSION, 400),
            (codes::PARSE_ERROR, 400),
            (codes::INVALID_PARAMS, 200),
            (codes::INTERNAL_ERROR, 200),
            (17, 200),
        ] {
            assert_eq!(rpc_status(Era::Modern, code).as_u16(), status, "{code}");
            assert_eq!(rpc_status(Era::Legacy, code), StatusCode::OK);
        }
    }

    #[test]
    fn bad_cursors_are_bad_parameters() {
        let failure = list_failure(&ListError::BadCursor(BadCursor), Era::Modern);
        assert_eq!(failure.answer.error_code(), Some(codes::INVALID_PARAMS));
    }

    #[test]
    fn internals_are_hidden_and_time_outs_are_told_from_failures() {
        let refused = std::io::Error::other("tcp connect 10.1.2.3:99 refused");
        let error = ListError::Upstream {
            server: id("notes"),
            error: UpstreamError::ConnectFailed(Arc::new(refused)),
        };
        let failure = list_failure(&error, Era::Modern);
        let Answer::Error(raw) = &failure.answer else {
            panic!("an error was expected");
        };
        assert_eq!(failure.answer.error_code(), Some(codes::INTERNAL_ERROR));
        assert!(
            raw.get().contains("notes") && !raw.get().contains("10.1.2.3"),
            "{raw}"
        );
        assert_eq!(RestError::from(error).status(), StatusCode::BAD_GATEWAY);

        let error = RelayError::Upstream {
            server: id("notes"),
            source: UpstreamError::TimedOut { sent: true },
        };
        assert_eq!(relay_failure(&error, Era::Legacy).status, StatusCode::OK);
        assert_eq!(RestError::from(error).status(), StatusCode::GATEWAY_TIMEOUT);
    }

    #[test]
    fn whoever_is_turned_away_is_told_when_to_come_back() {
        let error = RelayError::Upstream {
            server: id("notes"),
            source: UpstreamError::Busy("all sessions are taken"),
        };
        let failure = relay_failure(&error, Era::Modern);
        assert_eq!(failure.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(failure.retry_after, Some(SOON));
        let response = RestError::from(error).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn a_servers_own_error_is_passed_on() {
        let own =
            Raw::from_string(r#"{"code":-32602,"message":"Unknown tool: x","data":1.0}"#.into());
        let error = RestError::answered(&own.expect("JSON"));
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            error.to_raw().get(),
            r#"{"code":"rpc_error","message":"Unknown tool: x","rpc":{"code":-32602,"message":"Unknown tool: x","data":1.0}}"#
        );
    }
}
