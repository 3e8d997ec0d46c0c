//! Answers a request: from a copy at once, or by waiting for a flight.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{
    Cache, CacheError, CacheKey, CacheStatus, Cacheable, Durations, Fetch, Scope, Served,
    entry::Answer,
    flight::{Joined, Outcome, Waiting},
    freshness::{Freshness, refresh_early},
    l1::{Held, HeldContent},
    refresh::{Purpose, Question},
};
use crate::store::{EntryKey, Fence};

/// What L1 has for a key.
struct View<V> {
    /// The slot the answer has to come from.
    slot: EntryKey,
    held: Option<Arc<Held<V>>>,
}

/// Rounds of a request without a pause in between. More than a few mean that
/// entries go out of date as fast as they are fetched.
const BRISK_ROUNDS: u32 = 4;

impl<V: Cacheable> Cache<V> {
    /// [`Cache::get`], not counted.
    pub(super) async fn look(
        self: &Arc<Self>,
        key: &CacheKey,
        durations: &Durations,
        fetch: &Fetch<V::FetchError>,
        deadline: Instant,
    ) -> Result<Served<V>, CacheError<V::FetchError>> {
        let begun = Instant::now();
        // What was invalidated before this request came is not its answer.
        let mut asked_after = None;
        // The base slot said so, even if L1 could not keep that.
        let mut private = false;
        let mut rounds = 0;
        loop {
            let now = Instant::now();
            let view = self.view(key, private, now);
            let question = |purpose, beyond| Question {
                key: key.clone(),
                slot: view.slot.clone(),
                durations: *durations,
                fetch: Arc::clone(fetch),
                purpose,
                beyond,
            };
            if let Some(held) = &view.held
                && let Some(served) = self.serve_at_once(held, now, question)
            {
                return Ok(served);
            }
            let asked_after =
                *asked_after.get_or_insert_with(|| self.subjects.of(&view.slot.subject).latest());
            let give_up = |error| match &view.held {
                Some(held) if held.freshness(Instant::now()) != Freshness::Gone => {
                    served(held, CacheStatus::Stale).ok_or(error)
                }
                Some(_) | None => Err(error),
            };
            if now >= deadline {
                return give_up(timed_out(key));
            }
            rounds += 1;
            if rounds > BRISK_ROUNDS {
                tokio::time::sleep_until(deadline.min(now + Duration::from_millis(20))).await;
            }
            let Some(flight) = self.fly(question(Purpose::Answer, None)) else {
                let key = key.to_string();
                return give_up(CacheError::Busy { key });
            };
            let Ok(outcome) = timeout_at(deadline, flight.outcome()).await else {
                return give_up(timed_out(key));
            };
            match outcome {
                Some(Outcome::Entry { held, waited }) => {
                    let fetched_for_us = held.generation >= asked_after;
                    if fetched_for_us
                        && let Some(served) = self.accept(key, &held, (waited, begun), question)
                    {
                        return Ok(served);
                    }
                }
                Some(Outcome::PerPrincipal) => private = true,
                Some(Outcome::Unstored {
                    value,
                    scope,
                    owner,
                    digest,
                }) => {
                    if owner.is_none_or(|owner| owner == *key.principal().as_bytes()) {
                        return Ok(unstored(value, scope, digest));
                    }
                    // Somebody else's, and nobody knows yet that answers are private.
                    private = true;
                }
                Some(Outcome::Failed(error)) => return give_up(CacheError::Fetch(error)),
                Some(Outcome::TookTooLong) => return give_up(timed_out(key)),
                Some(Outcome::Unreadable(why)) => {
                    let key = key.to_string();
                    return give_up(CacheError::Unreadable { key, why });
                }
                // Not now: a background refresh ended without one. None: it
                // crashed, and the next waits as after a failure.
                Some(Outcome::NotNow) | None => {}
            }
        }
    }

    /// What L1 has for `key`, and in which slot.
    fn view(&self, key: &CacheKey, private: bool, now: Instant) -> View<V> {
        let base = self.l1.get(&key.base().slot);
        let gap = self.gap.load(Ordering::Relaxed);
        let marked = base.as_ref().is_some_and(|held| {
            held.is_marker() && held.is_trusted(gap) && held.freshness(now) == Freshness::Fresh
        });
        let (slot, held) = if private || marked {
            let own = key.own();
            let held = self.l1.get(&own.slot);
            (own, held)
        } else {
            (key.base().clone(), base)
        };
        // A second guard behind the slot's name: an answer that is not for the
        // caller is no answer.
        let for_caller = |held: &Arc<Held<V>>| {
            let answer = held.answer();
            answer.is_some_and(|answer| answer.is_for(key.principal()))
        };
        View {
            slot,
            held: held.filter(for_caller),
        }
    }

    /// Serves a copy that needs no waiting, and starts a refresh where one is due.
    fn serve_at_once(
        self: &Arc<Self>,
        held: &Arc<Held<V>>,
        now: Instant,
        question: impl FnOnce(Purpose, Option<Fence>) -> Question<V>,
    ) -> Option<Served<V>> {
        let trusted = held.is_trusted(self.gap.load(Ordering::Relaxed));
        match held.freshness(now) {
            Freshness::Fresh if trusted => {
                if self.is_due_early(held, now) {
                    self.refresh(held, now, || {
                        question(Purpose::Refresh, Some(held.generation))
                    });
                }
                served(held, CacheStatus::Hit)
            }
            Freshness::Stale if trusted => {
                self.refresh(held, now, || question(Purpose::Refresh, None));
                served(held, CacheStatus::Stale)
            }
            // The upstream is failing: better old than nothing, and at once.
            Freshness::Expired if self.failures.is_failing(held.key.slot) => {
                self.refresh(held, now, || question(Purpose::Refresh, None));
                served(held, CacheStatus::Stale)
            }
            Freshness::Fresh | Freshness::Stale | Freshness::Expired | Freshness::Gone => None,
        }
    }

    /// Serves what a flight brought, if it is for the caller, who began to
    /// wait at `begun`.
    fn accept(
        self: &Arc<Self>,
        key: &CacheKey,
        held: &Arc<Held<V>>,
        (waited, begun): (bool, Instant),
        question: impl FnOnce(Purpose, Option<Fence>) -> Question<V>,
    ) -> Option<Served<V>> {
        if !held.answer()?.is_for(key.principal()) {
            return None;
        }
        let now = Instant::now();
        // However short it may be kept, it is the answer to who waited for it.
        let fetched_meanwhile = held.age(now) <= now.saturating_duration_since(begun);
        match held.freshness(now) {
            Freshness::Fresh if !waited => served(held, CacheStatus::Hit),
            Freshness::Fresh => served(held, CacheStatus::Miss),
            Freshness::Stale | Freshness::Expired | Freshness::Gone if fetched_meanwhile => {
                served(held, CacheStatus::Miss)
            }
            Freshness::Stale => {
                self.refresh(held, now, || question(Purpose::Refresh, None));
                served(held, CacheStatus::Stale)
            }
            Freshness::Expired | Freshness::Gone => None,
        }
    }

    fn is_due_early(&self, held: &Held<V>, now: Instant) -> bool {
        let Some(answer) = held.answer() else {
            return false;
        };
        let (age, fresh) = (held.age(now), answer.lifetimes.fresh);
        // Random numbers are drawn only where they matter.
        age >= fresh / 2 && {
            let chance = rand::random();
            refresh_early(age, fresh, answer.took, self.settings.early_refresh, chance)
        }
    }

    /// Starts a background refresh of `held` unless one was tried just now.
    fn refresh(
        self: &Arc<Self>,
        held: &Held<V>,
        now: Instant,
        question: impl FnOnce() -> Question<V>,
    ) {
        if held.begin_refresh(now, self.settings.retry_first) {
            // Nobody waits for it. Too many flights: the next request tries again.
            drop(self.fly(question()));
        }
    }

    /// Joins the flight of the question's slot, or starts it; `None`: too many.
    fn fly(self: &Arc<Self>, question: Question<V>) -> Option<Waiting<V>> {
        match self.flights.join(question.slot.slot) {
            Joined::Full => None,
            Joined::Waiting(waiting) => Some(waiting),
            Joined::First(landing, waiting) => {
                let flight = Arc::clone(self).bring(question, landing);
                self.tasks.spawn_brief(flight);
                Some(waiting)
            }
        }
    }
}

fn timed_out<E: std::error::Error>(key: &CacheKey) -> CacheError<E> {
    CacheError::TimedOut {
        key: key.to_string(),
    }
}

/// The answer in `held`; `None` if it is a marker.
pub(super) fn served<V: Cacheable>(held: &Arc<Held<V>>, status: CacheStatus) -> Option<Served<V>> {
    let HeldContent::Answer { answer, value } = &held.content else {
        return None;
    };
    let Answer {
        scope,
        lifetimes,
        digest,
        ..
    } = answer;
    let age = held.age(Instant::now());
    Some(Served {
        value: Arc::clone(value),
        status,
        remaining: lifetimes.remaining(age, held.is_invalidated()),
        age,
        scope: *scope,
        generation: held.generation.0,
        digest: *digest,
    })
}

fn unstored<V>(value: Arc<V>, scope: Scope, digest: u64) -> Served<V> {
    Served {
        value,
        status: CacheStatus::Bypass,
        remaining: Duration::ZERO,
        age: Duration::ZERO,
        scope,
        generation: 0,
        digest,
    }
}
