//! What the command line and dashboards ask and change: the fleet, its
//! servers, metrics, and the document that describes all plain HTTP paths.

mod cluster;
mod date;
mod deployments;
mod replicas;
mod servers;
mod templates;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    response::Response,
    routing::{get, post},
};
use http::{HeaderValue, header::CONTENT_TYPE};
use serde::Serialize;

use super::{error::RestError, rest};
use crate::{config::AuthMode, gateway::Gateway, mcp::json, telemetry::metrics::Metrics};

/// Describes every plain HTTP path of a node.
const OPENAPI: &str = include_str!("openapi.json");

/// The routes below `/api/`, and `/metrics`.
pub fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/api/cluster", get(cluster::cluster))
        .route("/api/servers", get(servers::all).post(servers::register))
        .route(
            "/api/servers/{server}",
            get(servers::one).delete(servers::unregister),
        )
        .route("/api/templates", get(templates::all))
        .route("/api/templates/{template}", get(templates::one))
        .route(
            "/api/deployments",
            get(deployments::all).post(deployments::deploy),
        )
        .route(
            "/api/deployments/{deployment}",
            get(deployments::one).delete(deployments::remove),
        )
        .route(
            "/api/deployments/{deployment}/stop",
            post(deployments::stop),
        )
        .route(
            "/api/deployments/{deployment}/restart",
            post(deployments::restart),
        )
        .route(
            "/api/deployments/{deployment}/scale",
            post(deployments::scale),
        )
        .route(
            "/api/deployments/{deployment}/logs",
            get(deployments::logs::logs),
        )
        .route("/api/openapi.json", get(openapi))
        .route("/metrics", get(metrics))
}

async fn openapi() -> Response {
    rest::json(OPENAPI.into(), None)
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let mut response = Response::new(Body::from(gateway.metrics.render()));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static(Metrics::CONTENT_TYPE),
    );
    response
}

/// Whether the caller may change what the fleet serves. With `auth.mode =
/// "none"` everybody who reaches the port may, as they may call everything.
fn check_may_change(gateway: &Gateway) -> Result<(), RestError> {
    match gateway.config.auth.mode {
        None | Some(AuthMode::None) => Ok(()),
    }
}

fn answer<T: Serialize>(value: &T) -> Response {
    rest::json(json::raw(value).get().to_owned().into(), None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::{batch, readiness};

    /// The paths of a router, as its debug output shows them.
    fn paths_of(routes: &Router<Arc<Gateway>>) -> BTreeSet<String> {
        let shown = format!("{routes:?}");
        shown
            .split('"')
            // What is left out are the router's own fallbacks.
            .filter(|part| part.starts_with('/') && part.len() > 1 && !part.contains("*__private"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_document_describes_exactly_the_paths_there_are() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        assert!(
            document["openapi"]
                .as_str()
                .is_some_and(|version| version.starts_with("3.1"))
        );
        let described: BTreeSet<String> = document["paths"]
            .as_object()
            .expect("paths")
            .keys()
            .cloned()
            .collect();
        let routed: BTreeSet<String> = [
            routes(),
            rest::routes(),
            batch::routes(),
            readiness::routes(),
        ]
        .iter()
        .flat_map(paths_of)
        .collect();
        assert!(!routed.is_empty());
        assert_eq!(described, routed);
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            if let Some(reference) = value.get("$ref").and_then(|text| text.as_str()) {
                let pointer = reference.strip_prefix('#').expect("a local reference");
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            match value {
                serde_json::Value::Object(members) => open.extend(members.values()),
                serde_json::Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
    }
}
