//! `[redis]`: the store that nodes share.

use std::time::Duration;

use super::secret::Secret;

/// The store that nodes share. Section absent: the embedded store of a single node.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// `redis://`, `rediss://`, `redis-cluster://` or `redis-sentinel://`, user
    /// and password included. No default: its presence makes the section.
    pub url: Secret,
    /// What every key begins with, so that fleets can share a Redis. Default `mcp-fleet`.
    pub prefix: String,
    /// Longest wait for a connection. Default 500 ms.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to a command. Default 250 ms.
    pub command_timeout: Duration,
}

impl Redis {
    /// The defaults around an address.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url),
            prefix: "mcp-fleet".into(),
            connect_timeout: Duration::from_millis(500),
            command_timeout: Duration::from_millis(250),
        }
    }
}
