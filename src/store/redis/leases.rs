//! Leases and fenced records in Redis: `lease_*.lua`, `record_fenced.lua`.

use async_trait::async_trait;
use bytes::Bytes;
use fred::{interfaces::KeysInterface, prelude::HashesInterface, types::Value};
use futures_util::future::join_all;
use std::time::Duration;

use super::{
    RedisStore, Reply,
    keys::{Key, Topic},
    millis, number, scripts, unsigned,
};
use crate::store::{
    Channel, Fence, RecordKey, StoreError,
    leases::{Ask, Duty, FENCE_LIVES, LeaseOutcome, Leases, Renewal},
};

#[async_trait]
impl Leases for RedisStore {
    async fn acquire_lease(
        &self,
        duty: &Duty,
        holder: &str,
        ttl: Duration,
        ask: Ask,
    ) -> Result<LeaseOutcome, StoreError> {
        let args = args![
            holder,
            millis(ttl).max(1),
            millis(ttl * FENCE_LIVES).max(1),
            i64::from(ask == Ask::MyTurn),
        ];
        let reply = self
            .connections
            .script(&scripts::LEASE_ACQUIRE, self.lease_keys(duty), args)
            .await?;
        let mut reply = Reply::new(reply)?;
        Ok(match reply.number()? {
            0 => LeaseOutcome::Held(Duration::from_millis(reply.number()?)),
            _ => LeaseOutcome::Acquired {
                fence: Fence(reply.number()?),
                inherited: reply.number()? == 1,
            },
        })
    }

    async fn renew_leases(
        &self,
        duties: &[Duty],
        holder: &str,
        ttl: Duration,
    ) -> Result<Vec<Renewal>, StoreError> {
        // fred writes what is asked at once in one pipeline.
        let renewals = duties.iter().map(async |duty| {
            let args = args![holder, millis(ttl).max(1), millis(ttl * FENCE_LIVES).max(1)];
            let keys = self.lease_keys(duty);
            let reply = self.connections.script(&scripts::LEASE_RENEW, keys, args);
            Ok(match unsigned(&reply.await?)? {
                0 => Renewal::Lost,
                1 => Renewal::Kept,
                _ => Renewal::Wanted,
            })
        });
        join_all(renewals).await.into_iter().collect()
    }

    async fn release_lease(
        &self,
        duty: &Duty,
        holder: &str,
        fence: Fence,
    ) -> Result<bool, StoreError> {
        let keys = self.lease_keys(duty);
        let reply = self
            .connections
            .script(
                &scripts::LEASE_RELEASE,
                keys,
                args![holder, number(fence.0)],
            )
            .await?;
        Ok(unsigned(&reply)? == 1)
    }

    async fn lease_holders(&self, duties: &[Duty]) -> Result<Vec<Option<String>>, StoreError> {
        let holders = duties.iter().map(async |duty| {
            let key = self.keys.key(Key::Lease(duty));
            self.connections
                .run(async |client| client.get(key).await)
                .await
        });
        join_all(holders).await.into_iter().collect()
    }

    async fn put_fenced(
        &self,
        key: &RecordKey,
        fence: Fence,
        value: Bytes,
        ttl: Duration,
        channel: Channel,
    ) -> Result<bool, StoreError> {
        let keys = vec![self.keys.key(Key::Record(key))];
        let args = args![
            number(fence.0),
            value,
            millis(ttl).max(1),
            self.keys.topic(Topic::Of(channel)),
        ];
        let reply = self
            .connections
            .script(&scripts::RECORD_FENCED, keys, args)
            .await?;
        Ok(unsigned(&reply)? == 1)
    }

    async fn get_fenced(
        &self,
        keys: &[RecordKey],
    ) -> Result<Vec<Option<(Fence, Bytes)>>, StoreError> {
        let records = keys.iter().map(async |key| {
            let key = self.keys.key(Key::Record(key));
            let fields: Vec<Value> = self
                .connections
                .run(async |client| client.hmget(key, vec!["fence", "value"]).await)
                .await?;
            let mut fields = fields.into_iter();
            let fence = fields.next().and_then(|fence| fence.as_u64());
            let value = fields.next().and_then(Value::into_bytes);
            Ok(fence.map(Fence).zip(value))
        });
        join_all(records).await.into_iter().collect()
    }
}

impl RedisStore {
    fn lease_keys(&self, duty: &Duty) -> Vec<String> {
        vec![
            self.keys.key(Key::Lease(duty)),
            self.keys.key(Key::LeaseFence(duty)),
            self.keys.key(Key::LeaseWanted(duty)),
        ]
    }
}
