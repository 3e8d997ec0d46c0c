//! What is known of the calls to a replica: how many are in flight, from here
//! and from other nodes, and how long answers take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::Replica;
use crate::{
    balance::{Load, PeakEwma},
    breaker::Told,
};

/// Calls in flight and their latency.
#[derive(Debug)]
pub(super) struct Traffic {
    own: AtomicU32,
    others: AtomicU32,
    /// A [`PeakEwma`] on the clock that began at `born`.
    latency: AtomicU64,
    born: Instant,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            own: AtomicU32::new(0),
            others: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    pub(super) fn own(&self) -> u32 {
        self.own.load(Ordering::Relaxed)
    }

    pub(super) fn others(&self) -> u32 {
        self.others.load(Ordering::Relaxed)
    }

    pub(super) fn set_others(&self, others: u32) {
        self.others.store(others, Ordering::Relaxed);
    }

    /// `now` is given where latency matters.
    pub(super) fn load(&self, now: Option<Instant>) -> Load {
        let latency = now.and_then(|now| {
            let latency = PeakEwma::from_bits(self.latency.load(Ordering::Relaxed));
            latency.estimate(self.clock(now))
        });
        Load {
            own: self.own(),
            others: self.others(),
            latency,
        }
    }

    pub(super) fn answered_after(&self, took: Duration, now: Instant) {
        let now = self.clock(now);
        let observe = |bits| Some(PeakEwma::from_bits(bits).observe(now, took).to_bits());
        // Never refused: there is always a next value.
        self.latency
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, observe)
            .ok();
    }

    /// Milliseconds since the replica became known; wraps, as [`PeakEwma`] expects.
    fn clock(&self, now: Instant) -> u32 {
        let wraps = u128::from(u32::MAX) + 1;
        let millis = now.saturating_duration_since(self.born).as_millis() % wraps;
        u32::try_from(millis).unwrap_or_default()
    }
}

/// One counted request. Dropping it ends the count, also when the request is
/// cancelled; what it tells of the replica before that is its owner's word.
#[derive(Debug)]
pub struct InFlight {
    replica: Arc<Replica>,
    begun: Instant,
    heard: bool,
}

impl InFlight {
    pub(super) fn new(replica: &Arc<Replica>) -> Self {
        replica.traffic.own.fetch_add(1, Ordering::Relaxed);
        Self {
            replica: Arc::clone(replica),
            begun: Instant::now(),
            heard: false,
        }
    }

    /// The replica it is counted at.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// The replica said something: its first word tells how long it takes.
    pub fn heard(&mut self) {
        if self.heard {
            return;
        }
        self.heard = true;
        let now = Instant::now();
        let took = now.duration_since(self.begun);
        self.replica.traffic.answered_after(took, now);
        self.replica.learn(Told::Alive, self.begun, now);
    }

    /// How the request ended tells this of the replica.
    pub fn tells(&self, told: Told) {
        self.replica.learn(told, self.begun, Instant::now());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.replica.traffic.own.fetch_sub(1, Ordering::Relaxed);
    }
}
