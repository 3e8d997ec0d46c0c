//! Trials of replicas whose circuit breaker is half-open: one per fleet.
//!
//! Every node has its own breakers, and those of one replica become due at
//! about the same time. Whoever takes the lease of the trial makes it; the
//! others wait until that lease ends, which is at once after the news of a
//! success and not before the next trial is due after a failure. While the
//! store is away every node tries for itself; pauses are jittered, so that a
//! replica that comes back is not greeted by all of them together.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use tokio::time::{Instant, sleep_until};

use crate::{
    cluster::Incarnation,
    fleet::{Fleet, Heard, News},
    ids::ReplicaId,
    lifecycle::Tasks,
    servers::{Replica, Servers},
    store::{
        Store,
        leases::{Ask, Duty, DutyKind, LeaseOutcome},
    },
    upstream::{Sign, Upstreams},
};

/// What a trial's lease outlives its probe by: time to tell how it ended.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a successful trial keeps others from making one too: until they
/// have heard of it.
const NEWS_TRAVEL: Duration = Duration::from_secs(1);
/// After another node's lease has ended nodes come back within this time.
const SPREAD: Duration = Duration::from_millis(250);
/// Trials at once; more wait for the next turn.
const AT_ONCE: usize = 64;

/// The trials of one node.
#[derive(Debug)]
pub struct Trials {
    servers: Arc<Servers>,
    upstreams: Arc<Upstreams>,
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    me: Incarnation,
    probe_timeout: Duration,
    tasks: Tasks,
    under_way: Mutex<HashSet<ReplicaId>>,
}

impl Trials {
    /// None yet; [`run`](Self::run) makes them when they are due.
    #[must_use]
    pub fn new(
        servers: Arc<Servers>,
        upstreams: Arc<Upstreams>,
        store: Arc<dyn Store>,
        fleet: Arc<Fleet>,
        me: Incarnation,
        probe_timeout: Duration,
        tasks: Tasks,
    ) -> Self {
        Self {
            servers,
            upstreams,
            store,
            fleet,
            me,
            probe_timeout,
            tasks,
            under_way: Mutex::default(),
        }
    }

    /// Makes trials when they are due, until the node stops.
    pub async fn run(self: Arc<Self>) {
        let stopping = self.tasks.stopping().clone();
        let mut news = self.fleet.listen();
        loop {
            let next = self.begin_due();
            let due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.servers.condition_changed() => {}
                () = due => {}
                heard = news.next() => match heard {
                    Some(Heard::News(news)) => self.hear(&news),
                    // What was missed costs a trial at most.
                    Some(Heard::Gap) => {}
                    None => return,
                },
            }
        }
    }

    /// Begins the trials that are due; when the next one is.
    fn begin_due(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for server in self.servers.all().iter() {
            for replica in &server.replicas {
                let Some(due) = replica.trial_due() else {
                    continue;
                };
                // Whatever ends begins the next: nothing is looked for in between.
                if due > now {
                    next = Some(next.map_or(due, |next| next.min(due)));
                } else if self.take_up(&replica.id) {
                    let (trials, replica) = (Arc::clone(self), Arc::clone(replica));
                    self.tasks.spawn_brief(async move {
                        let stopping = trials.tasks.stopping().clone();
                        tokio::select! {
                            () = stopping.cancelled() => {}
                            () = trials.make(&replica) => {}
                        }
                        trials.under_way().remove(&replica.id);
                        trials.servers.look_again();
                    });
                }
            }
        }
        next
    }

    fn take_up(&self, replica: &ReplicaId) -> bool {
        let mut under_way = self.under_way();
        under_way.len() < AT_ONCE && under_way.insert(replica.clone())
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<ReplicaId>> {
        // Single inserts and removes: a panic leaves it whole.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, news: &News) {
        let now = Instant::now();
        match news {
            News::ReplicaRecovered { replica } => {
                if let Some(replica) = self.servers.replica(replica) {
                    replica.change_breaker(|breaker| breaker.recovered(now));
                }
            }
            News::TrialFailed {
                replica,
                openings,
                pause_ms,
            } => {
                if let Some(replica) = self.servers.replica(replica) {
                    let until = now + Duration::from_millis(*pause_ms) + spread();
                    replica.change_breaker(|breaker| breaker.postponed(until, *openings));
                }
            }
            // What else happens is for others to hear.
            _ => {}
        }
    }

    /// One trial, unless another node makes it.
    async fn make(&self, replica: &Arc<Replica>) {
        let duty = Duty::new(DutyKind::Trial, replica.id.as_str());
        let me = self.me.as_str();
        let ttl = self.probe_timeout + MARGIN;
        match self.store.acquire_lease(&duty, me, ttl, Ask::IfFree).await {
            Ok(LeaseOutcome::Acquired { .. }) => {}
            Ok(LeaseOutcome::Held(remaining)) => {
                let until = Instant::now() + remaining + spread();
                replica.change_breaker(|breaker| breaker.postponed(until, 0));
                return;
            }
            Err(error) => {
                tracing::debug!(replica = %replica.id, %error, "a trial is made without a lease");
            }
        }
        let deadline = Instant::now() + self.probe_timeout;
        let passed = self.upstreams.probe(replica, deadline).await;
        let now = Instant::now();
        let id = replica.id.to_string();
        let (keep, news) = match passed {
            Ok(Sign::NotAsked) => {
                let until = now + MARGIN + spread();
                replica.change_breaker(|breaker| breaker.postponed(until, 0));
                return;
            }
            Ok(Sign::Answer(_)) => {
                replica.change_breaker(|breaker| breaker.recovered(now));
                (NEWS_TRAVEL, News::ReplicaRecovered { replica: id })
            }
            Err(failure) => {
                tracing::debug!(replica = %replica.id, %failure, "a trial failed");
                let jitter = rand::random();
                replica.change_breaker(|breaker| breaker.trial_failed(now, jitter));
                let breaker = replica.breaker();
                let Some(due) = breaker.trial_due() else {
                    return;
                };
                let pause = due.saturating_duration_since(now);
                let news = News::TrialFailed {
                    replica: id,
                    openings: breaker.openings(),
                    pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                };
                (pause, news)
            }
        };
        // A lease that is not prolonged ends by itself: then a trial may be one too many.
        if let Err(error) = self.store.renew_leases(&[duty], me, keep).await {
            tracing::debug!(%error, "a trial's lease was not prolonged");
        }
        self.fleet.tell(news).await;
    }
}

fn spread() -> Duration {
    SPREAD.mul_f64(rand::rng().random())
}
