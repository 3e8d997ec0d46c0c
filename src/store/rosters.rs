//! Rosters: tables with one line per node, each with its own age. What every
//! node tells of itself (that it lives, its load, what it wants to hear of)
//! is such a line; a node that dies leaves by silence.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::StoreError;
use crate::ids::ServerId;

/// Which table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RosterKey {
    /// The nodes that live.
    Members,
    /// Their requests in flight, by replica.
    Load,
    /// The resources of a server that their clients want to hear of.
    Interest(ServerId),
}

/// What a node does to its line.
#[derive(Debug, Clone)]
pub enum RosterChange {
    /// Nothing.
    Keep,
    /// Writes it anew, with age zero.
    Put(Bytes),
    /// Takes it out.
    Remove,
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterLine {
    /// Who wrote it.
    pub writer: String,
    /// How long ago, on the store's clock.
    pub age: Duration,
    /// What.
    pub payload: Bytes,
}

/// The rosters of a store.
///
/// # Errors
/// As for [`Store`](super::Store).
#[async_trait]
pub trait Rosters {
    /// Changes the line of `writer`, drops lines older than `ttl`, and answers
    /// what is left, in no order.
    async fn roster(
        &self,
        key: &RosterKey,
        writer: &str,
        change: RosterChange,
        ttl: Duration,
    ) -> Result<Vec<RosterLine>, StoreError>;
}
