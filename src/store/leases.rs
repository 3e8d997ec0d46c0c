//! Leases: who does what on behalf of the fleet, until when, under which fence.
//!
//! What nodes make of them is in [`crate::cluster`]. A lease narrows a race, it
//! does not end it: what a holder writes carries its fence, and
//! [`put_fenced`](Leases::put_fenced) refuses one that is old. The model in
//! `tests/it/model.rs` and the scripts `lease_*.lua` and `record_fenced.lua`
//! describe the same steps.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Channel, Fence, RecordKey, StoreError};

/// What a lease is the right to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DutyKind {
    /// Probing a replica.
    Probe,
    /// Watching a server for changes.
    Watch,
    /// The one trial of a replica whose circuit breaker is half open.
    Trial,
    /// Running the deployments of an engine.
    Engine,
}

impl DutyKind {
    /// The word for people and keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Watch => "watch",
            Self::Trial => "trial",
            Self::Engine => "engine",
        }
    }
}

/// Something that exactly one node should do: a kind of work and what it is
/// done to (a replica's, a server's or an engine's id).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duty {
    /// The kind of work.
    pub kind: DutyKind,
    /// A replica's, a server's or an engine's id.
    pub subject: Arc<str>,
}

impl Duty {
    /// The duty of doing `kind` to `subject`.
    #[must_use]
    pub fn new(kind: DutyKind, subject: &str) -> Self {
        Self {
            kind,
            subject: subject.into(),
        }
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.subject)
    }
}

/// What became of a request for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// The caller holds it until its time to live ends, counted from before the request was sent.
    Acquired {
        /// Above every fence given for this duty before.
        fence: Fence,
        /// Whether somebody held it lately: what they saw, the caller did not.
        inherited: bool,
    },
    /// Another holds it, for at most this long.
    Held(Duration),
}

/// The last fence of a duty outlives its lease by this factor: long enough for
/// writes in flight; after that the clock alone orders fences.
pub(super) const FENCE_LIVES: u32 = 10;

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The holder has it for another time to live.
    Kept,
    /// The same, and a node whose turn it is has asked for it.
    Wanted,
    /// Another holds it, or nobody.
    Lost,
}

/// How a lease is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// If it is free.
    IfFree,
    /// If it is free; otherwise its holder is told, with its next renewal,
    /// that it is the caller's turn.
    MyTurn,
}

/// The leases of a store. Holders are named by a text that no two processes
/// share (see [`crate::cluster::Incarnation`]).
///
/// # Errors
/// As for [`Store`](super::Store).
#[async_trait]
pub trait Leases {
    /// Tries to take a lease. A holder that asks again gets it renewed, under a new fence.
    async fn acquire_lease(
        &self,
        duty: &Duty,
        holder: &str,
        ttl: Duration,
        ask: Ask,
    ) -> Result<LeaseOutcome, StoreError>;

    /// Renews those of these leases that `holder` still has, in one pipeline.
    async fn renew_leases(
        &self,
        duties: &[Duty],
        holder: &str,
        ttl: Duration,
    ) -> Result<Vec<Renewal>, StoreError>;

    /// Gives a lease back if `holder` still has it under `fence`; `false` when not.
    async fn release_lease(
        &self,
        duty: &Duty,
        holder: &str,
        fence: Fence,
    ) -> Result<bool, StoreError>;

    /// Who holds each of these, in one pipeline.
    async fn lease_holders(&self, duties: &[Duty]) -> Result<Vec<Option<String>>, StoreError>;

    /// Writes a record unless it was last written under a newer fence, and
    /// publishes `value` on `channel`; `false` when it was refused.
    async fn put_fenced(
        &self,
        key: &RecordKey,
        fence: Fence,
        value: Bytes,
        ttl: Duration,
        channel: Channel,
    ) -> Result<bool, StoreError>;

    /// Reads records written with [`put_fenced`](Self::put_fenced), in one pipeline.
    async fn get_fenced(
        &self,
        keys: &[RecordKey],
    ) -> Result<Vec<Option<(Fence, Bytes)>>, StoreError>;
}
