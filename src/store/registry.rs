//! The registry: what users asked the fleet for while it ran, in tables that
//! all nodes share. They have no time to live: what was registered is served, and
//! what was deployed runs, until somebody takes it out, also after all nodes
//! were restarted.
//!
//! What nodes make of them is in [`crate::registry`] and [`crate::deployments`].

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::StoreError;

/// One of the tables. Each has editions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// Servers that were registered.
    Servers,
    /// Deployments that are wanted. Their definitions hold secrets.
    Deployments,
}

/// A state of a table: the store's clock in microseconds, pushed forward
/// where two changes would share one. Zero: never changed.
///
/// A node that knows a newer edition than the store knows that the store lost
/// something (it was restarted empty, a fail-over dropped the last writes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Edition(pub u64);

/// A registered server or a deployment.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// When its definition was last changed.
    pub edition: Edition,
    /// What it is, in the format of whoever registered it.
    pub definition: Bytes,
}

impl fmt::Debug for Entry {
    /// Without the definition, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("edition", &self.edition)
            .finish_non_exhaustive()
    }
}

/// All of one kind, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Of the last change.
    pub edition: Edition,
    /// In the order of their names.
    pub entries: Vec<Entry>,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Put one in, over one of that name.
    Put {
        /// Its name.
        name: String,
        /// What it is.
        definition: Bytes,
        /// How many there may be then.
        most: u32,
        /// Only over the entry of this edition; zero: only if there is none.
        over: Option<Edition>,
    },
    /// Take one out.
    Remove {
        /// Its name.
        name: String,
        /// Only the entry of this edition.
        over: Option<Edition>,
    },
}

impl fmt::Debug for Change {
    /// Without the definition, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { name, .. } => write!(f, "Put {name}"),
            Self::Remove { name, .. } => write!(f, "Remove {name}"),
        }
    }
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
    /// The entry is not of the edition that was to be changed.
    Moved,
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
    /// The edition of the last change of a table.
    async fn registry_edition(&self, which: Which) -> Result<Edition, StoreError>;

    /// All of it.
    async fn registry(&self, which: Which) -> Result<Table, StoreError>;

    /// Changes a table, unless that would be done to an older edition than the
    /// `known` one. Doing the same again changes nothing.
    async fn change_registry(
        &self,
        which: Which,
        change: &Change,
        known: Edition,
    ) -> Result<Changed, StoreError>;

    /// Makes a table what it was at `table.edition`, if the store knows an older
    /// one only; `false` when it does not.
    async fn restore_registry(&self, which: Which, table: &Table) -> Result<bool, StoreError>;
}
