//! The error body of plain REST answers.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};

use super::{Blame, set_retry_after, unknown_server_message};
use crate::{
    mcp::{
        Raw,
        error::{self as codes, RpcError},
        json::{self, RawObject},
    },
    servers::Servers,
};

/// Why a plain REST request failed: `{"error":{"code","message"}}`.
#[derive(Debug, Clone)]
pub struct RestError {
    status: StatusCode,
    code: &'static str,
    message: String,
    pub(super) retry_after: Option<Duration>,
    /// The server's own error, as it was written.
    rpc: Option<Box<Raw>>,
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

    pub(super) fn blamed(blame: &Blame, message: String) -> Self {
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
        set_retry_after(headers, self.retry_after);
        response
    }
}
