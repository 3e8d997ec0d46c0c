//! `/api/servers`: the servers this node knows; registering more.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use serde::Serialize;

use super::{answer, check_may_change, replicas::ReplicaEntry};
use crate::{
    gateway::Gateway,
    http::{body, error::RestError, rest},
    registry::RegistryError,
    servers::Server,
    store::registry::Changed,
};

#[derive(Serialize)]
struct ServerEntry<'a> {
    name: &'a str,
    /// `config`, `environment`, `--server`, `--mcp-json`, `api`, `built-in`.
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<&'static str>,
    replicas: Vec<ReplicaEntry<'a>>,
    /// Why a registered server of that name is not served here.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
}

impl<'a> ServerEntry<'a> {
    fn new(gateway: &Gateway, server: &'a Server, problem: Option<&'a String>) -> Self {
        let spoken = gateway.lists.spoken(server);
        let replica = |replica| ReplicaEntry::new(gateway, replica, spoken);
        Self {
            name: server.id.as_str(),
            origin: server.origin,
            balance: Some(server.balance.as_str()),
            replicas: server.replicas.iter().map(|r| replica(&**r)).collect(),
            problem: problem.map(String::as_str),
        }
    }

    /// A registered server that is not served here at all.
    fn not_served(name: &'a str, problem: &'a str) -> Self {
        Self {
            name,
            origin: "api",
            balance: None,
            replicas: Vec::new(),
            problem: Some(problem),
        }
    }
}

/// `GET /api/servers`
pub(super) async fn all(State(gateway): State<Arc<Gateway>>) -> Response {
    let (servers, problems) = (gateway.servers.all(), gateway.registry.problems());
    let served = servers.iter().map(|server| {
        let problem = problems.get(server.id.as_str());
        ServerEntry::new(&gateway, server, problem)
    });
    let is_served = |name: &str| servers.iter().any(|server| server.id.as_str() == name);
    let others = problems.iter().filter(|(name, _)| !is_served(name));
    let others = others.map(|(name, problem)| ServerEntry::not_served(name, problem));
    answer(&served.chain(others).collect::<Vec<_>>())
}

/// `GET /api/servers/{server}`
pub(super) async fn one(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Response, RestError> {
    let problems = gateway.registry.problems();
    if let Some(problem) = problems.get(&name)
        && gateway.servers.get(&name).is_none()
    {
        return Ok(answer(&ServerEntry::not_served(&name, problem)));
    }
    let server = rest::server(&gateway, &name)?;
    Ok(answer(&entry(&gateway, &server, &problems)))
}

fn entry<'a>(
    gateway: &Gateway,
    server: &'a Server,
    problems: &'a BTreeMap<String, String>,
) -> ServerEntry<'a> {
    let problem = problems.get(server.id.as_str());
    ServerEntry::new(gateway, server, problem)
}

#[derive(Serialize)]
struct Registered<'a> {
    /// `created`, `replaced` or `unchanged`.
    outcome: &'static str,
    /// For how long: `fleet` (the store that nodes share) or `process`.
    kept_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerEntry<'a>>,
}

/// `POST /api/servers`
pub(super) async fn register(
    State(gateway): State<Arc<Gateway>>,
    body: Body,
) -> Result<Response, RestError> {
    check_may_change(&gateway)?;
    let limits = &gateway.config.limits;
    let body = body::read(body, limits.body, limits.body_timeout).await?;
    let json = std::str::from_utf8(&body)
        .map_err(|_| RestError::bad_request("the body is not UTF-8 text"))?;
    let (id, changed) = gateway.registry.register(json).await?;
    let server = gateway.servers.get(id.as_str());
    let problems = gateway.registry.problems();
    let (status, outcome) = match changed {
        Changed::Created => (StatusCode::CREATED, "created"),
        Changed::Replaced => (StatusCode::OK, "replaced"),
        Changed::Unchanged
        | Changed::Removed
        | Changed::Unknown
        | Changed::Full
        | Changed::Moved
        | Changed::Behind => (StatusCode::OK, "unchanged"),
    };
    let mut response = answer(&Registered {
        outcome,
        kept_by: match gateway.config.redis {
            Some(_) => "fleet",
            None => "process",
        },
        server: server
            .as_ref()
            .map(|server| entry(&gateway, server, &problems)),
    });
    *response.status_mut() = status;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/servers/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// `DELETE /api/servers/{server}`
pub(super) async fn unregister(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Response, RestError> {
    check_may_change(&gateway)?;
    match gateway.registry.unregister(&name).await {
        Ok(()) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().remove(CONTENT_TYPE);
            Ok(response)
        }
        Err(RegistryError::Unknown { name }) => {
            Err(RestError::unknown_server(&gateway.servers, &name))
        }
        Err(error) => Err(error.into()),
    }
}
