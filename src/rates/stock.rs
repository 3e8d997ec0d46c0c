//! The tokens of one limit that a node has at hand. Pure: `now` is given.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::rates::Taken;

/// Tokens not used for this long are let go: others may be waiting for them.
const LIFE: Duration = Duration::from_secs(1);

/// Tokens at hand, or how long there are none.
#[derive(Debug, Default)]
pub(super) struct Stock {
    tokens: u32,
    /// Used of the last batch.
    used: u32,
    /// Until when the batch lasts.
    until: Option<Instant>,
    /// Until when the limit gives nothing.
    refused_until: Option<Instant>,
    /// State of this node's own share, on its own clock: see [`crate::store::rates::take`].
    pub(super) alone: u64,
}

/// What a request for a token found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Draw {
    /// One.
    Token,
    /// None for so long.
    Refused(Duration),
    /// None at hand.
    Empty,
}

impl Stock {
    pub(super) fn draw(&mut self, now: Instant) -> Draw {
        if let Some(wait) = self
            .refused_until
            .and_then(|until| until.checked_duration_since(now))
            .filter(|wait| !wait.is_zero())
        {
            return Draw::Refused(wait);
        }
        if self.tokens == 0 || self.until.is_none_or(|until| until <= now) {
            return Draw::Empty;
        }
        self.tokens -= 1;
        self.used += 1;
        Draw::Token
    }

    /// A token that was drawn is not used after all.
    pub(super) fn give_back(&mut self) {
        self.tokens += 1;
        self.used = self.used.saturating_sub(1);
    }

    /// The size of the next batch: twice the last one while demand uses it up,
    /// else what was used of it.
    pub(super) fn wanted(&self, now: Instant, most: u32) -> u32 {
        let is_used_up = self.tokens == 0 && self.until.is_some_and(|until| now < until);
        let wanted = if is_used_up {
            self.used.saturating_mul(2)
        } else {
            self.used
        };
        wanted.clamp(1, most)
    }

    /// A batch has come, or none.
    pub(super) fn refill(&mut self, taken: Taken, now: Instant) {
        self.tokens = taken.granted;
        self.used = 0;
        self.until = Some(now + LIFE);
        self.refused_until = (taken.granted == 0).then(|| now + taken.retry_after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(granted: u32) -> Taken {
        Taken {
            granted,
            retry_after: Duration::ZERO,
        }
    }

    #[test]
    fn batches_follow_demand() {
        let now = Instant::now();
        let mut stock = Stock::default();
        assert_eq!(stock.draw(now), Draw::Empty);
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let wanted = stock.wanted(now, 10);
            sizes.push(wanted);
            stock.refill(granted(wanted), now);
            while stock.draw(now) == Draw::Token {}
        }
        assert_eq!(sizes, [1, 2, 4, 8, 10]);
        // Three of ten are used before the batch ends.
        stock.refill(granted(10), now);
        for _ in 0..3 {
            assert_eq!(stock.draw(now), Draw::Token);
        }
        let later = now + LIFE;
        assert_eq!(stock.draw(later), Draw::Empty);
        assert_eq!(stock.wanted(later, 10), 3);
    }

    #[test]
    fn a_refusal_is_remembered_for_as_long_as_it_lasts() {
        let now = Instant::now();
        let mut stock = Stock::default();
        let wait = Duration::from_secs(3);
        let refused = Taken {
            granted: 0,
            retry_after: wait,
        };
        stock.refill(refused, now);
        assert_eq!(stock.draw(now), Draw::Refused(wait));
        assert_eq!(stock.draw(now + wait / 3), Draw::Refused(wait * 2 / 3));
        assert_eq!(stock.draw(now + wait), Draw::Empty);
    }

    #[test]
    fn what_was_not_used_is_there_again() {
        let now = Instant::now();
        let mut stock = Stock::default();
        stock.refill(granted(1), now);
        assert_eq!(stock.draw(now), Draw::Token);
        stock.give_back();
        assert_eq!(stock.draw(now), Draw::Token);
        assert_eq!(stock.draw(now), Draw::Empty);
    }
}
