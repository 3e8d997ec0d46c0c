//! Names that lead to no server: wrong ones, and those of deployments that
//! serve nobody now.

use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};

use super::{RestError, SOON, set_retry_after, unknown_server_message};
use crate::{
    deployments::record::Phase, gateway::Gateway, http::mcp::refuse, mcp::error::RpcError,
};

/// Why there is nobody of that name to ask.
pub(crate) struct Absent {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
}

impl Absent {
    /// Looks for what could be meant.
    pub(crate) fn of(gateway: &Gateway, name: &str) -> Self {
        let deployment = gateway.deployments.one(name);
        let told = deployment.and_then(|view| deployed(name, view.state().0));
        let Some((message, retry_after)) = told else {
            return Self {
                status: StatusCode::NOT_FOUND,
                code: "unknown_server",
                message: unknown_server_message(&gateway.servers, name),
                retry_after: None,
            };
        };
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "no_replica",
            message,
            retry_after,
        }
    }

    /// For MCP, where the request has not been read.
    pub(crate) fn response(self) -> Response<Body> {
        let error = match self.status {
            StatusCode::NOT_FOUND => RpcError::invalid_request(self.message),
            _ => RpcError::internal(self.message),
        };
        let mut response = refuse(self.status, None, &error);
        set_retry_after(response.headers_mut(), self.retry_after);
        response
    }
}

impl From<Absent> for RestError {
    fn from(absent: Absent) -> Self {
        let mut error = Self::new(absent.status, absent.code, absent.message);
        error.retry_after = absent.retry_after;
        error
    }
}

/// What to do about a deployment that is in no list of servers, and when to
/// ask again; `None` when there is as good as none.
fn deployed(name: &str, phase: Phase) -> Option<(String, Option<Duration>)> {
    let (what, retry_after) = match phase {
        Phase::Pending
        | Phase::Pulling
        | Phase::Starting
        | Phase::Ready
        | Phase::Degraded
        | Phase::Updating => (
            "is being deployed: `mcp-fleet list` shows how far it is",
            Some(SOON),
        ),
        Phase::Failing => ("does not start: `mcp-fleet list` says why", Some(5 * SOON)),
        Phase::Stopping | Phase::Stopped => {
            let what = format!("server {name} is stopped: `mcp-fleet restart {name}` starts it");
            return Some((what, None));
        }
        Phase::EngineAway => ("runs on an engine that does not answer", Some(5 * SOON)),
        Phase::Removing | Phase::Removed | Phase::Orphaned | Phase::Unknown => return None,
    };
    Some((format!("server {name} {what}"), retry_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_serve_is_told_from_what_is_not_there() {
        let told = |phase| deployed("x", phase);
        let (message, after) = told(Phase::Stopped).expect("it is there");
        assert_eq!(
            message,
            "server x is stopped: `mcp-fleet restart x` starts it"
        );
        assert_eq!(after, None);
        let (message, after) = told(Phase::Starting).expect("it is there");
        assert!(
            message.starts_with("server x is being deployed"),
            "{message}"
        );
        assert_eq!(after, Some(SOON));
        assert_eq!(told(Phase::Removed), None);
        let is_there = Phase::ALL
            .into_iter()
            .filter(|phase| told(*phase).is_some());
        assert_eq!(is_there.count(), 10);
    }
}
