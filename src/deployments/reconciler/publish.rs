//! Telling all nodes what changed, under the fence of whoever looks after the
//! engine.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Next, RECORD_TTL, REPEAT, SOON, Watch};
use crate::{
    deployments::{
        Deployments,
        record::{Phase, Record},
    },
    engine::EngineError,
    fleet::News,
    ids::ServerId,
    store::{
        Channel, Fence, RecordKey, StoreError,
        registry::{Change, Changed, Edition},
    },
};

impl Watch {
    /// Everything is told once more.
    pub(super) fn tell_again(&mut self) {
        for memory in self.memories.values_mut() {
            if let Some((_, at)) = &mut memory.told {
                *at = Instant::now() - REPEAT;
            }
        }
    }

    /// Tells all nodes what has changed.
    pub(super) async fn publish(&mut self, records: Vec<Record>, fence: Option<Fence>) -> Next {
        let now = Instant::now();
        let (node, time) = (Arc::clone(&self.node), self.grant.store_time(now));
        let mut changed = Vec::new();
        for mut record in records {
            let memory = self.memories.entry(record.name.clone()).or_default();
            let before = memory.told.as_ref();
            let is_due = before.is_none_or(|(told, at)| {
                let is_anothers = fence.is_some_and(|fence| told.fence != fence.0);
                is_anothers || record.differs(told) || now.duration_since(*at) >= REPEAT
            });
            if !is_due {
                continue;
            }
            let time = time.map_or(0, |time| time.0);
            let told = before.map(|(told, _)| told);
            record.at = time;
            record.since = match told {
                Some(told) if told.phase == record.phase => told.since,
                Some(_) | None => time,
            };
            record.node = node.parts.node.to_string();
            let last = told.map_or((0, 0), |told| (told.fence, told.serial));
            record.fence = fence.map_or(last.0, |fence| fence.0);
            record.serial = last.1 + 1;
            changed.push(record);
        }
        let written = changed
            .iter()
            .map(|record| write(&node, record, fence, RECORD_TTL));
        let written = join_all(written).await;
        for (record, written) in changed.into_iter().zip(written) {
            match written {
                Written::Done => {
                    let memory = self.memories.entry(record.name.clone()).or_default();
                    let is_routed = |name: &str| {
                        let mut replicas = record.replicas.iter();
                        replicas.any(|one| one.container == name && one.routed)
                    };
                    memory.history.published(is_routed, now);
                    memory.told = Some((record.clone(), now));
                    node.learn(record);
                    // What follows from that is planned at once.
                    self.again = now;
                }
                Written::TooLate => return Next::Over,
                Written::NotNow => self.again = self.again.min(now + SOON),
            }
        }
        Next::GoOn
    }

    /// Nothing of a deployment is left, and nobody wants it.
    pub(super) async fn bury(
        &mut self,
        name: &str,
        edition: Option<Edition>,
        fence: Option<Fence>,
    ) -> Next {
        let Some(fence) = fence else {
            return Next::GoOn;
        };
        let memory = self.memories.remove(name).unwrap_or_default();
        let serial = memory.told.map_or(0, |(told, _)| told.serial);
        let removed = Record {
            name: name.to_owned(),
            phase: Phase::Removed,
            engine: self.engine.to_string(),
            node: self.node.parts.node.to_string(),
            fence: fence.0,
            serial: serial + 1,
            ..Record::default()
        };
        // First what tells that its containers are nobody's, should one turn up.
        match write(&self.node, &removed, Some(fence), RECORD_TTL).await {
            Written::Done => {}
            Written::TooLate => return Next::Over,
            Written::NotNow => {
                self.again = self.again.min(Instant::now() + SOON);
                return Next::GoOn;
            }
        }
        if let Some(edition) = edition {
            let change = Change::Remove {
                name: name.to_owned(),
                over: Some(edition),
            };
            let node = &self.node;
            let change = node.table.change(&change, |table| node.apply(table));
            match change.await {
                Ok(Changed::Removed) => {
                    node.parts.fleet.tell(News::DeploymentsChanged {}).await;
                }
                // Somebody wants it again.
                Ok(_) => self.again = Instant::now(),
                Err(error) => {
                    tracing::debug!(%error, "what was removed is still in the table");
                    self.again = self.again.min(Instant::now() + SOON);
                    return Next::GoOn;
                }
            }
        }
        self.node.learn(removed);
        tracing::info!(deployment = name, "a deployment was removed");
        Next::GoOn
    }

    pub(super) fn tidy(&mut self, fence: Option<Fence>) {
        if self.is_untidy && fence.is_some() && self.busy.is_empty() && !self.is_tidying {
            self.is_untidy = false;
            self.is_tidying = true;
            self.running.spawn(self.jobs.tidy());
        }
    }

    /// The engine does not answer: what was known stays, and says so.
    pub(super) async fn engine_is_away(&mut self, error: &EngineError) -> Next {
        self.again = Instant::now() + SOON;
        let engine = self.engine.to_string();
        let known = self.node.known().records.clone();
        let records = known.into_values().filter(|record| record.engine == engine);
        let records = records.map(|record| Record {
            phase: Phase::EngineAway,
            reason: Some(error.to_string()),
            ..record
        });
        let records: Vec<_> = records.collect();
        for record in &records {
            let memory = self.memories.entry(record.name.clone()).or_default();
            if memory.told.is_none() {
                let known = self.node.known().records.get(&record.name).cloned();
                memory.told = known.map(|known| (known, Instant::now()));
            }
        }
        let again = self.again;
        let next = self.publish(records, self.grant.fence()).await;
        self.again = again;
        next
    }
}

enum Written {
    Done,
    TooLate,
    NotNow,
}

async fn write(
    node: &Deployments,
    record: &Record,
    fence: Option<Fence>,
    ttl: Duration,
) -> Written {
    let Some(fence) = fence else {
        // For this node alone.
        return Written::Done;
    };
    let (Ok(name), Some(value)) = (ServerId::try_from(record.name.as_str()), record.encode())
    else {
        return Written::NotNow;
    };
    let key = RecordKey::Deployment(name);
    let value = Bytes::from(value);
    let store = &node.parts.store;
    let written = store.put_fenced(&key, fence, value, ttl, Channel::Deployments);
    match written.await {
        Ok(true) => Written::Done,
        Ok(false) => {
            tracing::info!(
                deployment = record.name,
                "another node looks after this engine by now"
            );
            Written::TooLate
        }
        Err(StoreError::Unreachable(_)) => Written::NotNow,
        Err(error) => {
            tracing::warn!(deployment = record.name, %error, "a deployment's record was not written");
            Written::NotNow
        }
    }
}
