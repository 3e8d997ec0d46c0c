//! `/healthz`: the process answers. `/readyz`: whether a load balancer should
//! send traffic here, which is so until the node drains; without its store it
//! still serves (`degraded`).

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use http::StatusCode;
use serde::Serialize;

use super::rest;
use crate::{gateway::Gateway, mcp::json};

/// Whether the process answers.
pub(super) const HEALTHZ: &str = "/healthz";
/// Whether the node takes traffic.
pub(super) const READYZ: &str = "/readyz";

/// The two routes.
pub fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route(HEALTHZ, get(healthz))
        .route(READYZ, get(readyz))
}

/// Whether a node takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Readiness {
    /// Everything works.
    Ready,
    /// Serves, but does not reach the store: see the contract on losing it.
    Degraded,
    /// Stops soon; new traffic belongs elsewhere.
    Draining,
}

impl Readiness {
    fn of(stopping: bool, store_reachable: bool) -> Self {
        match (stopping, store_reachable) {
            (true, _) => Self::Draining,
            (false, true) => Self::Ready,
            (false, false) => Self::Degraded,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Ready | Self::Degraded => StatusCode::OK,
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    status: Readiness,
    node: &'a str,
    store: StoreReport,
}

#[derive(Serialize)]
struct StoreReport {
    reachable: bool,
}

async fn healthz() -> Response {
    rest::json(r#"{"status":"alive"}"#.into(), None)
}

async fn readyz(State(gateway): State<Arc<Gateway>>) -> Response {
    let reachable = gateway.store.is_reachable();
    let readiness = Readiness::of(gateway.tasks.stopping().is_cancelled(), reachable);
    let report = Report {
        status: readiness,
        node: gateway.node.as_str(),
        store: StoreReport { reachable },
    };
    let mut response = rest::json(json::raw(&report).get().to_owned().into(), None);
    *response.status_mut() = readiness.status();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_draining_node_refuses_traffic() {
        assert_eq!(Readiness::of(false, true), Readiness::Ready);
        assert_eq!(Readiness::of(false, false), Readiness::Degraded);
        assert_eq!(Readiness::of(true, true), Readiness::Draining);
        assert_eq!(Readiness::of(true, false), Readiness::Draining);
        assert_eq!(Readiness::Degraded.status(), StatusCode::OK);
        assert_eq!(
            Readiness::Draining.status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
}
