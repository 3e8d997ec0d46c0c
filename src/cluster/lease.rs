//! What a node may believe of a lease, and what it does next. Pure: the store's
//! answers and `now` come in, a [`Step`] comes out.
//!
//! ```text
//!            acquired                      lost, or its time over
//!   Idle ───────────────► Held ───────────────────────────────► Idle
//!     │                    │  ▲                                    ▲
//!     │ the store has been │  │ acquired                           │
//!     │ away for a TTL     ▼  │                                    │
//!     └──────────────────► Alone ──────────────────────────────────┘
//!                            the store answers, it is another's turn
//! ```
//!
//! Time is counted from before the request was sent, and a margin is left at
//! the end, so that a holder stops before the store could give the lease to
//! another. The races that are left (a process paused inside that margin) are
//! what fences are for.

use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use crate::store::{Fence, leases::Ask};

/// After so many times to live a node that is not the first choice tries too:
/// the first may live and be stuck, or not know of the duty (nodes whose
/// configurations differ while one is rolled out).
const PATIENCE: u32 = 5;
/// Nodes further back wait no longer than those at this place.
const LAST_TURN: usize = 4;
/// Each time a stand-in finds the lease held it waits twice as long, so often.
const DOUBLINGS: u32 = 4;

/// What a node believes of one duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Somebody else's, or nobody's; to be tried for again at this time.
    Idle { retry_at: Instant, refusals: u32 },
    /// Ours until that time, unless renewed.
    Held {
        fence: Fence,
        asked_at: Instant,
        until: Instant,
        /// Whether a node whose turn it is has asked for it.
        wanted: bool,
    },
    /// Nobody can be asked: every node does it.
    Alone,
}

/// What a node knows when it decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    pub(super) now: Instant,
    /// Nodes that come before this one.
    pub(super) rank: usize,
    /// Whether the store answers.
    pub(super) reachable: bool,
    /// Since when it does not.
    pub(super) away_since: Option<Instant>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Ask the store for the lease.
    Try(Ask),
    /// Ask the store to renew it.
    Renew,
    /// It is another's turn: stop the work, then give the lease back.
    HandOver,
    /// Stop the work; the lease is gone.
    Stop,
    /// Begin (or go on) without a lease.
    GoAlone,
}

impl Phase {
    /// At the start: the first choice tries at once, others after a while.
    pub(super) fn new(now: Instant) -> Self {
        Self::Idle {
            retry_at: now,
            refusals: 0,
        }
    }

    /// What follows from the situation.
    pub(super) fn step(self, here: Situation, settings: &Settings) -> Step {
        let gone_for_long = here
            .away_since
            .is_some_and(|since| here.now.duration_since(since) >= settings.lease_ttl);
        match self {
            Self::Held { until, .. } if until <= here.now && gone_for_long => Step::GoAlone,
            Self::Held { until, .. } if until <= here.now => Step::Stop,
            Self::Held { wanted: true, .. } if here.reachable && here.rank > 0 => Step::HandOver,
            Self::Held { asked_at, .. } => {
                let due = here.now.duration_since(asked_at) >= settings.renewal();
                if here.reachable && due {
                    Step::Renew
                } else {
                    Step::Nothing
                }
            }
            Self::Alone if !here.reachable => Step::Nothing,
            Self::Alone if here.rank == 0 => Step::Try(Ask::MyTurn),
            Self::Alone => Step::Stop,
            Self::Idle { .. } if gone_for_long => Step::GoAlone,
            Self::Idle { .. } if !here.reachable => Step::Nothing,
            Self::Idle { retry_at, .. } if here.rank == 0 => {
                if retry_at <= here.now {
                    Step::Try(Ask::MyTurn)
                } else {
                    Step::Nothing
                }
            }
            Self::Idle { retry_at, refusals } => {
                let turn = u32::try_from(here.rank.min(LAST_TURN)).unwrap_or(1);
                let patience = (PATIENCE * turn) << refusals.min(DOUBLINGS);
                let waited = here.now.saturating_duration_since(retry_at);
                if waited >= settings.lease_ttl * patience {
                    Step::Try(Ask::IfFree)
                } else {
                    Step::Nothing
                }
            }
        }
    }

    /// The store gave the lease, or renewed it, to a request sent at `asked_at`.
    pub(super) fn held(fence: Fence, asked_at: Instant, wanted: bool, settings: &Settings) -> Self {
        Self::Held {
            fence,
            asked_at,
            until: asked_at + settings.lease_ttl.saturating_sub(settings.margin()),
            wanted,
        }
    }

    /// The lease is another's for at most `left`.
    pub(super) fn refused(self, now: Instant, left: Duration, settings: &Settings) -> Self {
        let before = match self {
            Self::Idle { refusals, .. } => refusals,
            Self::Held { .. } | Self::Alone => 0,
        };
        Self::Idle {
            retry_at: now + left.min(settings.lease_ttl),
            refusals: before.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        lease_ttl: Duration::from_secs(6),
    };

    fn at(now: Instant, rank: usize) -> Situation {
        Situation {
            now,
            rank,
            reachable: true,
            away_since: None,
        }
    }

    fn away(now: Instant, since: Instant) -> Situation {
        Situation {
            now,
            rank: 0,
            reachable: false,
            away_since: Some(since),
        }
    }

    fn step(phase: Phase, here: Situation) -> Step {
        phase.step(here, &SETTINGS)
    }

    const MINE: Step = Step::Try(Ask::MyTurn);
    const IF_FREE: Step = Step::Try(Ask::IfFree);

    #[test]
    fn the_first_choice_tries_at_once_and_others_when_it_seems_stuck() {
        let start = Instant::now();
        let idle = Phase::new(start);
        assert_eq!(step(idle, at(start, 0)), MINE);
        assert_eq!(step(idle, at(start, 1)), Step::Nothing);
        let later = |ttls: u32| start + SETTINGS.lease_ttl * ttls;
        assert_eq!(step(idle, at(later(PATIENCE), 1)), IF_FREE);
        assert_eq!(step(idle, at(later(PATIENCE), 2)), Step::Nothing);
        assert_eq!(step(idle, at(later(2 * PATIENCE), 2)), IF_FREE);
        assert_eq!(step(idle, at(later(4 * PATIENCE), 9)), IF_FREE);
    }

    #[test]
    fn a_stand_in_that_was_refused_waits_longer() {
        let start = Instant::now();
        let refused = Phase::new(start).refused(start, Duration::ZERO, &SETTINGS);
        let later = |ttls: u32| start + SETTINGS.lease_ttl * ttls;
        assert_eq!(step(refused, at(start, 0)), MINE);
        assert_eq!(step(refused, at(later(PATIENCE), 1)), Step::Nothing);
        assert_eq!(step(refused, at(later(2 * PATIENCE), 1)), IF_FREE);
    }

    #[test]
    fn a_lease_is_renewed_in_time_and_ends_before_it_expires_in_the_store() {
        let start = Instant::now();
        let held = Phase::held(Fence(1), start, false, &SETTINGS);
        assert_eq!(step(held, at(start, 0)), Step::Nothing);
        assert_eq!(step(held, at(start + SETTINGS.tick(), 0)), Step::Renew);
        let end = start + SETTINGS.lease_ttl - SETTINGS.margin();
        assert_eq!(step(held, at(end, 0)), Step::Stop);
    }

    #[test]
    fn a_lease_is_handed_over_to_whose_turn_it_is_when_that_node_asks() {
        let start = Instant::now();
        let held = Phase::held(Fence(1), start, false, &SETTINGS);
        assert_eq!(step(held, at(start, 1)), Step::Nothing);
        let wanted = Phase::held(Fence(1), start, true, &SETTINGS);
        assert_eq!(step(wanted, at(start, 0)), Step::Nothing);
        assert_eq!(step(wanted, at(start, 1)), Step::HandOver);
    }

    #[test]
    fn without_the_store_every_node_works_after_a_lease_would_have_ended() {
        let start = Instant::now();
        let held = Phase::held(Fence(1), start, false, &SETTINGS);
        let (soon, late) = (start + SETTINGS.tick(), start + SETTINGS.lease_ttl);
        assert_eq!(step(held, away(soon, start)), Step::Nothing);
        assert_eq!(step(held, away(late, start)), Step::GoAlone);
        let idle = Phase::new(start);
        assert_eq!(step(idle, away(soon, start)), Step::Nothing);
        assert_eq!(step(idle, away(late, start)), Step::GoAlone);
        assert_eq!(step(Phase::Alone, away(late, start)), Step::Nothing);
        assert_eq!(step(Phase::Alone, at(late, 0)), MINE);
        assert_eq!(step(Phase::Alone, at(late, 1)), Step::Stop);
    }
}
