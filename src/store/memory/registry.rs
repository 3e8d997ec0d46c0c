//! The tables of the embedded store: they end with the process.

use async_trait::async_trait;
use tokio::time::Instant;

use super::{MemoryStore, State, micros};
use crate::store::{
    StoreError,
    registry::{Change, Changed, Edition, Entry, Registry, Table, Which},
};

#[async_trait]
impl Registry for MemoryStore {
    async fn registry_edition(&self, which: Which) -> Result<Edition, StoreError> {
        Ok(self.lock_state().registry(which).edition)
    }

    async fn registry(&self, which: Which) -> Result<Table, StoreError> {
        Ok(self.lock_state().registry(which).clone())
    }

    async fn change_registry(
        &self,
        which: Which,
        change: &Change,
        known: Edition,
    ) -> Result<Changed, StoreError> {
        let clock = self.clock(Instant::now());
        let mut state = self.lock_state();
        let table = state.registry(which);
        if table.edition < known {
            return Ok(Changed::Behind);
        }
        let (name, over) = match change {
            Change::Put { name, over, .. } | Change::Remove { name, over } => (name, over),
        };
        let stored = position(table, name)
            .ok()
            .map(|at| table.entries[at].edition);
        if over.is_some_and(|over| over != stored.unwrap_or_default()) {
            return Ok(Changed::Moved);
        }
        let edition = Edition(micros(clock).max(table.edition.0 + 1));
        let changed = match change {
            Change::Put {
                name,
                definition,
                most,
                ..
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
            Change::Remove { name, .. } => match position(table, name) {
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

    async fn restore_registry(&self, which: Which, table: &Table) -> Result<bool, StoreError> {
        let mut state = self.lock_state();
        if state.registry(which).edition >= table.edition {
            return Ok(false);
        }
        *state.registry(which) = table.clone();
        Ok(true)
    }
}

impl State {
    fn registry(&mut self, which: Which) -> &mut Table {
        match which {
            Which::Servers => &mut self.servers,
            Which::Deployments => &mut self.deployments,
        }
    }
}

fn position(table: &Table, name: &str) -> Result<usize, usize> {
    let entries = &table.entries;
    entries.binary_search_by(|entry| entry.name.as_str().cmp(name))
}
