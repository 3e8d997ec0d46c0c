//! Legacy clients' calls that run on this node, for those who want to cancel one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use crate::{
    fleet::{Heard, News},
    mcp::message::RequestId,
    relay::Relay,
    session::Session,
};

/// The calls that run on this node, for those who want to cancel one.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashMap<Arc<str>, HashMap<String, Cancelled>>>);

/// Whether a call was cancelled, and why.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancelled {
    pub(super) token: CancellationToken,
    session_has_ended: Arc<AtomicBool>,
}

impl Cancelled {
    /// Whether it was because its session ended, which the client has to be
    /// told: it did not ask for that call to be cancelled.
    pub(super) fn session_has_ended(&self) -> bool {
        self.session_has_ended.load(Ordering::Acquire)
    }
}

impl Running {
    fn map(&self) -> MutexGuard<'_, HashMap<Arc<str>, HashMap<String, Cancelled>>> {
        // Single inserts and removes: a panic cannot leave the map in between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, session: &Arc<str>, request: String) -> Cancelled {
        let cancelled = Cancelled::default();
        self.map()
            .entry(Arc::clone(session))
            .or_default()
            .insert(request, cancelled.clone());
        cancelled
    }

    fn remove(&self, session: &Arc<str>, request: &str) {
        let mut map = self.map();
        if let Some(requests) = map.get_mut(session) {
            requests.remove(request);
            if requests.is_empty() {
                map.remove(session);
            }
        }
    }

    /// Cancels a call; `false` when it does not run here.
    pub(crate) fn cancel(&self, session: &str, request: &str) -> bool {
        let map = self.map();
        let call = map.get(session).and_then(|requests| requests.get(request));
        call.inspect(|call| call.token.cancel()).is_some()
    }

    /// Cancels every call of a session that ended.
    pub(crate) fn cancel_all(&self, session: &str) {
        if let Some(requests) = self.map().get(session) {
            for call in requests.values() {
                call.session_has_ended.store(true, Ordering::Release);
                call.token.cancel();
            }
        }
    }
}

/// A call's place among those that run.
pub(super) struct Listed {
    relay: Arc<Relay>,
    session: Arc<str>,
    request: String,
}

impl Listed {
    /// Lists a call, for those who want to cancel it.
    pub(super) fn new(relay: &Arc<Relay>, session: &Session, id: &RequestId) -> (Self, Cancelled) {
        let request = id.as_raw().get().to_owned();
        let cancelled = relay.running.add(&session.key, request.clone());
        let listed = Self {
            relay: Arc::clone(relay),
            session: Arc::clone(&session.key),
            request,
        };
        (listed, cancelled)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.relay.running.remove(&self.session, &self.request);
    }
}

impl Relay {
    /// Cancels a call that runs on this node; `false` when none does.
    pub(crate) fn cancel(&self, session: &str, request: &str) -> bool {
        self.running.cancel(session, request)
    }

    /// Cancels calls that clients cancelled on other nodes or whose session
    /// ended, until the node stops.
    pub async fn follow(&self) {
        let mut listener = self.fleet.listen();
        while let Some(heard) = listener.next().await {
            let Heard::News(news) = heard else { continue };
            match &*news {
                News::Cancelled { session, request } => {
                    self.running.cancel(session, request);
                }
                News::Revoked { session } => self.running.cancel_all(session),
                // What else happens is for others to hear.
                _ => {}
            }
        }
    }
}
