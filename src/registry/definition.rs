//! From what a server was configured or registered as to what can be dialled.

use std::{sync::Arc, time::Duration};

use crate::{
    balance::Policy,
    config::{Config, ReplicaConfig, ServerConfig},
    ids::ServerId,
    rates::ServerRates,
    servers::{Endpoint, Replica, Server},
};

/// The servers of a node's own configuration, the built-in one among them.
///
/// # Errors
/// Never: the built-in server's name is a good one.
pub fn configured(config: &Config) -> anyhow::Result<Vec<Arc<Server>>> {
    let of_config = |server| Arc::new(build(server, None));
    let mut servers: Vec<_> = config.servers.iter().map(of_config).collect();
    let demo = ServerId::try_from("demo")?;
    if config.node.demo && servers.iter().all(|server| server.id != demo) {
        let replica = Arc::new(Replica::new(demo.clone(), Endpoint::Demo, 1));
        let timeout = Duration::from_secs(30);
        servers.push(Arc::new(Server::new(
            demo,
            vec![replica],
            Policy::default(),
            timeout,
            "built-in",
        )));
    }
    Ok(servers)
}

/// A server by its definition. Replicas that were there `before` stay what
/// they are: calls in flight to them and what is known of them go on to count.
pub(super) fn build(config: &ServerConfig, before: Option<&Server>) -> Server {
    let replica = |wanted: &ReplicaConfig| {
        let built = Replica::new(config.id.clone(), wanted.endpoint.clone(), wanted.weight);
        let limit = config.limit();
        let built = built.with_headers(config.headers.clone()).limited(limit);
        match before.and_then(|before| before.replica(built.id.as_str())) {
            Some(known)
                if known.weight == built.weight
                    && known.headers == built.headers
                    && known.gate().map(|gate| *gate.limit()) == limit =>
            {
                Arc::clone(known)
            }
            Some(_) | None => Arc::new(built),
        }
    };
    Server::new(
        config.id.clone(),
        config.replicas.iter().map(replica).collect(),
        config.balance,
        config.timeout,
        config.origin,
    )
    .trusting(config.trust_annotations)
    .limited_to(ServerRates {
        all: config.rate_limit,
        tools: config.tool_rate_limits.clone(),
    })
}
