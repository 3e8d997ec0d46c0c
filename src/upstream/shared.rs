//! What all parts of this module need at hand.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    client::HttpClient,
    elsewhere,
    local::{self, Locals},
};
use crate::{
    cluster::membership::Membership, ids::ServerId, lifecycle::Tasks, mcp::message::RequestId,
    store::Store, telemetry::metrics::Metrics,
};

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
    /// Owner of the tasks that keep processes.
    pub(super) children: Tasks,
    /// The stdio servers this node runs.
    pub(super) locals: Locals,
    /// Notified whenever a session may have become free.
    pub(super) freed: Notify,
    /// What child processes inherit.
    pub(super) environment: BTreeMap<OsString, OsString>,
    /// Who else is of this node's fleet, once that is known.
    pub(super) members: OnceLock<Arc<Membership>>,
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
        let closing = CancellationToken::new();
        let locals = Locals::new(tasks.clone(), closing.clone());
        Arc::new(Self {
            http: HttpClient::new(&settings, locals.clone()),
            settings,
            store,
            tasks,
            metrics,
            closing,
            killing: CancellationToken::new(),
            children: Tasks::new(),
            locals,
            freed: Notify::new(),
            environment: local::minimal_environment(),
            members: OnceLock::new(),
            next_id: AtomicU64::new(start),
        })
    }

    /// What tokens for a stdio server of this node are made for.
    pub(super) fn audience(&self, server: &ServerId) -> String {
        match self.members.get() {
            Some(members) => elsewhere::audience(members.me(), server),
            None => format!("{}/{server}", self.settings.signer.node()),
        }
    }

    /// An id that no other request of the fleet has.
    pub(super) fn next_id(&self) -> RequestId {
        RequestId::new_number(self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}
