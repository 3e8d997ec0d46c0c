//! Permits of the embedded store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::time::Instant;

use super::MemoryStore;
use crate::{
    ids::ReplicaId,
    store::{
        StoreError,
        permits::{PermitRequest, Permits, Permitted, fair_share, permitted},
    },
};

/// The permits of a replica, by holder.
pub(super) type Holders = BTreeMap<String, Held>;

/// What a node has.
#[derive(Debug)]
pub(super) struct Held {
    until: Instant,
    held: u32,
    wanted: u32,
}

#[async_trait]
impl Permits for MemoryStore {
    async fn permits(
        &self,
        replica: &ReplicaId,
        holder: &str,
        request: PermitRequest,
    ) -> Result<Permitted, StoreError> {
        let now = Instant::now();
        let turn = self.clock(now).as_secs();
        let mut state = self.lock_state();
        // One holder, the node itself: a bound of its own is not needed.
        let holders = state.permits.entry(replica.clone()).or_default();
        holders.retain(|_, held| held.until > now);
        if request.keep == 0 && request.wanted == 0 {
            holders.remove(holder);
            if holders.is_empty() {
                state.permits.remove(replica);
            }
            return Ok(Permitted::default());
        }
        let others = || holders.iter().filter(|(name, _)| *name != holder);
        let held_by_others = others().map(|(_, held)| held.held).sum();
        let mut wants: Vec<_> = others()
            .map(|(name, held)| (held.wanted, &**name))
            .collect();
        wants.push((request.wanted, holder));
        wants.sort_unstable();
        let place = wants.iter().position(|(_, name)| *name == holder);
        let wants: Vec<_> = wants.iter().map(|(wanted, _)| *wanted).collect();
        let fair = place.map_or(0, |place| fair_share(request.max, &wants, place, turn));
        let permitted = permitted(&request, held_by_others, fair);
        let held = Held {
            until: now + request.ttl,
            held: permitted.held,
            wanted: request.wanted,
        };
        holders.insert(holder.to_owned(), held);
        Ok(permitted)
    }
}
