//! A guess at the store's clock while the store cannot be asked: what it said
//! last, and the time since then on this node's clock.
//!
//! The guess only orders what this node does alone. What is written to the
//! store later is put in order by the store's own clock.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::store::{Fence, StoreTime};

#[derive(Debug)]
pub(super) struct ClockGuess {
    /// When, and what the store's clock showed then, in microseconds.
    last: Mutex<(Instant, u64)>,
}

impl ClockGuess {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: Mutex::new((now, 0)),
        }
    }

    /// The store answered that its clock shows `time`.
    pub(super) fn saw_time(&self, time: StoreTime, now: Instant) {
        self.saw(time.0.saturating_mul(1000), now);
    }

    /// The store gave or knew this fence.
    pub(super) fn saw_fence(&self, fence: Fence, now: Instant) {
        self.saw(fence.0, now);
    }

    /// A fence above all that were seen.
    pub(super) fn next_fence(&self, now: Instant) -> Fence {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let guess = Self::guess(*last, now).saturating_add(1);
        *last = (now, guess);
        Fence(guess)
    }

    fn saw(&self, micros: u64, now: Instant) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (now, Self::guess(*last, now).max(micros));
    }

    fn guess((at, micros): (Instant, u64), now: Instant) -> u64 {
        let since = now.saturating_duration_since(at).as_micros();
        micros.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn guesses_go_on_from_what_was_seen_and_never_back() {
        let now = Instant::now();
        let clock = ClockGuess::new(now);
        clock.saw_time(StoreTime(1_000_000), now);
        let later = now + Duration::from_millis(5);
        let first = clock.next_fence(later);
        assert_eq!(first, Fence(1_000_005_001));
        assert!(clock.next_fence(later) > first);
        clock.saw_fence(Fence(2_000_000_000), later);
        let ahead = clock.next_fence(later);
        assert!(ahead > Fence(2_000_000_000));
        clock.saw_time(StoreTime(1), later);
        assert!(clock.next_fence(later) > ahead);
    }
}
