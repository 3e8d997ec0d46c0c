//! What clients want to hear of: which servers are used, and which of their
//! resources are subscribed to, on this node and on the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, Weak},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{CONFIRMATION, lock};
use crate::{store::rosters::RosterLine, upstream::Confirmed};

/// What this node's clients want to hear of one server, and what is heard.
#[derive(Debug)]
pub(super) struct Interest {
    counts: Mutex<BTreeMap<String, usize>>,
    /// The resources that clients of this node subscribed to; `None` until
    /// one of them used the server.
    pub(super) wanted: watch::Sender<Option<BTreeSet<String>>>,
    /// The resources that the server tells somebody in the fleet of.
    pub(super) confirmed: watch::Sender<Confirmed>,
    /// Whether this node holds the server's change stream.
    pub(super) is_watching: watch::Sender<bool>,
}

impl Interest {
    pub(super) fn new() -> Self {
        Self {
            counts: Mutex::default(),
            wanted: watch::Sender::new(None),
            confirmed: watch::Sender::new(Confirmed::Nothing),
            is_watching: watch::Sender::new(false),
        }
    }

    /// Notes that a client uses the server; `true` the first time.
    pub(super) fn note_use(&self) -> bool {
        self.wanted.send_if_modified(|wanted| {
            let first = wanted.is_none();
            wanted.get_or_insert_default();
            first
        })
    }

    /// Whether a client of this node has used the server.
    pub(super) fn is_used(&self) -> bool {
        self.wanted.borrow().is_some()
    }

    /// Adds to (`true`) or takes from the count of a resource and publishes the set.
    pub(super) fn change(&self, uri: &str, wanted: bool) {
        let mut counts = lock(&self.counts);
        if wanted {
            *counts.entry(uri.to_owned()).or_insert(0) += 1;
        } else if let Some(count) = counts.get_mut(uri) {
            *count -= 1;
            if *count == 0 {
                counts.remove(uri);
            }
        }
        let now: BTreeSet<_> = counts.keys().cloned().collect();
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(&now);
            *wanted = Some(now);
            changed
        });
    }

    /// The node that watches said what the server has confirmed since it
    /// spoke last; `None`: there is no stream of changes.
    pub(super) fn heard(&self, new: Option<&[String]>) {
        let Some(new) = new else {
            self.confirmed.send_replace(Confirmed::Never);
            return;
        };
        let mine = self.wanted.borrow().clone().unwrap_or_default();
        self.confirmed.send_modify(|confirmed| {
            let mut known = match std::mem::take(confirmed) {
                Confirmed::These(known) => known,
                Confirmed::Nothing | Confirmed::Never => BTreeSet::new(),
            };
            known.extend(new.iter().cloned());
            known.retain(|uri| mine.contains(uri));
            *confirmed = Confirmed::These(known);
        });
    }
}

/// This node's line of the roster.
pub(super) fn line(wanted: &BTreeSet<String>) -> Option<Bytes> {
    rmp_serde::to_vec(wanted)
        .inspect_err(|error| tracing::error!(%error, "subscriptions could not be encoded"))
        .ok()
        .map(Bytes::from)
}

/// What the other nodes want; `None` when none of them uses the server.
pub(super) fn of_others(lines: &[RosterLine], me: &str) -> Option<BTreeSet<String>> {
    let mut all: Option<BTreeSet<String>> = None;
    for line in lines.iter().filter(|line| line.writer != me) {
        let wanted: BTreeSet<String> =
            rmp_serde::from_slice(&line.payload).unwrap_or_else(|error| {
                tracing::debug!(writer = %line.writer, %error, "a node's subscriptions were not understood");
                BTreeSet::new()
            });
        all.get_or_insert_default().extend(wanted);
    }
    all
}

/// Keeps a resource watched until dropped.
#[derive(Debug)]
pub struct Subscription {
    pub(super) interest: Weak<Interest>,
    pub(super) changed: Weak<Notify>,
    pub(super) confirmed: watch::Receiver<Confirmed>,
    pub(super) uri: String,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(interest) = self.interest.upgrade() {
            interest.change(&self.uri, false);
        }
        if let Some(changed) = self.changed.upgrade() {
            changed.notify_one();
        }
    }
}

/// Waits until the server has confirmed all of them, or for as long as a
/// client can be kept waiting: what changes from then on will be told. A slow
/// server delays a client, it does not fail it.
pub async fn confirmed(subscriptions: impl IntoIterator<Item = &Subscription>) {
    let until = Instant::now() + CONFIRMATION;
    for subscription in subscriptions {
        let mut confirmed = subscription.confirmed.clone();
        let settled = confirmed.wait_for(|confirmed| confirmed.is_settled(&subscription.uri));
        if !matches!(tokio::time::timeout_at(until, settled).await, Ok(Ok(_))) {
            tracing::debug!(
                uri = subscription.uri,
                "a subscription is not confirmed yet"
            );
        }
    }
}
