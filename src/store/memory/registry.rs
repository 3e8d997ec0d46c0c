//! The registry of the embedded store: it ends with the process.

use async_trait::async_trait;
use tokio::time::Instant;

use super::{MemoryStore, micros};
use crate::store::{
    StoreError,
    registry::{Change, Changed, Edition, Entry, Registry, Table},
};

#[async_trait]
impl Registry for MemoryStore {
    async fn registry_edition(&self) -> Result<Edition, StoreError> {
        Ok(self.lock_state().registry.edition)
    }

    async fn registry(&self) -> Result<Table, StoreError> {
        Ok(self.lock_state().registry.clone())
    }

    async fn change_registry(
        &self,
        change: &Change,
        known: Edition,
    ) -> Result<Changed, StoreError> {
        let clock = self.clock(Instant::now());
        let mut state = self.lock_state();
        let table = &mut state.registry;
        if table.edition < known {
            return Ok(Changed::Behind);
        }
        let edition = Edition(micros(clock).max(table.edition.0 + 1));
        let changed = match change {
            Change::Put {
                name,
                definition,
                most,
            } => {
                let entry = Entry {
                    name: name.clone(),
                    edition,
                    definition: definition.clone(),
                };
                match position(table, name) {
                    Ok(at) if table.entries[at].definition == definition => {
                        return Ok(Changed::Unchanged);
                    }
                    Ok(at) => {
                        table.entries[at] = entry;
                        Changed::Replaced
                    }
                    Err(_) if table.entries.len() >= *most as usize => return Ok(Changed::Full),
                    Err(at) => {
                        table.entries.insert(at, entry);
                        Changed::Created
                    }
                }
            }
            Change::Remove { name } => match position(table, name) {
                Ok(at) => {
                    table.entries.remove(at);
                    Changed::Removed
                }
                Err(_) => return Ok(Changed::Unknown),
            },
        };
        table.edition = edition;
        Ok(changed)
    }

    async fn restore_registry(&self, table: &Table) -> Result<bool, StoreError> {
        let mut state = self.lock_state();
        if state.registry.edition >= table.edition {
            return Ok(false);
        }
        state.registry = table.clone();
        Ok(true)
    }
}

fn position(table: &Table, name: &str) -> Result<usize, usize> {
    let entries = &table.entries;
    entries.binary_search_by(|entry| entry.name.as_str().cmp(name))
}
