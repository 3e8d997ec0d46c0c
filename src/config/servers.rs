//! `[servers.NAME]`: the MCP servers this node is told about.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::{balance::Policy, ids::ServerId, servers::Endpoint};

/// One MCP server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The name clients use.
    pub id: ServerId,
    /// Where it can be dialled; never empty.
    pub replicas: Vec<ReplicaConfig>,
    /// How a replica is chosen. Default `p2c`.
    pub balance: Policy,
    /// Longest wait for an answer; progress starts it anew, `limits.call` is the cap. Default 30 s.
    pub timeout: Duration,
    /// Header lines sent with every request to it, such as `Authorization`;
    /// marked sensitive. Default: none.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether its tools' `readOnlyHint` and `idempotentHint` are believed
    /// when a failed call could be repeated. Default true.
    pub trust_annotations: bool,
    /// Whether any replica understands the handles (task ids) of any other. Default false.
    pub stateless: bool,
    /// Where the definition came from, for people.
    pub origin: &'static str,
}

/// One place where a server can be dialled.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaConfig {
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Share of the traffic under the `weighted` policy. Default 1.
    pub weight: u32,
}

impl ServerConfig {
    /// The defaults around a name and its endpoints.
    #[must_use]
    pub fn new(id: ServerId, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            id,
            replicas: endpoints.into_iter().map(ReplicaConfig::from).collect(),
            balance: Policy::default(),
            timeout: Duration::from_secs(30),
            headers: Vec::new(),
            trust_annotations: true,
            stateless: false,
            origin: "config",
        }
    }
}

impl From<Endpoint> for ReplicaConfig {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            weight: 1,
        }
    }
}
