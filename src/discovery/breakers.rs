//! A breaker per template and source: who failed in a row is left alone for a
//! while, then one try tells.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Source;
use crate::{
    breaker::{Breaker, Failure},
    ids::ServerId,
};

/// Breakers that are remembered.
const MOST: u64 = 10_000;

/// The breakers of all sources.
#[derive(Debug)]
pub(super) struct Breakers {
    all: moka::sync::Cache<(ServerId, Source), Arc<Mutex<Breaker>>>,
}

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It answered.
    Well,
    /// It did not.
    Wrong(Failure),
}

impl Breakers {
    pub(super) fn new() -> Self {
        let all = moka::sync::Cache::builder()
            .max_capacity(MOST)
            .time_to_idle(Duration::from_secs(3600))
            .build();
        Self { all }
    }

    /// Whether the source may be asked. Whoever is told so while the breaker
    /// is half-open makes the trial: others are told no until it is over.
    pub(super) fn admits(&self, template: &ServerId, source: Source, trial: Duration) -> bool {
        let breaker = self.of(template, source);
        let mut breaker = locked(&breaker);
        let now = Instant::now();
        match breaker.trial_due() {
            None => true,
            Some(due) if now < due => false,
            Some(_) => {
                *breaker = breaker.postponed(now + trial, 0);
                true
            }
        }
    }

    /// What the try that began at `begun` told.
    pub(super) fn learn(&self, template: &ServerId, source: Source, went: Went, begun: Instant) {
        let breaker = self.of(template, source);
        let mut breaker = locked(&breaker);
        let now = Instant::now();
        *breaker = match went {
            Went::Well if breaker.is_open() => breaker.recovered(now),
            Went::Well => breaker.after_success(begun, now),
            Went::Wrong(_) if breaker.is_open() => breaker.trial_failed(now, rand::random()),
            Went::Wrong(failure) => breaker.after_failure(failure, begun, now, rand::random()),
        };
    }

    fn of(&self, template: &ServerId, source: Source) -> Arc<Mutex<Breaker>> {
        self.all
            .get_with((template.clone(), source), Arc::<Mutex<Breaker>>::default)
    }
}

fn locked(breaker: &Mutex<Breaker>) -> MutexGuard<'_, Breaker> {
    breaker.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_in_a_row_is_left_alone_then_tried_once() {
        let breakers = Breakers::new();
        let name = ServerId::try_from("x").expect("a name");
        let admits = |source| breakers.admits(&name, source, TRIAL);
        let learn = |went| breakers.learn(&name, Source::Endpoint, went, Instant::now());
        for _ in 0..3 {
            assert!(admits(Source::Endpoint));
            learn(Went::Wrong(Failure::Broken));
        }
        assert!(!admits(Source::Endpoint));
        assert!(admits(Source::Servers), "each has its own");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(admits(Source::Endpoint), "the trial");
        assert!(!admits(Source::Endpoint), "one at a time");
        learn(Went::Wrong(Failure::Broken));
        assert!(!admits(Source::Endpoint));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(admits(Source::Endpoint), "the second trial");
        learn(Went::Well);
        assert!(admits(Source::Endpoint) && admits(Source::Endpoint));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_nobody_finished_is_repeated() {
        let breakers = Breakers::new();
        let name = ServerId::try_from("x").expect("a name");
        for _ in 0..2 {
            let went = Went::Wrong(Failure::Unreachable);
            breakers.learn(&name, Source::Ephemeral, went, Instant::now());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(breakers.admits(&name, Source::Ephemeral, TRIAL));
        assert!(!breakers.admits(&name, Source::Ephemeral, TRIAL));
        tokio::time::advance(TRIAL).await;
        assert!(breakers.admits(&name, Source::Ephemeral, TRIAL));
    }
}
