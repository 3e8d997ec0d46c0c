//! Permits in Redis: `permits.lua`.

use async_trait::async_trait;

use super::{RedisStore, Reply, keys::Key, millis, number, scripts};
use crate::{
    ids::ReplicaId,
    store::{
        StoreError,
        permits::{PermitRequest, Permits, Permitted},
    },
};

#[async_trait]
impl Permits for RedisStore {
    async fn permits(
        &self,
        replica: &ReplicaId,
        holder: &str,
        request: PermitRequest,
    ) -> Result<Permitted, StoreError> {
        let keys = vec![self.keys.key(Key::Permits(replica))];
        let args = args![
            holder,
            number(request.max.into()),
            number(request.keep.into()),
            number(request.wanted.into()),
            millis(request.ttl).max(1),
        ];
        let reply = self
            .connections
            .script(&scripts::PERMITS, keys, args)
            .await?;
        let mut reply = Reply::new(reply)?;
        let mut count = || -> Result<u32, StoreError> {
            Ok(u32::try_from(reply.number()?).unwrap_or(u32::MAX))
        };
        Ok(Permitted {
            held: count()?,
            allowed: count()?,
        })
    }
}
