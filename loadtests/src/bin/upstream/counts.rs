//! How often the server was asked what: the load tests compare it with how often
//! they asked.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub(crate) struct Counts {
    connections: AtomicU64,
    calls: AtomicU64,
    lists: AtomicU64,
    plain_lists: AtomicU64,
    probes: AtomicU64,
    sessions_opened: AtomicU64,
    sessions_ended: AtomicU64,
    others: AtomicU64,
}

impl Counts {
    pub(crate) fn connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// The driver's, which asks once per connection: no part of the load.
    pub(crate) fn connection_only_asks_for_counts(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn request(&self, method: &str) {
        let counter = match method {
            "tools/call" => &self.calls,
            "tools/list" => &self.lists,
            // What health checks ask.
            "server/discover" | "ping" => &self.probes,
            _ => &self.others,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn plain_list(&self) {
        self.plain_lists.fetch_add(1, Relaxed);
    }

    /// The number of the new session.
    pub(crate) fn session_opened(&self) -> u64 {
        self.sessions_opened.fetch_add(1, Relaxed)
    }

    pub(crate) fn session_ended(&self) {
        self.sessions_ended.fetch_add(1, Relaxed);
    }

    pub(crate) fn to_json(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        format!(
            r#"{{"connections":{},"tools/call":{},"tools/list":{},"plain lists":{},"probes":{},"sessions opened":{},"sessions ended":{},"others":{}}}"#,
            of(&self.connections),
            of(&self.calls),
            of(&self.lists),
            of(&self.plain_lists),
            of(&self.probes),
            of(&self.sessions_opened),
            of(&self.sessions_ended),
            of(&self.others),
        )
    }
}
