//! A flight: brings what a slot lacks. The steps are those of `docs/cache.md`.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Cache, CacheKey, Cacheable, Durations, Fetch, Fetched, Scope,
    agree::Consulted,
    entry::{Answer, Content, digest, encode},
    flight::{Landing, Outcome},
    freshness::{Freshness, Lifetimes},
    l1::{Epochs, Held, Origin, held_content},
};
use crate::store::{EntryKey, EntryWrite, Fence, LockOutcome, Rank, ShortDigest, WriteOutcome};

/// While another node fetches, the store is looked at this often even if
/// nothing is published (the message can be lost).
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// No background refresh is tried for this long after finding another node at it.
const LEAVE_TO_HOLDER: Duration = Duration::from_secs(1);

/// A gap that never comes: not checked.
const UNCHECKED: u32 = u32::MAX;

/// Why a flight takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits.
    Answer,
    /// Nobody does: there is something to serve meanwhile.
    Refresh,
}

/// What a flight has to bring.
pub(super) struct Question<V: Cacheable> {
    pub(super) key: CacheKey,
    /// The slot that is flown for: the key's base slot or its principal's own.
    pub(super) slot: EntryKey,
    pub(super) durations: Durations,
    pub(super) fetch: Fetch<V::FetchError>,
    pub(super) purpose: Purpose,
    /// Even a fresh entry is not enough unless its generation is above this
    /// (an early refresh).
    pub(super) beyond: Option<Fence>,
}

/// The right to fetch.
struct Turn {
    /// The fence of the lock, or a guess when the store could not be asked.
    fence: Fence,
    /// The lock's token; `None`: without a lock.
    token: Option<Arc<str>>,
    began: Instant,
}

enum FetchFailure<E> {
    Failed(E),
    TookTooLong,
    /// The node stops, and nobody waits.
    Abandoned,
}

/// Counts a failure if the flight ends without having disarmed it: a crash.
struct CountCrash<'a, V: Cacheable> {
    cache: &'a Cache<V>,
    slot: Option<ShortDigest>,
}

impl<V: Cacheable> Drop for CountCrash<'_, V> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.cache.failures.failed(slot, Instant::now());
        }
    }
}

impl<V: Cacheable> Cache<V> {
    /// Flies, and lands with the outcome.
    pub(super) async fn bring(self: Arc<Self>, question: Question<V>, landing: Landing<V>) {
        let mut crash = CountCrash {
            cache: &*self,
            slot: Some(question.slot.slot),
        };
        let outcome = self.bring_outcome(&question, &landing).await;
        crash.slot = None;
        self.l1.published(question.slot.slot, landing.newest());
        landing.land(outcome);
    }

    async fn bring_outcome(&self, question: &Question<V>, landing: &Landing<V>) -> Outcome<V> {
        let slot = &question.slot;
        let epochs = self.subjects.of(&slot.subject);
        let mut waited = false;
        loop {
            let gap = self.current_gap();
            let Consulted { best, reachable } = self.consult(slot, &epochs, gap).await;
            if let Some(outcome) = enough(question, best.as_ref(), waited) {
                return outcome;
            }
            let usable = best.filter(|held| held.freshness(Instant::now()) != Freshness::Gone);

            let pause = self
                .failures
                .pause(slot.slot, usable.is_some(), Instant::now());
            if !pause.is_zero() {
                if let Some(held) = &usable {
                    held.hold_refresh(Instant::now(), pause);
                }
                if question.purpose == Purpose::Refresh || usable.is_some() {
                    return Outcome::NotNow;
                }
                sleep(pause).await;
                if !landing.is_awaited() {
                    return Outcome::NotNow;
                }
                continue;
            }

            let turn = match self.take_turn(slot, reachable).await {
                Ok(turn) => turn,
                Err(left) => {
                    if question.purpose == Purpose::Refresh {
                        self.counters.refresh_held.add_one();
                        if let Some(held) = &usable {
                            held.hold_refresh(Instant::now(), left.min(LEAVE_TO_HOLDER));
                        }
                        return Outcome::NotNow;
                    }
                    if !landing.is_awaited() {
                        return Outcome::NotNow;
                    }
                    waited = true;
                    // Returns on either; whoever takes over next is the lock's matter.
                    timeout(left.min(LOOK_EVERY), landing.news()).await.ok();
                    continue;
                }
            };

            let mut prior = usable;
            if turn.token.is_some() {
                // The holder before us may have written after we looked.
                let again = self.consult(slot, &epochs, gap).await.best;
                let mut outcome = enough(question, again.as_ref(), waited);
                let base = question.key.base();
                if outcome.is_none() && slot != base {
                    // Answers may have turned public since the marker was written.
                    let known = self.l1.get(&base.slot).is_some();
                    let gap = if known { gap } else { UNCHECKED };
                    let shared = self.consult(base, &epochs, gap).await.best;
                    let shared = shared.filter(|held| !held.is_marker());
                    outcome = enough(question, shared.as_ref(), waited);
                }
                if let Some(outcome) = outcome {
                    self.give_back(slot, &turn).await;
                    return outcome;
                }
                prior = again.or(prior);
            }
            let fetched =
                self.fetch_and_store(question, landing, &turn, prior.as_ref(), &epochs, gap);
            match fetched.await {
                Some(outcome) => return outcome,
                // Somebody else's newer answer was there: start over with that.
                None => waited = true,
            }
        }
    }

    /// Takes the lock, or a turn without it when the store cannot be asked.
    /// The error: another holds it, for at most this long.
    async fn take_turn(&self, slot: &EntryKey, reachable: bool) -> Result<Turn, Duration> {
        if reachable {
            let token: Arc<str> = format!("{:016x}", rand::random::<u64>()).into();
            match self.store.lock(slot, &token, self.settings.lock_ttl).await {
                Ok(LockOutcome::Acquired(fence)) => {
                    let began = Instant::now();
                    self.clock.saw_fence(fence, began);
                    return Ok(Turn {
                        fence,
                        token: Some(token),
                        began,
                    });
                }
                Ok(LockOutcome::Held(left)) => return Err(left),
                Err(_) => {}
            }
        }
        // The other nodes have lost the store at the same moment.
        sleep(self.settings.alone_jitter.mul_f64(rand::random())).await;
        self.counters.fetched_alone.add_one();
        let began = Instant::now();
        Ok(Turn {
            fence: self.clock.next_fence(began),
            token: None,
            began,
        })
    }

    /// Gives the lock back without a write. If that fails, its time to live ends it.
    async fn give_back(&self, slot: &EntryKey, turn: &Turn) {
        if let Some(token) = &turn.token {
            self.store.unlock(slot, token).await.ok();
        }
    }

    /// `None`: the store had a newer answer than the one fetched.
    async fn fetch_and_store(
        &self,
        question: &Question<V>,
        landing: &Landing<V>,
        turn: &Turn,
        prior: Option<&Arc<Held<V>>>,
        epochs: &Epochs,
        gap: u32,
    ) -> Option<Outcome<V>> {
        let fetched = tokio::select! {
            fetched = self.fetch_believably(question, turn, prior) => fetched,
            () = self.abandoned(landing) => Err(FetchFailure::Abandoned),
        };
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(FetchFailure::Abandoned) => {
                self.give_back(&question.slot, turn).await;
                return Some(Outcome::NotNow);
            }
            Err(failure) => {
                self.back_off(question, turn, prior).await;
                return Some(match failure {
                    FetchFailure::Failed(error) => Outcome::Failed(error),
                    FetchFailure::TookTooLong | FetchFailure::Abandoned => Outcome::TookTooLong,
                });
            }
        };
        let received = Instant::now();
        let principal = *question.key.principal().as_bytes();
        let owner = (fetched.scope == Scope::Private).then_some(principal);
        let answer = Answer {
            scope: fetched.scope,
            owner,
            lifetimes: Lifetimes::new(fetched.ttl, &question.durations, &self.settings),
            took: received.saturating_duration_since(turn.began),
            is_empty: fetched.is_empty,
            digest: digest(&fetched.payload),
            payload: fetched.payload,
        };
        if !fetched.storable {
            if let Some(prior) = prior {
                prior.hold_refresh(received, self.settings.retry_empty);
            }
            self.give_back(&question.slot, turn).await;
            return Some(match V::decode(&answer.payload) {
                Ok(value) => Outcome::Unstored {
                    value: Arc::new(value),
                    scope: answer.scope,
                    owner,
                    digest: answer.digest,
                },
                Err(why) => Outcome::Unreadable(why),
            });
        }
        let base = question.key.base();
        let max_age = answer.lifetimes.max_stale;
        let target = match answer.scope {
            Scope::Public | Scope::Fleet => base.clone(),
            Scope::Private => question.key.own(),
        };
        // What is published about another slot than the flight's is not told to
        // it, so a copy there is checked before it is trusted.
        let gap_of = |slot: &EntryKey| {
            if *slot == question.slot {
                gap
            } else {
                UNCHECKED
            }
        };
        let place = |slot| Place {
            turn,
            received,
            epochs,
            gap: gap_of(slot),
        };
        let written = match self
            .write(&target, Content::Answer(answer), &place(&target))
            .await
        {
            Ok(written) => written,
            Err(why) => {
                self.back_off(question, turn, prior).await;
                return Some(Outcome::Unreadable(why));
            }
        };
        if target != *base && question.slot == *base {
            // The first private answer: everybody has to ask for himself. Last,
            // because it gives the lock back and wakes who waits for the base slot.
            let marker = Content::PerPrincipal { max_age };
            self.write(base, marker, &place(base)).await.ok();
        } else if target != question.slot {
            self.give_back(&question.slot, turn).await;
        }
        self.failures.worked(question.slot.slot);
        let held = written?;
        self.counters.refreshed.add_one();
        Some(Outcome::Entry { held, waited: true })
    }

    /// Completes when the node stops and nobody waits for the flight.
    async fn abandoned(&self, landing: &Landing<V>) {
        self.tasks.stopping().cancelled().await;
        while landing.is_awaited() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fetches; an empty answer after a non-empty one is fetched again before
    /// it is believed.
    async fn fetch_believably(
        &self,
        question: &Question<V>,
        turn: &Turn,
        prior: Option<&Arc<Held<V>>>,
    ) -> Result<Fetched, FetchFailure<V::FetchError>> {
        let fetched = self.fetch_in_time(question, turn).await?;
        let had_items = prior
            .and_then(|held| held.answer())
            .is_some_and(|answer| !answer.is_empty);
        if fetched.is_empty && fetched.storable && had_items {
            return self.fetch_in_time(question, turn).await;
        }
        Ok(fetched)
    }

    /// Fetches once, and renews the lock as long as that takes.
    async fn fetch_in_time(
        &self,
        question: &Question<V>,
        turn: &Turn,
    ) -> Result<Fetched, FetchFailure<V::FetchError>> {
        self.counters.fetches.add_one();
        let renew = async {
            if let Some(token) = &turn.token {
                let mut held = Ok(true);
                // Once lost it stays lost: the write may be refused.
                while !matches!(held, Ok(false)) {
                    sleep(self.settings.lock_ttl / 3).await;
                    let ttl = self.settings.lock_ttl;
                    held = self.store.extend_lock(&question.slot, token, ttl).await;
                }
            }
            std::future::pending::<()>().await;
        };
        let fetch = timeout(self.settings.fetch_limit, (question.fetch)());
        tokio::select! {
            fetched = fetch => match fetched {
                Ok(Ok(fetched)) => Ok(fetched),
                Ok(Err(error)) => Err(FetchFailure::Failed(error)),
                Err(_) => Err(FetchFailure::TookTooLong),
            },
            () = renew => Err(FetchFailure::TookTooLong),
        }
    }

    /// A fetch failed: leaves the slot alone for a while, here and, by keeping
    /// the lock, on the other nodes.
    async fn back_off(&self, question: &Question<V>, turn: &Turn, prior: Option<&Arc<Held<V>>>) {
        let now = Instant::now();
        let slot = &question.slot;
        self.counters.refresh_failed.add_one();
        self.failures.failed(slot.slot, now);
        let pause = self.failures.pause(slot.slot, prior.is_some(), now);
        if let Some(prior) = prior {
            prior.hold_refresh(now, pause);
        }
        if let Some(token) = &turn.token {
            let for_all = pause.min(self.settings.retry_empty);
            // If it fails the lock's own time to live is the pause.
            self.store.extend_lock(slot, token, for_all).await.ok();
        }
    }

    /// Writes an answer or marker to the store and to L1. `Ok(None)`: the store
    /// had a newer one.
    ///
    /// # Errors
    /// When the content cannot be decoded.
    async fn write(
        &self,
        slot: &EntryKey,
        content: Content,
        place: &Place<'_>,
    ) -> Result<Option<Arc<Held<V>>>, String> {
        let payload = encode(&content);
        let content = held_content(content)?;
        let held = |content, generation, origin| {
            let fetched = (Duration::ZERO, place.received);
            let epochs = place.epochs.clone();
            let key = slot.clone();
            Arc::new(Held::new(
                key, content, generation, origin, fetched, epochs, place.gap,
            ))
        };
        let Turn {
            fence,
            token: Some(token),
            ..
        } = place.turn
        else {
            let began = place.turn.began;
            let held = held(content, place.turn.fence, Origin::Alone { began });
            return Ok(Some(self.l1.offer(held)));
        };
        let held = held(content, *fence, Origin::Locked);
        let age = place.received.elapsed();
        let write = EntryWrite {
            rank: Rank::Locked {
                fence: *fence,
                token: Arc::clone(token),
            },
            age,
            ttl: held.max_age().saturating_sub(age),
            payload,
        };
        Ok(match self.store.write_entry(slot, write).await {
            Ok(WriteOutcome::Written { generation, epoch }) => {
                place.epochs.raise(epoch);
                let stored = held.ranked(generation, Origin::Stored);
                Some(self.l1.offer(Arc::new(stored)))
            }
            Ok(WriteOutcome::Refused { .. }) => {
                self.counters.writes_refused.add_one();
                None
            }
            // Kept here, and put back when the store answers again.
            Err(_) => Some(self.l1.offer(held)),
        })
    }
}

/// Where and when a write belongs.
struct Place<'a> {
    turn: &'a Turn,
    received: Instant,
    epochs: &'a Epochs,
    gap: u32,
}

/// The outcome, if what is there will do.
fn enough<V: Cacheable>(
    question: &Question<V>,
    best: Option<&Arc<Held<V>>>,
    waited: bool,
) -> Option<Outcome<V>> {
    let held = best?;
    let freshness = held.freshness(Instant::now());
    if held.is_marker() {
        return (freshness == Freshness::Fresh).then_some(Outcome::PerPrincipal);
    }
    let will_do = match freshness {
        Freshness::Fresh => question
            .beyond
            .is_none_or(|beyond| held.generation > beyond),
        // Served as it is; who serves it starts a refresh.
        Freshness::Stale => question.purpose == Purpose::Answer,
        Freshness::Expired | Freshness::Gone => false,
    };
    will_do.then(|| Outcome::Entry {
        held: Arc::clone(held),
        waited,
    })
}
