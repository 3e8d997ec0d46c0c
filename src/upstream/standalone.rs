//! The standalone stream of a Streamable HTTP session: what the server says
//! outside of any call, and what badly attributed servers say within one.
//!
//! At most one per session and node: some servers refuse a second.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{
    Shared, UpstreamError, incoming,
    link::Link,
    resume::{EventStream, OnEnd},
    router::{Owner, Routed},
};

/// How long a server may take to refuse the stream.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long one may be silent before its first event.
const FAR: Duration = Duration::from_secs(365 * 86_400);
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

impl Link {
    /// Sees to it that the standalone stream is read. Channels that have one
    /// stream for everything need no other.
    ///
    /// # Errors
    /// [`UpstreamError::NotOffered`] when the server has no such stream.
    pub(super) async fn read_standalone(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        let Some(origin) = self.origin(shared) else {
            return Ok(());
        };
        let _one_at_a_time = timeout_at(deadline, self.opening_standalone.lock())
            .await
            .map_err(|_| UpstreamError::TimedOut { sent: false })?;
        if self.reads_standalone() {
            return Ok(());
        }
        let far = Instant::now() + FAR;
        let to_open = origin.clone();
        let mut opening = Box::pin(async move { to_open.open(None, far).await });
        // Some servers send no headers before their first event: silence is
        // taken for consent, since a refusal comes at once.
        let patience = deadline.min(Instant::now() + PATIENCE);
        let stream = match timeout_at(patience, &mut opening).await {
            Ok(reader) => EventStream::from_reader(reader?, origin, OnEnd::Reopen),
            Err(_elapsed) => EventStream::from_opening(opening, origin, OnEnd::Reopen),
        };
        self.standalone.store(true, Ordering::Release);
        let (link, shared_too) = (Arc::clone(self), Arc::clone(shared));
        shared.tasks.spawn_brief(async move {
            tokio::select! {
                () = link.end.cancelled() => {}
                () = link.unheard() => {}
                error = link.follow(&shared_too, stream) => {
                    debug!(replica = %link.replica, %error, "a standalone stream ended");
                    if matches!(error, UpstreamError::SessionLost) {
                        link.mark_lost();
                        link.router.close(&error);
                    }
                }
            }
            link.standalone.store(false, Ordering::Release);
            link.router.end_listeners();
        });
        Ok(())
    }

    /// Completes when a client's session has no listener any more. A pooled
    /// session is read for its calls.
    async fn unheard(&self) {
        if self.router.owner() == Owner::Pool {
            return std::future::pending().await;
        }
        loop {
            let gone = self.router.listener_gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if !self.router.has_listeners() {
                return;
            }
            gone.await;
        }
    }

    /// Routes what comes until nothing can come any more.
    async fn follow(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        mut stream: EventStream,
    ) -> UpstreamError {
        let mut messages = VecDeque::new();
        loop {
            let event = match stream.next().await {
                Ok(event) => event,
                Err(error) => return error,
            };
            if let Err(error) = incoming::read(&event.data, &mut messages) {
                debug!(replica = %self.replica, %error, "an event is skipped");
            }
            for message in messages.drain(..) {
                self.route(shared, message);
            }
        }
    }

    /// Gives a message to whom it belongs; replies where nobody is responsible.
    pub(super) fn route(self: &Arc<Self>, shared: &Arc<Shared>, message: incoming::Incoming) {
        let Routed::Reply(reply) = self.router.route(message) else {
            return;
        };
        let (link, shared_too) = (Arc::clone(self), Arc::clone(shared));
        shared.tasks.spawn_brief(async move {
            let deadline = Instant::now() + REPLY_TIMEOUT;
            if let Err(error) = link.send(&shared_too, reply, deadline).await {
                debug!(replica = %link.replica, %error, "a reply did not arrive");
            }
        });
    }
}
