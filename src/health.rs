//! Health of replicas: probed once per fleet, known to every node.
//!
//! Probing a replica is a duty ([`crate::cluster`]); `prober` does it,
//! `schedule` says when, `tally` turns results into a state, `record` is what
//! all nodes share. Passive signals (what calls meet) are not here: see
//! [`crate::breaker`]. Programs and the demo server are not probed: they live
//! and die with their node, which sees it at once.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::broadcast::error::RecvError, time::Instant};

use crate::{
    cluster::{
        duties::{Duties, Grant, Work},
        membership::Membership,
    },
    ids::{NodeId, ReplicaId},
    servers::{Endpoint, Replica, Servers},
    store::{Channel, Event, RecordKey, Store, StoreError, leases::DutyKind},
    telemetry::metrics::Metrics,
    upstream::Upstreams,
};

mod prober;
mod record;
mod schedule;
mod tally;

use self::prober::Prober;
pub use self::{
    record::{Failure, Record},
    tally::{State, Tally, Thresholds},
};

/// Records read at once after messages were lost.
const BATCH: usize = 500;
/// A record outlives its probe by so many intervals.
const RECORD_LIVES: u32 = 10;

/// How replicas are probed.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Time between two probes of a healthy replica by the whole fleet.
    pub interval: Duration,
    /// Longest wait for the answer to one.
    pub timeout: Duration,
    /// What flips a state.
    pub thresholds: Thresholds,
    /// Whether replicas are probed at all.
    pub probe: bool,
}

impl Settings {
    fn record_ttl(&self) -> Duration {
        self.interval * RECORD_LIVES
    }
}

/// What this node knows of the health of all replicas, and its share of probing.
pub struct Health {
    settings: Settings,
    node: NodeId,
    servers: Arc<Servers>,
    upstreams: Arc<Upstreams>,
    store: Arc<dyn Store>,
    membership: Arc<Membership>,
    duties: Arc<Duties>,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<ReplicaId, Known>>,
    clock: Mutex<(Instant, u64)>,
}

/// One replica.
struct Known {
    prober: Arc<Prober>,
    record: Option<Record>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Health {
    /// Knows nothing yet; [`run`](Self::run) learns.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a node that health concerns"
    )]
    #[must_use]
    pub fn new(
        settings: Settings,
        node: NodeId,
        servers: Arc<Servers>,
        upstreams: Arc<Upstreams>,
        store: Arc<dyn Store>,
        membership: Arc<Membership>,
        duties: Arc<Duties>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            node,
            servers,
            upstreams,
            store,
            membership,
            duties,
            metrics,
            known: Mutex::default(),
            clock: Mutex::new((Instant::now(), 0)),
        })
    }

    /// What the last probe of a replica found, by whichever node.
    #[must_use]
    pub fn record(&self, replica: &ReplicaId) -> Option<Record> {
        self.known().get(replica)?.record.clone()
    }

    /// Follows the set of replicas and what is found out about them, until the node ends.
    pub async fn run(self: Arc<Self>) {
        let mut feed = self.store.subscribe();
        let mut servers = self.servers.watch();
        self.take_up();
        self.read_all().await;
        loop {
            tokio::select! {
                event = feed.recv() => match event {
                    Ok(Event::Message { channel: Channel::Health, payload }) => {
                        if let Some(record) = Record::decode(&payload) {
                            self.note_time(record.probed_at);
                            self.learn(record);
                        }
                    }
                    Ok(Event::Gap) | Err(RecvError::Lagged(_)) => self.read_all().await,
                    Ok(_) => {}
                    Err(RecvError::Closed) => return,
                },
                changed = servers.changed() => match changed {
                    Ok(()) => self.take_up(),
                    Err(_) => return,
                },
            }
        }
    }

    /// Makes the probing of exactly the replicas there are a duty of the fleet.
    fn take_up(self: &Arc<Self>) {
        let servers = self.servers.all();
        let is_probed = |replica: &&Arc<Replica>| matches!(replica.endpoint, Endpoint::Http(_));
        let mut replicas: Vec<_> = servers
            .iter()
            .flat_map(|server| server.replicas.iter().filter(is_probed))
            .collect();
        // The id ends with a hash of the address: replicas of a server do not stand together.
        replicas.sort_by_key(|replica| {
            let id = replica.id.as_str();
            (id.rsplit('/').next().map(str::to_owned), id.to_owned())
        });
        let mut known = self.known();
        let mut before = std::mem::take(&mut *known);
        let mut works: Vec<(Arc<str>, Arc<dyn Work>)> = Vec::with_capacity(replicas.len());
        for (index, replica) in replicas.iter().enumerate() {
            let slot = schedule::slot(index, replicas.len());
            let one = match before.remove(&replica.id) {
                Some(one) if Arc::ptr_eq(&one.prober.replica, replica) => one,
                replaced => {
                    let record = replaced.and_then(|one| one.record);
                    let is_fit = record.as_ref().is_none_or(is_fit);
                    replica.set_healthy(is_fit);
                    let prober = Prober::new(Arc::clone(replica), self, slot);
                    Known { prober, record }
                }
            };
            one.prober.set_slot(slot);
            let work: Arc<dyn Work> = Arc::clone(&one.prober) as Arc<dyn Work>;
            works.push((replica.id.as_str().into(), work));
            known.insert(replica.id.clone(), one);
        }
        drop(known);
        for gone in before.into_values() {
            self.metrics.forget_replica(&gone.prober.replica);
        }
        if self.settings.probe {
            self.duties.set(DutyKind::Probe, works);
        }
    }

    /// Takes note of a record, whoever wrote it.
    fn learn(&self, record: Record) {
        let mut known = self.known();
        let id = ReplicaId::named(&record.replica);
        let Some(one) = known.get_mut(&id) else {
            // Of a replica that this node does not know (any more).
            return;
        };
        let before = one.record.as_ref().map(|record| record.tally.state);
        let now = record.tally.state;
        one.prober.replica.set_healthy(is_fit(&record));
        if before != Some(now) && (before.is_some() || now == State::Unhealthy) {
            let failure = record.failure.as_ref();
            let why =
                failure.map(|failure| format!("{}: {}", failure.stage.as_str(), failure.message));
            tracing::info!(replica = %id, state = now.as_str(), failure = why, "a replica's health changed");
        }
        self.metrics
            .replica_healthy(&one.prober.replica, now != State::Unhealthy);
        one.record = Some(record);
    }

    /// Learns everything anew: messages may have been lost.
    async fn read_all(&self) {
        let ids: Vec<_> = self.known().keys().cloned().collect();
        for batch in ids.chunks(BATCH) {
            let keys: Vec<_> = batch.iter().cloned().map(RecordKey::Health).collect();
            match self.store.get_fenced(&keys).await {
                Ok(found) => {
                    for (_, bytes) in found.into_iter().flatten() {
                        if let Some(record) = Record::decode(&bytes) {
                            self.learn(record);
                        }
                    }
                }
                Err(StoreError::Unreachable(_)) => return,
                Err(error) => tracing::warn!(%error, "health records cannot be read"),
            }
        }
    }

    /// Sets the clock by a lease, if there is one, and tells the interval: it
    /// is longer while every node probes for itself.
    fn set_clock(&self, grant: &Grant) -> Duration {
        let now = Instant::now();
        match grant.store_time(now) {
            Some(time) => {
                *lock(&self.clock) = (now, time.0);
                self.settings.interval
            }
            None => {
                let nodes = u32::try_from(self.membership.view().count()).unwrap_or(u32::MAX);
                self.settings.interval.saturating_mul(nodes)
            }
        }
    }

    /// The store's clock is not behind what another node has just read from it.
    fn note_time(&self, store_time: u64) {
        if store_time > self.store_now() {
            *lock(&self.clock) = (Instant::now(), store_time);
        }
    }

    /// The store's clock in milliseconds, as far as it is known; while the
    /// store is away it goes on by this node's.
    #[must_use]
    pub fn store_now(&self) -> u64 {
        let (origin, then) = *lock(&self.clock);
        then + u64::try_from(origin.elapsed().as_millis()).unwrap_or(0)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ReplicaId, Known>> {
        lock(&self.known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Entries are replaced whole: a panic cannot leave one in between.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_fit(record: &Record) -> bool {
    record.tally.state != State::Unhealthy
}
