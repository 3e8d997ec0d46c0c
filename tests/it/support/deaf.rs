//! A store in which the test has a hand: it sends the events (nothing else is
//! heard), and may let something happen just before a lock is taken.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use mcp_fleet::ids::ReplicaId;
use mcp_fleet::store::{
    Channel, EntryKey, EntryWrite, Event, Fence, LockOutcome, Lookup, Position, RecordKey, Store,
    StoreError, StreamBounds, StreamKey, StreamWatch, SubjectKey, WriteOutcome,
    leases::{Ask, Duty, LeaseOutcome, Leases, Renewal},
    permits::{PermitRequest, Permits, Permitted},
    rates::{Rate, RateKey, Rates, Taken},
    registry::{Change, Changed, Edition, Registry, Table, Which},
    rosters::{RosterChange, RosterKey, RosterLine, Rosters},
};
use tokio::sync::{Notify, broadcast};

#[derive(Debug)]
pub(crate) struct DeafStore {
    inner: Arc<dyn Store>,
    events: broadcast::Sender<Event>,
    before_lock: Mutex<Option<Pause>>,
}

/// Holds up the next call of `lock`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pause {
    /// Told when the call has come.
    pub(crate) reached: Arc<Notify>,
    /// The call goes on when told.
    pub(crate) go_on: Arc<Notify>,
}

impl DeafStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> (Self, broadcast::Sender<Event>) {
        let events = broadcast::Sender::new(64);
        let store = Self {
            inner,
            events: events.clone(),
            before_lock: Mutex::default(),
        };
        (store, events)
    }

    /// Holds up the next call of `lock`.
    pub(crate) fn pause_before_lock(&self) -> Pause {
        let pause = Pause::default();
        *self.before_lock.lock().expect("unpoisoned") = Some(pause.clone());
        pause
    }
}

#[async_trait]
impl Store for DeafStore {
    fn description(&self) -> String {
        self.inner.description()
    }
    fn is_reachable(&self) -> bool {
        self.inner.is_reachable()
    }
    async fn entry(&self, key: &EntryKey, known: Option<Fence>) -> Result<Lookup, StoreError> {
        self.inner.entry(key, known).await
    }
    async fn write_entry(
        &self,
        key: &EntryKey,
        write: EntryWrite,
    ) -> Result<WriteOutcome, StoreError> {
        self.inner.write_entry(key, write).await
    }
    async fn invalidate(&self, subject: &SubjectKey, keep: Duration) -> Result<Fence, StoreError> {
        self.inner.invalidate(subject, keep).await
    }
    async fn lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<LockOutcome, StoreError> {
        let pause = self.before_lock.lock().expect("unpoisoned").take();
        if let Some(pause) = pause {
            pause.reached.notify_one();
            pause.go_on.notified().await;
        }
        self.inner.lock(key, token, ttl).await
    }
    async fn extend_lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        self.inner.extend_lock(key, token, ttl).await
    }
    async fn unlock(&self, key: &EntryKey, token: &str) -> Result<bool, StoreError> {
        self.inner.unlock(key, token).await
    }
    async fn get(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key).await
    }
    async fn put(
        &self,
        key: &RecordKey,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.inner.put(key, value, ttl).await
    }
    async fn put_if_absent(
        &self,
        key: &RecordKey,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Bytes, StoreError> {
        self.inner.put_if_absent(key, value, ttl).await
    }
    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        self.inner.take(key).await
    }
    async fn delete(&self, key: &RecordKey) -> Result<bool, StoreError> {
        self.inner.delete(key).await
    }
    async fn open_stream(&self, key: &StreamKey, bounds: StreamBounds) -> Result<(), StoreError> {
        self.inner.open_stream(key, bounds).await
    }
    async fn append(
        &self,
        key: &StreamKey,
        payload: Bytes,
        bounds: StreamBounds,
    ) -> Result<Option<Position>, StoreError> {
        self.inner.append(key, payload, bounds).await
    }
    async fn read(
        &self,
        key: &StreamKey,
        after: Position,
        limit: u32,
    ) -> Result<Option<Vec<(Position, Bytes)>>, StoreError> {
        self.inner.read(key, after, limit).await
    }
    async fn watch_stream(&self, key: &StreamKey) -> StreamWatch {
        self.inner.watch_stream(key).await
    }
    async fn close_stream(&self, key: &StreamKey) -> Result<(), StoreError> {
        self.inner.close_stream(key).await
    }
    async fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), StoreError> {
        self.inner.publish(channel, payload).await
    }
    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

#[async_trait]
impl Leases for DeafStore {
    async fn acquire_lease(
        &self,
        duty: &Duty,
        holder: &str,
        ttl: Duration,
        ask: Ask,
    ) -> Result<LeaseOutcome, StoreError> {
        self.inner.acquire_lease(duty, holder, ttl, ask).await
    }
    async fn renew_leases(
        &self,
        duties: &[Duty],
        holder: &str,
        ttl: Duration,
    ) -> Result<Vec<Renewal>, StoreError> {
        self.inner.renew_leases(duties, holder, ttl).await
    }
    async fn release_lease(
        &self,
        duty: &Duty,
        holder: &str,
        fence: Fence,
    ) -> Result<bool, StoreError> {
        self.inner.release_lease(duty, holder, fence).await
    }
    async fn lease_holders(&self, duties: &[Duty]) -> Result<Vec<Option<String>>, StoreError> {
        self.inner.lease_holders(duties).await
    }
    async fn put_fenced(
        &self,
        key: &RecordKey,
        fence: Fence,
        value: Bytes,
        ttl: Duration,
        channel: Channel,
    ) -> Result<bool, StoreError> {
        self.inner.put_fenced(key, fence, value, ttl, channel).await
    }
    async fn get_fenced(
        &self,
        keys: &[RecordKey],
    ) -> Result<Vec<Option<(Fence, Bytes)>>, StoreError> {
        self.inner.get_fenced(keys).await
    }
}

#[async_trait]
impl Rosters for DeafStore {
    async fn roster(
        &self,
        key: &RosterKey,
        writer: &str,
        change: RosterChange,
        ttl: Duration,
    ) -> Result<Vec<RosterLine>, StoreError> {
        self.inner.roster(key, writer, change, ttl).await
    }
}

#[async_trait]
impl Permits for DeafStore {
    async fn permits(
        &self,
        replica: &ReplicaId,
        holder: &str,
        request: PermitRequest,
    ) -> Result<Permitted, StoreError> {
        self.inner.permits(replica, holder, request).await
    }
}

#[async_trait]
impl Registry for DeafStore {
    async fn registry_edition(&self, which: Which) -> Result<Edition, StoreError> {
        self.inner.registry_edition(which).await
    }
    async fn registry(&self, which: Which) -> Result<Table, StoreError> {
        self.inner.registry(which).await
    }
    async fn change_registry(
        &self,
        which: Which,
        change: &Change,
        known: Edition,
    ) -> Result<Changed, StoreError> {
        self.inner.change_registry(which, change, known).await
    }
    async fn restore_registry(&self, which: Which, table: &Table) -> Result<bool, StoreError> {
        self.inner.restore_registry(which, table).await
    }
}

#[async_trait]
impl Rates for DeafStore {
    async fn take_tokens(
        &self,
        key: &RateKey,
        rate: &Rate,
        wanted: u32,
    ) -> Result<Taken, StoreError> {
        self.inner.take_tokens(key, rate, wanted).await
    }
}
