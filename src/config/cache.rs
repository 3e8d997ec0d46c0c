//! `[cache]`: how long answers may be served, and what is kept.

use std::time::Duration;

use crate::cache::Durations;

/// How long answers may be served, and what is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Lists, discovery and readable resources. Default fresh 5 min, stale 10 min, `max_stale` 1 h.
    pub lists: Durations,
    /// The template catalogue. Default fresh 1 h, stale 6 h, `max_stale` 24 h.
    pub templates: Durations,
    /// Availability of engines. Default fresh 60 s, stale 60 s, `max_stale` 10 min.
    pub engines: Durations,
    /// Shortest freshness taken from an upstream's `ttlMs`. Default 0.
    pub min_fresh: Duration,
    /// Longest freshness taken from an upstream's `ttlMs`. Default 1 h.
    pub max_fresh: Duration,
    /// Bytes of answers kept in this process. Default 64 MiB.
    pub memory: u64,
    /// Strength of refreshing before an entry goes stale; 0 switches it off. Default 1.
    pub early_refresh: f64,
    /// Longest one fetch of a whole list (all pages) may take. Default 10 s.
    pub fetch_timeout: Duration,
    /// How long one node may hold the right to refresh an entry; more than
    /// `fetch_timeout`. Default 15 s.
    pub lock_ttl: Duration,
    /// First pause after a failed refresh; it doubles up to `retry_max`. Default 1 s.
    pub retry_min: Duration,
    /// Longest pause between failed refreshes. Default 1 min.
    pub retry_max: Duration,
    /// How long a merged list waits for a server that has no cached answer. Default 5 s.
    pub list_deadline: Duration,
    /// Items per page of a list sent to clients. Default 1000.
    pub page_size: usize,
}

impl Default for Cache {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        Self {
            lists: Durations {
                fresh: minutes(5),
                stale: minutes(10),
                max_stale: minutes(60),
            },
            templates: Durations {
                fresh: minutes(60),
                stale: minutes(6 * 60),
                max_stale: minutes(24 * 60),
            },
            engines: Durations {
                fresh: minutes(1),
                stale: minutes(1),
                max_stale: minutes(10),
            },
            min_fresh: Duration::ZERO,
            max_fresh: minutes(60),
            memory: 64 << 20,
            early_refresh: 1.0,
            fetch_timeout: Duration::from_secs(10),
            lock_ttl: Duration::from_secs(15),
            retry_min: Duration::from_secs(1),
            retry_max: minutes(1),
            list_deadline: Duration::from_secs(5),
            page_size: 1000,
        }
    }
}
