//! Asks the store for this node's permits: how many calls may go to replicas
//! with `max_in_flight`, so that the fleet together keeps the bound.
//!
//! All gates in use are renewed in one pipeline per tick; one that calls wait
//! at is asked for sooner. What is not used goes back with the next tick, what
//! a node that dies held is free when its time has passed. While the store is
//! away a node goes on with what it has, and then with an equal share of the
//! bound, at least one: by the last known number of nodes.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    cluster::membership::Membership,
    servers::{Gate, Replica, Servers},
    store::{Store, permits::PermitRequest},
};

/// How often permits are renewed and surplus is returned.
const TICK: Duration = Duration::from_millis(500);
/// How often they are asked for while calls wait.
const HUNGRY: Duration = Duration::from_millis(100);
/// How long they hold: some ticks may fail.
const TTL: Duration = Duration::from_secs(3);
/// At the earliest so long after it has asked a node asks again, however
/// many calls begin to wait.
const BREATH: Duration = Duration::from_millis(50);

/// This node's permits.
#[derive(Debug)]
pub struct Permits {
    servers: Arc<Servers>,
    store: Arc<dyn Store>,
    membership: Arc<Membership>,
}

impl Permits {
    /// None yet; [`run`](Self::run) asks for them.
    #[must_use]
    pub fn new(servers: Arc<Servers>, store: Arc<dyn Store>, membership: Arc<Membership>) -> Self {
        Self {
            servers,
            store,
            membership,
        }
    }

    /// Asks and renews for as long as it is polled: calls need permits until
    /// the node has ended. Then what it held is free when its time has passed.
    pub async fn run(self) {
        loop {
            let asked_at = Instant::now();
            let is_hungry = self.ask(asked_at).await;
            let pause = if is_hungry { HUNGRY } else { TICK };
            tokio::select! {
                () = self.servers.starving() => sleep_until(asked_at + BREATH).await,
                () = sleep(pause) => {}
            }
        }
    }

    /// Asks for what is wanted everywhere; whether calls still wait somewhere.
    async fn ask(&self, asked_at: Instant) -> bool {
        let servers = self.servers.all();
        let replicas = servers.iter().flat_map(|server| &server.replicas);
        let gates = replicas.filter_map(|replica| Some((replica, replica.gate()?)));
        let asked = gates.map(|(replica, gate)| self.ask_for(replica, gate, asked_at));
        join_all(asked).await.contains(&true)
    }

    async fn ask_for(&self, replica: &Arc<Replica>, gate: &Arc<Gate>, asked_at: Instant) -> bool {
        let Some(wish) = gate.wish() else {
            return false;
        };
        let max = gate.limit().max;
        let request = PermitRequest {
            max,
            keep: wish.keep,
            wanted: wish.wanted,
            ttl: TTL,
        };
        let me = self.membership.me().as_str();
        match self.store.permits(&replica.id, me, request).await {
            Ok(permitted) => gate.grant(permitted, asked_at + TTL),
            Err(error) => {
                tracing::debug!(replica = %replica.id, %error, "permits were not renewed");
                let nodes = u32::try_from(self.membership.view().count()).unwrap_or(u32::MAX);
                gate.go_alone((max / nodes).max(1), Instant::now());
            }
        }
        gate.waiting() > 0
    }
}
