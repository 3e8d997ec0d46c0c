//! Whether a server's replicas answer, as far as this node knows.

use std::sync::Arc;

use axum::extract::{Path, State};
use futures_util::future::join_all;
use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use super::{Node, Reply, json as body, server};
use crate::{gateway::Gateway, mcp::json, servers::Replica};

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
    version: Option<&'static str>,
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

async fn replica_health(
    gateway: &Gateway,
    replica: &Arc<Replica>,
    deadline: Instant,
) -> ReplicaHealth {
    let described = gateway.upstreams.describe(replica, deadline).await;
    ReplicaHealth {
        id: replica.id.to_string(),
        endpoint: replica.endpoint.to_string(),
        healthy: described.is_ok(),
        version: described.as_ref().ok().map(|known| known.version.as_str()),
        error: described.err().map(|error| error.root().to_string()),
    }
}
