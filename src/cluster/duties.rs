//! Keeps this node's share of the fleet's duties: takes leases, renews them in
//! one pipeline per tick, hands over what is another's turn, and runs the work
//! of what it holds.
//!
//! One task does all of it, so that for one duty nothing overlaps: work is
//! stopped before its lease is given back, and a lease is held before its work
//! starts. A request without an answer changes nothing that is believed: a
//! lease that was perhaps renewed ends when it would have, one that was perhaps
//! given stays idle until its time to live ends or the same node asks again.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use rand::RngExt as _;
use tokio::{sync::Notify, time::Instant};

pub use super::guard::{Grant, Work};
use super::{
    Incarnation, Settings,
    guard::Running,
    lease::{Phase, Situation, Step},
    membership::{Membership, Worker},
    spread,
};
use crate::{
    fleet::{Fleet, Heard, News},
    lifecycle::Tasks,
    store::{
        Fence, Store, StoreError,
        leases::{Ask, Duty, DutyKind, LeaseOutcome, Renewal},
    },
    telemetry::metrics::{Gauge, Metrics},
};

/// Leases asked for at once; the rest follows in the next pass.
const MAX_TRIES: usize = 500;
/// Of what it holds a node hands over one part in this many per tick.
const HAND_OVER_PARTS: usize = 4;
/// Time for giving leases back at the end.
const GOODBYE: Duration = Duration::from_secs(1);

/// This node's share of the fleet's duties.
pub struct Duties {
    membership: Arc<Membership>,
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    settings: Settings,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    wanted: Mutex<Arc<Wanted>>,
    changed: Notify,
    held: Mutex<Vec<Duty>>,
}

impl fmt::Debug for Duties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duties")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

/// What is to be done, as the node was told. Replaced when it changes.
type Wanted = HashMap<Duty, Arc<dyn Work>>;

/// One duty as the keeper sees it.
struct Kept {
    work: Arc<dyn Work>,
    phase: Phase,
    rank: usize,
    running: Option<Running>,
}

impl Duties {
    /// No duties yet; [`run`](Self::run) has to run for any to be done.
    #[must_use]
    pub fn new(
        membership: Arc<Membership>,
        store: Arc<dyn Store>,
        fleet: Arc<Fleet>,
        settings: Settings,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            membership,
            store,
            fleet,
            settings,
            tasks,
            metrics,
            wanted: Mutex::default(),
            changed: Notify::new(),
            held: Mutex::default(),
        }
    }

    /// Replaces the duties of a kind: new ones are tried for, those that are
    /// left out are stopped, and work that is not the same is started anew.
    pub fn set(&self, kind: DutyKind, works: Vec<(Arc<str>, Arc<dyn Work>)>) {
        {
            let mut shared = lock(&self.wanted);
            // The keeper has the one before: this makes another.
            let wanted = Arc::make_mut(&mut *shared);
            wanted.retain(|duty, _| duty.kind != kind);
            for (subject, work) in works {
                wanted.insert(Duty { kind, subject }, work);
            }
        }
        self.changed.notify_one();
    }

    /// Everything that somebody in the fleet should do, as this node knows it.
    #[must_use]
    pub fn all(&self) -> Vec<Duty> {
        let mut all: Vec<_> = lock(&self.wanted).keys().cloned().collect();
        all.sort_unstable();
        all
    }

    /// What this node does, with a lease or, while the store is away, without.
    #[must_use]
    pub fn held(&self) -> Vec<Duty> {
        lock(&self.held).clone()
    }

    /// Keeps the duties until the node stops, then gives them back at once.
    pub async fn run(self: Arc<Self>) {
        let mut keeper = Keeper {
            duties: Arc::clone(&self),
            kept: HashMap::new(),
            wanted: Arc::default(),
            nodes: Vec::new(),
            away_since: None,
            hand_over_at: Instant::now(),
        };
        let mut view = self.membership.watch();
        let mut news = self.fleet.listen();
        let stopping = self.tasks.stopping().clone();
        // Who else lives is not known before the first beat: without it this
        // node would think that everything is its turn.
        tokio::time::timeout(self.settings.tick(), self.membership.beaten())
            .await
            .ok();
        loop {
            keeper.pass().await;
            let pause = self
                .settings
                .tick()
                .mul_f64(rand::rng().random_range(0.45..0.5));
            let pause = tokio::time::sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return keeper.end().await,
                    () = &mut pause => break,
                    () = self.changed.notified() => break,
                    changed = view.changed() => if changed.is_ok() { break },
                    heard = news.next() => match heard {
                        Some(Heard::News(news)) => {
                            if let News::LeasesReleased { .. } = &*news {
                                // Who gave them back may be about to stop.
                                self.membership.beat().await;
                                keeper.released();
                                break;
                            }
                        }
                        Some(Heard::Gap) => break,
                        None => return keeper.end().await,
                    },
                }
            }
        }
    }
}

/// The state of [`Duties::run`].
struct Keeper {
    duties: Arc<Duties>,
    kept: HashMap<Duty, Kept>,
    /// What was wanted when it was looked at last.
    wanted: Arc<Wanted>,
    /// The nodes that ranks were computed for.
    nodes: Vec<Worker>,
    away_since: Option<Instant>,
    hand_over_at: Instant,
}

impl Keeper {
    /// Does for every duty what is to be done now.
    async fn pass(&mut self) {
        self.see_nodes();
        self.take_up_wanted().await;
        let now = Instant::now();
        let reachable = self.duties.store.is_reachable();
        match (reachable, self.away_since) {
            (true, _) => self.away_since = None,
            (false, None) => self.away_since = Some(now),
            (false, Some(_)) => {}
        }
        let (mut renew, mut tries, mut hand_over) = (Vec::new(), Vec::new(), Vec::new());
        for (duty, kept) in &mut self.kept {
            if kept.running.as_mut().is_some_and(Running::has_ended) {
                kept.running = None;
            }
            let here = Situation {
                now,
                rank: kept.rank,
                reachable,
                away_since: self.away_since,
            };
            match kept.phase.step(here, &self.duties.settings) {
                Step::Nothing => {}
                Step::Try(ask) => tries.push((duty.clone(), ask)),
                Step::Renew => renew.push(duty.clone()),
                Step::HandOver => hand_over.push(duty.clone()),
                Step::Stop => {
                    kept.phase = Phase::new(now);
                    if let Some(running) = kept.running.take() {
                        running.stop().await;
                    }
                }
                Step::GoAlone => kept.go_alone(&self.duties),
            }
        }
        // What is to be handed over is renewed until its turn comes.
        let held = self.held_count();
        if self.hand_over_at <= now && !hand_over.is_empty() {
            self.hand_over_at = now + self.duties.settings.tick();
            let rest = hand_over.split_off((held / HAND_OVER_PARTS + 1).min(hand_over.len()));
            self.hand_over(hand_over).await;
            hand_over = rest;
        }
        renew.extend(hand_over.into_iter().filter(|duty| self.is_due(duty, now)));
        self.renew(renew).await;
        tries.truncate(MAX_TRIES);
        self.take(tries).await;
        self.restart_ended().await;
        self.publish_held();
    }

    fn held_count(&self) -> usize {
        let held = |kept: &&Kept| matches!(kept.phase, Phase::Held { .. });
        self.kept.values().filter(held).count()
    }

    fn is_due(&self, duty: &Duty, now: Instant) -> bool {
        matches!(
            self.kept.get(duty).map(|kept| kept.phase),
            Some(Phase::Held { asked_at, .. })
                if now.duration_since(asked_at) >= self.duties.settings.renewal()
        )
    }

    /// Computes anew whose turn everything is, if nodes came or went.
    fn see_nodes(&mut self) {
        let nodes = self.duties.membership.view().working();
        if nodes != self.nodes {
            for (duty, kept) in &mut self.kept {
                kept.rank = rank(duty, self.duties.membership.me(), &nodes);
            }
            self.nodes = nodes;
        }
    }

    /// Takes up new duties and drops those that are not wanted any more.
    async fn take_up_wanted(&mut self) {
        let wanted = Arc::clone(&lock(&self.duties.wanted));
        if Arc::ptr_eq(&wanted, &self.wanted) {
            return;
        }
        let is_wanted = |duty: &Duty, kept: &Kept| {
            wanted
                .get(duty)
                .is_some_and(|work| Arc::ptr_eq(work, &kept.work))
        };
        let gone: Vec<_> = self
            .kept
            .iter()
            .filter(|(duty, kept)| !is_wanted(duty, kept))
            .map(|(duty, _)| duty.clone())
            .collect();
        self.give_back(gone).await;
        let now = Instant::now();
        for (duty, work) in &*wanted {
            if !self.kept.contains_key(duty) {
                let kept = Kept {
                    work: Arc::clone(work),
                    phase: Phase::new(now),
                    rank: rank(duty, self.duties.membership.me(), &self.nodes),
                    running: None,
                };
                self.kept.insert(duty.clone(), kept);
            }
        }
        self.wanted = wanted;
    }

    /// Stops the work, forgets the duties and gives their leases back.
    async fn give_back(&mut self, gone: Vec<Duty>) {
        let mut leases = Vec::new();
        for duty in gone {
            let Some(kept) = self.kept.remove(&duty) else {
                continue;
            };
            if let Some(running) = kept.running {
                running.stop().await;
            }
            if let Phase::Held { fence, .. } = kept.phase {
                leases.push((duty, fence));
            }
        }
        self.release(leases).await;
    }

    /// Stops the work and lets those whose turn it is have the leases.
    async fn hand_over(&mut self, duties: Vec<Duty>) {
        let now = Instant::now();
        let mut leases = Vec::new();
        for duty in duties {
            if let Some(kept) = self.kept.get_mut(&duty) {
                if let Phase::Held { fence, .. } = kept.phase {
                    leases.push((duty, fence));
                }
                kept.phase = Phase::new(now);
                if let Some(running) = kept.running.take() {
                    running.stop().await;
                }
            }
        }
        self.release(leases).await;
    }

    async fn release(&self, leases: Vec<(Duty, Fence)>) {
        if leases.is_empty() {
            return;
        }
        let me = self.duties.membership.me().as_str();
        let released = leases.iter().map(async |(duty, fence)| {
            // Without an answer it is free when its time to live ends.
            let released = self.duties.store.release_lease(duty, me, *fence);
            released.await.is_ok()
        });
        if join_all(released).await.contains(&true) {
            self.duties.fleet.tell(News::LeasesReleased {}).await;
        }
    }

    async fn renew(&mut self, leases: Vec<Duty>) {
        if leases.is_empty() {
            return;
        }
        let (asked_at, settings) = (Instant::now(), self.duties.settings);
        let me = self.duties.membership.me().as_str();
        let answer = self
            .duties
            .store
            .renew_leases(&leases, me, settings.lease_ttl)
            .await;
        let renewals = match answer {
            Ok(renewals) => renewals,
            // Perhaps renewed, perhaps not: believed until it would have ended.
            Err(StoreError::Unreachable(_)) => return,
            Err(error) => return tracing::warn!(%error, "leases were not renewed"),
        };
        for (duty, renewal) in leases.iter().zip(renewals) {
            let Some(kept) = self.kept.get_mut(duty) else {
                continue;
            };
            let Phase::Held { fence, .. } = kept.phase else {
                continue;
            };
            if renewal != Renewal::Lost {
                let wanted = renewal == Renewal::Wanted;
                kept.hold(fence, asked_at, wanted, &settings);
            } else {
                tracing::info!(%duty, "a lease was lost");
                kept.phase = Phase::new(Instant::now());
                if let Some(running) = kept.running.take() {
                    running.stop().await;
                }
            }
        }
    }

    async fn take(&mut self, tries: Vec<(Duty, Ask)>) {
        let (asked_at, settings) = (Instant::now(), self.duties.settings);
        let me = self.duties.membership.me().as_str();
        let asked = tries.iter().map(async |(duty, ask)| {
            self.duties
                .store
                .acquire_lease(duty, me, settings.lease_ttl, *ask)
                .await
        });
        let answers = join_all(asked).await;
        for ((duty, _), answer) in tries.iter().zip(answers) {
            let Some(kept) = self.kept.get_mut(duty) else {
                continue;
            };
            match answer {
                Ok(LeaseOutcome::Acquired { fence, inherited }) => {
                    tracing::debug!(%duty, fence = fence.0, "a lease was taken");
                    kept.hold(fence, asked_at, false, &settings);
                    kept.start(&self.duties, inherited);
                }
                Ok(LeaseOutcome::Held(left)) => {
                    kept.phase = kept.phase.refused(Instant::now(), left, &settings);
                    if let Some(running) = kept.running.take() {
                        running.stop().await;
                    }
                }
                // Nothing is known; the next pass tries again.
                Err(error) => tracing::debug!(%duty, %error, "a lease could not be asked for"),
            }
        }
    }

    /// Another node gave leases back: what is this node's turn is tried at once.
    fn released(&mut self) {
        let now = Instant::now();
        self.see_nodes();
        for kept in self.kept.values_mut() {
            if let Phase::Idle { retry_at, .. } = &mut kept.phase
                && kept.rank == 0
            {
                *retry_at = now.min(*retry_at);
            }
        }
    }

    /// Work that ended by itself while its lease is held is begun again.
    async fn restart_ended(&mut self) {
        let duties = &self.duties;
        for kept in self.kept.values_mut() {
            if kept.running.is_none() {
                match kept.phase {
                    Phase::Held { until, .. } if until > Instant::now() => kept.start(duties, true),
                    Phase::Alone => kept.go_alone(duties),
                    Phase::Held { .. } | Phase::Idle { .. } => {}
                }
            }
        }
    }

    fn publish_held(&self) {
        let mut held: Vec<_> = self
            .kept
            .iter()
            .filter(|(_, kept)| !matches!(kept.phase, Phase::Idle { .. }))
            .map(|(duty, _)| duty.clone())
            .collect();
        held.sort_unstable();
        *lock(&self.duties.held) = held;
    }

    /// Stops all work and gives everything back, so that others go on at once.
    async fn end(mut self) {
        let all = self.kept.keys().cloned().collect();
        let duties = Arc::clone(&self.duties);
        let goodbye = async {
            // First the others learn that it is not this node's turn any more.
            duties.membership.beat().await;
            self.give_back(all).await;
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            tracing::warn!("not all leases were given back in time; they expire");
        }
        self.publish_held();
    }
}

impl Kept {
    fn hold(&mut self, fence: Fence, asked_at: Instant, wanted: bool, settings: &Settings) {
        self.phase = Phase::held(fence, asked_at, wanted, settings);
        if let (Some(running), Phase::Held { until, .. }) = (&self.running, self.phase) {
            running.extend(fence, asked_at, until);
        }
    }

    /// Begins the work of a lease that is held, unless it runs already.
    fn start(&mut self, duties: &Duties, inherited: bool) {
        if let (
            None,
            Phase::Held {
                fence,
                asked_at,
                until,
                ..
            },
        ) = (&self.running, self.phase)
        {
            let work = Arc::clone(&self.work);
            self.running = Some(Running::start(
                &duties.tasks,
                work,
                Some((fence, asked_at, until)),
                inherited,
                duties.metrics.count(Gauge::Duties),
            ));
        }
    }

    fn go_alone(&mut self, duties: &Duties) {
        self.phase = Phase::Alone;
        match &self.running {
            Some(running) => running.go_alone(),
            None => {
                let work = Arc::clone(&self.work);
                let counted = duties.metrics.count(Gauge::Duties);
                let running = Running::start(&duties.tasks, work, None, true, counted);
                self.running = Some(running);
            }
        }
    }
}

/// Whose turn a duty is, as far as it can be a node's at all: an engine is
/// looked after by nodes that have it.
fn rank(duty: &Duty, me: &Incarnation, nodes: &[Worker]) -> usize {
    let can = |node: &&Worker| match duty.kind {
        DutyKind::Engine => {
            let mut engines = node.engines.iter();
            node.incarnation == *me || engines.any(|engine| **engine == *duty.subject)
        }
        DutyKind::Probe | DutyKind::Watch | DutyKind::Trial => true,
    };
    let able = nodes.iter().filter(can);
    let able: Vec<_> = able.map(|node| node.incarnation.clone()).collect();
    spread::rank(duty, me, &able)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps and lists are changed in single steps: a panic cannot leave one in between.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_the_turn_of_nodes_that_have_it() {
        let duty = Duty::new(DutyKind::Engine, "docker/0a");
        let probe = Duty::new(DutyKind::Probe, "docker/0a");
        let worker = |n: usize| Worker {
            incarnation: Incarnation::named(&format!("node-{n}/0000000{n}")),
            engines: match n {
                0..5 => Vec::new(),
                n => vec![format!("docker/{}", if n < 7 { "0a" } else { "0b" })],
            },
        };
        let nodes: Vec<_> = (0..9).map(worker).collect();
        let ranks = |duty: &Duty, of: [usize; 2]| {
            let mut ranks = of.map(|n| rank(duty, &nodes[n].incarnation, &nodes));
            ranks.sort_unstable();
            ranks
        };
        assert_eq!(ranks(&duty, [5, 6]), [0, 1]);
        assert!(ranks(&probe, [5, 6])[1] > 1);
        // One that wants it, though it has not said so yet, is among them.
        assert!(rank(&duty, &nodes[0].incarnation, &nodes) <= 2);
    }
}
