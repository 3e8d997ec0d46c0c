//! Gives each message of a shared channel to whom it belongs.
//!
//! A pipe, an HTTP+SSE stream or the standalone stream of a session carries
//! messages for many calls. Answers go by id, progress by token, changes of a
//! subscription by its id. A question names no call: it is given to the only
//! call that can have caused it, and refused when that cannot be told. Nothing
//! here waits: a slow reader loses notifications, never the answer, and never
//! holds up its neighbours.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, mpsc, oneshot};
use tracing::debug;

use super::{
    UpstreamError,
    changes::Changes,
    incoming::{Incoming, Notice, ended},
};
use crate::mcp::{
    error::RpcError,
    json::RawObject,
    message::{Answer, RequestId, response_bytes},
    method,
};

/// Notifications and questions waiting for one reader.
const QUEUE: usize = 256;
/// Messages kept for a client that listens to nothing at the moment.
const BACKLOG: usize = 64;

/// For whom a session was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Many callers: what cannot be attributed to one of them is refused or dropped.
    Pool,
    /// One client: whatever arrives is for it.
    Client,
}

/// What the channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything: what belongs to a call comes here, named or not.
    Shared,
    /// What belongs to no call, if the server is well made.
    Standalone,
}

/// What a registered call can be given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Interest {
    /// Questions: the client declared that it can be asked.
    pub(super) questions: bool,
    /// Log messages.
    pub(super) logs: bool,
}

/// Distributes the messages of one channel.
#[derive(Debug)]
pub(super) struct Router {
    owner: Owner,
    kind: Kind,
    changes: Changes,
    state: Mutex<State>,
    /// Notified when a listener goes.
    pub(super) listener_gone: Notify,
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<RequestId, Call>,
    listeners: Vec<Listener>,
    next_listener: u64,
    backlog: VecDeque<Incoming>,
    closed: Option<UpstreamError>,
}

#[derive(Debug)]
struct Call {
    interest: Interest,
    events: mpsc::Sender<Incoming>,
    answer: oneshot::Sender<Result<Answer, UpstreamError>>,
}

#[derive(Debug)]
struct Listener {
    number: u64,
    events: mpsc::Sender<Incoming>,
}

/// What the owner of the channel has to do after a message was routed.
#[derive(Debug)]
pub(super) enum Routed {
    /// Nothing.
    Done,
    /// Send this message back.
    Reply(bytes::Bytes),
}

impl Router {
    pub(super) fn new(owner: Owner, kind: Kind, changes: Changes) -> Arc<Self> {
        Arc::new(Self {
            owner,
            kind,
            changes,
            state: Mutex::default(),
            listener_gone: Notify::new(),
        })
    }

    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it, and the maps stay whole if one did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a call before its request is sent.
    pub(super) fn register(
        self: &Arc<Self>,
        id: &RequestId,
        interest: Interest,
    ) -> Result<Registration, UpstreamError> {
        let (events, events_rx) = mpsc::channel(QUEUE);
        let (answer, answer_rx) = oneshot::channel();
        let mut state = self.state();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        let call = Call {
            interest,
            events,
            answer,
        };
        state.calls.insert(id.clone(), call);
        Ok(Registration {
            router: Arc::clone(self),
            place: Place::Call(id.clone()),
            events: Some(events_rx),
            answer: Some(answer_rx),
        })
    }

    /// Registers a reader of what belongs to no call.
    pub(super) fn listen(self: &Arc<Self>) -> Result<Registration, UpstreamError> {
        let (events, events_rx) = mpsc::channel(QUEUE);
        let mut state = self.state();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        for waiting in std::mem::take(&mut state.backlog) {
            // The backlog is shorter than the queue.
            events.try_send(waiting).ok();
        }
        let number = state.next_listener;
        state.next_listener += 1;
        state.listeners.push(Listener { number, events });
        Ok(Registration {
            router: Arc::clone(self),
            place: Place::Listener(number),
            events: Some(events_rx),
            answer: None,
        })
    }

    /// Whether anyone reads what belongs to no call.
    pub(super) fn has_listeners(&self) -> bool {
        !self.state().listeners.is_empty()
    }

    /// What belongs to no call cannot be received any more; calls go on.
    pub(super) fn end_listeners(&self) {
        self.state().listeners.clear();
    }

    /// The channel is gone: all calls fail with `error`, later ones at once.
    pub(super) fn close(&self, error: &UpstreamError) {
        let mut state = self.state();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(error.clone());
        state.listeners.clear();
        state.backlog.clear();
        for (_, call) in state.calls.drain() {
            call.answer.send(Err(error.clone())).ok();
        }
    }

    fn why_closed(&self) -> UpstreamError {
        self.state().closed.clone().unwrap_or_else(ended)
    }

    /// Gives a message to whom it belongs.
    pub(super) fn route(&self, incoming: Incoming) -> Routed {
        match incoming {
            Incoming::Answer { id, answer } => {
                self.route_answer(id, answer);
                Routed::Done
            }
            Incoming::Notification(notice) => {
                self.route_notice(notice);
                Routed::Done
            }
            // Pauses concern the stream of a call, which is not routed.
            Incoming::Paused(_) => Routed::Done,
            Incoming::Request { id, method, .. } if method == method::PING => {
                Routed::Reply(response_bytes(&id, &pong()))
            }
            Incoming::Request { id, method, params } => self.route_question(id, method, params),
        }
    }

    fn route_answer(&self, id: Option<RequestId>, answer: Answer) {
        let Some(call) = id.and_then(|id| self.state().calls.remove(&id)) else {
            // The call was cancelled, or the answer was refused earlier.
            debug!("an answer nobody waits for");
            return;
        };
        call.answer.send(Ok(answer)).ok();
    }

    fn route_notice(&self, notice: Notice) {
        self.changes.report(&notice);
        let mut state = self.state();
        let named = notice.progress_token().or_else(|| subscription(&notice));
        if let Some(id) = named {
            if let Some(call) = state.calls.get(&id) {
                deliver(&call.events, Incoming::Notification(notice));
            }
            return;
        }
        if notice.method == method::PROGRESS {
            return;
        }
        let about_a_call = matches!(
            notice.method.as_str(),
            method::LOG_MESSAGE | method::CANCELLED
        );
        if about_a_call
            && !self.is_for_listener(&state)
            && let Some(call) = state.only_call(|call| call.interest.logs)
        {
            deliver(&call.events, Incoming::Notification(notice));
            return;
        }
        if self.owner == Owner::Client {
            state.keep(Incoming::Notification(notice));
        }
    }

    fn route_question(
        &self,
        id: RequestId,
        method: String,
        params: Option<Box<crate::mcp::Raw>>,
    ) -> Routed {
        let mut state = self.state();
        let question = Incoming::Request {
            id: id.clone(),
            method,
            params,
        };
        let target = match self.is_for_listener(&state) {
            true => None,
            false => state.only_call(|call| call.interest.questions),
        };
        let delivered = match (target, self.owner) {
            (Some(call), _) => deliver(&call.events, question),
            // Several calls, one client: whichever call is asked, the client answers.
            (None, Owner::Client) => match state.any_call(|call| call.interest.questions) {
                Some(call) if state.listeners.is_empty() => deliver(&call.events, question),
                _ => state.keep(question),
            },
            (None, Owner::Pool) => false,
        };
        if delivered {
            return Routed::Done;
        }
        let why = "the question cannot be attributed to one call";
        Routed::Reply(response_bytes(
            &id,
            &Answer::error(&RpcError::internal(why)),
        ))
    }

    /// Whether what names no call goes to the client's listener first, on the
    /// same stream as the server sent it.
    fn is_for_listener(&self, state: &State) -> bool {
        self.owner == Owner::Client && self.kind == Kind::Standalone && !state.listeners.is_empty()
    }

    fn remove(&self, place: &Place) {
        let mut state = self.state();
        match place {
            Place::Call(id) => {
                state.calls.remove(id);
            }
            Place::Listener(number) => {
                state.listeners.retain(|l| l.number != *number);
                self.listener_gone.notify_waiters();
            }
        }
    }
}

impl State {
    /// The call, if exactly one qualifies.
    fn only_call(&self, qualifies: impl Fn(&Call) -> bool) -> Option<&Call> {
        let mut found = self.calls.values().filter(|call| qualifies(call));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    fn any_call(&self, qualifies: impl Fn(&Call) -> bool) -> Option<&Call> {
        self.calls.values().find(|call| qualifies(call))
    }

    /// Gives a message to the client's listener, or keeps it until there is one.
    fn keep(&mut self, incoming: Incoming) -> bool {
        // Each message goes to exactly one stream: the newest, the older ones
        // may be dead without anyone having noticed.
        if let Some(listener) = self.listeners.last() {
            return deliver(&listener.events, incoming);
        }
        if self.backlog.len() == BACKLOG {
            return false;
        }
        self.backlog.push_back(incoming);
        true
    }
}

fn deliver(events: &mpsc::Sender<Incoming>, incoming: Incoming) -> bool {
    let delivered = events.try_send(incoming).is_ok();
    if !delivered {
        debug!("a message was dropped: its reader is too slow");
    }
    delivered
}

/// The id of the listen request a notification belongs to.
fn subscription(notice: &Notice) -> Option<RequestId> {
    let params = RawObject::parse(notice.params.as_deref()?).ok()?;
    let meta = params.get_object("_meta")?;
    RequestId::parse(meta.get(crate::mcp::envelope::SUBSCRIPTION_ID)?).ok()
}

/// The answer to `ping`.
pub(super) fn pong() -> Answer {
    Answer::Result(crate::mcp::json::raw(&serde_json::json!({})))
}

#[derive(Debug)]
enum Place {
    Call(RequestId),
    Listener(u64),
}

/// A place at a [`Router`]; dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Registration {
    router: Arc<Router>,
    place: Place,
    /// `None` once drained.
    events: Option<mpsc::Receiver<Incoming>>,
    answer: Option<oneshot::Receiver<Result<Answer, UpstreamError>>>,
}

impl Registration {
    /// The next message, the answer last. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Incoming, UpstreamError> {
        if let Some(events) = &mut self.events {
            // The sender goes when the answer is there or the channel is gone.
            if let Some(incoming) = events.recv().await {
                return Ok(incoming);
            }
            self.events = None;
        }
        let (Some(answer), Place::Call(id)) = (&mut self.answer, &self.place) else {
            return Err(self.router.why_closed());
        };
        let outcome = answer.await;
        self.answer = None;
        Ok(Incoming::Answer {
            id: Some(id.clone()),
            answer: outcome.unwrap_or_else(|_| Err(ended()))?,
        })
    }

    /// The next message that is not the answer; never, when none can come. Cancel safe.
    pub(super) async fn event(&mut self) -> Incoming {
        if let Some(events) = &mut self.events {
            if let Some(incoming) = events.recv().await {
                return incoming;
            }
            self.events = None;
        }
        std::future::pending().await
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.router.remove(&self.place);
    }
}

#[cfg(test)]
mod tests;
