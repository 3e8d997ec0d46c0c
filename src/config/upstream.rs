//! `[upstream]`: connections and sessions toward servers.

use std::time::Duration;

/// Connections and sessions toward servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Longest wait for a connection. Default 2 s.
    pub connect_timeout: Duration,
    /// An unused connection is closed after this long. Default 90 s.
    pub connection_idle: Duration,
    /// Unused connections kept per replica. Default 256.
    pub idle_connections: usize,
    /// Longest wait for a replica to tell its protocol version. Default 5 s.
    pub probe_timeout: Duration,
    /// How long the answer is believed. Default 10 min.
    pub version_ttl: Duration,
    /// Pooled sessions per legacy replica and set of client capabilities. Default 4.
    pub sessions: usize,
    /// An unused pooled session is deleted after this long. Default 5 min.
    pub session_idle: Duration,
    /// Further replicas tried for one call that is safe to repeat. Default 2.
    pub retries: u32,
    /// Retries as a share of calls, so that trouble does not multiply itself. Default 0.2.
    pub retry_budget: f64,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            connection_idle: Duration::from_secs(90),
            idle_connections: 256,
            probe_timeout: Duration::from_secs(5),
            version_ttl: Duration::from_secs(600),
            sessions: 4,
            session_idle: Duration::from_secs(300),
            retries: 2,
            retry_budget: 0.2,
        }
    }
}
