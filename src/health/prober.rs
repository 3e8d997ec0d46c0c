//! The duty of probing one replica, and what is done with the result.

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{
    Health, lock,
    record::{Failure, Record},
    schedule::{self, Slot},
};
use crate::{
    cluster::duties::{Grant, Work},
    servers::Replica,
    store::{Channel, RecordKey, StoreError},
    upstream::{ProbeFailure, Sign},
};

/// The pause after a probe that this node could not make.
const NOT_ASKED: Duration = Duration::from_secs(1);

/// Probes one replica for as long as this node has leave to.
pub(super) struct Prober {
    pub(super) replica: Arc<Replica>,
    health: Weak<Health>,
    slot: Mutex<Slot>,
}

impl Prober {
    pub(super) fn new(replica: Arc<Replica>, health: &Arc<Health>, slot: Slot) -> Arc<Self> {
        Arc::new(Self {
            replica,
            health: Arc::downgrade(health),
            slot: Mutex::new(slot),
        })
    }

    /// Gives the replica its place among the others.
    pub(super) fn set_slot(&self, slot: Slot) {
        *lock(&self.slot) = slot;
    }

    fn slot(&self) -> Slot {
        *lock(&self.slot)
    }
}

impl Work for Prober {
    fn run(self: Arc<Self>, grant: Grant) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while let Some(health) = self.health.upgrade() {
                let interval = health.set_clock(&grant);
                let now = health.store_now();
                let last = health.record(&self.replica.id);
                let last = last.map(|record| (record.probed_at, record.tally));
                let pause =
                    schedule::pause(now, last, self.slot(), interval, rand::random::<f64>());
                drop(health);
                tokio::time::sleep(pause).await;
                let Some(health) = self.health.upgrade() else {
                    return;
                };
                let deadline = Instant::now() + health.settings.timeout;
                let outcome = health.upstreams.probe(&self.replica, deadline).await;
                let outcome = match outcome {
                    Ok(Sign::Answer(took)) => Ok(took),
                    Err(failure) => Err(failure),
                    Ok(Sign::NotAsked) => {
                        drop(health);
                        tokio::time::sleep(NOT_ASKED).await;
                        continue;
                    }
                };
                let record = health.judge(&self.replica, outcome, health.store_now());
                if health.publish(&self.replica, record, &grant).await == Published::TooLate {
                    return;
                }
            }
        })
    }
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    /// All nodes hear it, or at least this one acts on it.
    Done,
    /// Another node probes by now; the result was thrown away.
    TooLate,
}

impl Health {
    /// The record after another probe.
    fn judge(
        &self,
        replica: &Replica,
        outcome: Result<Duration, ProbeFailure>,
        now: u64,
    ) -> Record {
        let before = self.record(&replica.id).unwrap_or_default();
        let tally = before
            .tally
            .after(outcome.is_ok(), self.settings.thresholds);
        let flipped = tally.state != before.tally.state;
        let millis = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(0);
        let (latency, failure) = match outcome {
            Ok(took) => (Some(millis(took)), before.failure.clone()),
            Err(what) => {
                tracing::debug!(replica = %replica.id, failure = %what, "a probe failed");
                let ProbeFailure { stage, message } = what;
                let failure = Failure {
                    at: now,
                    stage,
                    message,
                };
                (before.latency, Some(failure))
            }
        };
        Record {
            replica: replica.id.to_string(),
            tally,
            since: if flipped { now } else { before.since },
            probed_at: now,
            latency,
            failure,
            node: self.node.to_string(),
        }
    }

    /// Tells all nodes, this one included.
    async fn publish(&self, replica: &Replica, record: Record, grant: &Grant) -> Published {
        let Some(fence) = grant.fence() else {
            // Every node probes for itself.
            self.learn(record);
            return Published::Done;
        };
        let Some(value) = record.encode() else {
            return Published::Done;
        };
        let key = RecordKey::Health(replica.id.clone());
        let ttl = self.settings.record_ttl();
        let written = self
            .store
            .put_fenced(&key, fence, value.into(), ttl, Channel::Health)
            .await;
        match written {
            Ok(false) => {
                tracing::debug!(replica = %replica.id, "another node probes by now");
                return Published::TooLate;
            }
            Ok(true) => {}
            Err(StoreError::Unreachable(_)) => {}
            Err(error) => {
                tracing::warn!(replica = %replica.id, %error, "a health record was not written")
            }
        }
        // Also told by the store, if it was reached; both say the same.
        self.learn(record);
        Published::Done
    }
}
