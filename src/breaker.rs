//! The circuit breaker of a replica: closed, open, half-open. Pure: outcomes
//! and times go in, the next state comes out.
//!
//! Every node has its own, fed by its own calls. It only says which replicas
//! to prefer: when all of a server's breakers are open, calls go to the least
//! bad ones all the same (the panic rule in [`crate::servers`]), so the only
//! replica of a server is never cut off by a guess. An open breaker closes
//! after a *trial*, which one node of the fleet makes ([`crate::trials`]), or
//! when a call that was made all the same succeeded.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause; it doubles with each opening in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For so long after it closed one failure opens it again, for longer.
const PROBATION: Duration = Duration::from_secs(10);
/// What failures in a row may add up to before it opens.
const LIMIT: u8 = 6;

/// How a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody there: no connection, no process. The second in a row opens it.
    Unreachable,
    /// Somebody there who does not do what they should: no answer in time, an
    /// answer broken off, garbage, a status 5xx. The third in a row opens it.
    Broken,
}

impl Failure {
    fn points(self) -> u8 {
        match self {
            Self::Unreachable => LIMIT / 2,
            Self::Broken => LIMIT / 3,
        }
    }
}

/// What the end of a call tells of its replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is there and answers, if only with a refusal.
    Alive,
    /// It failed.
    Failed(Failure),
    /// Nothing: the call never got so far.
    Nothing,
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Calls pass.
    Closed {
        /// Since when; what began before says nothing about now.
        since: Option<Instant>,
        /// Points of the failures in a row.
        points: u8,
        /// Openings in a row, as long as it is on probation.
        openings: u32,
    },
    /// Calls go elsewhere. From `until` on it is half-open: due for a trial.
    Open {
        /// Since when.
        since: Instant,
        /// When the trial is due.
        until: Instant,
        /// Openings and failed trials in a row.
        openings: u32,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed {
            since: None,
            points: 0,
            openings: 0,
        }
    }
}

impl Breaker {
    /// Whether calls go elsewhere.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Whether there is nothing a success could change.
    #[must_use]
    pub fn is_untroubled(self) -> bool {
        self == Self::default()
    }

    /// When the trial is due; `None` when it is closed.
    #[must_use]
    pub fn trial_due(self) -> Option<Instant> {
        match self {
            Self::Open { until, .. } => Some(until),
            Self::Closed { .. } => None,
        }
    }

    /// Openings and failed trials in a row.
    #[must_use]
    pub fn openings(self) -> u32 {
        match self {
            Self::Open { openings, .. } | Self::Closed { openings, .. } => openings,
        }
    }

    /// A call that began at `begun` was answered at `now`.
    #[must_use]
    pub fn after_success(self, begun: Instant, now: Instant) -> Self {
        match self {
            Self::Open { since, .. } if begun > since => self.recovered(now),
            Self::Open { .. } => self,
            Self::Closed { since, .. } if since.is_none_or(|since| now >= since + PROBATION) => {
                Self::default()
            }
            Self::Closed {
                since, openings, ..
            } => Self::Closed {
                since,
                points: 0,
                openings,
            },
        }
    }

    /// A call that began at `begun` failed at `now`. `jitter` is drawn from 0 to 1.
    #[must_use]
    pub fn after_failure(
        self,
        failure: Failure,
        begun: Instant,
        now: Instant,
        jitter: f64,
    ) -> Self {
        let Self::Closed {
            since,
            points,
            openings,
        } = self
        else {
            return self;
        };
        if since.is_some_and(|since| begun < since) {
            return self;
        }
        let on_probation = since.is_some_and(|since| now < since + PROBATION);
        let points = points.saturating_add(failure.points());
        if on_probation {
            opened(now, openings + 1, jitter)
        } else if points >= LIMIT {
            opened(now, 1, jitter)
        } else {
            Self::Closed {
                since,
                points,
                openings,
            }
        }
    }

    /// A trial succeeded, here or on another node.
    #[must_use]
    pub fn recovered(self, now: Instant) -> Self {
        match self {
            Self::Open { openings, .. } => Self::Closed {
                since: Some(now),
                points: 0,
                openings,
            },
            Self::Closed { .. } => self,
        }
    }

    /// The trial failed: open for longer.
    #[must_use]
    pub fn trial_failed(self, now: Instant, jitter: f64) -> Self {
        match self {
            Self::Open {
                since, openings, ..
            } => Self::Open {
                since,
                until: now + pause(openings + 1, jitter),
                openings: openings + 1,
            },
            Self::Closed { .. } => self,
        }
    }

    /// Another node makes the trial, or made it and failed: it is due at
    /// `until`, after at least `openings`.
    #[must_use]
    pub fn postponed(self, until: Instant, at_least: u32) -> Self {
        match self {
            Self::Open {
                since, openings, ..
            } => Self::Open {
                since,
                until,
                openings: openings.max(at_least),
            },
            Self::Closed { .. } => self,
        }
    }
}

fn opened(now: Instant, openings: u32, jitter: f64) -> Breaker {
    Breaker::Open {
        since: now,
        until: now + pause(openings, jitter),
        openings,
    }
}

/// From half of the full pause to all of it, so that neither nodes nor
/// replicas come back in step.
fn pause(openings: u32, jitter: f64) -> Duration {
    let doublings = openings.saturating_sub(1).min(16);
    let full = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests;
