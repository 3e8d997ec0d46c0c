//! One of the store's tables, as one node follows it.
//!
//! A node knows the newest edition it has seen. When the store knows an older
//! one only, because it was restarted empty or failed over, the node puts back
//! what it knows. What the entries mean is for others to say.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::store::{
    Store, StoreError,
    registry::{Change, Changed, Table, Which},
};

/// Attempts at a change while the store has to be put right first.
const ATTEMPTS: usize = 3;

/// A table of the store and what this node knows of it.
#[derive(Debug)]
pub struct Shared {
    which: Which,
    store: Arc<dyn Store>,
    known: Mutex<Table>,
    is_read: AtomicBool,
    /// One look at a time: an older table is never applied over a newer one.
    looking: tokio::sync::Mutex<()>,
}

impl Shared {
    /// Knows nothing of the store's table yet.
    #[must_use]
    pub fn new(which: Which, store: Arc<dyn Store>) -> Self {
        Self {
            which,
            store,
            known: Mutex::default(),
            is_read: AtomicBool::new(false),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// The newest edition that this node has seen.
    #[must_use]
    pub fn known(&self) -> Table {
        self.lock().clone()
    }

    /// Whether the store has ever said what is in it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// Changes the table for all nodes. `apply` is given what this node has
    /// to know first, and the table as it is then.
    ///
    /// # Errors
    /// Nothing was changed; after [`StoreError::Unreachable`] it may have been.
    pub async fn change(
        &self,
        change: &Change,
        apply: impl Fn(&Table),
    ) -> Result<Changed, StoreError> {
        for _ in 0..ATTEMPTS {
            let edition = self.lock().edition;
            let changed = self
                .store
                .change_registry(self.which, change, edition)
                .await?;
            match changed {
                Changed::Behind => self.refresh(&apply).await?,
                Changed::Created | Changed::Replaced | Changed::Removed => {
                    // Known here before the answer goes out, elsewhere right after.
                    if let Err(error) = self.refresh(&apply).await {
                        tracing::debug!(%error, "what was changed cannot be looked up now");
                    }
                    return Ok(changed);
                }
                Changed::Unchanged | Changed::Unknown | Changed::Full | Changed::Moved => {
                    return Ok(changed);
                }
            }
        }
        Err(StoreError::Refused(
            "the registry changes too often for this node to follow".to_owned(),
        ))
    }

    /// Looks at the store; `apply` is given what is new.
    ///
    /// # Errors
    /// When the store does not answer: everything stays as it is.
    pub async fn refresh(&self, apply: impl Fn(&Table)) -> Result<(), StoreError> {
        let _one_at_a_time = self.looking.lock().await;
        let stored = self.store.registry_edition(self.which).await?;
        let known = self.known();
        if stored == known.edition {
            self.is_read.store(true, Ordering::Release);
            return Ok(());
        }
        if stored < known.edition && self.store.restore_registry(self.which, &known).await? {
            tracing::warn!(
                which = ?self.which,
                entries = known.entries.len(),
                "the store had lost what was registered; it was put back"
            );
            return Ok(());
        }
        let table = self.store.registry(self.which).await?;
        self.lock().clone_from(&table);
        self.is_read.store(true, Ordering::Release);
        apply(&table);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Replaced whole: a panic cannot leave one in between.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
