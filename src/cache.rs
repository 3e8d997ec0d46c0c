//! The shared list cache: stale-while-revalidate, one refresh per fleet.
//!
//! Two tiers (L1 in this process, L2 in the store), entries that are fresh,
//! stale or expired, one refresh at a time over the whole fleet, and writes
//! that a paused node cannot use to put old data over new. What is cached and
//! how it is fetched is the caller's business ([`crate::lists`]).
//!
//! `docs/cache.md` tells the states and races; the files follow it: `key`
//! names slots, `entry` is what a slot holds, `freshness` decides from an
//! age, `l1` is this node's copy, `serve` answers from it, `flight` and
//! `refresh` bring what is missing, `agree` keeps L1 and store in line,
//! `backoff` leaves alone what fails, `follow` hears other nodes.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, atomic::AtomicU32},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::broadcast, time::Instant};

use self::{
    backoff::Failures,
    clock::ClockGuess,
    flight::Flights,
    freshness::Freshness,
    l1::{Held, L1, Subjects},
    serve::served,
};
use crate::{
    ids::ServerId,
    lifecycle::Tasks,
    store::{Event, Store, SubjectKey},
};

mod agree;
mod backoff;
mod clock;
mod counters;
mod entry;
mod flight;
mod follow;
mod freshness;
mod key;
mod l1;
mod refresh;
mod serve;

pub use self::{
    counters::{Counter, Counters},
    key::CacheKey,
    l1::Witness,
};

/// A decoded value that lives in L1.
pub trait Cacheable: Send + Sync + Sized + 'static {
    /// Why a fetch failed; handed to everyone who waited for it.
    type FetchError: std::error::Error + Clone + Send + Sync + 'static;

    /// Reads what [`Fetched::payload`] was. An error makes the entry a miss.
    ///
    /// # Errors
    /// When the bytes are not what this version writes.
    fn decode(payload: &Bytes) -> Result<Self, String>;

    /// Bytes it occupies in L1 beside the payload, which L1 keeps too (for a
    /// store that comes back empty) and counts itself.
    fn weight(&self) -> u32;
}

/// Who may be served an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Fresh, from this node or from the store.
    Hit,
    /// Out of date, while a refresh runs or because it failed.
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
#[derive(Debug)]
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
    /// The fence of its writer: changes with every refresh.
    pub generation: u64,
    /// Of its payload: changes only when the content does.
    pub digest: u64,
}

impl<V> Clone for Served<V> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            ..*self
        }
    }
}

/// Durations of one kind of entry (the configuration's `cache.lists` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durations {
    /// May be served without further ado for this long. A `ttlMs` of the
    /// upstream replaces it, clamped to `Settings::{min_fresh, max_fresh}`.
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
    /// What the fetch brought cannot be decoded.
    #[error("the answer for {key} cannot be read: {why}")]
    Unreadable {
        /// What was asked.
        key: String,
        /// What [`Cacheable::decode`] said.
        why: String,
    },
    /// This node runs as many fetches as it may.
    #[error("too many fetches at once, {key} was not fetched")]
    Busy {
        /// What was asked.
        key: String,
    },
}

/// Fetches a value when the cache has none. Must be safe to run detached.
pub type Fetch<E> = Arc<dyn Fn() -> BoxFuture<'static, Result<Fetched, E>> + Send + Sync>;

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

/// How the cache works; what it holds for how long is in [`Durations`].
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What L1 may hold. Default 64 MiB.
    pub l1_bytes: u64,
    /// An upstream's `ttlMs` counts as at least this much. Default 1 s.
    pub min_fresh: Duration,
    /// An upstream's `ttlMs` counts as at most this much. Default 1 h.
    pub max_fresh: Duration,
    /// Nothing is kept longer, whatever `Durations::max_stale` says. Default 24 h.
    pub max_age: Duration,
    /// A node that refreshes renews its lock; one that dies blocks the refresh for this long. Default 5 s.
    pub lock_ttl: Duration,
    /// A fetch that takes longer has failed. Default 60 s.
    pub fetch_limit: Duration,
    /// Fetches and waits for another node's fetch that run at once. Default 4096.
    pub max_flights: usize,
    /// How eagerly entries are refreshed before they go stale: the β of the
    /// paper cited in `freshness.rs`; 0 turns it off. Default 1.
    pub early_refresh: f64,
    /// Wait after the first failure of a fetch; doubled with each further one. Default 100 ms.
    pub retry_first: Duration,
    /// Longest wait after a failure while there is nothing to serve. Default 1 s.
    pub retry_empty: Duration,
    /// Longest wait after a failure while there is something to serve. Default 30 s.
    pub retry_stale: Duration,
    /// A node that cannot ask the store waits up to this long before it fetches alone. Default 50 ms.
    pub alone_jitter: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            l1_bytes: 64 << 20,
            min_fresh: Duration::from_secs(1),
            max_fresh: Duration::from_secs(3600),
            max_age: Duration::from_secs(24 * 3600),
            lock_ttl: Duration::from_secs(5),
            fetch_limit: Duration::from_secs(60),
            max_flights: 4096,
            early_refresh: 1.0,
            retry_first: Duration::from_millis(100),
            retry_empty: Duration::from_secs(1),
            retry_stale: Duration::from_secs(30),
            alone_jitter: Duration::from_millis(50),
        }
    }
}

/// The cache of one kind of value.
pub struct Cache<V: Cacheable> {
    store: Arc<dyn Store>,
    settings: Settings,
    tasks: Tasks,
    counters: Arc<Counters>,
    l1: L1<V>,
    subjects: Subjects,
    flights: Arc<Flights<V>>,
    failures: Failures,
    clock: ClockGuess,
    /// Gaps in the subscription so far. What was checked before the last is not trusted.
    gap: AtomicU32,
    /// Subscribed before anything is cached; taken by `follow`.
    events: Mutex<Option<broadcast::Receiver<Event>>>,
    /// Invalidations the store has not heard of, see `follow.rs`.
    unheard: Mutex<HashSet<SubjectKey>>,
}

impl<V: Cacheable> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl<V: Cacheable> Cache<V> {
    /// An empty L1 over `store`. Refreshes run in `tasks`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: Settings, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            counters: Arc::default(),
            l1: L1::new(settings.l1_bytes),
            subjects: Subjects::new(),
            flights: Flights::new(settings.max_flights),
            failures: Failures::new(&settings),
            clock: ClockGuess::new(Instant::now()),
            gap: AtomicU32::new(0),
            events: Mutex::new(Some(store.subscribe())),
            unheard: Mutex::default(),
            store,
            settings,
            tasks,
        })
    }

    /// Serves `key` from L1, the store, or by `fetch`. Costs no store command
    /// while L1 is fresh. A caller that goes away does not cancel the fetch.
    ///
    /// # Errors
    /// When there is nothing that may be served: see [`CacheError`].
    pub async fn get(
        self: &Arc<Self>,
        key: &CacheKey,
        durations: &Durations,
        fetch: Fetch<V::FetchError>,
        deadline: Instant,
    ) -> Result<Served<V>, CacheError<V::FetchError>> {
        let served = self.look(key, durations, &fetch, deadline).await;
        let counter = match &served {
            Ok(served) => match served.status {
                CacheStatus::Hit => &self.counters.hits,
                CacheStatus::Stale => &self.counters.stale,
                CacheStatus::Miss => &self.counters.misses,
                CacheStatus::Bypass => &self.counters.bypasses,
            },
            Err(_) => &self.counters.errors,
        };
        counter.add_one();
        served
    }

    /// What L1 holds and may still be served (age below `max_stale`); no I/O.
    #[must_use]
    pub fn peek(&self, key: &CacheKey) -> Option<Served<V>> {
        Some(self.peek_held(key)?.0)
    }

    /// The same, with a witness that tells later whether looking again would
    /// find something else.
    #[must_use]
    pub fn peek_witnessed(&self, key: &CacheKey) -> Option<(Served<V>, Witness<V>)> {
        let (served, held) = self.peek_held(key)?;
        Some((served, Witness::of(&held)))
    }

    fn peek_held(&self, key: &CacheKey) -> Option<(Served<V>, Arc<Held<V>>)> {
        let now = Instant::now();
        let held = self.l1.get(&key.base().slot)?;
        let held = if held.is_marker() {
            self.l1.get(&key.own().slot)?
        } else {
            held
        };
        let status = match held.freshness(now) {
            Freshness::Fresh => CacheStatus::Hit,
            Freshness::Stale | Freshness::Expired => CacheStatus::Stale,
            Freshness::Gone => return None,
        };
        let answer = held.answer()?;
        let served = answer
            .is_for(key.principal())
            .then(|| served(&held, status))??;
        Some((served, held))
    }

    /// What this cache has done since the node started.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}
