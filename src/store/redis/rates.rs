//! Rate limits in Redis: `rate_take.lua`.

use std::time::Duration;

use async_trait::async_trait;

use super::{RedisStore, Reply, keys::Key, scripts};
use crate::store::{
    StoreError,
    rates::{Rate, RateKey, Rates, Taken},
};

#[async_trait]
impl Rates for RedisStore {
    async fn take_tokens(
        &self,
        key: &RateKey,
        rate: &Rate,
        wanted: u32,
    ) -> Result<Taken, StoreError> {
        let keys = vec![self.keys.key(Key::Rate(key))];
        let per = i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX);
        let args = args![
            i64::from(rate.count),
            per,
            i64::from(rate.burst),
            i64::from(wanted)
        ];
        let reply = self
            .connections
            .script(&scripts::RATE_TAKE, keys, args)
            .await?;
        let mut reply = Reply::new(reply)?;
        Ok(Taken {
            granted: u32::try_from(reply.number()?).unwrap_or(u32::MAX),
            retry_after: Duration::from_micros(reply.number()?),
        })
    }
}
