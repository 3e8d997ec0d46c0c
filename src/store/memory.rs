//! The embedded store of a single node. It dies with the process.
//!
//! Everything is behind one lock that is held for a map operation and never
//! across an `await`. Cache entries make room by dropping what would expire
//! next; records and streams that do not fit are refused, as a Redis with
//! `noeviction` would.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::broadcast, time::Instant};

use super::{
    Channel, EntryKey, EntryWrite, Event, Fence, Found, LockOutcome, Lookup, Position, Rank,
    RecordKey, ShortDigest, Store, StoreError, StoreTime, StoredEntry, StreamBounds, StreamKey,
    StreamWatch, SubjectKey, WriteOutcome, leases::Duty, rates::RateKey, registry::Table,
    rosters::RosterKey, wake::Wakers,
};
use crate::ids::ReplicaId;
use expiring::{Expiring, Full};
use permits::Holders;
use rosters::Roster;

mod expiring;
mod leases;
mod permits;
mod rates;
mod registry;
mod rosters;

/// Events a subscriber may fall behind before it lags.
const EVENT_CAPACITY: usize = 4096;

/// Where the clock begins: far enough from zero that an age can be subtracted.
const CLOCK_START: Duration = Duration::from_secs(366 * 24 * 3600);

/// What a [`MemoryStore`] may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of cache entries.
    pub entries: usize,
    /// Bytes of records, and as much again of streams.
    pub records: usize,
    /// Bytes of locks, and as much again of invalidation marks.
    pub marks: usize,
}

impl Default for Bounds {
    /// 128 MiB of each kind of content, 16 MiB of each kind of mark.
    fn default() -> Self {
        Self {
            entries: 128 << 20,
            records: 128 << 20,
            marks: 16 << 20,
        }
    }
}

/// A store in this process.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    started: Instant,
    events: broadcast::Sender<Event>,
    wakers: Wakers<StreamKey>,
}

#[derive(Debug)]
struct State {
    last_fence: u64,
    entries: Expiring<ShortDigest, Entry>,
    locks: Expiring<ShortDigest, Arc<str>>,
    epochs: Expiring<ShortDigest, Fence>,
    records: Expiring<RecordKey, Bytes>,
    streams: Expiring<StreamKey, Stream>,
    leases: Expiring<Duty, Arc<str>>,
    lease_fences: Expiring<Duty, Fence>,
    leases_wanted: Expiring<Duty, Arc<str>>,
    fenced: Expiring<RecordKey, (Fence, Bytes)>,
    rosters: HashMap<RosterKey, Roster>,
    permits: HashMap<ReplicaId, Holders>,
    servers: Table,
    deployments: Table,
    rates: Expiring<RateKey, u64>,
}

#[derive(Debug)]
struct Entry {
    generation: Fence,
    fetched_at: StoreTime,
    payload: Bytes,
}

#[derive(Debug, Default)]
struct Stream {
    last: u64,
    entries: VecDeque<(Position, Bytes)>,
}

impl MemoryStore {
    /// An empty store with the default bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::with_bounds(Bounds::default())
    }

    /// An empty store.
    #[must_use]
    pub fn with_bounds(bounds: Bounds) -> Self {
        Self {
            state: Mutex::new(State {
                last_fence: 0,
                entries: Expiring::new(bounds.entries),
                locks: Expiring::new(bounds.marks),
                epochs: Expiring::new(bounds.marks),
                records: Expiring::new(bounds.records),
                streams: Expiring::new(bounds.records),
                leases: Expiring::new(bounds.marks),
                lease_fences: Expiring::new(bounds.marks),
                leases_wanted: Expiring::new(bounds.marks),
                fenced: Expiring::new(bounds.records),
                rosters: HashMap::new(),
                permits: HashMap::new(),
                servers: Table::default(),
                deployments: Table::default(),
                rates: Expiring::new(bounds.marks),
            }),
            started: Instant::now(),
            events: broadcast::Sender::new(EVENT_CAPACITY),
            wakers: Wakers::new(),
        }
    }

    /// The store's clock.
    fn clock(&self, now: Instant) -> Duration {
        CLOCK_START + now.duration_since(self.started)
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        // Every operation leaves the maps whole, also when it panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, event: Event) {
        // Nobody listening is not an error.
        self.events.send(event).ok();
    }
}

impl State {
    /// The next fence: the clock in microseconds, or one more than the last.
    fn next_fence(&mut self, clock: Duration) -> Fence {
        self.last_fence = micros(clock).max(self.last_fence + 1);
        Fence(self.last_fence)
    }

    /// The latest invalidation of the part or of the whole it belongs to.
    fn epoch(&self, subject: &SubjectKey, now: Instant) -> Fence {
        let of = |subject: &SubjectKey| self.epochs.get(&subject.digest(), now).copied();
        let whole = of(&subject.whole()).unwrap_or_default();
        whole.max(of(subject).unwrap_or_default())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

fn micros(clock: Duration) -> u64 {
    u64::try_from(clock.as_micros()).unwrap_or(u64::MAX)
}

fn store_time(clock: Duration) -> StoreTime {
    StoreTime(micros(clock) / 1000)
}

impl From<Full> for StoreError {
    fn from(_: Full) -> Self {
        Self::Refused("the embedded store is full".to_owned())
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn description(&self) -> String {
        "embedded".to_owned()
    }

    fn is_reachable(&self) -> bool {
        true
    }

    async fn entry(&self, key: &EntryKey, known: Option<Fence>) -> Result<Lookup, StoreError> {
        let now = Instant::now();
        let state = self.lock_state();
        let found = match state.entries.get(&key.slot, now) {
            None => Found::Nothing,
            Some(entry) if Some(entry.generation) == known => Found::Known,
            Some(entry) => Found::Entry(StoredEntry {
                generation: entry.generation,
                fetched_at: entry.fetched_at,
                payload: entry.payload.clone(),
            }),
        };
        Ok(Lookup {
            read_at: store_time(self.clock(now)),
            epoch: state.epoch(&key.subject, now),
            found,
        })
    }

    async fn write_entry(
        &self,
        key: &EntryKey,
        write: EntryWrite,
    ) -> Result<WriteOutcome, StoreError> {
        let now = Instant::now();
        let clock = self.clock(now);
        let mut state = self.lock_state();
        let stored = state.entries.get(&key.slot, now).map(|e| e.generation);
        let (generation, refused) = match &write.rank {
            Rank::Locked { fence, .. } => (*fence, stored.filter(|stored| stored > fence)),
            Rank::Alone { fence } => (*fence, stored.filter(|stored| stored >= fence)),
        };
        if let Rank::Locked { token, .. } = &write.rank
            && state.locks.get(&key.slot, now) == Some(token)
        {
            state.locks.remove(&key.slot, now);
        }
        if let Some(newer) = refused {
            return Ok(WriteOutcome::Refused { newer });
        }
        let bytes = write.payload.len();
        let entry = Entry {
            generation,
            fetched_at: store_time(clock.saturating_sub(write.age)),
            payload: write.payload,
        };
        state
            .entries
            .insert_or_evict(key.slot, entry, bytes, now + write.ttl, now)?;
        let epoch = state.epoch(&key.subject, now);
        self.announce(Event::Written {
            slot: key.slot,
            generation,
        });
        Ok(WriteOutcome::Written { generation, epoch })
    }

    async fn invalidate(&self, subject: &SubjectKey, keep: Duration) -> Result<Fence, StoreError> {
        let now = Instant::now();
        let clock = self.clock(now);
        let digest = subject.digest();
        let mut state = self.lock_state();
        let epoch = state.next_fence(clock);
        state
            .epochs
            .insert(digest, epoch, 0, Some(now + keep), now)?;
        self.announce(Event::Invalidated {
            subject: digest,
            epoch,
        });
        Ok(epoch)
    }

    async fn lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<LockOutcome, StoreError> {
        let now = Instant::now();
        let clock = self.clock(now);
        let mut state = self.lock_state();
        if let Some(until) = state.locks.expires(&key.slot, now) {
            return Ok(LockOutcome::Held(until.duration_since(now)));
        }
        state
            .locks
            .insert(key.slot, token.into(), token.len(), Some(now + ttl), now)?;
        Ok(LockOutcome::Acquired(state.next_fence(clock)))
    }

    async fn extend_lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut state = self.lock_state();
        let holds = state.locks.get(&key.slot, now).map(AsRef::as_ref) == Some(token);
        Ok(holds && state.locks.touch(&key.slot, now + ttl, now))
    }

    async fn unlock(&self, key: &EntryKey, token: &str) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut state = self.lock_state();
        if state.locks.get(&key.slot, now).map(AsRef::as_ref) != Some(token) {
            return Ok(false);
        }
        state.locks.remove(&key.slot, now);
        self.announce(Event::Released { slot: key.slot });
        Ok(true)
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        let now = Instant::now();
        Ok(self.lock_state().records.get(key, now).cloned())
    }

    async fn put(
        &self,
        key: &RecordKey,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let now = Instant::now();
        let bytes = value.len();
        let expires = ttl.map(|ttl| now + ttl);
        let mut state = self.lock_state();
        state
            .records
            .insert(key.clone(), value, bytes, expires, now)?;
        Ok(())
    }

    async fn put_if_absent(
        &self,
        key: &RecordKey,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Bytes, StoreError> {
        let now = Instant::now();
        let mut state = self.lock_state();
        if let Some(stored) = state.records.get(key, now) {
            return Ok(stored.clone());
        }
        let expires = ttl.map(|ttl| now + ttl);
        state
            .records
            .insert(key.clone(), value.clone(), value.len(), expires, now)?;
        Ok(value)
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock_state().records.remove(key, Instant::now()))
    }

    async fn delete(&self, key: &RecordKey) -> Result<bool, StoreError> {
        Ok(self.take(key).await?.is_some())
    }

    async fn open_stream(&self, key: &StreamKey, bounds: StreamBounds) -> Result<(), StoreError> {
        let now = Instant::now();
        let expires = now + bounds.ttl;
        let mut state = self.lock_state();
        if !state.streams.touch(key, expires, now) {
            state
                .streams
                .insert(key.clone(), Stream::default(), 0, Some(expires), now)?;
        }
        Ok(())
    }

    async fn append(
        &self,
        key: &StreamKey,
        payload: Bytes,
        bounds: StreamBounds,
    ) -> Result<Option<Position>, StoreError> {
        let now = Instant::now();
        let appended = {
            let mut state = self.lock_state();
            let adds = payload.len();
            let appended = state.streams.change(key, now, adds, |stream| {
                stream.last += 1;
                let position = Position(stream.last);
                stream.entries.push_back((position, payload));
                let mut dropped = 0;
                while stream.entries.len() > bounds.max_entries as usize {
                    dropped += stream.entries.pop_front().map_or(0, |(_, old)| old.len());
                }
                (dropped, position)
            })?;
            state.streams.touch(key, now + bounds.ttl, now);
            appended
        };
        if appended.is_some() {
            self.wakers.wake(key);
        }
        Ok(appended)
    }

    async fn read(
        &self,
        key: &StreamKey,
        after: Position,
        limit: u32,
    ) -> Result<Option<Vec<(Position, Bytes)>>, StoreError> {
        let state = self.lock_state();
        let Some(stream) = state.streams.get(key, Instant::now()) else {
            return Ok(None);
        };
        let first = stream.entries.partition_point(|(at, _)| *at <= after);
        let rest = stream.entries.iter().skip(first);
        Ok(Some(rest.take(limit as usize).cloned().collect()))
    }

    async fn watch_stream(&self, key: &StreamKey) -> StreamWatch {
        self.wakers.watch(key)
    }

    async fn close_stream(&self, key: &StreamKey) -> Result<(), StoreError> {
        self.lock_state().streams.remove(key, Instant::now());
        self.wakers.wake(key);
        Ok(())
    }

    async fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), StoreError> {
        self.announce(Event::Message { channel, payload });
        Ok(())
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
