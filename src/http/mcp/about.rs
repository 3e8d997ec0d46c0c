//! Who answers at an endpoint and what it can do: one server as it says
//! itself, or the gateway with what all servers can do together.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Incoming;
use crate::{
    cache::{CacheStatus, Scope},
    lists::{Caller, ListError, Target},
    mcp::{Raw, capabilities::ServerCapabilities, json},
    servers::Server,
};

/// A merged description is good for this long: servers come and go.
const MERGED_TTL: Duration = Duration::from_secs(60);

/// What a client learns when it opens an endpoint.
#[derive(Debug)]
pub(crate) struct About {
    /// What can be asked there.
    pub(crate) capabilities: ServerCapabilities,
    /// `{name, version}`
    pub(crate) server_info: Box<Raw>,
    /// Advice for models, a JSON string.
    pub(crate) instructions: Option<Box<Raw>>,
    /// What is left of its freshness.
    pub(crate) ttl: Duration,
    /// The same for everyone.
    pub(crate) public: bool,
    /// How it was come by.
    pub(crate) status: CacheStatus,
}

/// `{name, version}` of this gateway.
pub(crate) fn gateway_info() -> Box<Raw> {
    json::raw(&serde_json::json!({ "name": "mcp-fleet", "version": env!("CARGO_PKG_VERSION") }))
}

/// Asks the cache, and the servers where it has nothing.
pub(crate) async fn about(
    incoming: &Incoming,
    caller: &Caller,
    deadline: Instant,
) -> Result<About, ListError> {
    match &incoming.target {
        Target::One(server) => about_server(incoming, server, caller, deadline).await,
        Target::All => Ok(about_all(incoming, caller, deadline).await),
    }
}

async fn about_server(
    incoming: &Incoming,
    server: &Arc<Server>,
    caller: &Caller,
    deadline: Instant,
) -> Result<About, ListError> {
    let served = incoming
        .gateway
        .lists
        .discovery(server, caller, deadline)
        .await?;
    let document = &served.value;
    Ok(About {
        capabilities: document.capabilities.clone(),
        server_info: document.server_info.clone().unwrap_or_else(gateway_info),
        instructions: document.instructions.clone(),
        ttl: served.remaining,
        public: served.scope == Scope::Public,
        status: served.status,
    })
}

/// Servers that do not answer in time are left out.
async fn about_all(incoming: &Incoming, caller: &Caller, deadline: Instant) -> About {
    let gateway = &incoming.gateway;
    let deadline = deadline.min(Instant::now() + gateway.config.cache.list_deadline);
    let servers = gateway.servers.all();
    let asked = servers
        .iter()
        .map(|server| gateway.lists.discovery(server, caller, deadline));
    let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    let is_complete = answers.len() == servers.len();
    let ttl = answers
        .iter()
        .map(|served| served.remaining)
        .min()
        .unwrap_or_default();
    let status = match answers
        .iter()
        .all(|served| served.status == CacheStatus::Hit)
    {
        true => CacheStatus::Hit,
        false => CacheStatus::Miss,
    };
    About {
        capabilities: ServerCapabilities::union(
            answers.iter().map(|served| &served.value.capabilities),
        )
        .of_changing_servers(),
        server_info: gateway_info(),
        instructions: None,
        ttl: if is_complete {
            ttl.min(MERGED_TTL)
        } else {
            Duration::ZERO
        },
        public: answers.iter().all(|served| served.scope == Scope::Public),
        status,
    }
}
