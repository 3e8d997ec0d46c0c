//! This node's copies: decoded, bounded by bytes, served without I/O.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use moka::{Expiry, ops::compute::Op, sync::Cache};
use tokio::time::Instant;

use super::{
    Cacheable,
    entry::{Answer, Content},
    freshness::Freshness,
};
use crate::store::{EntryKey, Fence, ShortDigest, SubjectKey};

/// What a copy costs beside value and payload, roughly.
const OVERHEAD: u32 = 512;

/// A copy of a slot's content.
pub(super) struct Held<V> {
    pub(super) key: EntryKey,
    pub(super) content: HeldContent<V>,
    pub(super) generation: Fence,
    pub(super) origin: Origin,
    /// Its age when this node got it, counted so that it is never too young.
    age_then: Duration,
    then: Instant,
    epochs: Epochs,
    /// The newest generation that was published for the slot.
    newest: AtomicU64,
    /// The gap after which it was last checked against the store.
    checked_after: AtomicU32,
    /// No background refresh before this long after `then`, in milliseconds.
    refresh_from: AtomicU64,
}

/// The decoded content of a slot.
pub(super) enum HeldContent<V> {
    Answer { answer: Answer, value: Arc<V> },
    PerPrincipal { max_age: Duration },
}

/// Where a copy's generation comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// The store has it, or had it, under this generation.
    Stored,
    /// Fetched under a lock; the store did not take it yet.
    Locked,
    /// Fetched without the store since this moment; the generation is a guess.
    Alone { began: Instant },
}

impl<V: Cacheable> Held<V> {
    pub(super) fn new(
        key: EntryKey,
        content: HeldContent<V>,
        generation: Fence,
        origin: Origin,
        (age_then, then): (Duration, Instant),
        epochs: Epochs,
        checked_after: u32,
    ) -> Self {
        Self {
            key,
            content,
            generation,
            origin,
            age_then,
            then,
            epochs,
            newest: AtomicU64::new(generation.0),
            checked_after: AtomicU32::new(checked_after),
            refresh_from: AtomicU64::new(0),
        }
    }

    /// The same copy with another place in the order. What was published about
    /// the slot stays known.
    pub(super) fn ranked(&self, generation: Fence, origin: Origin) -> Self {
        let content = match &self.content {
            HeldContent::Answer { answer, value } => HeldContent::Answer {
                answer: answer.clone(),
                value: Arc::clone(value),
            },
            HeldContent::PerPrincipal { max_age } => {
                HeldContent::PerPrincipal { max_age: *max_age }
            }
        };
        let ranked = Self::new(
            self.key.clone(),
            content,
            generation,
            origin,
            (self.age_then, self.then),
            self.epochs.clone(),
            self.checked_after.load(Ordering::Relaxed),
        );
        if self.newest() > self.generation {
            ranked.superseded_by(self.newest());
        }
        ranked
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        self.age_then + now.saturating_duration_since(self.then)
    }

    pub(super) fn is_invalidated(&self) -> bool {
        self.epochs.latest() > self.generation
    }

    /// Its state by age and invalidation alone.
    pub(super) fn freshness(&self, now: Instant) -> Freshness {
        let age = self.age(now);
        match &self.content {
            HeldContent::Answer { answer, .. } => answer.lifetimes.at(age, self.is_invalidated()),
            // An invalidation is about answers, not about whose they are.
            HeldContent::PerPrincipal { max_age } if age < *max_age => Freshness::Fresh,
            HeldContent::PerPrincipal { .. } => Freshness::Gone,
        }
    }

    /// Whether it was checked since the last gap and nothing newer was published.
    pub(super) fn is_trusted(&self, gap: u32) -> bool {
        self.checked_after.load(Ordering::Relaxed) == gap && self.newest() <= self.generation
    }

    /// The store was asked after `gap`, when `seen` was the newest generation
    /// published, and has nothing newer than this.
    pub(super) fn checked(&self, gap: u32, seen: Fence) {
        self.checked_after.store(gap, Ordering::Relaxed);
        // What was published meanwhile stands. What was published before is
        // gone from the store (it restarted empty).
        let (seen, own) = (seen.0, self.generation.0);
        let order = Ordering::Relaxed;
        self.newest.compare_exchange(seen, own, order, order).ok();
    }

    /// The newest generation that was published for the slot.
    pub(super) fn newest(&self) -> Fence {
        Fence(self.newest.load(Ordering::Relaxed))
    }

    fn superseded_by(&self, generation: Fence) {
        self.newest.fetch_max(generation.0, Ordering::Relaxed);
    }

    pub(super) fn is_marker(&self) -> bool {
        matches!(self.content, HeldContent::PerPrincipal { .. })
    }

    pub(super) fn answer(&self) -> Option<&Answer> {
        match &self.content {
            HeldContent::Answer { answer, .. } => Some(answer),
            HeldContent::PerPrincipal { .. } => None,
        }
    }

    /// The content for the store.
    pub(super) fn content(&self) -> Content {
        match &self.content {
            HeldContent::Answer { answer, .. } => Content::Answer(answer.clone()),
            HeldContent::PerPrincipal { max_age } => Content::PerPrincipal { max_age: *max_age },
        }
    }

    /// The age at which it may not be served any more.
    pub(super) fn max_age(&self) -> Duration {
        match &self.content {
            HeldContent::Answer { answer, .. } => answer.lifetimes.max_stale,
            HeldContent::PerPrincipal { max_age } => *max_age,
        }
    }

    /// Whether a background refresh may be tried; if so, no other is for `pause`.
    pub(super) fn begin_refresh(&self, now: Instant, pause: Duration) -> bool {
        let since = millis(now.saturating_duration_since(self.then));
        let from = self.refresh_from.load(Ordering::Relaxed);
        since >= from
            && self
                .refresh_from
                .compare_exchange(
                    from,
                    since + millis(pause),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// No background refresh for `pause`.
    pub(super) fn hold_refresh(&self, now: Instant, pause: Duration) {
        let since = millis(now.saturating_duration_since(self.then));
        self.refresh_from
            .store(since + millis(pause), Ordering::Relaxed);
    }

    fn weight(&self) -> u32 {
        let content = match &self.content {
            HeldContent::Answer { answer, value } => {
                let payload = u32::try_from(answer.payload.len()).unwrap_or(u32::MAX);
                payload.saturating_add(value.weight())
            }
            HeldContent::PerPrincipal { .. } => 0,
        };
        content.saturating_add(OVERHEAD)
    }
}

/// Of a copy that L1 had: tells whether L1 would still find it.
pub struct Witness<V>(Weak<Held<V>>);

impl<V: Cacheable> Witness<V> {
    pub(super) fn of(held: &Arc<Held<V>>) -> Self {
        Self(Arc::downgrade(held))
    }

    /// False when the copy has left L1, nothing may be served of it any more,
    /// or there may be a newer one. Cheaper than looking.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.0.upgrade().is_some_and(|held| {
            held.newest() <= held.generation && held.freshness(Instant::now()) != Freshness::Gone
        })
    }
}

impl<V> fmt::Debug for Witness<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

/// Decodes what a fetch or the store brought.
pub(super) fn held_content<V: Cacheable>(content: Content) -> Result<HeldContent<V>, String> {
    Ok(match content {
        Content::Answer(answer) => {
            let payload: &Bytes = &answer.payload;
            let value = Arc::new(V::decode(payload)?);
            HeldContent::Answer { answer, value }
        }
        Content::PerPrincipal { max_age } => HeldContent::PerPrincipal { max_age },
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The copies.
pub(super) struct L1<V> {
    slots: Cache<ShortDigest, Arc<Held<V>>>,
}

impl<V: Cacheable> L1<V> {
    pub(super) fn new(max_bytes: u64) -> Self {
        let slots = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, held: &Arc<Held<V>>| held.weight())
            .expire_after(UntilGone)
            .build();
        Self { slots }
    }

    pub(super) fn get(&self, slot: &ShortDigest) -> Option<Arc<Held<V>>> {
        self.slots.get(slot)
    }

    /// Keeps `held` unless what is there is newer; answers what is the newer.
    pub(super) fn offer(&self, held: Arc<Held<V>>) -> Arc<Held<V>> {
        let mut newer = Arc::clone(&held);
        self.slots
            .entry(held.key.slot)
            .and_compute_with(|there| match there {
                Some(there) if there.value().generation > held.generation => {
                    newer = there.into_value();
                    Op::Nop
                }
                Some(there) => {
                    held.superseded_by(there.value().newest());
                    there.value().superseded_by(held.generation);
                    Op::Put(Arc::clone(&held))
                }
                None => Op::Put(Arc::clone(&held)),
            });
        newer
    }

    /// Puts `with` in the place of `held`, if that is still there.
    pub(super) fn replace(&self, held: &Arc<Held<V>>, with: Arc<Held<V>>) {
        self.slots
            .entry(held.key.slot)
            .and_compute_with(|there| match there {
                Some(there) if Arc::ptr_eq(there.value(), held) => {
                    if held.newest() > held.generation {
                        with.superseded_by(held.newest());
                    }
                    Op::Put(with)
                }
                Some(_) | None => Op::Nop,
            });
    }

    /// A generation was published for `slot`. (Under the slot's lock, so that
    /// a copy that is just being put in is either there or knows.)
    pub(super) fn published(&self, slot: ShortDigest, generation: Fence) {
        self.slots.entry(slot).and_compute_with(|there| {
            if let Some(there) = there {
                there.value().superseded_by(generation);
            }
            Op::Nop
        });
    }

    /// All copies, for the walk after a gap.
    pub(super) fn all(&self) -> Vec<Arc<Held<V>>> {
        self.slots.run_pending_tasks();
        self.slots.iter().map(|(_, held)| held).collect()
    }
}

impl<V> fmt::Debug for L1<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1").finish_non_exhaustive()
    }
}

/// Copies leave L1 when they may not be served any more. (In real time; what is
/// served is decided by [`Held::freshness`].)
struct UntilGone;

impl<V: Cacheable> Expiry<ShortDigest, Arc<Held<V>>> for UntilGone {
    fn expire_after_create(
        &self,
        _: &ShortDigest,
        held: &Arc<Held<V>>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(held.max_age().saturating_sub(held.age_then))
    }

    fn expire_after_update(
        &self,
        _: &ShortDigest,
        held: &Arc<Held<V>>,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(held.max_age().saturating_sub(held.age_then))
    }
}

/// The latest invalidations that concern a slot: of its subject, and of the
/// whole that its subject is a part of. Shared by all copies and flights.
#[derive(Debug, Clone)]
pub(super) struct Epochs {
    whole: Arc<AtomicU64>,
    part: Option<Arc<AtomicU64>>,
}

impl Epochs {
    pub(super) fn latest(&self) -> Fence {
        let whole = self.whole.load(Ordering::Relaxed);
        let part = self.part.as_ref().map(|part| part.load(Ordering::Relaxed));
        Fence(whole.max(part.unwrap_or(0)))
    }

    /// The store knows of an invalidation, of the part or of the whole.
    pub(super) fn raise(&self, epoch: Fence) {
        // Which of the two it was is not told; for this slot it is the same.
        let nearest = self.part.as_ref().unwrap_or(&self.whole);
        nearest.fetch_max(epoch.0, Ordering::Relaxed);
    }
}

/// Cleaning below this size is not worth it.
const CLEAN_FROM: usize = 256;

/// The subjects that copies and flights of this node are about. Bounded by
/// those: a subject nobody refers to is dropped when the map has doubled, and
/// needs no memory, since whoever comes to it again asks the store first.
#[derive(Debug)]
pub(super) struct Subjects {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    epochs: HashMap<ShortDigest, Arc<AtomicU64>>,
    clean_at: usize,
}

impl Subjects {
    pub(super) fn new() -> Self {
        Self {
            known: Mutex::new(Known {
                epochs: HashMap::new(),
                clean_at: CLEAN_FROM,
            }),
        }
    }

    /// The epochs of `subject`. To be taken before the store is asked, so that
    /// no invalidation falls between its answer and the copy made of it.
    pub(super) fn of(&self, subject: &SubjectKey) -> Epochs {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.epochs.len() >= known.clean_at {
            known.epochs.retain(|_, epoch| Arc::strong_count(epoch) > 1);
            known.clean_at = (known.epochs.len() * 2).max(CLEAN_FROM);
        }
        let mut of = |subject: &SubjectKey| {
            let epoch = known.epochs.entry(subject.digest()).or_default();
            Arc::clone(epoch)
        };
        Epochs {
            whole: of(&subject.whole()),
            part: subject.part.is_some().then(|| of(subject)),
        }
    }

    /// An invalidation was published.
    pub(super) fn raise(&self, subject: &ShortDigest, epoch: Fence) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = known.epochs.get(subject) {
            latest.fetch_max(epoch.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServerId;

    #[test]
    fn subjects_nobody_refers_to_are_forgotten() {
        let subjects = Subjects::new();
        let subject = |n: usize| SubjectKey {
            server: ServerId::try_from("demo").expect("good name"),
            method: "resources/read",
            part: Some(ShortDigest::of(&[&n.to_le_bytes()])),
        };
        let kept = subjects.of(&subject(0));
        for n in 1..10_000 {
            subjects.of(&subject(n));
        }
        let size = subjects.known.lock().expect("unpoisoned").epochs.len();
        assert!(size <= 2 * CLEAN_FROM, "{size}");
        subjects.raise(&subject(0).digest(), Fence(7));
        assert_eq!(kept.latest(), Fence(7));
        subjects.raise(&subject(0).whole().digest(), Fence(9));
        assert_eq!(kept.latest(), Fence(9));
        assert_eq!(subjects.of(&subject(0)).latest(), Fence(9));
    }
}
