//! Picks the replica a request goes to. Pure: no I/O, no clock, no locks.

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

/// How a replica is chosen among those that can take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Two at random, then the less loaded one (Mitzenmacher, "The Power of
    /// Two Choices in Randomized Load Balancing").
    #[default]
    P2c,
    /// In turn.
    RoundRobin,
    /// The one with the fewest requests in flight; the first of equals after
    /// a random start, so that idle replicas share.
    LeastInFlight,
    /// At random in proportion to the configured weights.
    Weighted,
    /// At random.
    Random,
}

impl Policy {
    /// The name used in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P2c => "p2c",
            Self::RoundRobin => "round_robin",
            Self::LeastInFlight => "least_in_flight",
            Self::Weighted => "weighted",
            Self::Random => "random",
        }
    }
}

/// What is known of a replica when choosing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Requests in flight.
    pub in_flight: u32,
    /// Configured share of the traffic; 0 takes none under [`Policy::Weighted`].
    pub weight: u32,
}

/// The index of the chosen candidate; `None` when there is none. `turn` counts
/// the server's picks and drives [`Policy::RoundRobin`].
pub fn pick(
    policy: Policy,
    candidates: &[Candidate],
    turn: usize,
    random: &mut impl Rng,
) -> Option<usize> {
    let count = candidates.len();
    match count {
        0 => return None,
        1 => return Some(0),
        _ => {}
    }
    Some(match policy {
        Policy::P2c => {
            let first = random.random_range(0..count);
            let second = (first + random.random_range(1..count)) % count;
            if candidates[second].in_flight < candidates[first].in_flight {
                second
            } else {
                first
            }
        }
        Policy::RoundRobin => turn % count,
        Policy::LeastInFlight => {
            let start = random.random_range(0..count);
            let from_start = (0..count).map(|step| (start + step) % count);
            from_start
                .min_by_key(|&index| candidates[index].in_flight)
                .unwrap_or(start)
        }
        Policy::Weighted => by_weight(candidates, random),
        Policy::Random => random.random_range(0..count),
    })
}

fn by_weight(candidates: &[Candidate], random: &mut impl Rng) -> usize {
    let total: u64 = candidates
        .iter()
        .map(|candidate| u64::from(candidate.weight))
        .sum();
    if total == 0 {
        return random.random_range(0..candidates.len());
    }
    let mut left = random.random_range(0..total);
    for (index, candidate) in candidates.iter().enumerate() {
        let weight = u64::from(candidate.weight);
        if left < weight {
            return index;
        }
        left -= weight;
    }
    candidates.len() - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn candidates(loads: &[(u32, u32)]) -> Vec<Candidate> {
        loads
            .iter()
            .map(|&(in_flight, weight)| Candidate { in_flight, weight })
            .collect()
    }

    const ALL: [Policy; 5] = [
        Policy::P2c,
        Policy::RoundRobin,
        Policy::LeastInFlight,
        Policy::Weighted,
        Policy::Random,
    ];

    proptest! {
        #[test]
        fn the_choice_is_one_of_the_candidates(
            loads in prop::collection::vec((0u32..100, 0u32..10), 0..20),
            turn in any::<usize>(),
            seed in any::<u64>(),
        ) {
            let candidates = candidates(&loads);
            for policy in ALL {
                let choice = pick(policy, &candidates, turn, &mut StdRng::seed_from_u64(seed));
                prop_assert_eq!(choice.is_none(), candidates.is_empty());
                prop_assert!(choice.is_none_or(|index| index < candidates.len()));
            }
        }

        #[test]
        fn two_choices_never_take_the_most_loaded_of_two(a in 0u32..50, b in 0u32..50, seed in any::<u64>()) {
            let candidates = candidates(&[(a, 1), (b, 1)]);
            let choice = pick(Policy::P2c, &candidates, 0, &mut StdRng::seed_from_u64(seed)).expect("two");
            prop_assert_eq!(candidates[choice].in_flight, a.min(b));
        }

        #[test]
        fn least_in_flight_takes_a_minimum(loads in prop::collection::vec((0u32..9, 1u32..2), 1..20), seed in any::<u64>()) {
            let candidates = candidates(&loads);
            let choice = pick(Policy::LeastInFlight, &candidates, 0, &mut StdRng::seed_from_u64(seed)).expect("some");
            let least = candidates.iter().map(|c| c.in_flight).min();
            prop_assert_eq!(Some(candidates[choice].in_flight), least);
        }
    }

    #[test]
    fn round_robin_takes_each_in_turn() {
        let candidates = candidates(&[(0, 1), (9, 1), (0, 1)]);
        let mut random = StdRng::seed_from_u64(1);
        let turns: Vec<_> = (0..6)
            .filter_map(|turn| pick(Policy::RoundRobin, &candidates, turn, &mut random))
            .collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn weights_are_shares_and_zero_takes_nothing() {
        let candidates = candidates(&[(0, 3), (0, 0), (0, 1)]);
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = [0u32; 3];
        for turn in 0..8000 {
            counts[pick(Policy::Weighted, &candidates, turn, &mut random).expect("some")] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((5600..6400).contains(&counts[0]), "{counts:?}");
    }
}
