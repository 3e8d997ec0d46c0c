//! Picks the replica a request goes to. Pure: no I/O, no clock, no locks, and
//! no allocation per pick.
//!
//! What may be picked is a [`Choices`], made once per change of the replicas'
//! condition; what is known of their load is asked for the few that are looked
//! at. So a pick takes the same time among three replicas and among thousands.

use std::{cmp::Ordering, time::Duration};

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

mod alias;
mod latency;

use alias::Alias;
pub use latency::PeakEwma;

/// Up to so many replicas [`Policy::LeastInFlight`] looks at all of them; of
/// more it looks at so many at random. The best of a sample of this size is
/// among the least loaded sixth with a probability of 95 %.
const SAMPLE: usize = 16;

/// How a replica is chosen among those that can take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Two at random, then the cheaper one by requests in flight and latency
    /// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").
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

/// What is known of a replica's load when choosing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Requests this node has in flight.
    pub own: u32,
    /// Requests the other nodes had in flight when they last said so.
    pub others: u32,
    /// How long answers take, by this node's measure; `None`: not measured yet.
    pub latency: Option<Duration>,
}

impl Load {
    /// Requests in flight from the whole fleet.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.own.saturating_add(self.others)
    }

    /// Which of two costs a request less. A replica that was not measured yet
    /// is cheap until it has its first request and dear until that is answered
    /// (as in Finagle's `PeakEwma`): a dead one is not buried in requests.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        self.cost().total_cmp(&other.cost())
    }

    fn cost(&self) -> f64 {
        /// A latency no measured replica has: a year in seconds.
        const UNKNOWN: f64 = 3.15e7;
        let waiting = f64::from(self.in_flight()) + 1.0;
        match self.latency {
            Some(latency) => waiting * latency.as_secs_f64().max(1e-6),
            None if self.own == 0 => 0.0,
            None => waiting * UNKNOWN,
        }
    }
}

/// Replicas that can be picked, by their index in the server.
#[derive(Debug, Default)]
pub struct Choices {
    indices: Box<[u32]>,
    /// For [`Policy::Weighted`] where weights differ.
    alias: Option<Alias>,
}

impl Choices {
    /// The choices among the replicas of these indices and weights. A weight
    /// of 0 takes nothing under [`Policy::Weighted`], unless all are 0.
    #[must_use]
    pub fn new(policy: Policy, replicas: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let (indices, weights): (Vec<_>, Vec<_>) = replicas.into_iter().unzip();
        let alias = match policy {
            Policy::Weighted => Alias::new(&weights),
            Policy::P2c | Policy::RoundRobin | Policy::LeastInFlight | Policy::Random => None,
        };
        Self {
            indices: indices.into(),
            alias,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The indices, in the server's order.
    #[must_use]
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The index of the replica to use; `None` when there is none. `turn`
    /// counts the server's picks and drives [`Policy::RoundRobin`].
    pub fn pick(
        &self,
        policy: Policy,
        turn: usize,
        load: impl Fn(u32) -> Load,
        random: &mut impl Rng,
    ) -> Option<u32> {
        let count = self.indices.len();
        match count {
            0 => return None,
            1 => return self.indices.first().copied(),
            _ => {}
        }
        let place = match policy {
            Policy::P2c => {
                let first = random.random_range(0..count);
                let second = (first + random.random_range(1..count)) % count;
                let load = |place: usize| load(self.indices[place]);
                match load(second).compare(&load(first)) {
                    Ordering::Less => second,
                    Ordering::Equal | Ordering::Greater => first,
                }
            }
            Policy::RoundRobin => turn % count,
            Policy::LeastInFlight => {
                let start = random.random_range(0..count);
                let in_flight = |place: &usize| load(self.indices[*place]).in_flight();
                let least = if count <= SAMPLE {
                    let from_start = (0..count).map(|step| (start + step) % count);
                    from_start.min_by_key(in_flight)
                } else {
                    let sample = (0..SAMPLE).map(|_| random.random_range(0..count));
                    sample.min_by_key(in_flight)
                };
                least.unwrap_or(start)
            }
            Policy::Weighted => match &self.alias {
                Some(alias) => alias.draw(random),
                None => random.random_range(0..count),
            },
            Policy::Random => random.random_range(0..count),
        };
        Some(self.indices[place])
    }
}

#[cfg(test)]
mod tests;
