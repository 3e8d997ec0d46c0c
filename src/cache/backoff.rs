//! How long a slot is left alone after its fetches failed. The rule is in
//! `docs/cache.md` under "Failures".

use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::Settings;
use crate::store::ShortDigest;

/// Slots whose failures are remembered, and for how long after the last one.
const REMEMBERED: u64 = 10_000;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The failures in a row of this node's fetches, by slot.
#[derive(Debug)]
pub(super) struct Failures {
    slots: Cache<ShortDigest, Failure>,
    first: Duration,
    /// Longest pause while there is something to serve.
    with_fallback: Duration,
    /// Longest pause while there is nothing to serve.
    without: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    in_a_row: u32,
    last: Instant,
    /// Spreads the nodes: each pause is this share of the rule's.
    jitter: f64,
}

impl Failures {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            slots: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_idle(FORGOTTEN_AFTER)
                .build(),
            first: settings.retry_first,
            with_fallback: settings.retry_stale,
            without: settings.retry_empty,
        }
    }

    /// Counts a failure.
    pub(super) fn failed(&self, slot: ShortDigest, now: Instant) {
        let before = self.slots.get(&slot).map_or(0, |failure| failure.in_a_row);
        let failure = Failure {
            in_a_row: before.saturating_add(1),
            last: now,
            jitter: rand::random_range(0.5..1.5),
        };
        self.slots.insert(slot, failure);
    }

    /// A fetch worked.
    pub(super) fn worked(&self, slot: ShortDigest) {
        self.slots.invalidate(&slot);
    }

    /// Whether the last fetch failed.
    pub(super) fn is_failing(&self, slot: ShortDigest) -> bool {
        self.slots.contains_key(&slot)
    }

    /// How much longer the slot is to be left alone; zero: it may be fetched.
    pub(super) fn pause(&self, slot: ShortDigest, has_fallback: bool, now: Instant) -> Duration {
        let Some(failure) = self.slots.get(&slot) else {
            return Duration::ZERO;
        };
        let most = if has_fallback {
            self.with_fallback
        } else {
            self.without
        };
        let pause = pause(failure.in_a_row, self.first, most).mul_f64(failure.jitter);
        pause.saturating_sub(now.saturating_duration_since(failure.last))
    }
}

/// `first` after the first failure, doubled with each further one, at most `most`.
fn pause(in_a_row: u32, first: Duration, most: Duration) -> Duration {
    let doublings = in_a_row.saturating_sub(1).min(30);
    first.saturating_mul(1 << doublings).min(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_up_to_their_bound(in_a_row in 1..1000u32, first in 1..10_000u64, most in 1..100_000u64) {
            let first = Duration::from_millis(first);
            let most = Duration::from_millis(most);
            let now = pause(in_a_row, first, most);
            prop_assert!(now <= most);
            prop_assert!(now >= first.min(most));
            prop_assert!(pause(in_a_row + 1, first, most) >= now);
        }
    }

    #[test]
    fn a_slot_is_left_alone_until_its_pause_ends_and_forgiven_by_success() {
        let failures = Failures::new(&Settings::default());
        let slot = ShortDigest::of(&[b"x"]);
        let now = Instant::now();
        assert_eq!(failures.pause(slot, true, now), Duration::ZERO);
        for _ in 0..12 {
            failures.failed(slot, now);
        }
        assert!(failures.is_failing(slot));
        assert!(failures.pause(slot, true, now) >= Duration::from_secs(15));
        let without = failures.pause(slot, false, now);
        assert!(without <= Duration::from_millis(1500) && without >= Duration::from_millis(500));
        let later = now + Duration::from_secs(46);
        assert_eq!(failures.pause(slot, true, later), Duration::ZERO);
        failures.worked(slot);
        assert!(!failures.is_failing(slot));
    }
}
