//! Whether a server's replicas answer, as far as the fleet knows.

use std::sync::Arc;

use axum::extract::{Path, State};
use futures_util::future::join_all;
use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use super::{Node, Reply, json as body, server};
use crate::{gateway::Gateway, health, mcp::json, servers::Replica};

/// What is known of a server's replicas.
#[derive(Debug, Serialize)]
struct Health {
    server: String,
    /// `healthy`: all replicas answer; `degraded`: some do; `unhealthy`: none does.
    status: &'static str,
    replicas: Vec<ReplicaHealth>,
}

#[derive(Debug, Serialize)]
struct ReplicaHealth {
    id: String,
    endpoint: String,
    healthy: bool,
    error: Option<String>,
}

/// `GET /mcp/{server}/health`
pub(super) async fn health(State(gateway): Node, Path(name): Path<String>) -> Reply {
    let server = server(&gateway, &name)?;
    let deadline = Instant::now() + gateway.config.health.timeout;
    let asked = server
        .replicas
        .iter()
        .map(|replica| replica_health(&gateway, replica, deadline));
    let replicas = join_all(asked).await;
    let healthy = replicas.iter().filter(|replica| replica.healthy).count();
    let status = match healthy {
        0 => "unhealthy",
        some if some < replicas.len() => "degraded",
        _ => "healthy",
    };
    let health = Health {
        server: server.id.to_string(),
        status,
        replicas,
    };
    let mut response = body(json::raw(&health).get().to_owned().into(), None);
    if healthy == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// What the fleet's probes found. A replica that is not probed (a program, the
/// demo server, one that is new) is asked.
async fn replica_health(
    gateway: &Gateway,
    replica: &Arc<Replica>,
    deadline: Instant,
) -> ReplicaHealth {
    let told = |healthy, error| ReplicaHealth {
        id: replica.id.to_string(),
        endpoint: replica.endpoint.to_string(),
        healthy,
        error,
    };
    if let Some(record) = gateway.health.record(&replica.id) {
        let failing = record.tally.failures > 0;
        let failure = record.failure.filter(|_| failing);
        return told(
            record.tally.state != health::State::Unhealthy,
            failure.map(|failure| format!("{}: {}", failure.stage.as_str(), failure.message)),
        );
    }
    match gateway.upstreams.probe(replica, deadline).await {
        Ok(_) => told(true, None),
        Err(failure) => told(false, Some(failure.to_string())),
    }
}
