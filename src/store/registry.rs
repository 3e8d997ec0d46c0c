//! The registry: servers that were registered while the fleet ran, one table
//! for all nodes. It has no time to live: what was registered is served until
//! somebody takes it out, also after all nodes were restarted.
//!
//! What nodes make of it is in [`crate::registry`].

use async_trait::async_trait;
use bytes::Bytes;

use super::StoreError;

/// A state of the registry: the store's clock in microseconds, pushed forward
/// where two changes would share one. Zero: never changed.
///
/// A node that knows a newer edition than the store knows that the store lost
/// something (it was restarted empty, a fail-over dropped the last writes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Edition(pub u64);

/// A registered server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// When its definition was last changed.
    pub edition: Edition,
    /// What it is, in the format of whoever registered it.
    pub definition: Bytes,
}

/// All registered servers, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Of the last change.
    pub edition: Edition,
    /// The servers, in the order of their names.
    pub entries: Vec<Entry>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Put a server in, over one of that name.
    Put {
        /// Its name.
        name: String,
        /// What it is.
        definition: Bytes,
        /// How many servers there may be then.
        most: u32,
    },
    /// Take one out.
    Remove {
        /// Its name.
        name: String,
    },
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It was not there before.
    Created,
    /// Another definition was there before.
    Replaced,
    /// It was there already, exactly so.
    Unchanged,
    /// It is gone.
    Removed,
    /// There was nothing to take out.
    Unknown,
    /// There are as many as there may be.
    Full,
    /// The store knows an older edition than the caller, who has to
    /// [`restore`](Registry::restore_registry) it first.
    Behind,
}

/// The registry of a store.
///
/// # Errors
/// As for [`Store`](super::Store).
#[async_trait]
pub trait Registry {
    /// The edition of the last change.
    async fn registry_edition(&self) -> Result<Edition, StoreError>;

    /// All of it.
    async fn registry(&self) -> Result<Table, StoreError>;

    /// Changes it, unless that would be done to an older edition than the
    /// `known` one. Doing the same again changes nothing.
    async fn change_registry(&self, change: &Change, known: Edition)
    -> Result<Changed, StoreError>;

    /// Makes it what it was at `table.edition`, if the store knows an older
    /// one only; `false` when it does not.
    async fn restore_registry(&self, table: &Table) -> Result<bool, StoreError>;
}
