//! Rosters in Redis: `roster.lua`.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{RedisStore, Reply, keys::Key, millis, scripts};
use crate::store::{
    StoreError,
    rosters::{RosterChange, RosterKey, RosterLine, Rosters},
};

#[async_trait]
impl Rosters for RedisStore {
    async fn roster(
        &self,
        key: &RosterKey,
        writer: &str,
        change: RosterChange,
        ttl: Duration,
    ) -> Result<Vec<RosterLine>, StoreError> {
        let (change, payload) = match change {
            RosterChange::Keep => ("keep", Bytes::new()),
            RosterChange::Put(payload) => ("put", payload),
            RosterChange::Remove => ("remove", Bytes::new()),
        };
        let keys = vec![self.keys.key(Key::Roster(key))];
        let args = args![writer, change, payload, millis(ttl).max(1)];
        let reply = self
            .connections
            .script(&scripts::ROSTER, keys, args)
            .await?;
        let mut reply = Reply::new(reply)?;
        let mut lines = Vec::new();
        while !reply.is_empty() {
            lines.push(RosterLine {
                writer: reply.text()?,
                age: Duration::from_millis(reply.number()?),
                payload: reply.bytes()?,
            });
        }
        Ok(lines)
    }
}
