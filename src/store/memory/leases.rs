//! Leases and fenced records of the embedded store.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::MemoryStore;
use crate::store::{
    Channel, Event, Fence, RecordKey, StoreError,
    leases::{Ask, Duty, FENCE_LIVES, LeaseOutcome, Leases, Renewal},
};

#[async_trait]
impl Leases for MemoryStore {
    async fn acquire_lease(
        &self,
        duty: &Duty,
        holder: &str,
        ttl: Duration,
        ask: Ask,
    ) -> Result<LeaseOutcome, StoreError> {
        let now = Instant::now();
        let clock = self.clock(now);
        let mut state = self.lock_state();
        if state.leases.get(duty, now).map(AsRef::as_ref) != Some(holder)
            && let Some(until) = state.leases.expires(duty, now)
        {
            if ask == Ask::MyTurn {
                let (wanted, bytes) = (holder.into(), holder.len());
                let expires = Some(now + ttl);
                state
                    .leases_wanted
                    .insert(duty.clone(), wanted, bytes, expires, now)?;
            }
            return Ok(LeaseOutcome::Held(until.duration_since(now)));
        }
        let inherited = state.lease_fences.get(duty, now).is_some();
        let fence = state.next_fence(clock);
        let outlives = Some(now + ttl * FENCE_LIVES);
        state.leases.insert(
            duty.clone(),
            holder.into(),
            holder.len(),
            Some(now + ttl),
            now,
        )?;
        state
            .lease_fences
            .insert(duty.clone(), fence, 0, outlives, now)?;
        if state.leases_wanted.get(duty, now).map(AsRef::as_ref) == Some(holder) {
            state.leases_wanted.remove(duty, now);
        }
        Ok(LeaseOutcome::Acquired { fence, inherited })
    }

    async fn renew_leases(
        &self,
        duties: &[Duty],
        holder: &str,
        ttl: Duration,
    ) -> Result<Vec<Renewal>, StoreError> {
        let now = Instant::now();
        let mut state = self.lock_state();
        let mut renew = |duty: &Duty| {
            if state.leases.get(duty, now).map(AsRef::as_ref) != Some(holder) {
                return Renewal::Lost;
            }
            state.leases.touch(duty, now + ttl, now);
            state.lease_fences.touch(duty, now + ttl * FENCE_LIVES, now);
            match state.leases_wanted.get(duty, now) {
                Some(other) if **other != *holder => Renewal::Wanted,
                _ => Renewal::Kept,
            }
        };
        Ok(duties.iter().map(&mut renew).collect())
    }

    async fn release_lease(
        &self,
        duty: &Duty,
        holder: &str,
        fence: Fence,
    ) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut state = self.lock_state();
        if state.leases.get(duty, now).map(AsRef::as_ref) != Some(holder)
            || state.lease_fences.get(duty, now) != Some(&fence)
        {
            return Ok(false);
        }
        Ok(state.leases.remove(duty, now).is_some())
    }

    async fn lease_holders(&self, duties: &[Duty]) -> Result<Vec<Option<String>>, StoreError> {
        let now = Instant::now();
        let state = self.lock_state();
        let holder = |duty: &Duty| state.leases.get(duty, now).map(ToString::to_string);
        Ok(duties.iter().map(holder).collect())
    }

    async fn put_fenced(
        &self,
        key: &RecordKey,
        fence: Fence,
        value: Bytes,
        ttl: Duration,
        channel: Channel,
    ) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut state = self.lock_state();
        if state
            .fenced
            .get(key, now)
            .is_some_and(|(newest, _)| *newest > fence)
        {
            return Ok(false);
        }
        let (bytes, expires) = (value.len(), Some(now + ttl));
        state
            .fenced
            .insert(key.clone(), (fence, value.clone()), bytes, expires, now)?;
        let payload = value;
        self.announce(Event::Message { channel, payload });
        Ok(true)
    }

    async fn get_fenced(
        &self,
        keys: &[RecordKey],
    ) -> Result<Vec<Option<(Fence, Bytes)>>, StoreError> {
        let now = Instant::now();
        let state = self.lock_state();
        Ok(keys
            .iter()
            .map(|key| state.fenced.get(key, now).cloned())
            .collect())
    }
}
