//! `[upstream]`: connections and sessions toward servers.

use std::{path::PathBuf, time::Duration};

use super::{section::Section, values};

/// Connections and sessions toward servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Certificates (PEM) trusted beside those of the public authorities. Default: none.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for a connection. Default 2 s.
    pub connect_timeout: Duration,
    /// An unused connection is closed after this long. Default 90 s.
    pub connection_idle: Duration,
    /// Unused connections kept per replica. Default 1024.
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
            ca_file: None,
            connect_timeout: Duration::from_secs(2),
            connection_idle: Duration::from_secs(90),
            idle_connections: 1024,
            probe_timeout: Duration::from_secs(5),
            version_ttl: Duration::from_secs(600),
            sessions: 4,
            session_idle: Duration::from_secs(300),
            retries: 2,
            retry_budget: 0.2,
        }
    }
}

impl Upstream {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let millis = Duration::from_millis;
        let within = || values::duration(millis(10)..=millis(86_400_000));
        let upstream = Self {
            ca_file: section.optional("ca_file", |located| {
                let path = values::some_text(located)?;
                Ok(located.place.resolve(&path))
            }),
            connect_timeout: section.read("connect_timeout", defaults.connect_timeout, within()),
            connection_idle: section.read("connection_idle", defaults.connection_idle, within()),
            idle_connections: section.read(
                "idle_connections",
                defaults.idle_connections,
                values::count(0..=100_000),
            ),
            probe_timeout: section.read("probe_timeout", defaults.probe_timeout, within()),
            version_ttl: section.read("version_ttl", defaults.version_ttl, within()),
            sessions: section.read("sessions", defaults.sessions, values::count(1..=1000)),
            session_idle: section.read("session_idle", defaults.session_idle, within()),
            retries: section.read("retries", defaults.retries, values::count(0..=10)),
            retry_budget: section.read(
                "retry_budget",
                defaults.retry_budget,
                values::number(0.0..=1.0),
            ),
        };
        section.finish();
        upstream
    }
}
