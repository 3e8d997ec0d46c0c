//! How the last processes of a command began, so that one which cannot live is
//! not started again and again, whoever asks for it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{mcp::error::RpcError, stdio::backoff::Backoff};

/// How the last processes of a command began.
#[derive(Debug, Default)]
pub struct Starts(Mutex<Failed>);

#[derive(Debug, Default)]
struct Failed {
    backoff: Backoff,
    last: Option<(Instant, RpcError)>,
}

impl Starts {
    fn failed(&self) -> MutexGuard<'_, Failed> {
        // Plain values, whole at every point.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait before the next, and why.
    #[must_use]
    pub fn pause(&self, now: Instant) -> Option<(Duration, RpcError)> {
        let failed = self.failed();
        let (until, why) = failed.last.as_ref()?;
        let pause = until.saturating_duration_since(now);
        (!pause.is_zero()).then(|| (pause, why.clone()))
    }

    /// One ended after this time without a sensible word.
    pub fn ended(&self, lived: Duration, why: &RpcError, now: Instant) {
        let mut failed = self.failed();
        let pause = failed.backoff.after(lived);
        failed.last = Some((now + pause, why.clone()));
    }

    /// One works.
    pub fn worked(&self) {
        *self.failed() = Failed::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_one_works() {
        let starts = Starts::default();
        let why = RpcError::internal("no database");
        let now = Instant::now();
        assert!(starts.pause(now).is_none());
        starts.ended(Duration::ZERO, &why, now);
        let (first, told) = starts.pause(now).expect("a pause");
        assert_eq!(told.message, why.message);
        assert!(starts.pause(now + first).is_none());
        starts.ended(Duration::ZERO, &why, now);
        assert!(starts.pause(now).expect("a pause").0 > first);
        starts.worked();
        assert!(starts.pause(now).is_none());
    }
}
