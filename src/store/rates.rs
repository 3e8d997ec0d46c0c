//! Rate limits: how many tokens somebody may have, by the generic cell rate
//! algorithm (GCRA, ITU-T I.371) on the store's clock.
//!
//! The state of a limit is one time: until when the tokens taken so far are
//! spread out at the limit's rate. [`take`] is the decision; `rate_take.lua` is
//! the same decision inside Redis. What nodes make of tokens is in
//! [`crate::rates`].

use std::time::Duration;

use async_trait::async_trait;

use super::{ShortDigest, StoreError};

/// So many per time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Tokens per `per`; not zero.
    pub count: u32,
    /// Whole microseconds, not zero.
    pub per: Duration,
    /// Tokens that may be taken at once; not zero.
    pub burst: u32,
}

/// What is limited, as a digest of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateKey(pub ShortDigest);

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Tokens, at most as many as were wanted.
    pub granted: u32,
    /// Until the next one is to be had, when none was.
    pub retry_after: Duration,
}

/// The rate limits of a store.
///
/// # Errors
/// As for [`Store`](super::Store).
#[async_trait]
pub trait Rates {
    /// Takes up to `wanted` (at least one) tokens of a limit.
    async fn take_tokens(
        &self,
        key: &RateKey,
        rate: &Rate,
        wanted: u32,
    ) -> Result<Taken, StoreError>;
}

impl Rate {
    /// What one of `nodes` may give out without asking the others.
    #[must_use]
    pub fn share(self, nodes: usize) -> Self {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        Self {
            per: self.per.saturating_mul(nodes),
            burst: (self.burst / nodes).max(1),
            ..self
        }
    }

    /// How many come within `time`.
    #[must_use]
    pub fn within(self, time: Duration) -> u32 {
        let count = time.as_micros() * u128::from(self.count) / self.per.as_micros().max(1);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The time that `tokens` are spread over, in microseconds, rounded up: a
    /// limit is never exceeded for rounding.
    #[must_use]
    pub fn cost(self, tokens: u32) -> u64 {
        let cost = u128::from(tokens) * self.per.as_micros();
        u64::try_from(cost.div_ceil(u128::from(self.count.max(1)))).unwrap_or(u64::MAX)
    }
}

/// Takes up to `wanted` tokens at `now` from a limit whose state is `spread`
/// (both in microseconds of one clock); answers the new state.
#[must_use]
pub fn take(spread: u64, now: u64, rate: Rate, wanted: u32) -> (u64, Taken) {
    let burst = rate.cost(rate.burst);
    // After a pause nothing is saved up beyond the burst, and nobody waits for
    // longer than one: the clock may have gone back, or the limit been another.
    let spread = spread.clamp(now, now.saturating_add(burst));
    let room = burst - (spread - now);
    let fitting = u128::from(room) * u128::from(rate.count) / rate.per.as_micros().max(1);
    let granted = u32::try_from(fitting).unwrap_or(u32::MAX).min(wanted);
    let retry_after = match granted {
        0 => Duration::from_micros(rate.cost(1).saturating_sub(room)),
        _ => Duration::ZERO,
    };
    let taken = Taken {
        granted,
        retry_after,
    };
    (spread.saturating_add(rate.cost(granted)), taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates() -> impl Strategy<Value = Rate> {
        (1u32..2000, 1u64..200_000_000, 1u32..500).prop_map(|(count, micros, burst)| Rate {
            count,
            per: Duration::from_micros(micros.max(u64::from(count))),
            burst,
        })
    }

    proptest! {
        #[test]
        fn no_window_gives_more_than_its_rate_and_one_burst(
            rate in rates(),
            steps in proptest::collection::vec((0u64..5_000_000, 1u32..50), 1..60),
        ) {
            let (mut spread, mut now) = (0, 1);
            let mut given: Vec<(u64, u32)> = Vec::new();
            for (pause, wanted) in steps {
                now += pause;
                let (next, taken) = take(spread, now, rate, wanted);
                prop_assert!(taken.granted <= wanted);
                spread = next;
                given.push((now, taken.granted));
            }
            for (first, (from, _)) in given.iter().enumerate() {
                let mut sum = 0u64;
                for (to, granted) in &given[first..] {
                    sum += u64::from(*granted);
                    let window = Duration::from_micros(to - from);
                    prop_assert!(sum <= u64::from(rate.within(window)) + u64::from(rate.burst) + 1);
                }
            }
        }

        #[test]
        fn whoever_waits_as_told_gets_one_and_not_before(rate in rates(), now in 1u64..1_000_000_000) {
            let (spread, taken) = take(0, now, rate, rate.burst);
            prop_assert_eq!(taken.granted, rate.burst);
            let (_, refused) = take(spread, now, rate, 1);
            prop_assert_eq!(refused.granted, 0);
            let wait = u64::try_from(refused.retry_after.as_micros()).expect("short");
            prop_assert!(wait > 0);
            prop_assert_eq!(take(spread, now + wait, rate, 1).1.granted, 1);
            if wait > 1 {
                prop_assert_eq!(take(spread, now + wait - 2, rate, 1).1.granted, 0);
            }
        }

        #[test]
        fn steady_demand_at_the_rate_is_never_refused(rate in rates()) {
            let (mut spread, mut now) = (0, 1);
            for _ in 0..100 {
                let (next, taken) = take(spread, now, rate, 1);
                prop_assert_eq!(taken.granted, 1);
                spread = next;
                now += rate.cost(1);
            }
        }

        #[test]
        fn shares_are_no_more_than_the_whole(rate in rates(), nodes in 1usize..20) {
            let share = rate.share(nodes);
            let all = u32::try_from(nodes).expect("few");
            prop_assert!(share.burst * all <= rate.burst.max(all));
            prop_assert!(share.cost(1) >= u64::from(all) * rate.cost(1).saturating_sub(1));
        }
    }
}
