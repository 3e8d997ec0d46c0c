//! Makes this node's copy and the store's entry agree: the newer one wins, in
//! either direction. Nothing is fetched here.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::debug;

use super::{
    Cache, Cacheable,
    entry::{decode, encode},
    freshness::Freshness,
    l1::{Epochs, Held, Origin, held_content},
};
use crate::store::{
    EntryKey, EntryWrite, Fence, Found, Rank, StoreTime, StoredEntry, WriteOutcome,
};

/// What a look at the store and at L1 found.
pub(super) struct Consulted<V> {
    pub(super) best: Option<Arc<Held<V>>>,
    pub(super) reachable: bool,
}

impl<V: Cacheable> Cache<V> {
    /// Makes L1 and the store agree about `slot`; false when the store cannot be asked.
    pub(super) async fn check(&self, slot: &EntryKey, gap: u32) -> bool {
        let epochs = self.subjects.of(&slot.subject);
        self.consult(slot, &epochs, gap).await.reachable
    }

    /// Asks the store about `slot` and makes L1 and the store agree.
    pub(super) async fn consult(&self, slot: &EntryKey, epochs: &Epochs, gap: u32) -> Consulted<V> {
        let ours = self.l1.get(&slot.slot);
        let known = ours
            .as_ref()
            .filter(|held| matches!(held.origin, Origin::Stored))
            .map(|held| held.generation);
        let seen = ours.as_ref().map(|held| held.newest()).unwrap_or_default();
        let sent = Instant::now();
        let Ok(lookup) = self.store.entry(slot, known).await else {
            return Consulted {
                best: ours,
                reachable: false,
            };
        };
        let ours = ours.map(|held| self.rank_again(held, lookup.read_at));
        self.clock.saw_time(lookup.read_at, Instant::now());
        self.clock.saw_fence(lookup.epoch, Instant::now());
        epochs.raise(lookup.epoch);
        let theirs = match lookup.found {
            Found::Known => {
                if let Some(held) = &ours {
                    held.checked(gap, seen);
                }
                return Consulted {
                    best: ours,
                    reachable: true,
                };
            }
            Found::Nothing => None,
            Found::Entry(entry) => self.copy(slot, &entry, lookup.read_at, sent, epochs, gap),
        };
        let best = match (ours, theirs) {
            (Some(ours), Some(theirs)) if ours.generation <= theirs.generation => {
                Some(self.l1.offer(theirs))
            }
            (Some(ours), _) => {
                ours.checked(gap, seen);
                Some(self.put_back(ours, epochs, gap).await)
            }
            (None, Some(theirs)) => Some(self.l1.offer(theirs)),
            (None, None) => None,
        };
        Consulted {
            best,
            reachable: true,
        }
    }

    /// The copy of an entry of the store; `None` when it cannot be read.
    fn copy(
        &self,
        slot: &EntryKey,
        entry: &StoredEntry,
        read_at: StoreTime,
        sent: Instant,
        epochs: &Epochs,
        gap: u32,
    ) -> Option<Arc<Held<V>>> {
        // Counted from when the question was sent: never too young.
        let age = Duration::from_millis(read_at.0.saturating_sub(entry.fetched_at.0));
        let content = held_content(decode(&entry.payload)?)
            .inspect_err(|why| debug!(%why, "a cache entry cannot be read"))
            .ok()?;
        Some(Arc::new(Held::new(
            slot.clone(),
            content,
            entry.generation,
            Origin::Stored,
            (age, sent),
            epochs.clone(),
            gap,
        )))
    }

    /// Gives what was fetched without the store its place by the store's
    /// clock, now that it is known. What an invalidation on this node has
    /// reached keeps its place below it.
    fn rank_again(&self, held: Arc<Held<V>>, read_at: StoreTime) -> Arc<Held<V>> {
        let Origin::Alone { began } = held.origin else {
            return held;
        };
        if held.is_invalidated() {
            return held;
        }
        let fence = Fence::at(read_at, began.elapsed());
        let ranked = Arc::new(held.ranked(fence, held.origin));
        self.l1.replace(&held, Arc::clone(&ranked));
        ranked
    }

    /// Puts our copy into a store that has nothing, or something older: it
    /// came back empty, or was away when we fetched. Answers what is the newer.
    async fn put_back(&self, ours: Arc<Held<V>>, epochs: &Epochs, gap: u32) -> Arc<Held<V>> {
        let now = Instant::now();
        if ours.is_invalidated() || ours.freshness(now) == Freshness::Gone {
            return ours;
        }
        let rank = match ours.origin {
            Origin::Stored | Origin::Locked => Rank::Locked {
                fence: ours.generation,
                token: "".into(),
            },
            // By the clock as it was read: see `rank_again`.
            Origin::Alone { .. } => Rank::Alone {
                fence: ours.generation,
            },
        };
        let age = ours.age(now);
        let write = EntryWrite {
            rank,
            age,
            ttl: ours.max_age().saturating_sub(age),
            payload: encode(&ours.content()),
        };
        match self.store.write_entry(&ours.key, write).await {
            Ok(WriteOutcome::Written { generation, epoch }) => {
                epochs.raise(epoch);
                let stored = Arc::new(ours.ranked(generation, Origin::Stored));
                self.l1.replace(&ours, Arc::clone(&stored));
                stored
            }
            Ok(WriteOutcome::Refused { .. }) => {
                self.counters.writes_refused.add_one();
                let sent = Instant::now();
                let lookup = self.store.entry(&ours.key, None).await;
                let newer = lookup.ok().and_then(|lookup| match lookup.found {
                    Found::Entry(entry) => {
                        self.copy(&ours.key, &entry, lookup.read_at, sent, epochs, gap)
                    }
                    Found::Nothing | Found::Known => None,
                });
                match newer {
                    Some(newer) => {
                        self.l1.replace(&ours, Arc::clone(&newer));
                        newer
                    }
                    None => ours,
                }
            }
            Err(_) => ours,
        }
    }
}
