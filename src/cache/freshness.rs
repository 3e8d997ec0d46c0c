//! What may be done with an entry of a given age. Pure.

use std::time::Duration;

use super::{Durations, Settings};

/// The durations of one entry, as its writer set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetimes {
    pub(super) fresh: Duration,
    pub(super) stale: Duration,
    pub(super) max_stale: Duration,
}

/// See the table of states in `docs/cache.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Freshness {
    /// May be served.
    Fresh,
    /// May be served while one refresh runs (RFC 5861, stale-while-revalidate).
    Stale,
    /// May be served if fetching fails (RFC 5861, stale-if-error).
    Expired,
    /// May not be served.
    Gone,
}

impl Lifetimes {
    /// What an answer gets that came with the hint `ttl`.
    pub(super) fn new(ttl: Option<Duration>, durations: &Durations, settings: &Settings) -> Self {
        let max_stale = durations.max_stale.min(settings.max_age);
        let most = settings.max_fresh.max(settings.min_fresh);
        let fresh = ttl.map_or(durations.fresh, |ttl| ttl.clamp(settings.min_fresh, most));
        // Zero says: not without asking. It is held long enough to answer
        // those who ask at the same time, and not served after that.
        let stale = match ttl {
            Some(Duration::ZERO) => Duration::ZERO,
            Some(_) | None => durations.stale,
        };
        Self {
            fresh: fresh.min(max_stale),
            stale,
            max_stale,
        }
    }

    /// The state at `age`.
    pub(super) fn at(&self, age: Duration, invalidated: bool) -> Freshness {
        if age >= self.max_stale {
            Freshness::Gone
        } else if invalidated {
            Freshness::Expired
        } else if age < self.fresh {
            Freshness::Fresh
        } else if age < self.fresh.saturating_add(self.stale) {
            Freshness::Stale
        } else {
            Freshness::Expired
        }
    }

    /// What is left of its freshness at `age`.
    pub(super) fn remaining(&self, age: Duration, invalidated: bool) -> Duration {
        match self.at(age, invalidated) {
            Freshness::Fresh => self.fresh.saturating_sub(age),
            Freshness::Stale | Freshness::Expired | Freshness::Gone => Duration::ZERO,
        }
    }
}

/// Share of the fresh time that stands in for the time a fetch takes when
/// that is shorter: without it an entry asked for a few times a second would
/// never be refreshed early, since the window would be a few milliseconds.
const LEAST_LEAD: f64 = 0.01;

/// Whether a request that finds a fresh entry of this age should refresh it.
///
/// XFetch (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache
/// Stampede Prevention", PVLDB 8(8), 2015): refresh when
/// `age - took * beta * ln(chance) >= fresh`, with `chance` uniform in (0, 1].
/// Requests decide on their own, the more of them the earlier one refreshes.
/// Never in the first half of the fresh time, so that the load on the upstream
/// at most doubles whatever the traffic.
pub(super) fn refresh_early(
    age: Duration,
    fresh: Duration,
    took: Duration,
    beta: f64,
    chance: f64,
) -> bool {
    if beta <= 0.0 || age < fresh / 2 {
        return false;
    }
    let lead = took.as_secs_f64().max(fresh.as_secs_f64() * LEAST_LEAD);
    let ahead = -lead * beta * chance.max(f64::MIN_POSITIVE).ln();
    age.as_secs_f64() + ahead >= fresh.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn durations() -> impl Strategy<Value = Durations> {
        (0..100_000u64, 0..100_000u64, 0..100_000u64).prop_map(|(fresh, stale, max_stale)| {
            Durations {
                fresh: Duration::from_millis(fresh),
                stale: Duration::from_millis(stale),
                max_stale: Duration::from_millis(max_stale),
            }
        })
    }

    proptest! {
        #[test]
        fn states_only_get_worse_with_age(
            durations in durations(),
            ttl in proptest::option::of(0..1_000_000u64),
            ages in (0..1_000_000u64, 0..1_000_000u64),
            invalidated: bool,
        ) {
            let ttl = ttl.map(Duration::from_millis);
            let lifetimes = Lifetimes::new(ttl, &durations, &Settings::default());
            let (younger, older) = (ages.0.min(ages.1), ages.0.max(ages.1));
            let younger = Duration::from_millis(younger);
            let older = Duration::from_millis(older);
            prop_assert!(lifetimes.at(younger, invalidated) <= lifetimes.at(older, invalidated));
            prop_assert!(
                lifetimes.remaining(younger, invalidated) >= lifetimes.remaining(older, invalidated)
            );
            prop_assert!(lifetimes.at(younger, false) <= lifetimes.at(younger, true));
        }

        #[test]
        fn nothing_is_served_past_max_stale_and_only_the_fresh_has_time_left(
            durations in durations(),
            ttl in proptest::option::of(0..1_000_000u64),
            age in 0..1_000_000u64,
            invalidated: bool,
        ) {
            let ttl = ttl.map(Duration::from_millis);
            let age = Duration::from_millis(age);
            let lifetimes = Lifetimes::new(ttl, &durations, &Settings::default());
            let state = lifetimes.at(age, invalidated);
            prop_assert_eq!(state == Freshness::Gone, age >= durations.max_stale);
            let remaining = lifetimes.remaining(age, invalidated);
            prop_assert_eq!(state == Freshness::Fresh, remaining > Duration::ZERO);
            prop_assert!(!(invalidated && state < Freshness::Expired));
            prop_assert!(lifetimes.fresh <= lifetimes.max_stale);
        }

        #[test]
        fn hints_are_clamped(ttl in any::<u64>()) {
            let settings = Settings::default();
            let durations = Durations {
                fresh: 300 * SECOND,
                stale: 600 * SECOND,
                max_stale: 7200 * SECOND,
            };
            let lifetimes = Lifetimes::new(Some(Duration::from_millis(ttl)), &durations, &settings);
            prop_assert!(lifetimes.fresh >= settings.min_fresh);
            prop_assert!(lifetimes.fresh <= settings.max_fresh);
        }

        #[test]
        fn early_refresh_is_monotonous_and_not_in_the_first_half(
            fresh in 1..1_000_000u64,
            took in 0..60_000u64,
            share in 0.0..1.2f64,
            chance in 0.0..=1.0f64,
        ) {
            let fresh = Duration::from_millis(fresh);
            let took = Duration::from_millis(took);
            let age = fresh.mul_f64(share);
            let early = refresh_early(age, fresh, took, 1.0, chance);
            if age < fresh / 2 {
                prop_assert!(!early);
            } else if early {
                // An older entry, or a rarer chance, does not change the decision.
                prop_assert!(refresh_early(age + SECOND, fresh, took, 1.0, chance));
                prop_assert!(refresh_early(age, fresh, took, 1.0, chance / 2.0));
            }
            prop_assert!(!refresh_early(age, fresh, took, 0.0, chance));
            if age >= fresh {
                prop_assert!(refresh_early(age, fresh, took, 1.0, chance));
            }
        }
    }

    #[test]
    fn a_ttl_of_zero_is_not_served_stale() {
        let durations = Durations {
            fresh: 300 * SECOND,
            stale: 600 * SECOND,
            max_stale: 3600 * SECOND,
        };
        let zero = Lifetimes::new(Some(Duration::ZERO), &durations, &Settings::default());
        assert_eq!(zero.at(Duration::ZERO, false), Freshness::Fresh);
        assert_eq!(zero.at(2 * SECOND, false), Freshness::Expired);
        let none = Lifetimes::new(None, &durations, &Settings::default());
        assert_eq!(none.at(301 * SECOND, false), Freshness::Stale);
    }

    #[test]
    fn steady_traffic_refreshes_before_the_end() {
        // 20 requests a second, 60 s fresh, fetches of 50 ms: of 200 lives at
        // most a few reach their end without a refresh.
        let fresh = 60 * SECOND;
        let took = Duration::from_millis(50);
        let missed = (0..200)
            .filter(|_| {
                !(0..60 * 20).any(|tick| {
                    let age = Duration::from_millis(tick * 50);
                    refresh_early(age, fresh, took, 1.0, rand::random())
                })
            })
            .count();
        assert!(missed <= 5, "{missed} of 200 went stale");
    }
}
