//! The shared state of the fleet: one interface, two implementations.
//!
//! [`memory`] serves a single node and dies with it; [`redis`] is shared by
//! all nodes. One contract test-suite runs against both (`tests/it/store.rs`).
//! Facts go through the store, traffic does not: nothing here is on the path
//! of a tool call.
//!
//! Every call is bounded in time. [`StoreError::Unreachable`] means that the
//! answer is unknown: a write may or may not have happened, which is why every
//! write is idempotent or fenced.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast;

use crate::ids::{ReplicaId, ServerId, hex};

pub mod leases;
pub mod memory;
pub mod permits;
pub mod rates;
pub mod redis;
pub mod registry;
pub mod rosters;
mod wake;

use leases::Leases;
use permits::Permits;
use rates::Rates;
use registry::Registry;
use rosters::Rosters;

/// Milliseconds on the store's clock, which all nodes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StoreTime(pub u64);

/// A number that grows with each grant of a lock and each invalidation, and
/// travels with each write.
///
/// It is the store's clock in microseconds, pushed forward where two grants
/// would share one: a counter that is lost (a store restarted empty, an
/// evicted key) therefore goes on above every fence given before, and a write
/// that had to be made without the store can be put in its place afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence(pub u64);

impl Fence {
    /// The fence that would have been given `age` before the store's clock
    /// showed `time`.
    #[must_use]
    pub fn at(time: StoreTime, age: Duration) -> Self {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        Self(time.0.saturating_mul(1000).saturating_sub(age))
    }
}

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

/// Commands without a usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// Without any: [`StoreError::Unreachable`]. Those that an open circuit
    /// kept from being sent are not among them.
    pub unreachable: u64,
    /// Answered with an error: [`StoreError::Refused`].
    pub refused: u64,
}

/// Half a SHA-256: names things whose full name is long or secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortDigest([u8; 16]);

impl ShortDigest {
    /// The digest of `parts`, each preceded by its length so that no two lists
    /// of parts run together.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize()[..16]);
        Self(short)
    }

    /// Reads what [`Display`](fmt::Display) wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for ShortDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ShortDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
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
        server: ServerId,
    },
    /// The session that was opened over an HTTP+SSE stream; the stream.
    Stream(Arc<str>),
    /// What was found out about a replica's health. Fenced.
    Health(ReplicaId),
    /// What runs of a deployment. Fenced.
    Deployment(ServerId),
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

/// What is made out of date in one step: all entries of a method of a server,
/// or those of one part of it (one resource).
///
/// The entries of a server and method share one sequence of fences, so that a
/// fence given to a writer can be compared with that of an invalidation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubjectKey {
    /// The server.
    pub server: ServerId,
    /// The method, e.g. `tools/list`.
    pub method: &'static str,
    /// A part of it, e.g. the digest of a resource's URI; `None`: all.
    pub part: Option<ShortDigest>,
}

impl SubjectKey {
    /// The subject's name in [`Event::Invalidated`].
    #[must_use]
    pub fn digest(&self) -> ShortDigest {
        let part = self.part.map(|part| part.to_string()).unwrap_or_default();
        ShortDigest::of(&[
            self.server.as_str().as_bytes(),
            self.method.as_bytes(),
            part.as_bytes(),
        ])
    }

    /// The subject that includes this one, if this one is a part.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self {
            part: None,
            ..self.clone()
        }
    }
}

/// A slot of the shared cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryKey {
    /// What invalidates it (its part, and the whole that the part belongs to).
    pub subject: SubjectKey,
    /// The slot's own name: a digest of everything that was asked.
    pub slot: ShortDigest,
}

/// A published message.
#[derive(Debug, Clone)]
pub enum Event {
    /// A cache entry was written.
    Written {
        /// Where.
        slot: ShortDigest,
        /// Its generation.
        generation: Fence,
    },
    /// A refresh lock was given back without a write.
    Released {
        /// Whose.
        slot: ShortDigest,
    },
    /// Entries written with a fence below `epoch` are out of date.
    Invalidated {
        /// [`SubjectKey::digest`] of what was invalidated.
        subject: ShortDigest,
        /// The fence of the invalidation.
        epoch: Fence,
    },
    /// Somebody published `payload` on `channel`.
    Message {
        /// Where.
        channel: Channel,
        /// What.
        payload: Bytes,
    },
    /// Messages may have been lost (a reconnect, a slow reader), or the store
    /// is back after it could not be reached: what was learned from messages
    /// has to be checked again, what was done without the store made up for.
    Gap,
}

/// The subjects nodes tell each other about with [`Store::publish`]. (What
/// happens in the cache is published by the store itself.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// What happens in the fleet: changes of servers, cancelled calls, ended sessions.
    Fleet,
    /// Health of replicas: what [`RecordKey::Health`] was set to.
    Health,
    /// What runs: what [`RecordKey::Deployment`] was set to.
    Deployments,
}

/// What became of a request for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOutcome {
    /// The caller holds it until its time to live ends, counted from before the request was sent.
    Acquired(Fence),
    /// Another holds it, for at most this long.
    Held(Duration),
}

/// What a look at a slot found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The store's clock when it looked.
    pub read_at: StoreTime,
    /// The fence of the latest invalidation of the slot's subject; zero: none known.
    pub epoch: Fence,
    /// What is in the slot.
    pub found: Found,
}

/// The content of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The generation the caller already has.
    Known,
    /// Another entry than the caller has.
    Entry(StoredEntry),
}

/// A cache entry as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The fence of the writer.
    pub generation: Fence,
    /// When its content was fetched, on the store's clock.
    pub fetched_at: StoreTime,
    /// The payload, in the cache's own format.
    pub payload: Bytes,
}

/// The place of a write in the order of writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rank {
    /// Fetched under the lock. The write gives the lock back if `token` still holds it.
    Locked {
        /// The lock's fence.
        fence: Fence,
        /// The lock's token.
        token: Arc<str>,
    },
    /// Fetched while the store could not be asked.
    Alone {
        /// [`Fence::at`] when the fetch began, by a later look at the store's
        /// clock. (Not by its clock when the write arrives: an invalidation that
        /// overtakes the write would seem to be older than the fetch.)
        fence: Fence,
    },
}

/// A cache entry to be written.
#[derive(Debug, Clone)]
pub struct EntryWrite {
    /// Its place in the order.
    pub rank: Rank,
    /// Time since its content was received.
    pub age: Duration,
    /// How much longer the store keeps it.
    pub ttl: Duration,
    /// The payload, in the cache's own format.
    pub payload: Bytes,
}

/// What became of a fenced write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is stored.
    Written {
        /// Its generation.
        generation: Fence,
        /// The fence of the latest invalidation; above `generation` the entry
        /// was out of date before it was written.
        epoch: Fence,
    },
    /// A newer generation was there; nothing changed.
    Refused {
        /// The generation in the store.
        newer: Fence,
    },
}

/// A position in a stream; entries are read after one. `0` is the beginning.
/// Positions of a stream are consecutive: a step of more than one tells that
/// entries were dropped.
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
        if let Ok(Err(_)) = tokio::time::timeout(fallback, self.appended.changed()).await {
            tokio::time::sleep(fallback).await;
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
///
/// # Errors
/// Every method answers [`StoreError::Unreachable`] within the command
/// time-out when the store does not answer, and [`StoreError::Refused`] when
/// it answers with an error.
#[async_trait]
pub trait Store:
    Leases + Rosters + Permits + Registry + Rates + Send + Sync + fmt::Debug + 'static
{
    /// For people: `embedded`, or the Redis address without its password.
    fn description(&self) -> String;

    /// Whether the last commands were answered. Cheap: no I/O.
    fn is_reachable(&self) -> bool;

    /// Commands without a usable answer, since the node started.
    fn failures(&self) -> Failures {
        Failures::default()
    }

    /// Looks at a slot; the payload travels only when the generation is not `known`.
    async fn entry(&self, key: &EntryKey, known: Option<Fence>) -> Result<Lookup, StoreError>;

    /// Writes a cache entry unless a newer generation is stored, gives the
    /// writer's lock back, and publishes [`Event::Written`].
    async fn write_entry(
        &self,
        key: &EntryKey,
        write: EntryWrite,
    ) -> Result<WriteOutcome, StoreError>;

    /// Marks the entries of `subject` as out of date, also those of writers
    /// whose fence was given before now, and publishes [`Event::Invalidated`].
    /// The mark has to outlive (`keep`) every entry it is about.
    async fn invalidate(&self, subject: &SubjectKey, keep: Duration) -> Result<Fence, StoreError>;

    /// Tries to take the lock that guards the refresh of `key`.
    async fn lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<LockOutcome, StoreError>;

    /// Sets the lock's remaining time to live if `token` still holds it;
    /// `false` when it does not.
    async fn extend_lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError>;

    /// Gives the lock back if `token` still holds it, and publishes
    /// [`Event::Released`]; `false` when it does not.
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

    /// Creates an empty stream, so that [`append`](Self::append) finds it. One
    /// that exists is kept and lives on for `bounds.ttl`.
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

    /// Removes a stream and wakes its readers.
    async fn close_stream(&self, key: &StreamKey) -> Result<(), StoreError>;

    /// Tells all subscribers, this node's included.
    async fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), StoreError>;

    /// What is published from now on. A reader that lags sees
    /// `RecvError::Lagged`, which it treats as [`Event::Gap`].
    fn subscribe(&self) -> broadcast::Receiver<Event>;
}
