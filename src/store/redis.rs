//! The store that nodes share: Redis 7 (or a compatible server), alone, behind
//! Sentinel or as a Cluster. The only code that imports fred.
//!
//! `keys` names everything that is in Redis, `scripts` change it in one step,
//! `client` bounds every command in time behind a `circuit`, `subscriber` hears
//! other nodes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use fred::{
    interfaces::{EventInterface, KeysInterface, PubsubInterface},
    types::{Expiration, SetOptions, Value},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};

use super::{
    Channel, EntryKey, EntryWrite, Event, Failures, Fence, Found, LockOutcome, Lookup, Position,
    Rank, RecordKey, Store, StoreError, StoreTime, StoredEntry, StreamBounds, StreamKey,
    StreamWatch, SubjectKey, WriteOutcome, wake::Wakers,
};
use crate::certificates::CertificatesError;
use crate::lifecycle::Tasks;
use client::Connections;
use keys::{Key, Keys, Topic};
use subscriber::{Subscribe, Subscriber};

/// The arguments of a script, of several types.
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        vec![$(fred::types::Value::from($value)),*]
    };
}

mod advice;
mod check;
mod circuit;
mod client;
mod config;
pub mod examine;
mod keys;
mod leases;
mod permits;
mod rates;
mod registry;
mod rosters;
mod scripts;
mod subscriber;

/// Events a subscriber may fall behind before it lags.
const EVENT_CAPACITY: usize = 4096;

/// Watches that may wait to be subscribed; the next ones rely on polling.
const SUBSCRIBE_QUEUE: usize = 1024;

/// How the fleet's Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://`, `redis-cluster://` or `redis-sentinel://`, with
    /// password or ACL user in the usual place.
    pub url: String,
    /// What every key begins with: letters, digits, `-`, `_`, `.` and `:`.
    pub prefix: String,
    /// Certificates (PEM) to trust for `rediss://` beside the system's.
    pub ca_file: Option<PathBuf>,
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
            ca_file: None,
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
    /// The certificates in `ca_file` cannot be used.
    #[error("redis.ca_file: {0}")]
    Certificates(#[from] CertificatesError),
    /// The prefix has characters with a meaning in keys.
    #[error("the Redis prefix {0:?} may have letters, digits, `-`, `_`, `.` and `:` only")]
    Prefix(String),
}

/// The store in Redis. Clones share the connections.
#[derive(Debug, Clone)]
pub struct RedisStore {
    connections: Arc<Connections>,
    keys: Arc<Keys>,
    description: Arc<str>,
    events: broadcast::Sender<Event>,
    wakers: Arc<Wakers<String>>,
    subscribe: mpsc::Sender<Subscribe>,
}

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
        let Some(keys) = Keys::new(&settings.prefix) else {
            return Err(RedisSettingsError::Prefix(settings.prefix));
        };
        let connections = Arc::new(Connections::new(&settings)?);
        let events = broadcast::Sender::new(EVENT_CAPACITY);
        let wakers = Arc::new(Wakers::new());
        let (subscribe, requests) = mpsc::channel(SUBSCRIBE_QUEUE);
        let subscriber = Subscriber::new(
            Arc::clone(&connections),
            &keys,
            Arc::clone(&wakers),
            events.clone(),
            requests,
        );
        let connected = connections.subscriber.reconnect_rx();
        let messages = connections.subscriber.message_rx();
        let stop = tasks.closing().clone();
        tasks.spawn_beneath(
            "redis subscriber",
            subscriber.run(connected, messages, stop),
        );
        connections.start(tasks, events.clone()).await;
        Ok(Self {
            connections,
            keys: Arc::new(keys),
            description: config::describe(&settings.url).into(),
            events,
            wakers,
            subscribe,
        })
    }

    fn cache_topic(&self) -> String {
        self.keys.topic(Topic::Cache)
    }
}

#[async_trait]
impl Store for RedisStore {
    fn description(&self) -> String {
        self.description.to_string()
    }

    fn is_reachable(&self) -> bool {
        self.connections.is_reachable()
    }

    fn failures(&self) -> Failures {
        self.connections.failures()
    }

    async fn entry(&self, key: &EntryKey, known: Option<Fence>) -> Result<Lookup, StoreError> {
        let keys = vec![
            self.keys.key(Key::Entry(key)),
            self.keys.key(Key::Epoch(&key.subject.whole())),
            self.keys.key(Key::Epoch(&key.subject)),
        ];
        let known = known.map(|fence| fence.0.to_string()).unwrap_or_default();
        let reply = self
            .connections
            .script(&scripts::ENTRY_READ, keys, args![known])
            .await?;
        let mut reply = Reply::new(reply)?;
        let read_at = StoreTime(reply.number()?);
        let epoch = Fence(reply.number()?);
        let found = match reply.number()? {
            0 => Found::Nothing,
            1 => Found::Known,
            _ => Found::Entry(StoredEntry {
                generation: Fence(reply.number()?),
                fetched_at: StoreTime(reply.number()?),
                payload: reply.bytes()?,
            }),
        };
        Ok(Lookup {
            read_at,
            epoch,
            found,
        })
    }

    async fn write_entry(
        &self,
        key: &EntryKey,
        write: EntryWrite,
    ) -> Result<WriteOutcome, StoreError> {
        let keys = vec![
            self.keys.key(Key::Entry(key)),
            self.keys.key(Key::Lock(key)),
            self.keys.key(Key::Epoch(&key.subject.whole())),
            self.keys.key(Key::Epoch(&key.subject)),
        ];
        let (fence, is_alone, token) = match &write.rank {
            Rank::Locked { fence, token } => (fence.0, 0, token.as_ref()),
            Rank::Alone { fence } => (fence.0, 1, ""),
        };
        let args = args![
            number(fence),
            is_alone,
            token,
            millis(write.age),
            millis(write.ttl).max(1),
            write.payload,
            self.cache_topic(),
            key.slot.to_string(),
        ];
        let reply = self
            .connections
            .script(&scripts::ENTRY_WRITE, keys, args)
            .await?;
        let mut reply = Reply::new(reply)?;
        Ok(match reply.number()? {
            0 => WriteOutcome::Refused {
                newer: Fence(reply.number()?),
            },
            _ => WriteOutcome::Written {
                generation: Fence(reply.number()?),
                epoch: Fence(reply.number()?),
            },
        })
    }

    async fn invalidate(&self, subject: &SubjectKey, keep: Duration) -> Result<Fence, StoreError> {
        let keys = vec![
            self.keys.key(Key::Fence(subject)),
            self.keys.key(Key::Epoch(subject)),
        ];
        let args = args![
            number(scripts::FENCE_TTL_MS),
            millis(keep).max(1),
            self.cache_topic(),
            subject.digest().to_string(),
        ];
        let reply = self
            .connections
            .script(&scripts::INVALIDATE, keys, args)
            .await?;
        Ok(Fence(unsigned(&reply)?))
    }

    async fn lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<LockOutcome, StoreError> {
        let keys = vec![
            self.keys.key(Key::Lock(key)),
            self.keys.key(Key::Fence(&key.subject)),
        ];
        let args = args![token, millis(ttl).max(1), number(scripts::FENCE_TTL_MS)];
        let reply = self.connections.script(&scripts::LOCK, keys, args).await?;
        let mut reply = Reply::new(reply)?;
        Ok(match reply.number()? {
            0 => LockOutcome::Held(Duration::from_millis(reply.number()?)),
            _ => LockOutcome::Acquired(Fence(reply.number()?)),
        })
    }

    async fn extend_lock(
        &self,
        key: &EntryKey,
        token: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let keys = vec![self.keys.key(Key::Lock(key))];
        let args = args![token, millis(ttl).max(1)];
        let reply = self
            .connections
            .script(&scripts::LOCK_EXTEND, keys, args)
            .await?;
        Ok(unsigned(&reply)? == 1)
    }

    async fn unlock(&self, key: &EntryKey, token: &str) -> Result<bool, StoreError> {
        let keys = vec![self.keys.key(Key::Lock(key))];
        let args = args![token, self.cache_topic(), key.slot.to_string()];
        let reply = self
            .connections
            .script(&scripts::LOCK_RELEASE, keys, args)
            .await?;
        Ok(unsigned(&reply)? == 1)
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        let key = self.keys.key(Key::Record(key));
        self.connections
            .run(async |client| client.get(key).await)
            .await
    }

    async fn put(
        &self,
        key: &RecordKey,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), StoreError> {
        let key = self.keys.key(Key::Record(key));
        self.connections
            .run(async |client| client.set(key, value, expiration(ttl), None, false).await)
            .await
    }

    async fn put_if_absent(
        &self,
        key: &RecordKey,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Bytes, StoreError> {
        let key = self.keys.key(Key::Record(key));
        let ours = value.clone();
        let stored: Option<Bytes> = self
            .connections
            .run(async |client| {
                let unless = Some(SetOptions::NX);
                client.set(key, value, expiration(ttl), unless, true).await
            })
            .await?;
        Ok(stored.unwrap_or(ours))
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        let key = self.keys.key(Key::Record(key));
        self.connections
            .run(async |client| client.getdel(key).await)
            .await
    }

    async fn delete(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let key = self.keys.key(Key::Record(key));
        let removed: u64 = self
            .connections
            .run(async |client| client.del(key).await)
            .await?;
        Ok(removed > 0)
    }

    async fn open_stream(&self, key: &StreamKey, bounds: StreamBounds) -> Result<(), StoreError> {
        let keys = vec![self.keys.key(Key::Stream(key))];
        let args = args![millis(bounds.ttl).max(1)];
        self.connections
            .script(&scripts::STREAM_OPEN, keys, args)
            .await?;
        Ok(())
    }

    async fn append(
        &self,
        key: &StreamKey,
        payload: Bytes,
        bounds: StreamBounds,
    ) -> Result<Option<Position>, StoreError> {
        let keys = vec![self.keys.key(Key::Stream(key))];
        let args = args![
            payload,
            i64::from(bounds.max_entries),
            millis(bounds.ttl).max(1),
            self.keys.topic(Topic::Wake(key)),
        ];
        let reply = self
            .connections
            .script(&scripts::STREAM_APPEND, keys, args)
            .await?;
        let position = unsigned(&reply)?;
        Ok((position > 0).then_some(Position(position)))
    }

    async fn read(
        &self,
        key: &StreamKey,
        after: Position,
        limit: u32,
    ) -> Result<Option<Vec<(Position, Bytes)>>, StoreError> {
        let keys = vec![self.keys.key(Key::Stream(key))];
        let args = args![number(after.0), i64::from(limit)];
        let reply = self
            .connections
            .script(&scripts::STREAM_READ, keys, args)
            .await?;
        let mut reply = Reply::new(reply)?;
        if reply.number()? == 0 {
            return Ok(None);
        }
        let mut entries = Vec::new();
        while !reply.is_empty() {
            entries.push((Position(reply.number()?), reply.bytes()?));
        }
        Ok(Some(entries))
    }

    async fn watch_stream(&self, key: &StreamKey) -> StreamWatch {
        let topic = self.keys.topic(Topic::Wake(key));
        // Watched before subscribed: the subscriber gives up what nobody watches.
        let watch = self.wakers.watch(&topic);
        let (done, subscribed) = oneshot::channel();
        // Without the subscription the watch still wakes once a second.
        if self.is_reachable() && self.subscribe.try_send(Subscribe { topic, done }).is_ok() {
            timeout(self.connections.command_timeout(), subscribed)
                .await
                .ok();
        }
        watch
    }

    async fn close_stream(&self, key: &StreamKey) -> Result<(), StoreError> {
        let keys = vec![self.keys.key(Key::Stream(key))];
        let args = args![self.keys.topic(Topic::Wake(key))];
        self.connections
            .script(&scripts::STREAM_CLOSE, keys, args)
            .await?;
        Ok(())
    }

    async fn publish(&self, channel: Channel, payload: Bytes) -> Result<(), StoreError> {
        let topic = self.keys.topic(Topic::Of(channel));
        self.connections
            .run(async |client| client.publish(topic, payload).await)
            .await
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

fn expiration(ttl: Option<Duration>) -> Option<Expiration> {
    ttl.map(|ttl| Expiration::PX(millis(ttl).max(1)))
}

/// Redis counts in signed 64 bits.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn unsigned(value: &Value) -> Result<u64, StoreError> {
    // A lock without a time to live answers PTTL -1; nobody writes one.
    let signed = value.as_i64().ok_or_else(unexpected)?;
    Ok(u64::try_from(signed).unwrap_or(0))
}

fn unexpected() -> StoreError {
    StoreError::Refused("a script answered with something unexpected".to_owned())
}

/// The array a script returned, read from the front. (fred's own conversions
/// turn an empty array into nothing.)
struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    fn new(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(unexpected()),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        unsigned(&self.0.next().ok_or_else(unexpected)?)
    }

    fn bytes(&mut self) -> Result<Bytes, StoreError> {
        let value = self.0.next().ok_or_else(unexpected)?;
        value.into_bytes().ok_or_else(unexpected)
    }

    fn text(&mut self) -> Result<String, StoreError> {
        let value = self.0.next().ok_or_else(unexpected)?;
        value.into_string().ok_or_else(unexpected)
    }
}
