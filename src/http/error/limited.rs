//! What clients are told that have to wait.

use http::StatusCode;

use super::{Blame, RestError, RpcFailure};
use crate::{
    mcp::{
        error::{RATE_LIMITED, RpcError},
        message::Answer,
    },
    rates::Limited,
};

impl From<Limited> for RestError {
    fn from(limited: Limited) -> Self {
        let blame = Blame {
            retry_after: Some(limited.after),
            ..Blame::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited")
        };
        Self::blamed(&blame, limited.to_string())
    }
}

/// How an MCP client is told, of any era.
#[must_use]
pub fn rate_failure(limited: &Limited) -> RpcFailure {
    RpcFailure {
        status: StatusCode::TOO_MANY_REQUESTS,
        answer: Answer::error(&rate_error(limited)),
        retry_after: Some(limited.after),
    }
}

/// The error for where no status can be given: in a batch, on a stream.
#[must_use]
pub fn rate_error(limited: &Limited) -> RpcError {
    let data = serde_json::json!({ "retryAfterSeconds": limited.after.as_secs() });
    RpcError::new(RATE_LIMITED, limited.to_string()).with_data(&data)
}
