//! What all parts of this module need at hand.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Settings, client::HttpClient, stdio};
use crate::{lifecycle::Tasks, mcp::message::RequestId, store::Store, telemetry::metrics::Metrics};

/// What all parts of this module need at hand.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) http: HttpClient,
    pub(super) store: Arc<dyn Store>,
    pub(super) tasks: Tasks,
    pub(super) metrics: Arc<Metrics>,
    /// Cancelled when every stream and process has to end.
    pub(super) closing: CancellationToken,
    /// Cancelled when there is no more time for processes to end by themselves.
    pub(super) killing: CancellationToken,
    /// The processes that are running.
    pub(super) children: TaskTracker,
    /// Notified whenever a session may have become free.
    pub(super) freed: Notify,
    /// What child processes inherit.
    pub(super) environment: BTreeMap<OsString, OsString>,
    next_id: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        // Nodes share the sessions of clients, where ids must not meet. A start
        // at random below 2^52 keeps them apart, and exact in a double.
        let start = rand::random::<u64>() >> 12;
        Arc::new(Self {
            http: HttpClient::new(&settings),
            settings,
            store,
            tasks,
            metrics,
            closing: CancellationToken::new(),
            killing: CancellationToken::new(),
            children: TaskTracker::new(),
            freed: Notify::new(),
            environment: stdio::minimal_environment(),
            next_id: AtomicU64::new(start),
        })
    }

    /// An id that no other request of the fleet has.
    pub(super) fn next_id(&self) -> RequestId {
        RequestId::new_number(self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}
