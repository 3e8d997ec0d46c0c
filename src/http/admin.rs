//! What the command line and dashboards ask and change: the fleet, its
//! servers, metrics, and the document that describes all plain HTTP paths.

mod servers;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use http::{HeaderValue, header::CONTENT_TYPE};
use serde::Serialize;

use super::{error::RestError, rest};
use crate::{
    config::AuthMode,
    gateway::Gateway,
    mcp::json,
    telemetry::metrics::{Gauge, Metrics},
};

/// Describes every plain HTTP path of a node.
const OPENAPI: &str = include_str!("openapi.json");

/// The routes below `/api/`, and `/metrics`.
pub fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/api/cluster", get(cluster))
        .route("/api/servers", get(servers::all).post(servers::register))
        .route(
            "/api/servers/{server}",
            get(servers::one).delete(servers::unregister),
        )
        .route("/api/openapi.json", get(openapi))
        .route("/metrics", get(metrics))
}

#[derive(Serialize)]
struct Cluster<'a> {
    nodes: [Node<'a>; 1],
    store: Store,
    servers: usize,
    sessions: i64,
}

#[derive(Serialize)]
struct Node<'a> {
    id: &'a str,
    version: &'static str,
    started_at: String,
    uptime_s: u64,
    listen: String,
    /// The node that answers.
    #[serde(rename = "self")]
    this: bool,
}

#[derive(Serialize)]
struct Store {
    kind: &'static str,
    reachable: bool,
}

async fn cluster(State(gateway): State<Arc<Gateway>>) -> Response {
    let node = Node {
        id: gateway.node.as_str(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: rfc3339(gateway.started_at),
        uptime_s: gateway.started.elapsed().as_secs(),
        listen: gateway.listen.to_string(),
        this: true,
    };
    let kind = match gateway.config.redis {
        Some(_) => "redis",
        None => "embedded",
    };
    answer(&Cluster {
        nodes: [node],
        store: Store {
            kind,
            reachable: gateway.store.is_reachable(),
        },
        servers: gateway.servers.all().len(),
        sessions: gateway.metrics.current(Gauge::Sessions),
    })
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

/// `2026-07-28T09:30:00Z`; for display only.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::{batch, readiness};

    #[test]
    fn times_are_written_for_people() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_785_230_999), "2026-07-28T09:29:59Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
    }

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
