//! `[cluster]`: how nodes share work.

use std::time::Duration;

use super::{section::Section, values};

/// How nodes share work.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// What a node does for all is free for another when it has not been heard
    /// of for this long. Default 6 s.
    pub lease_ttl: Duration,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            lease_ttl: Duration::from_secs(6),
        }
    }
}

impl Cluster {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let within = values::duration(Duration::from_millis(300)..=Duration::from_secs(300));
        let cluster = Self {
            lease_ttl: section.read("lease_ttl", defaults.lease_ttl, within),
        };
        section.finish();
        cluster
    }
}
