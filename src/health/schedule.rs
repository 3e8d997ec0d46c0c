//! When a replica is probed next. Pure.
//!
//! Probes of the whole fleet lie on one grid over the store's clock: with *n*
//! replicas an interval has *n* slots, and a replica's slot follows from its
//! place in the order of hashes. So probes arrive evenly whatever the number
//! of nodes, a node that takes over goes on in the same grid, and a replica
//! that is added or removed moves the others by a fraction of a slot. A
//! failure leaves the grid: it is checked again soon, and less and less often.

use std::time::Duration;

use super::tally::{State, Tally};

/// First pause after a failure; doubled up to the interval.
const RECHECK: Duration = Duration::from_millis(500);

/// A replica's place in the grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slot {
    /// Where its slot begins, as a part of the interval: from 0 to below 1.
    pub(super) begin: f64,
    /// How long it is, as a part of the interval.
    pub(super) length: f64,
}

/// The slots of `count` replicas.
#[must_use]
pub(super) fn slot(index: usize, count: usize) -> Slot {
    #[expect(clippy::cast_precision_loss, reason = "replicas are few")]
    let length = 1.0 / count.max(1) as f64;
    #[expect(clippy::cast_precision_loss, reason = "replicas are few")]
    let begin = (index as f64 * length).fract();
    Slot { begin, length }
}

/// The pause before the next probe. `now` and `last` (the probe before) are on
/// the store's clock in milliseconds; `random` is from 0 to below 1.
#[must_use]
pub(super) fn pause(
    now: u64,
    last: Option<(u64, Tally)>,
    slot: Slot,
    interval: Duration,
    random: f64,
) -> Duration {
    if let Some((at, tally)) = last
        && let Some(soon) = recheck(tally, interval)
    {
        let due = Duration::from_millis(at) + soon.mul_f64(0.9 + 0.2 * random);
        // Never far away, should the clock have been set back.
        return due.saturating_sub(Duration::from_millis(now)).min(interval);
    }
    // In the first half of the slot, so that neighbours never meet.
    let place = interval.mul_f64(slot.begin + slot.length * 0.5 * random);
    let since_start = Duration::from_millis(now);
    let into = nanos(since_start) % nanos(interval).max(1);
    let mut pause = nanos(place) + nanos(interval) - into;
    pause %= nanos(interval).max(1);
    let pause = Duration::from_nanos(u64::try_from(pause).unwrap_or(u64::MAX));
    // Probed a moment ago in this very slot: by another node, before the slot
    // moved, or before a later place in it. What is known of the store's clock
    // is off by the time of a command, so that may seem to be in the future; by
    // more than that only after the clock has been set back.
    match last.map(|(at, _)| Duration::from_millis(at)) {
        Some(at) if at <= since_start + interval / 2 && since_start + pause < at + interval / 2 => {
            pause + interval
        }
        _ => pause,
    }
}

/// How soon a replica is checked that has just failed, or has just come back.
fn recheck(tally: Tally, interval: Duration) -> Option<Duration> {
    if tally.failures > 0 {
        let doublings = (tally.failures - 1).min(16);
        return Some((RECHECK * 2u32.pow(doublings)).min(interval));
    }
    (tally.state == State::Unhealthy).then_some(RECHECK.min(interval))
}

fn nanos(duration: Duration) -> u128 {
    duration.as_nanos()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn healthy() -> Tally {
        Tally {
            state: State::Healthy,
            failures: 0,
            successes: 1,
        }
    }

    fn failed(failures: u32) -> Tally {
        Tally {
            state: State::Unhealthy,
            failures,
            successes: 0,
        }
    }

    proptest! {
        #[test]
        fn a_healthy_replica_is_probed_once_per_interval(
            index in 0usize..50, start in 0u64..10_000_000, randoms in prop::collection::vec(0.0..1.0f64, 20),
        ) {
            let slot = slot(index, 50);
            let mut now = start;
            let mut last = None;
            for random in randoms {
                now += millis(pause(now, last, slot, INTERVAL, random));
                if let Some((before, _)) = last {
                    let gap = now - before;
                    // Up to half a slot to either side.
                    prop_assert!((29_700..=30_300).contains(&gap), "{}", gap);
                }
                last = Some((now, healthy()));
            }
        }

        #[test]
        fn whoever_takes_over_neither_repeats_nor_skips_a_probe(
            index in 0usize..50, at in 0u64..10_000_000, later in -200i64..29_000, random in 0.0..1.0f64,
        ) {
            let slot = slot(index, 50);
            let first = at + millis(pause(at, None, slot, INTERVAL, random));
            // Its clock may be a moment behind.
            let now = first.saturating_add_signed(later);
            let next = now + millis(pause(now, Some((first, healthy())), slot, INTERVAL, random));
            prop_assert!((29_700..=30_300).contains(&(next - first)), "{}", next - first);
        }
    }

    fn millis(duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos().div_ceil(1_000_000)).expect("short")
    }

    #[test]
    fn probes_of_many_replicas_are_even() {
        let count = 300;
        let mut tenths = [0u32; 300];
        for index in 0..count {
            let random = (index as f64 * 0.618).fract();
            let at = millis(pause(0, None, slot(index, count), INTERVAL, random));
            tenths[usize::try_from(at / 100).expect("small") % 300] += 1;
        }
        assert!(tenths.iter().all(|probes| *probes <= 2), "{tenths:?}");
    }

    #[test]
    fn a_failure_is_checked_again_soon_and_less_and_less_often() {
        let pause = |failures| {
            pause(
                1000,
                Some((1000, failed(failures))),
                slot(3, 7),
                INTERVAL,
                0.5,
            )
        };
        let pauses: Vec<_> = (1..=9).map(pause).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses[..4], [500, 1000, 2000, 4000]);
        assert_eq!(pauses[8], INTERVAL.as_millis());
    }

    #[test]
    fn a_replica_that_comes_back_is_checked_again_soon() {
        let back = Tally {
            state: State::Unhealthy,
            failures: 0,
            successes: 1,
        };
        let pause = pause(1000, Some((1000, back)), slot(3, 7), INTERVAL, 0.5);
        assert_eq!(pause, RECHECK);
    }
}
