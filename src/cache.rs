//! The shared list cache: stale-while-revalidate, one refresh per fleet.
//!
//! Two tiers (L1 in this process, L2 in the store), entries that are fresh,
//! stale or expired, one refresh at a time over the whole fleet, and writes
//! that a paused node cannot use to put old data over new. What is cached and
//! how it is fetched is the caller's business ([`crate::lists`]).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::ids::ServerId;

/// A decoded value that lives in L1.
pub trait Cacheable: Send + Sync + Sized + 'static {
    /// Reads what [`Fetched::payload`] was. An error makes the entry a miss.
    ///
    /// # Errors
    /// When the bytes are not what this version writes.
    fn decode(payload: &Bytes) -> Result<Self, String>;

    /// Bytes it occupies in L1, roughly.
    fn weight(&self) -> u32;
}

/// Who may be served an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Anyone; clients are told `public`.
    Public,
    /// Anyone served through the fleet's own upstream credential (an upstream
    /// that gives no hints); clients are told `private`.
    Fleet,
    /// Only the principal for whom it was fetched; clients are told `private`.
    Private,
}

/// What a fetch brought.
#[derive(Debug)]
pub struct Fetched {
    /// The value, encoded.
    pub payload: Bytes,
    /// The upstream's `ttlMs`; `None` when it gives no hint.
    pub ttl: Option<Duration>,
    /// Who may be served it.
    pub scope: Scope,
    /// False when it must not be stored (a partial list, an answer that asks for input).
    pub storable: bool,
    /// True when it has no items: believed only the second time after a non-empty one.
    pub is_empty: bool,
}

/// How an answer was come by; the value of `x-mcp-fleet-cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// Fresh.
    Hit,
    /// Stale, while a refresh runs or because it failed.
    Stale,
    /// Waited for a fetch, this node's or another's.
    Miss,
    /// Not cacheable.
    Bypass,
}

impl CacheStatus {
    /// The header's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// An answer from the cache.
#[derive(Debug, Clone)]
pub struct Served<V> {
    /// The value.
    pub value: Arc<V>,
    /// How it was come by.
    pub status: CacheStatus,
    /// What is left of its freshness; zero when stale.
    pub remaining: Duration,
    /// How long ago it was fetched.
    pub age: Duration,
    /// Who may be served it.
    pub scope: Scope,
    /// The generation (fence of its writer); changes when the content was written anew.
    pub generation: u64,
}

/// Durations of one kind of entry (the configuration's `cache.lists` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// May be served without further ado for this long. A `ttlMs` of the
    /// upstream replaces it, clamped to `min_fresh..=max_fresh`.
    pub fresh: Duration,
    /// After `fresh`: may be served for this long while a refresh runs.
    pub stale: Duration,
    /// May never be served at a greater age, whatever fails.
    pub max_stale: Duration,
}

/// Why there is no answer. `E` is the fetch's own error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError<E: std::error::Error + 'static> {
    /// The fetch failed and there is nothing to fall back on.
    #[error(transparent)]
    Fetch(E),
    /// Nobody, this node or another, brought an answer before the deadline.
    #[error("no answer for {key} within the deadline")]
    TimedOut {
        /// What was asked.
        key: String,
    },
}

/// Fetches a value when the cache has none. Must be safe to run detached.
pub type Fetch<E> = Arc<dyn Fn() -> BoxFuture<'static, Result<Fetched, E>> + Send + Sync>;

// Public API that the rest of the crate is written against (bodies live in cache.rs/refresh.rs):
//
// pub struct Cache<V: Cacheable> { .. }
// impl<V: Cacheable> Cache<V> {
//     pub fn new(store: Arc<dyn Store>, settings: Settings, metrics: ..) -> Arc<Self>;
//     /// Runs the task that applies published generations and gaps to L1, until `stop`.
//     pub async fn follow(self: Arc<Self>, stop: CancellationToken);
//     pub async fn get<E>(self: &Arc<Self>, key: &CacheKey, durations: &Durations, fetch: Fetch<E>, deadline: Instant)
//         -> Result<Served<V>, CacheError<E>>;
//     /// What L1 holds and may still be served (age below max_stale); no I/O.
//     pub fn peek(&self, key: &CacheKey) -> Option<Served<V>>;
//     /// Marks every entry of that server and kind out of date, on all nodes.
//     pub async fn invalidate(&self, subject: &Subject);
// }

/// What a notification makes out of date.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The server whose entries are meant.
    pub server: ServerId,
    /// The method of the entries, e.g. `tools/list`.
    pub method: &'static str,
    /// For `resources/read`: the resource; `None`: all.
    pub uri: Option<String>,
}
