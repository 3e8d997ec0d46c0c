//! What a cache counts; metrics export it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the node started. Read with [`Counter::get`].
#[derive(Debug, Default)]
pub struct Counters {
    /// Served fresh.
    pub hits: Counter,
    /// Served out of date.
    pub stale: Counter,
    /// Served after a wait for a fetch.
    pub misses: Counter,
    /// Served something that must not be cached.
    pub bypasses: Counter,
    /// Ended without anything to serve.
    pub errors: Counter,
    /// Fetches begun by this node.
    pub fetches: Counter,
    /// Refreshes that brought a new entry.
    pub refreshed: Counter,
    /// Refreshes that failed: the fetch did, or its answer could not be stored.
    pub refresh_failed: Counter,
    /// Refreshes left to the node that holds the lock.
    pub refresh_held: Counter,
    /// Fetches without a lock, because the store could not be asked.
    pub fetched_alone: Counter,
    /// Writes the store refused because it had something newer.
    pub writes_refused: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
