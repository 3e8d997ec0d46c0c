//! Picks the replica a request goes to. Pure: no I/O, no clock, no locks.

use serde::Deserialize;

/// How a replica is chosen among those that can take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Two at random, then the less loaded one (Mitzenmacher, "The Power of
    /// Two Choices in Randomized Load Balancing").
    #[default]
    P2c,
    /// In turn.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastInFlight,
    /// At random in proportion to the configured weights.
    Weighted,
    /// At random.
    Random,
}
