//! The tables in Redis: `registry_*.lua`.

use async_trait::async_trait;
use bytes::Bytes;
use fred::{prelude::HashesInterface, types::Value};

use super::{RedisStore, keys::Key, number, scripts, unexpected, unsigned};
use crate::store::{
    StoreError,
    registry::{Change, Changed, Edition, Entry, Registry, Table, Which},
};

/// The field beside the others. Nothing can have that name.
const EDITION: &str = ":edition";

#[async_trait]
impl Registry for RedisStore {
    async fn registry_edition(&self, which: Which) -> Result<Edition, StoreError> {
        let key = self.keys.key(Key::Registry(which));
        let edition: Option<u64> = self
            .connections
            .run(async |client| client.hget(key, EDITION).await)
            .await?;
        Ok(Edition(edition.unwrap_or(0)))
    }

    async fn registry(&self, which: Which) -> Result<Table, StoreError> {
        let key = self.keys.key(Key::Registry(which));
        let fields: Vec<(String, Bytes)> = self
            .connections
            .run(async |client| client.hgetall(key).await)
            .await?;
        let mut table = Table::default();
        for (name, value) in fields {
            if name == EDITION {
                table.edition = digits(&value).ok_or_else(unexpected)?;
            } else {
                table
                    .entries
                    .push(entry(name, &value).ok_or_else(unexpected)?);
            }
        }
        table
            .entries
            .sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(table)
    }

    async fn change_registry(
        &self,
        which: Which,
        change: &Change,
        known: Edition,
    ) -> Result<Changed, StoreError> {
        let known = number(known.0);
        let args = match change {
            Change::Put {
                name,
                definition,
                most,
                over,
            } => args![
                "put",
                name.as_str(),
                definition.clone(),
                known,
                i64::from(*most),
                expected(*over)
            ],
            Change::Remove { name, over } => {
                args!["remove", name.as_str(), "", known, 0i64, expected(*over)]
            }
        };
        let keys = vec![self.keys.key(Key::Registry(which))];
        let reply = self
            .connections
            .script(&scripts::REGISTRY_CHANGE, keys, args)
            .await?;
        match reply.as_str().as_deref() {
            Some("created") => Ok(Changed::Created),
            Some("replaced") => Ok(Changed::Replaced),
            Some("unchanged") => Ok(Changed::Unchanged),
            Some("removed") => Ok(Changed::Removed),
            Some("unknown") => Ok(Changed::Unknown),
            Some("full") => Ok(Changed::Full),
            Some("behind") => Ok(Changed::Behind),
            Some("moved") => Ok(Changed::Moved),
            Some(_) | None => Err(unexpected()),
        }
    }

    async fn restore_registry(&self, which: Which, table: &Table) -> Result<bool, StoreError> {
        let mut args = args![number(table.edition.0)];
        for entry in &table.entries {
            let mut value = format!("{} ", entry.edition.0).into_bytes();
            value.extend_from_slice(&entry.definition);
            args.push(Value::from(entry.name.as_str()));
            args.push(Value::from(Bytes::from(value)));
        }
        let keys = vec![self.keys.key(Key::Registry(which))];
        let reply = self
            .connections
            .script(&scripts::REGISTRY_RESTORE, keys, args)
            .await?;
        Ok(unsigned(&reply)? == 1)
    }
}

/// The edition that an entry has to have; empty: any, also none.
fn expected(over: Option<Edition>) -> String {
    over.map(|edition| edition.0.to_string())
        .unwrap_or_default()
}

/// `<edition> <definition>`
fn entry(name: String, value: &Bytes) -> Option<Entry> {
    let blank = memchr::memchr(b' ', value)?;
    Some(Entry {
        name,
        edition: digits(&value[..blank])?,
        definition: value.slice(blank + 1..),
    })
}

fn digits(text: &[u8]) -> Option<Edition> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Edition)
}
