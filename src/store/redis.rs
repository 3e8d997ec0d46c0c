//! The store that nodes share: Redis 7 (or a compatible server), alone, behind
//! Sentinel or as a Cluster. The only code that imports fred.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::broadcast;

use super::{
    Channel, EntryKey, EntryWrite, Event, Fence, LockOutcome, Lookup, Position, RecordKey, Store,
    StoreError, StreamBounds, StreamKey, StreamWatch, SubjectKey, WriteOutcome,
};
use crate::lifecycle::Tasks;

/// How the fleet's Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `redis-cluster://` or `redis-sentinel://`, with
    /// password or ACL user in the usual place.
    pub url: String,
    /// What every key begins with: letters, digits, `-`, `_`, `.` and `:`.
    pub prefix: String,
    /// No command waits longer for its answer. Default 250 ms.
    pub command_timeout: Duration,
    /// No attempt to connect takes longer, nor does [`RedisStore::connect`]. Default 500 ms.
    pub connect_timeout: Duration,
    /// How often the connection is checked. Default 500 ms.
    pub watchdog_interval: Duration,
}

impl RedisSettings {
    /// The defaults for a Redis at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "mcp-fleet".to_owned(),
            command_timeout: Duration::from_millis(250),
            connect_timeout: Duration::from_millis(500),
            watchdog_interval: Duration::from_millis(500),
        }
    }
}

/// Why the settings cannot be used. A Redis that is down is not an error.
#[derive(Debug, thiserror::Error)]
pub enum RedisSettingsError {
    /// The URL cannot be understood. The message never contains the URL's password.
    #[error("the Redis URL cannot be used: {0}")]
    Url(String),
    /// The prefix has characters with a meaning in keys.
    #[error("the Redis prefix {0:?} may have letters, digits, `-`, `_`, `.` and `:` only")]
    Prefix(String),
}

/// The store in Redis. Clones share the connections.
#[derive(Debug, Clone)]
pub struct RedisStore {}

impl RedisStore {
    /// Starts to connect and returns as soon as it is known whether that works
    /// at once; when it does not, the store keeps trying.
    ///
    /// # Errors
    /// When the settings cannot be used, never because Redis is down.
    pub async fn connect(
        settings: RedisSettings,
        tasks: &Tasks,
    ) -> Result<Self, RedisSettingsError> {
        let _ = (settings, tasks);
        todo!()
    }
}

#[async_trait]
impl Store for RedisStore {
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
