//! The nodes of a fleet and which of them does what.
//!
//! [`membership`]: who lives. [`duties`]: work that exactly one node should do,
//! by leases with fences. `spread` decides, without a leader, whose turn it is;
//! `lease` is the arithmetic of time. What the duties are is decided elsewhere
//! ([`crate::health`], [`crate::changes`]).

use std::{fmt, sync::Arc, time::Duration};

use crate::ids::NodeId;

pub mod duties;
mod guard;
mod lease;
pub mod membership;
mod spread;

/// Times of the fleet. All follow from the lease's time to live.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A lease not renewed for this long is free for others, and a node not
    /// heard of for this long is gone.
    pub lease_ttl: Duration,
}

impl Settings {
    /// How often leases are renewed and the node says that it lives.
    #[must_use]
    pub fn tick(&self) -> Duration {
        self.lease_ttl / 3
    }

    /// How old the last renewal is when a lease is renewed: between the first
    /// and the second look of a tick, however long a look takes.
    pub(crate) fn renewal(&self) -> Duration {
        self.tick() * 3 / 4
    }

    /// How long before its lease ends work stops: the time a write may take.
    #[must_use]
    pub fn margin(&self) -> Duration {
        self.lease_ttl / 6
    }
}

/// One life of a node: its name and a number drawn at its start. Two processes
/// never share one, also when they were given the same name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// A new life of `node`: `{node}/{8 hex digits}`.
    #[must_use]
    pub fn of(node: &NodeId) -> Self {
        Self(format!("{node}/{:08x}", rand::random::<u32>()).into())
    }

    /// One that was read from the store.
    #[must_use]
    pub fn named(text: &str) -> Self {
        Self(text.into())
    }

    /// As text: what leases and rosters are signed with.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(node, _)| node)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
