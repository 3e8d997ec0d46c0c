//! How many retries a server's calls have earned: a token bucket fed by calls,
//! so that a server in trouble gets at most some per cent more requests from
//! it (as in Finagle's `RetryBudget`).

use std::sync::atomic::{AtomicU32, Ordering};

/// What one retry costs.
const RETRY: u32 = 1000;
/// What a server has before its first call, so that a quiet one can retry too.
const RESERVE: u32 = 10 * RETRY;
/// What can be saved at most.
const MOST: u32 = 100 * RETRY;

/// The retries that can be made now, in thousandths.
#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(RESERVE))
    }

    /// A call is made; it earns `share` of a retry, from 0 to 1.
    pub(super) fn earn(&self, share: f64) {
        if self.0.load(Ordering::Relaxed) < MOST {
            // At most a thousand: far from the type's end, whoever races.
            let earned = (share.clamp(0.0, 1.0) * f64::from(RETRY)) as u32;
            self.0.fetch_add(earned, Ordering::Relaxed);
        }
    }

    /// Takes the price of a retry; false when there is not enough.
    pub(super) fn spend(&self) -> bool {
        let spend = |left: u32| left.checked_sub(RETRY);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_calls_beyond_the_reserve() {
        let budget = RetryBudget::new();
        let spend_all = || (0..).take_while(|_| budget.spend()).count();
        assert_eq!(spend_all(), 10);
        (0..50).for_each(|_| budget.earn(0.2));
        assert_eq!(spend_all(), 10);
        (0..50).for_each(|_| budget.earn(0.0));
        assert_eq!(spend_all(), 0);
        (0..1_000_000).for_each(|_| budget.earn(1.0));
        assert_eq!(spend_all(), 100);
    }
}
