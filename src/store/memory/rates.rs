//! Rate limits of the embedded store.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{MemoryStore, micros};
use crate::store::{
    StoreError,
    rates::{Rate, RateKey, Rates, Taken, take},
};

#[async_trait]
impl Rates for MemoryStore {
    async fn take_tokens(
        &self,
        key: &RateKey,
        rate: &Rate,
        wanted: u32,
    ) -> Result<Taken, StoreError> {
        let now = Instant::now();
        let clock = micros(self.clock(now));
        let mut state = self.lock_state();
        let spread = state.rates.get(key, now).copied().unwrap_or(0);
        let (spread, taken) = take(spread, clock, *rate, wanted);
        if taken.granted > 0 {
            // What ends is a limit that is whole again.
            let ends = now + Duration::from_micros(spread.saturating_sub(clock));
            state.rates.insert(*key, spread, 0, Some(ends), now)?;
        }
        Ok(taken)
    }
}
