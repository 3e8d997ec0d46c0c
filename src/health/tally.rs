//! From single probes to a state: consecutive results flip it. Pure.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Whether a replica is fit for traffic, as probes see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not enough probes yet; gets traffic.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// It does not.
    Unhealthy,
}

impl State {
    /// The word for people and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How many results in a row flip a state.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// Failures until a replica is unhealthy.
    pub unhealthy_after: NonZeroU32,
    /// Successes until an unhealthy one is healthy again.
    pub healthy_after: NonZeroU32,
}

/// A state and the results in a row that may flip it. Part of the record, so
/// that a node that takes over goes on counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// The state.
    pub state: State,
    /// Failures since the last success.
    pub failures: u32,
    /// Successes since the last failure.
    pub successes: u32,
}

impl Tally {
    /// The tally after another probe.
    #[must_use]
    pub fn after(self, passed: bool, thresholds: Thresholds) -> Self {
        let (successes, failures) = if passed {
            (self.successes.saturating_add(1), 0)
        } else {
            (0, self.failures.saturating_add(1))
        };
        let state = match self.state {
            State::Unknown if passed => State::Healthy,
            State::Unhealthy if successes >= thresholds.healthy_after.get() => State::Healthy,
            State::Unknown | State::Healthy if failures >= thresholds.unhealthy_after.get() => {
                State::Unhealthy
            }
            unchanged => unchanged,
        };
        Self {
            state,
            failures,
            successes,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thresholds(unhealthy_after: u32, healthy_after: u32) -> Thresholds {
        Thresholds {
            unhealthy_after: NonZeroU32::new(unhealthy_after).expect("not zero"),
            healthy_after: NonZeroU32::new(healthy_after).expect("not zero"),
        }
    }

    proptest! {
        #[test]
        fn only_enough_results_in_a_row_flip_a_state(
            results in prop::collection::vec(any::<bool>(), 1..60), bad in 1u32..5, good in 1u32..5,
        ) {
            let thresholds = thresholds(bad, good);
            let mut tally = Tally::default();
            for (index, passed) in results.iter().enumerate() {
                let before = tally;
                tally = tally.after(*passed, thresholds);
                let last = |count: u32| results[..=index].iter().rev().take_while(|r| *r == passed).count() >= count as usize;
                match (before.state, tally.state) {
                    (State::Healthy | State::Unknown, State::Unhealthy) => prop_assert!(!passed && last(bad)),
                    (State::Unhealthy, State::Healthy) => prop_assert!(*passed && last(good)),
                    (State::Unknown, State::Healthy) => prop_assert!(*passed),
                    (before, after) => prop_assert_eq!(before, after),
                }
            }
        }
    }

    #[test]
    fn one_failure_of_a_new_replica_is_no_verdict() {
        let tally = Tally::default().after(false, thresholds(3, 2));
        assert_eq!(tally.state, State::Unknown);
    }
}
