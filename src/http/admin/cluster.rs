//! `GET /api/cluster`: the nodes, what each does, and what they share.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use serde::Serialize;

use super::{answer, date::rfc3339};
use crate::{
    cluster::membership::Member,
    gateway::Gateway,
    store::leases::{Duty, DutyKind},
    telemetry::metrics::Gauge,
};

#[derive(Serialize)]
struct Cluster {
    nodes: Vec<Node>,
    /// The store is away: other nodes are as they were last heard of.
    last_known: bool,
    store: Store,
    servers: usize,
    replicas: Replicas,
    sessions: i64,
}

#[derive(Serialize)]
struct Node {
    id: String,
    version: String,
    started_at: String,
    uptime_s: u64,
    uptime_ms: u64,
    listen: String,
    requests: u64,
    answered: u64,
    connections: u64,
    streams: u64,
    /// What it does for all, as far as that is known.
    duties: Vec<String>,
    duty_count: u64,
    draining: bool,
    /// How old its word is.
    age_ms: u64,
    /// The node that answers.
    #[serde(rename = "self")]
    this: bool,
}

#[derive(Serialize)]
struct Store {
    kind: &'static str,
    address: String,
    reachable: bool,
}

/// As the answering node sees them.
#[derive(Serialize)]
struct Replicas {
    count: usize,
    unhealthy: Vec<String>,
}

pub(super) async fn cluster(State(gateway): State<Arc<Gateway>>) -> Response {
    let (holders, is_known) = duties_by_holder(&gateway).await;
    let me = gateway.membership.me().as_str();
    let view = gateway.membership.view();
    let nodes = view.members.iter().map(|member| {
        if member.incarnation.as_str() == me {
            let own = Member {
                about: gateway.membership.about_me(),
                age: Duration::ZERO,
                ..member.clone()
            };
            Node::new(&own, names(&gateway.duties.held()), true)
        } else {
            let held = holders.get(member.incarnation.as_str());
            let held = held.map(|held| names(held)).unwrap_or_default();
            Node::new(member, held, false)
        }
    });
    let servers = gateway.servers.all();
    let replicas = || servers.iter().flat_map(|server| &server.replicas);
    let unhealthy = replicas().filter(|replica| !replica.is_healthy());
    answer(&Cluster {
        nodes: nodes.collect(),
        last_known: !is_known,
        store: Store {
            kind: match gateway.config.redis {
                Some(_) => "redis",
                None => "embedded",
            },
            address: gateway.store.description(),
            reachable: gateway.store.is_reachable(),
        },
        servers: servers.len(),
        replicas: Replicas {
            count: replicas().count(),
            unhealthy: unhealthy.map(|replica| replica.id.to_string()).collect(),
        },
        sessions: gateway.metrics.current(Gauge::Sessions),
    })
}

/// Who does what by the store's word, and whether it was to be had.
async fn duties_by_holder(gateway: &Gateway) -> (HashMap<String, Vec<Duty>>, bool) {
    let mut all = gateway.duties.all();
    // Engines that this node does not have are looked after by others.
    let view = gateway.membership.view();
    let engines = view.members.iter().flat_map(|member| &member.about.engines);
    all.extend(engines.map(|engine| Duty::new(DutyKind::Engine, engine)));
    all.sort_unstable();
    all.dedup();
    let mut held: HashMap<String, Vec<Duty>> = HashMap::new();
    let Ok(holders) = gateway.store.lease_holders(&all).await else {
        return (held, false);
    };
    for (duty, holder) in all.into_iter().zip(holders) {
        if let Some(holder) = holder {
            held.entry(holder).or_default().push(duty);
        }
    }
    (held, gateway.store.is_reachable())
}

fn names(duties: &[Duty]) -> Vec<String> {
    duties.iter().map(ToString::to_string).collect()
}

impl Node {
    fn new(member: &Member, duties: Vec<String>, this: bool) -> Self {
        let about = &member.about;
        let count = u64::try_from(duties.len()).unwrap_or(u64::MAX);
        let age = u64::try_from(member.age.as_millis()).unwrap_or(u64::MAX);
        let uptime = about.uptime.saturating_add(age);
        Self {
            id: member.incarnation.node().to_owned(),
            version: about.version.clone(),
            started_at: rfc3339(Duration::from_millis(about.started_at)),
            uptime_s: uptime / 1000,
            uptime_ms: uptime,
            listen: about.address.clone(),
            requests: about.requests,
            answered: about.answered,
            connections: about.connections,
            streams: about.streams,
            // While the store is away its own word is all there is.
            duty_count: if duties.is_empty() {
                about.duties
            } else {
                count
            },
            duties,
            draining: about.draining,
            age_ms: u64::try_from(member.age.as_millis()).unwrap_or(u64::MAX),
            this,
        }
    }
}
