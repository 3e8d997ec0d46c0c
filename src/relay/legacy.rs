//! A legacy client's side of a call: the request stays open while questions
//! and answers travel on its stream, and outlives the client's connection.
//!
//! Losing the connection must not cancel the call: it is carried by whoever
//! waits for its answer, and goes on as a task of its own when that one goes
//! away, when there is more than an answer to send, or when it takes long. What
//! it sends is also written to the stream's log as soon as there is more than
//! one answer to send, so that the client can resume on any node. Answers to
//! questions come back through a mailbox, from any node.

mod beside;
mod carrier;
mod running;

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, time::Instant};
use tracing::{Instrument as _, Span};

pub(super) use self::carrier::mailbox_address;
pub(crate) use self::running::Running;
use self::{
    carrier::{Carrier, Out},
    running::{Cancelled, Listed},
};
use super::{Call, Relay, RelayError, event_log::EventLog};
use crate::{
    mcp::message::{Answer, RequestId},
    session::Session,
};

/// Items a client that reads slowly may be behind.
const BACKLOG: usize = 64;

/// What the client is sent next.
#[derive(Debug)]
pub enum Item {
    /// A notification or a question, a whole message, with the event's id where it can be resumed.
    Message {
        /// The event's id.
        id: Option<String>,
        /// The message.
        message: Bytes,
    },
    /// The server paused the call: a client that can resume may hang up and
    /// come back after this time.
    Paused {
        /// The server's `retry`.
        retry: std::time::Duration,
    },
    /// The answer; nothing follows.
    Done {
        /// The event's id, when the answer was written to the stream's log.
        id: Option<String>,
        /// The answer.
        answer: Answer,
        /// Why no server has answered, where none has.
        failure: Option<RelayError>,
    },
}

/// A call that takes longer is not left to whoever waits for it: a client that
/// does not read would stop it.
const BRIEF: Duration = Duration::from_secs(1);

/// A running call as the client's connection sees it. Dropping it does not end the call.
pub struct Flow {
    items: mpsc::Receiver<Item>,
    log: Arc<EventLog>,
    /// The call, while it is no task of its own.
    carrier: Option<BoxFuture<'static, ()>>,
    cancelled: Cancelled,
    begun: Instant,
    relay: Arc<Relay>,
    /// Of its parameters.
    bytes: usize,
    span: Span,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").finish_non_exhaustive()
    }
}

impl Flow {
    /// What the client is sent next; `None` when the call was cancelled. Cancel safe.
    pub async fn next(&mut self) -> Option<Item> {
        poll_fn(|cx| {
            if let Poll::Ready(item) = self.items.poll_recv(cx) {
                if let Some(Item::Message { .. } | Item::Paused { .. }) = &item {
                    self.detach();
                }
                return Poll::Ready(item);
            }
            if self.begun.elapsed() >= BRIEF {
                self.detach();
            }
            let Some(carrier) = &mut self.carrier else {
                return Poll::Pending;
            };
            if carrier.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.carrier = None;
            self.items.poll_recv(cx)
        })
        .await
    }

    /// Whether the call was cancelled because its session ended.
    #[must_use]
    pub fn session_has_ended(&self) -> bool {
        self.cancelled.session_has_ended()
    }

    /// Lets the call go on by itself, where the node has room for it.
    fn detach(&mut self) {
        let Some(carrier) = self.carrier.take() else {
            return;
        };
        let ending = self.relay.tasks.ending().clone();
        if ending.is_cancelled() {
            return;
        }
        let Some(place) = self.relay.room.place(self.bytes) else {
            self.carrier = Some(carrier);
            return;
        };
        let carried = async move {
            let _place = place;
            tokio::select! {
                () = ending.cancelled() => {}
                () = carrier => {}
            }
        };
        self.relay
            .tasks
            .spawn_brief(carried.instrument(self.span.clone()));
    }

    /// Where the stream's events are written for those who resume it.
    pub(crate) fn log(&self) -> &Arc<EventLog> {
        &self.log
    }
}

impl Drop for Flow {
    /// A call that nobody waits for and that there is no room for is cancelled.
    fn drop(&mut self) {
        self.detach();
    }
}

/// Starts a call on behalf of a legacy client.
pub fn begin(relay: &Arc<Relay>, session: &Arc<Session>, id: &RequestId, call: Call) -> Flow {
    let (items, received) = mpsc::channel(BACKLOG);
    let log = Arc::new(EventLog::new(
        &session.key,
        Arc::clone(&relay.store),
        &relay.settings,
    ));
    let bytes = call.params.as_ref().map_or(0, |params| params.get().len());
    let (listed, cancelled) = Listed::new(relay, session, id);
    let now = Instant::now();
    let out = Out::new(items, Arc::clone(&log), now + relay.settings.max_duration);
    let carrier = Carrier::new(relay, session, id, call, out);
    let token = cancelled.token.clone();
    let carrier = Box::pin(async move {
        let _listed = listed;
        tokio::select! {
            () = token.cancelled() => {}
            () = carrier.run() => {}
        }
    });
    Flow {
        items: received,
        log,
        carrier: Some(carrier),
        cancelled,
        relay: Arc::clone(relay),
        bytes,
        begun: now,
        span: Span::current(),
    }
}
