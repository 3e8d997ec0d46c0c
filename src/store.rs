//! The shared state of the fleet: one interface, two implementations.
//!
//! `memory` serves a single node and dies with it; `redis` is shared by all
//! nodes. One contract test-suite runs against both (`tests/it/store.rs`).
//! Facts go through the store, traffic does not: nothing here is on the path
//! of a tool call.
//!
//! Every call is bounded in time. [`StoreError::Unreachable`] means that the
//! answer is unknown: a write may or may not have happened.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::broadcast;

/// Milliseconds on the store's clock, which all nodes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTime(pub u64);

/// A number that grows with each grant of a lock and travels with each write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence(pub u64);

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No answer in time, no connection, or the circuit is open. Unknown outcome.
    #[error("the store is unreachable: {0}")]
    Unreachable(String),
    /// The store answered with an error: a script failed, a key has another type, memory is full.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// What a record is about; `redis::keys` alone turns it into a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RecordKey {
    /// The key material that seals tokens, shared by all nodes. Lives for ever.
    Secret,
    /// What changes of a client session; the session's digest.
    Session(Arc<str>),
    /// That a client session was ended; the session's digest.
    Revoked(Arc<str>),
    /// The upstream session of a client session at a server.
    UpstreamSession {
        /// The client session's digest.
        session: Arc<str>,
        /// The server.
        server: crate::ids::ServerId,
    },
    /// A call that waits for its client's answers; the call's id.
    Parked(Arc<str>),
}

/// What a stream carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StreamKey {
    /// Outgoing events of one stream of a client session, for resuming.
    Events {
        /// The client session's digest.
        session: Arc<str>,
        /// The stream within the session.
        stream: Arc<str>,
    },
    /// Messages for whoever holds the call or stream of that id.
    Mailbox(Arc<str>),
}

/// A slot of the shared cache; the text is a digest of what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey(pub Arc<str>);

/// A published message.
#[derive(Debug, Clone)]
pub enum Event {
    /// Somebody published `payload` on `channel`.
    Message {
        /// Where.
        channel: Channel,
        /// What.
        payload: Bytes,
    },
    /// Messages may have been lost (a reconnect, a slow reader): what was
    /// learned from messages has to be checked again.
    Gap,
}

/// The subjects nodes tell each other about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// New generations of cache entries.
    Cache,
    /// What happens in the fleet: changes of servers, cancelled calls, ended sessions.
    Fleet,
}

/// What became of a request for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOutcome {
    /// The caller holds it until its time to live ends, counted from before the request was sent.
    Acquired(Fence),
    /// Another holds it, for at most this long.
    Held(Duration),
}

/// A cache entry as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The fence of the writer.
    pub generation: Fence,
    /// When it was written.
    pub written: StoreTime,
    /// The store's clock when the entry was read.
    pub read_at: StoreTime,
    /// True when an invalidation came after the writer's fence was given.
    pub invalidated: bool,
    /// The payload, in the cache's own format.
    pub payload: Bytes,
}

/// What became of a fenced write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is stored.
    Written,
    /// A newer generation was there; nothing changed.
    Refused {
        /// The generation in the store.
        newer: Fence,
    },
}

/// A position in a stream; entries are read after one. `0` is the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// Tells when a stream may have grown.
#[derive(Debug)]
pub struct StreamWatch {
    /// Changes with every append this node learns of.
    pub appended: tokio::sync::watch::Receiver<u64>,
}

impl StreamWatch {
    /// Completes when something may have been appended since the watch was
    /// taken or last waited on, at the latest after a second (a wake-up can be
    /// lost with its connection). Cancel safe.
    pub async fn changed(&mut self) {
        let fallback = Duration::from_secs(1);
        // The sender may be gone with its connection: then only the time-out is left.
        match tokio::time::timeout(fallback, self.appended.changed()).await {
            Ok(Err(_)) => tokio::time::sleep(fallback).await,
            Ok(Ok(())) | Err(_) => {}
        }
    }
}

/// How long a stream lives and how long it may grow.
#[derive(Debug, Clone, Copy)]
pub struct StreamBounds {
    /// Entries kept; older ones are dropped.
    pub max_entries: u32,
    /// Time to live after the last append.
    pub ttl: Duration,
}

/// The shared state.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// For people: `embedded`, or the Redis address without its password.
    fn description(&self) -> String;

    /// Whether the last commands were answered. Cheap: no I/O.
    fn is_reachable(&self) -> bool;

    /// Reads a cache entry with the state of its freshness.
    async fn entry(&self, key: &EntryKey) -> Result<Option<StoredEntry>, StoreError>;

    /// Writes a cache entry unless a newer generation is stored, and publishes
    /// `{key, generation}` on [`Channel::Cache`].
    async fn write_entry(
        &self,
        key: &EntryKey,
        fence: Fence,
        payload: Bytes,
        ttl: Duration,
    ) -> Result<WriteOutcome, StoreError>;

    /// Marks the entry as out of date, also against writers whose fence was
    /// given before now, and publishes that on [`Channel::Cache`].
    async fn invalidate_entry(&self, key: &EntryKey) -> Result<(), StoreError>;

    /// Tries to take the lock that guards the refresh of `key`.
    async fn lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<LockOutcome, StoreError>;

    /// Gives the lock back if `token` still holds it; `false` when it does not.
    async fn unlock(&self, key: &EntryKey, token: &str) -> Result<bool, StoreError>;

    /// Reads a record.
    async fn get(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError>;

    /// Writes a record. `None` as `ttl`: for ever (only [`RecordKey::Secret`]).
    async fn put(
        &self,
        key: &RecordKey,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError>;

    /// Writes a record unless there is one; answers what is stored afterwards.
    async fn put_if_absent(
        &self,
        key: &RecordKey,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Bytes, StoreError>;

    /// Reads and removes a record in one step: of many callers one gets it.
    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError>;

    /// Removes a record; `false` when there was none.
    async fn delete(&self, key: &RecordKey) -> Result<bool, StoreError>;

    /// Creates an empty stream, so that [`append`](Self::append) finds it.
    async fn open_stream(&self, key: &StreamKey, bounds: StreamBounds) -> Result<(), StoreError>;

    /// Appends to an open stream and wakes its readers; `None` when there is no such stream.
    async fn append(
        &self,
        key: &StreamKey,
        payload: Bytes,
        bounds: StreamBounds,
    ) -> Result<Option<Position>, StoreError>;

    /// Entries after `after`, at most `limit`; `None` when there is no such stream.
    async fn read(
        &self,
        key: &StreamKey,
        after: Position,
        limit: u32,
    ) -> Result<Option<Vec<(Position, Bytes)>>, StoreError>;

    /// Watches a stream. Take the watch first, then read, then wait for
    /// [`StreamWatch::changed`], and nothing is missed.
    async fn watch_stream(&self, key: &StreamKey) -> StreamWatch;

    /// Removes a stream.
    async fn close_stream(&self, key: &StreamKey) -> Result<(), StoreError>;

    /// Tells all subscribers, this node's included.
    async fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), StoreError>;

    /// What is published from now on. A reader that lags sees
    /// `RecvError::Lagged`, which it treats as [`Event::Gap`].
    fn subscribe(&self) -> broadcast::Receiver<Event>;
}
