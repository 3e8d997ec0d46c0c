//! `[cache]`: how long answers may be served, and what is kept.

use std::time::Duration;

use super::{section::Section, values};
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

const DAY: Duration = Duration::from_secs(86_400);

impl Cache {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let second = Duration::from_secs(1);
        let minute = Duration::from_secs(60);
        let up_to = |longest: Duration| values::duration(Duration::ZERO..=longest);
        let cache = Self {
            lists: durations(section.section("lists"), defaults.lists),
            templates: durations(section.section("templates"), defaults.templates),
            engines: durations(section.section("engines"), defaults.engines),
            min_fresh: section.read("min_fresh", defaults.min_fresh, up_to(DAY)),
            max_fresh: section.read("max_fresh", defaults.max_fresh, up_to(7 * DAY)),
            memory: section.read("memory", defaults.memory, values::size(1 << 20..=1 << 40)),
            early_refresh: section.read(
                "early_refresh",
                defaults.early_refresh,
                values::number(0.0..=10.0),
            ),
            fetch_timeout: section.read(
                "fetch_timeout",
                defaults.fetch_timeout,
                values::duration(second / 10..=10 * minute),
            ),
            lock_ttl: section.read(
                "lock_ttl",
                defaults.lock_ttl,
                values::duration(second / 10..=20 * minute),
            ),
            retry_min: section.read(
                "retry_min",
                defaults.retry_min,
                values::duration(second / 100..=10 * minute),
            ),
            retry_max: section.read(
                "retry_max",
                defaults.retry_max,
                values::duration(second / 100..=60 * minute),
            ),
            list_deadline: section.read(
                "list_deadline",
                defaults.list_deadline,
                values::duration(second / 10..=5 * minute),
            ),
            page_size: section.read("page_size", defaults.page_size, values::count(1..=100_000)),
        };
        cache.check(&mut section);
        section.finish();
        cache
    }

    fn check(&self, section: &mut Section<'_>) {
        if self.min_fresh > self.max_fresh {
            section.fail("min_fresh", "is longer than `max_fresh`");
        }
        if self.lock_ttl <= self.fetch_timeout {
            section.fail(
                "lock_ttl",
                "has to be longer than `fetch_timeout`, or a second node fetches while the first \
                 still does",
            );
        }
        if self.retry_min > self.retry_max {
            section.fail("retry_min", "is longer than `retry_max`");
        }
    }
}

fn durations(mut section: Section<'_>, defaults: Durations) -> Durations {
    let up_to = |longest: Duration| values::duration(Duration::ZERO..=longest);
    let durations = Durations {
        fresh: section.read("fresh", defaults.fresh, up_to(7 * DAY)),
        stale: section.read("stale", defaults.stale, up_to(7 * DAY)),
        max_stale: section.read("max_stale", defaults.max_stale, up_to(30 * DAY)),
    };
    if durations.max_stale < durations.fresh + durations.stale {
        let message = format!(
            "has to be at least `fresh` and `stale` together, {}: it is the greatest age of an answer",
            values::show_duration(durations.fresh + durations.stale)
        );
        section.fail("max_stale", message);
    }
    section.finish();
    durations
}
