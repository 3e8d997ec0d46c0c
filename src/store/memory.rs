//! The embedded store of a single node. It dies with the process.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::broadcast;

use super::{
    Channel, EntryKey, EntryWrite, Event, Fence, LockOutcome, Lookup, Position, RecordKey, Store,
    StoreError, StreamBounds, StreamKey, StreamWatch, SubjectKey, WriteOutcome,
};

/// A store in this process.
#[derive(Debug)]
pub struct MemoryStore {}

impl MemoryStore {
    /// An empty store with the default bounds.
    #[must_use]
    pub fn new() -> Self {
        todo!()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn description(&self) -> String {
        todo!()
    }
    fn is_reachable(&self) -> bool {
        todo!()
    }
    async fn entry(&self, _key: &EntryKey, _known: Option<Fence>) -> Result<Lookup, StoreError> {
        todo!()
    }
    async fn write_entry(
        &self,
        _key: &EntryKey,
        _write: EntryWrite,
    ) -> Result<WriteOutcome, StoreError> {
        todo!()
    }
    async fn invalidate(
        &self,
        _subject: &SubjectKey,
        _keep: Duration,
    ) -> Result<Fence, StoreError> {
        todo!()
    }
    async fn lock(
        &self,
        _key: &EntryKey,
        _token: &str,
        _ttl: Duration,
    ) -> Result<LockOutcome, StoreError> {
        todo!()
    }
    async fn extend_lock(
        &self,
        _key: &EntryKey,
        _token: &str,
        _ttl: Duration,
    ) -> Result<bool, StoreError> {
        todo!()
    }
    async fn unlock(&self, _key: &EntryKey, _token: &str) -> Result<bool, StoreError> {
        todo!()
    }
    async fn get(&self, _key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }
    async fn put(
        &self,
        _key: &RecordKey,
        _value: Bytes,
        _ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        todo!()
    }
    async fn put_if_absent(
        &self,
        _key: &RecordKey,
        _value: Bytes,
        _ttl: Option<Duration>,
    ) -> Result<Bytes, StoreError> {
        todo!()
    }
    async fn take(&self, _key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }
    async fn delete(&self, _key: &RecordKey) -> Result<bool, StoreError> {
        todo!()
    }
    async fn open_stream(&self, _key: &StreamKey, _bounds: StreamBounds) -> Result<(), StoreError> {
        todo!()
    }
    async fn append(
        &self,
        _key: &StreamKey,
        _payload: Bytes,
        _bounds: StreamBounds,
    ) -> Result<Option<Position>, StoreError> {
        todo!()
    }
    async fn read(
        &self,
        _key: &StreamKey,
        _after: Position,
        _limit: u32,
    ) -> Result<Option<Vec<(Position, Bytes)>>, StoreError> {
        todo!()
    }
    async fn watch_stream(&self, _key: &StreamKey) -> StreamWatch {
        todo!()
    }
    async fn close_stream(&self, _key: &StreamKey) -> Result<(), StoreError> {
        todo!()
    }
    async fn publish(&self, _channel: Channel, _payload: Bytes) -> Result<(), StoreError> {
        todo!()
    }
    fn subscribe(&self) -> broadcast::Receiver<Event> {
        todo!()
    }
}
