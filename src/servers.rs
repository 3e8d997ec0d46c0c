//! The servers this node knows and the replicas that can be dialled.
//!
//! A snapshot that readers take without a lock; whoever changes the set swaps
//! in a new one. Which replica a call goes to is decided in [`crate::balance`],
//! among those that are fit for calls (`condition`). A replica holds all that
//! is known of it, so that nothing is left when it goes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    balance::{Choices, Policy},
    ids::{ReplicaId, ServerId},
    rates::ServerRates,
    store::registry::Edition,
    telemetry::metrics::Metrics,
};
use condition::Usable;
use retry_budget::RetryBudget;

mod condition;
mod gate;
mod replica;
mod retry_budget;
#[cfg(test)]
mod tests;
mod traffic;

pub use gate::{Gate, InFlightLimit, Place, Turned};
pub use replica::{Endpoint, Replica, StdioCommand};
pub use traffic::InFlight;

/// Draws that may hit a replica tried before, until all are looked through.
const DRAWS: usize = 3;
/// Queues a call waits in at once.
const QUEUES: usize = 4;

/// A server and its replicas, immutable once published.
#[derive(Debug)]
pub struct Server {
    /// The name clients use in the path.
    pub id: ServerId,
    /// Where it can be dialled; never empty.
    pub replicas: Vec<Arc<Replica>>,
    /// How a replica is chosen.
    pub balance: Policy,
    /// How long one request to it may take.
    pub timeout: Duration,
    /// Where the definition came from, for people: `config`, `--server`, `api`, `built-in`.
    pub origin: &'static str,
    /// Whether its tools' word is taken for what can be sent again.
    pub trust_annotations: bool,
    /// Which of the servers that had this name, one after the other: what one
    /// said is not what the next says. Zero when it comes from configuration.
    pub edition: Edition,
    /// How fast clients may call it.
    pub rates: ServerRates,
    turn: AtomicUsize,
    calls: AtomicUsize,
    usable: Arc<Usable>,
    retries: RetryBudget,
}

impl Server {
    /// A server nobody has called yet.
    #[must_use]
    pub fn new(
        id: ServerId,
        replicas: Vec<Arc<Replica>>,
        balance: Policy,
        timeout: Duration,
        origin: &'static str,
    ) -> Self {
        let usable = Arc::new(Usable::new(balance));
        for replica in &replicas {
            replica.condition.add_user(&usable);
        }
        Self {
            id,
            replicas,
            balance,
            timeout,
            origin,
            trust_annotations: true,
            edition: Edition::default(),
            rates: ServerRates::default(),
            turn: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            usable,
            retries: RetryBudget::new(),
        }
    }

    /// The same server, with its tools' annotations believed or not.
    #[must_use]
    pub fn trusting(mut self, trust_annotations: bool) -> Self {
        self.trust_annotations = trust_annotations;
        self
    }

    /// The same server with limits on how fast clients may call it.
    #[must_use]
    pub fn limited_to(mut self, rates: ServerRates) -> Self {
        self.rates = rates;
        self
    }

    /// The same server as it was registered at that time.
    #[must_use]
    pub fn of_edition(mut self, edition: Edition) -> Self {
        self.edition = edition;
        self
    }

    /// The replica the next request goes to, leaving out those already
    /// `tried`: a usable one, else the least bad.
    #[must_use]
    pub fn pick(&self, tried: &[ReplicaId]) -> Option<Arc<Replica>> {
        self.pick_by(self.balance, tried)
    }

    /// A replica to ask something of that is no call: it takes nobody's turn.
    #[must_use]
    pub fn any(&self, tried: &[ReplicaId]) -> Option<Arc<Replica>> {
        match self.balance {
            Policy::RoundRobin => self.pick_by(Policy::Random, tried),
            Policy::P2c | Policy::LeastInFlight | Policy::Weighted | Policy::Random => {
                self.pick(tried)
            }
        }
    }

    fn pick_by(&self, policy: Policy, tried: &[ReplicaId]) -> Option<Arc<Replica>> {
        if tried.is_empty() && self.replicas.len() == 1 {
            return self.replicas.first().cloned();
        }
        let choices = self.usable.choices(&self.replicas);
        let now = matches!(policy, Policy::P2c).then(Instant::now);
        let replica = |index: u32| &self.replicas[index as usize];
        let load = |index: u32| replica(index).traffic.load(now);
        let random = &mut rand::rng();
        for _ in 0..DRAWS {
            let turn = match policy {
                Policy::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
                Policy::P2c | Policy::LeastInFlight | Policy::Weighted | Policy::Random => 0,
            };
            let picked = replica(choices.pick(policy, turn, load, random)?);
            if !tried.contains(&picked.id) {
                return Some(self.with_room(&choices, picked, tried));
            }
        }
        // A retry, among few: those that are usable, then whoever is left.
        let untried = |replica: &&Arc<Replica>| !tried.contains(&replica.id);
        let cheapest = |one: &&Arc<Replica>, other: &&Arc<Replica>| {
            let (one, other) = (one.traffic.load(now), other.traffic.load(now));
            one.compare(&other)
        };
        let usable = choices.indices().iter().map(|&index| replica(index));
        usable
            .filter(untried)
            .min_by(cheapest)
            .or_else(|| self.replicas.iter().filter(untried).min_by(cheapest))
            .cloned()
    }

    /// `picked`, or if calls have to wait there, another one where they have not.
    fn with_room(
        &self,
        choices: &Choices,
        picked: &Arc<Replica>,
        tried: &[ReplicaId],
    ) -> Arc<Replica> {
        if !picked.is_full() {
            return Arc::clone(picked);
        }
        let others = choices.indices().iter();
        let others = others.map(|&index| &self.replicas[index as usize]);
        let mut others = others.filter(|other| !tried.contains(&other.id));
        Arc::clone(others.find(|other| !other.is_full()).unwrap_or(picked))
    }

    /// Where a call that has to wait may wait as well as at `picked`: whoever
    /// has room first takes it. A few usable replicas, itself first.
    #[must_use]
    pub fn queues(&self, picked: &Arc<Replica>, tried: &[ReplicaId]) -> Vec<Arc<Replica>> {
        let choices = self.usable.choices(&self.replicas);
        let start = rand::random_range(0..choices.len().max(1));
        let others = choices.indices().iter().cycle().skip(start);
        let others = others.take(choices.len());
        let others = others.map(|&index| &self.replicas[index as usize]);
        let others = others.filter(|one| one.id != picked.id && !tried.contains(&one.id));
        std::iter::once(picked)
            .chain(others.take(QUEUES - 1))
            .cloned()
            .collect()
    }

    /// The replica a new client session goes to, leaving out those already
    /// `tried`: the same on every node that finds the same ones usable
    /// (rendezvous hashing, Thaler and Ravishankar, "A Name-Based Mapping
    /// Scheme for Rendezvous"). A session that has begun stays where it is,
    /// which is for the caller to know.
    #[must_use]
    pub fn home_of(&self, session: &str, tried: &[ReplicaId]) -> Option<Arc<Replica>> {
        if tried.is_empty() && self.replicas.len() == 1 {
            return self.replicas.first().cloned();
        }
        let choices = self.usable.choices(&self.replicas);
        let usable = choices.indices().iter();
        let usable = usable.map(|&index| &self.replicas[index as usize]);
        let untried = |replica: &&Arc<Replica>| !tried.contains(&replica.id);
        let score = |replica: &&Arc<Replica>| {
            let mut hash = Sha256::new();
            hash.update(session);
            hash.update(replica.id.as_str());
            <[u8; 32]>::from(hash.finalize())
        };
        usable
            .filter(untried)
            .max_by_key(score)
            .or_else(|| self.replicas.iter().filter(untried).max_by_key(score))
            .cloned()
    }

    /// A call is made, which earns `share` of a retry.
    pub fn count_call(&self, share: f64) {
        // Where nobody else can be tried nothing is earned.
        if self.replicas.len() > 1 {
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.retries.earn(share);
        }
    }

    /// How many calls were made, if there are several replicas: whether there
    /// is traffic. Wraps.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether a retry can be afforded, which is then paid for.
    #[must_use]
    pub fn spend_retry(&self) -> bool {
        self.retries.spend()
    }

    /// The replica of that id, if it is still there.
    #[must_use]
    pub fn replica(&self, id: &str) -> Option<&Arc<Replica>> {
        self.replicas
            .iter()
            .find(|replica| replica.id.as_str() == id)
    }
}

/// The servers known now, in configured order.
#[derive(Debug)]
pub struct Servers {
    snapshot: ArcSwap<Vec<Arc<Server>>>,
    generation: watch::Sender<u64>,
    conditions: Arc<Notify>,
    starving: Arc<Notify>,
    metrics: Option<Arc<Metrics>>,
}

impl Servers {
    /// Starts with `servers`, in the order lists are merged in.
    #[must_use]
    pub fn new(servers: Vec<Arc<Server>>) -> Self {
        Self::counted(servers, None)
    }

    /// The same, with the state of replicas counted.
    #[must_use]
    pub fn counted(servers: Vec<Arc<Server>>, metrics: Option<Arc<Metrics>>) -> Self {
        let known = Self {
            snapshot: ArcSwap::default(),
            generation: watch::Sender::new(0),
            conditions: Arc::default(),
            starving: Arc::default(),
            metrics,
        };
        known.meet(&servers);
        known.snapshot.store(Arc::new(servers));
        known
    }

    /// Makes these the servers that are known. The series of others go; a call
    /// that still runs may bring one back, which the registry looks after.
    pub fn replace(&self, servers: Vec<Arc<Server>>) {
        self.meet(&servers);
        let servers = Arc::new(servers);
        let before = self.snapshot.swap(Arc::clone(&servers));
        if let Some(metrics) = &self.metrics {
            let kept: HashSet<_> = servers.iter().map(|server| &server.id).collect();
            for gone in before.iter().filter(|server| !kept.contains(&server.id)) {
                metrics.forget_server(&gone.id);
            }
        }
        self.generation.send_modify(|generation| *generation += 1);
        self.conditions.notify_one();
    }

    fn meet(&self, servers: &[Arc<Server>]) {
        for server in servers {
            server.usable.tell(&self.conditions);
            let gates = server.replicas.iter().filter_map(|replica| replica.gate());
            gates.for_each(|gate| gate.tell(&self.starving));
            if let Some(metrics) = &self.metrics {
                let metrics = metrics.breakers(&server.id);
                for replica in &server.replicas {
                    replica.condition.count_by(&metrics);
                }
            }
        }
    }

    /// Completes when a replica's condition has changed since the last time.
    /// For one listener. Cancel safe.
    pub async fn condition_changed(&self) {
        self.conditions.notified().await;
    }

    /// Completes when calls have begun to wait at a gate since the last time.
    /// For one listener. Cancel safe.
    pub(crate) async fn starving(&self) {
        self.starving.notified().await;
    }

    /// Wakes whoever waits for conditions to change.
    pub(crate) fn look_again(&self) {
        self.conditions.notify_one();
    }

    /// The replica of that id, if it is still known.
    #[must_use]
    pub fn replica(&self, id: &str) -> Option<Arc<Replica>> {
        let (server, _) = id.split_once('/')?;
        self.get(server)?.replica(id).cloned()
    }

    /// Changes whenever the set of servers does.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// All servers, in configured order.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<Server>>> {
        self.snapshot.load_full()
    }

    /// The server of that name.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Server>> {
        self.snapshot
            .load()
            .iter()
            .find(|server| server.id.as_str() == id)
            .cloned()
    }
}
