//! Rosters of the embedded store.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::MemoryStore;
use crate::store::{
    StoreError,
    rosters::{RosterChange, RosterKey, RosterLine, Rosters},
};

/// The lines of a roster, by writer: when it was written, and what.
pub(super) type Roster = BTreeMap<String, (Instant, Bytes)>;

#[async_trait]
impl Rosters for MemoryStore {
    async fn roster(
        &self,
        key: &RosterKey,
        writer: &str,
        change: RosterChange,
        ttl: Duration,
    ) -> Result<Vec<RosterLine>, StoreError> {
        let now = Instant::now();
        let mut state = self.lock_state();
        // One writer, the node itself: a bound of its own is not needed.
        let roster = state.rosters.entry(key.clone()).or_default();
        match change {
            RosterChange::Keep => {}
            RosterChange::Put(payload) => {
                roster.insert(writer.to_owned(), (now, payload));
            }
            RosterChange::Remove => {
                roster.remove(writer);
            }
        }
        roster.retain(|_, (written, _)| now.duration_since(*written) <= ttl);
        let lines = roster
            .iter()
            .map(|(writer, (written, payload))| RosterLine {
                writer: writer.clone(),
                age: now.duration_since(*written),
                payload: payload.clone(),
            });
        let lines = lines.collect();
        if roster.is_empty() {
            state.rosters.remove(key);
        }
        Ok(lines)
    }
}
