//! Permits: how many calls each node may have in flight to a replica, so that
//! all of them together stay below a bound (`max_in_flight`).
//!
//! Nodes hold permits in batches and until a time; what a node that died held
//! is free when that time has passed. The sum of what is held never exceeds
//! the bound. A node that wants more than its fair share while others starve
//! keeps what it uses, is told how many it may go on using, and gives the rest
//! back as its calls end. [`fair_share`] and `permits.lua` are the same
//! arithmetic; one contract suite tests both.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::ids::ReplicaId;

/// What a node asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitRequest {
    /// The bound for the whole fleet.
    pub max: u32,
    /// What it may be using by the time of the answer: not taken away.
    pub keep: u32,
    /// What it would like to have; zero, and `keep` zero: it takes no part.
    pub wanted: u32,
    /// How long the answer holds, counted from before the request was sent.
    pub ttl: Duration,
}

/// What a node got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permitted {
    /// Set aside for it, no other node has these.
    pub held: u32,
    /// Up to so many of those new calls may begin: what is above is to be
    /// given back as calls end.
    pub allowed: u32,
}

/// The permits of a store. Holders are named by a text that no two processes
/// share (see [`crate::cluster::Incarnation`]).
///
/// # Errors
/// As for [`Store`](super::Store).
#[async_trait]
pub trait Permits {
    /// Replaces what `holder` has of a replica's permits.
    async fn permits(
        &self,
        replica: &ReplicaId,
        holder: &str,
        request: PermitRequest,
    ) -> Result<Permitted, StoreError>;
}

/// The share of `place` when `max` is divided among `wants`, which are sorted:
/// small wishes are granted, the rest is divided evenly (max-min fairness).
/// What cannot be divided goes round with `turn`, so that nobody starves when
/// there are more nodes than permits.
#[must_use]
pub fn fair_share(max: u32, wants: &[u32], place: usize, turn: u64) -> u32 {
    let mut left = max;
    for (at, &want) in wants.iter().enumerate() {
        let among = u32::try_from(wants.len() - at).unwrap_or(u32::MAX);
        if u64::from(want) * u64::from(among) <= u64::from(left) {
            if at == place {
                return want;
            }
            left -= want;
            continue;
        }
        let (each, rest) = (left / among, left % among);
        let position = (place - at) as u64 + turn;
        return each + u32::from(position % u64::from(among) < u64::from(rest));
    }
    0
}

/// What a holder gets, given its own share and what others hold.
#[must_use]
pub(super) fn permitted(request: &PermitRequest, held_by_others: u32, fair: u32) -> Permitted {
    let room = request.max.saturating_sub(held_by_others);
    let wanted = request.wanted.min(fair);
    let held = room.min(request.keep.max(wanted));
    let allowed = held.min(wanted);
    Permitted { held, allowed }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_are_within_wants_add_up_and_envy_nobody(
            max in 0u32..100,
            wants in prop::collection::vec(0u32..60, 1..8),
            turn in any::<u32>(),
        ) {
            let mut wants = wants;
            wants.sort_unstable();
            let share = |place| fair_share(max, &wants, place, u64::from(turn));
            let shares: Vec<_> = (0..wants.len()).map(share).collect();
            let all: u32 = wants.iter().sum();
            prop_assert_eq!(shares.iter().sum::<u32>(), max.min(all));
            for (share, want) in shares.iter().zip(&wants) {
                prop_assert!(share <= want);
                // Who got less than it wants is at most one behind anybody.
                if share < want {
                    prop_assert!(shares.iter().all(|other| *other <= share + 1));
                }
            }
        }
    }

    #[test]
    fn with_fewer_permits_than_nodes_the_turn_goes_round() {
        let wants = [5, 5, 5];
        let turns = (0..3).map(|turn| {
            let shares = (0..3).map(|place| fair_share(1, &wants, place, turn));
            shares.collect::<Vec<_>>()
        });
        assert_eq!(
            turns.collect::<Vec<_>>(),
            [vec![1, 0, 0], vec![0, 0, 1], vec![0, 1, 0]]
        );
    }
}
