//! The gate in front of a replica with `max_in_flight`: calls pass while this
//! node has permits for them and wait in a bounded queue, first come first
//! served, while it has none.
//!
//! How many permits the node has is decided for the fleet ([`crate::permits`]).
//! A number that shrinks is never exceeded by new calls: places that are in
//! use above it are a debt, and end with their calls.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::store::permits::Permitted;

/// What a replica takes at once, and how calls wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightLimit {
    /// Calls in flight from the whole fleet.
    pub max: u32,
    /// Calls of this node that may wait.
    pub queue: usize,
    /// How long each waits at most.
    pub queue_timeout: Duration,
}

/// Why a call did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// As many wait as may.
    QueueFull,
    /// It waited as long as it may.
    WaitedTooLong,
}

/// The gate of one replica on this node.
#[derive(Debug)]
pub struct Gate {
    limit: InFlightLimit,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    state: Mutex<State>,
    starving: OnceLock<Arc<Notify>>,
}

#[derive(Debug)]
struct State {
    /// Places that are free or in use.
    existing: u32,
    /// How many of those in use end with their call.
    debt: u32,
    /// The most that were in use at a time since permits were asked for last.
    peak: u32,
    /// Until when the permits hold; `None`: the node goes by its own share.
    until: Option<Instant>,
}

/// What a node would tell the store about a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Places that may be in use by the time of the answer.
    pub keep: u32,
    /// Places it could use.
    pub wanted: u32,
}

impl State {
    fn allowed(&self) -> u32 {
        self.existing - self.debt
    }
}

impl Gate {
    /// Closed until permits are there.
    #[must_use]
    pub fn new(limit: InFlightLimit) -> Arc<Self> {
        Arc::new(Self {
            limit,
            places: Arc::new(Semaphore::new(0)),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(State {
                existing: 0,
                debt: 0,
                peak: 0,
                until: Some(Instant::now()),
            }),
            starving: OnceLock::new(),
        })
    }

    /// What holds for the replica.
    #[must_use]
    pub fn limit(&self) -> &InFlightLimit {
        &self.limit
    }

    pub(super) fn tell(&self, starving: &Arc<Notify>) {
        // The same one for all servers of a node.
        self.starving.set(Arc::clone(starving)).ok();
    }

    /// Whether a call would have to wait now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Calls that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Passes the gate if nobody has to wait.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.take(permit)
    }

    /// Passes the gate, at the latest at `deadline`. Dropping the future
    /// leaves the queue.
    ///
    /// # Errors
    /// When the queue is full or the wait too long.
    pub async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Place, Turned> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        let deadline = deadline.min(Instant::now() + self.limit.queue_timeout);
        let _waiting = Waiting::begin(self).ok_or(Turned::QueueFull)?;
        loop {
            if let Some(starving) = self.starving.get() {
                starving.notify_one();
            }
            let permit = Arc::clone(&self.places).acquire_owned();
            // The semaphore is never closed.
            let Ok(Ok(permit)) = timeout_at(deadline, permit).await else {
                return Err(Turned::WaitedTooLong);
            };
            if let Some(place) = self.take(permit) {
                return Ok(place);
            }
        }
    }

    /// A place, unless permits have lapsed meanwhile (the node was stopped, or
    /// nobody renewed them): then none is left.
    fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Option<Place> {
        let mut state = self.state();
        let place = Place {
            gate: Arc::clone(self),
            permit: Some(permit),
        };
        if state.until.is_some_and(|until| Instant::now() >= until) {
            self.resize(&mut state, 0);
            drop(state);
            drop(place);
            return None;
        }
        let in_use = self.in_use(&state);
        state.peak = state.peak.max(in_use);
        Some(place)
    }

    fn in_use(&self, state: &State) -> u32 {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        state.existing.saturating_sub(free)
    }

    /// What to ask for, if anything. What is not wanted any more is given up
    /// before that is said: no call can take it in between.
    #[must_use]
    pub fn wish(&self) -> Option<Wish> {
        let mut state = self.state();
        let waiting = u32::try_from(self.waiting()).unwrap_or(u32::MAX);
        let used = std::mem::take(&mut state.peak).max(self.in_use(&state));
        if state.existing == 0 && used == 0 && waiting == 0 {
            return None;
        }
        // Some more than were needed lately, so that not each call asks.
        let spare = match used.saturating_add(waiting) {
            0 => 0,
            _ => (self.limit.max / 8).max(1),
        };
        let wanted = used.saturating_add(waiting).saturating_add(spare);
        let wanted = wanted.min(self.limit.max);
        if wanted < state.allowed() {
            self.resize(&mut state, wanted);
        }
        Some(Wish {
            keep: state.existing,
            wanted,
        })
    }

    /// The store's answer to a [`wish`](Self::wish) that was sent at `asked_at`.
    pub fn grant(&self, permitted: Permitted, until: Instant) {
        let mut state = self.state();
        state.until = Some(until);
        self.resize(&mut state, permitted.allowed.min(permitted.held));
    }

    /// The store did not answer: what it gave holds until its time has
    /// passed, then `share` is this node's own.
    pub fn go_alone(&self, share: u32, now: Instant) {
        let mut state = self.state();
        if state.until.is_none_or(|until| now >= until) {
            state.until = None;
            self.resize(&mut state, share);
        }
    }

    fn resize(&self, state: &mut State, allowed: u32) {
        let before = state.allowed();
        if allowed >= before {
            let grow = allowed - before;
            let paid = grow.min(state.debt);
            state.debt -= paid;
            state.existing += grow - paid;
            self.places.add_permits((grow - paid) as usize);
        } else {
            let cut = before - allowed;
            let free = self.places.forget_permits(cut as usize);
            let free = u32::try_from(free).unwrap_or(cut);
            state.existing -= free;
            state.debt += cut - free;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers that are set together: a panic in between would be a wrong
        // count of places, not a broken gate.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's place among those in flight; dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let mut state = self.gate.state();
        if state.debt > 0 {
            state.debt -= 1;
            state.existing -= 1;
            permit.forget();
        } else {
            // While the state is locked: what is free and what exists change together.
            drop(permit);
        }
    }
}

/// One call in the queue; dropping it leaves.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn begin(gate: &'a Gate) -> Option<Self> {
        let enter = |waiting: usize| (waiting < gate.limit.queue).then_some(waiting + 1);
        gate.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter)
            .ok()
            .map(|_| Self(gate))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
