//! Whether a replica is fit for calls, and which of a server's replicas are.
//!
//! A replica's [`Condition`] is what probes found and what its breaker says.
//! A server's [`Usable`] is the snapshot that picks are made from, made anew
//! when a condition has changed and not per pick.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

use super::Replica;
use crate::{
    balance::{Choices, Policy},
    breaker::Breaker,
    telemetry::metrics::{BreakerMetrics, Counted},
};

/// What probes found and what the breaker says.
#[derive(Debug, Default)]
pub(super) struct Condition {
    unhealthy: AtomicBool,
    /// The breaker's state in two words that calls can read without the lock.
    open: AtomicBool,
    troubled: AtomicBool,
    breaker: Mutex<(Breaker, Option<Counted>)>,
    metrics: OnceLock<Arc<BreakerMetrics>>,
    /// The servers the replica is in: one, or two while one replaces another.
    users: Mutex<Vec<Weak<Usable>>>,
}

impl Condition {
    pub(super) fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        if self.unhealthy.swap(!healthy, Ordering::AcqRel) == healthy {
            self.changed();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether a success would change anything.
    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    pub(super) fn breaker(&self) -> Breaker {
        lock(&self.breaker).0
    }

    /// Changes the breaker; true when that opened or closed it.
    pub(super) fn change_breaker(&self, step: impl FnOnce(Breaker) -> Breaker) -> bool {
        let mut guarded = lock(&self.breaker);
        let before = guarded.0;
        let after = step(before);
        let flipped = before.is_open() != after.is_open();
        guarded.0 = after;
        if flipped {
            let metrics = self.metrics.get();
            guarded.1 = metrics.and_then(|metrics| metrics.turned(after.is_open()));
        }
        self.troubled
            .store(!after.is_untroubled(), Ordering::Relaxed);
        self.open.store(after.is_open(), Ordering::Release);
        drop(guarded);
        if flipped {
            self.changed();
        }
        flipped
    }

    pub(super) fn add_user(&self, usable: &Arc<Usable>) {
        let mut users = lock(&self.users);
        users.retain(|user| user.strong_count() > 0);
        users.push(Arc::downgrade(usable));
    }

    pub(super) fn count_by(&self, metrics: &Arc<BreakerMetrics>) {
        // A replica that moves on to another server object is counted already.
        self.metrics.set(Arc::clone(metrics)).ok();
    }

    fn changed(&self) {
        let users: Vec<_> = lock(&self.users).iter().filter_map(Weak::upgrade).collect();
        for user in users {
            user.invalidate();
        }
    }
}

/// Which replicas of a server can be picked.
#[derive(Debug)]
pub(super) struct Usable {
    policy: Policy,
    stale: AtomicBool,
    choices: ArcSwap<Choices>,
    making: Mutex<()>,
    /// Told when a condition changes; set when the server becomes known.
    changed: OnceLock<Arc<Notify>>,
}

impl Usable {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            stale: AtomicBool::new(true),
            choices: ArcSwap::default(),
            making: Mutex::default(),
            changed: OnceLock::new(),
        }
    }

    pub(super) fn tell(&self, changed: &Arc<Notify>) {
        // A server becomes known once.
        self.changed.set(Arc::clone(changed)).ok();
    }

    fn invalidate(&self) {
        self.stale.store(true, Ordering::Release);
        if let Some(changed) = self.changed.get() {
            changed.notify_one();
        }
    }

    /// What can be picked among `replicas`, which are always the same.
    pub(super) fn choices(&self, replicas: &[Arc<Replica>]) -> Guard<Arc<Choices>> {
        if self.stale.load(Ordering::Acquire) {
            let _one_at_a_time = lock(&self.making);
            // Before the conditions are read: what changes from here on is seen next time.
            if self.stale.swap(false, Ordering::AcqRel) {
                self.choices.store(Arc::new(self.make(replicas)));
            }
        }
        self.choices.load()
    }

    /// The usable replicas. When there are none, the least bad ones: all
    /// guesses cannot be right, and a call that is tried may succeed. A
    /// replica with an open breaker answers probes and failed some calls,
    /// perhaps for their own fault; one that fails probes is worse.
    fn make(&self, replicas: &[Arc<Replica>]) -> Choices {
        let rank = |replica: &Replica| {
            2 * u8::from(!replica.is_healthy()) + u8::from(replica.condition.is_open())
        };
        let ranks: Vec<u8> = replicas.iter().map(|replica| rank(replica)).collect();
        let best = ranks.iter().min().copied().unwrap_or_default();
        let picked = (0u32..).zip(replicas).zip(&ranks);
        let picked = picked.filter(|(_, rank)| **rank == best);
        Choices::new(
            self.policy,
            picked.map(|((index, replica), _)| (index, replica.weight)),
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these is replaced whole: a panic leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
