//! One request and what comes back, the same whatever channel it travels on.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{
    Ask, Event, Shared, UpstreamError,
    changes::Changes,
    incoming::{self, Incoming, Notice, answers, ended},
    resume::{EventStream, Item, never_answered},
    router::{Owner, Registration, pong},
    session::Lease,
};
use crate::mcp::{
    Raw,
    capabilities::InputKind,
    envelope::{self, LogLevel},
    error::RpcError,
    json::{self, RawObject},
    message::{self, Answer, RequestId, response_bytes},
    method,
    version::{Era, Version},
};
use crate::{ids::ServerId, telemetry::metrics::Outcome};

/// Questions that may be open at once within one exchange.
const MAX_QUESTIONS: usize = 64;
/// How long a reply may take that nobody waits for.
const REPLY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// One request and what comes back.
///
/// Dropping it before [`Event::Done`] cancels the request at the replica: a
/// modern HTTP stream is closed, everyone else gets `notifications/cancelled`.
#[derive(Debug)]
pub struct Exchange {
    shared: Arc<Shared>,
    server: ServerId,
    version: Version,
    id: RequestId,
    /// The client's progress token.
    token: Option<Box<Raw>>,
    logs: Logs,
    deadline: Option<Instant>,
    source: Source,
    lease: Option<Lease>,
    changes: Changes,
    pending: VecDeque<Incoming>,
    questions: Vec<RequestId>,
    /// Whether the replica may be at work for us.
    running: bool,
    /// Until the outcome is counted.
    begun: Option<Instant>,
}

/// Which log messages are handed up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Logs {
    /// All that arrive: the replica knows what was asked for.
    All,
    /// None: the session sends what others asked for.
    Nothing,
    /// From this level on.
    From(LogLevel),
}

/// Where messages come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Everything has arrived.
    Nothing,
    /// The response of our POST, and what the session's standalone stream has for us.
    Post(Box<EventStream>, Option<Registration>),
    /// A shared channel.
    Shared(Registration),
}

/// What an exchange is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) server: ServerId,
    pub(super) version: Version,
    pub(super) id: RequestId,
    pub(super) token: Option<Box<Raw>>,
    pub(super) logs: Logs,
    pub(super) deadline: Option<Instant>,
    pub(super) lease: Option<Lease>,
    pub(super) changes: Changes,
}

impl Exchange {
    /// An exchange that has nothing to receive yet.
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            shared: parts.shared,
            server: parts.server,
            version: parts.version,
            id: parts.id,
            token: parts.token,
            logs: parts.logs,
            deadline: parts.deadline,
            source: Source::Nothing,
            lease: parts.lease,
            changes: parts.changes,
            pending: VecDeque::new(),
            questions: Vec::new(),
            running: false,
            begun: None,
        }
    }

    /// The outcome is counted, from a beginning before the exchange was made.
    pub(super) fn count_from(&mut self, begun: Instant) {
        self.begun = Some(begun);
    }

    fn count(&mut self, outcome: Outcome) {
        if let Some(begun) = self.begun.take() {
            let metrics = &self.shared.metrics;
            metrics.upstream_request(&self.server, self.version.era(), outcome, begun.elapsed());
        }
    }

    /// The request is being sent: from now on dropping the exchange cancels it.
    pub(super) fn set_running(&mut self, running: bool) {
        self.running = running;
    }

    pub(super) fn set_source(&mut self, source: Source) {
        self.source = source;
    }

    /// The answer is there already, after `before`.
    pub(super) fn set_answer(&mut self, before: VecDeque<Incoming>, answer: Answer) {
        self.running = false;
        self.pending = before;
        self.pending.push_back(Incoming::Answer {
            id: Some(self.id.clone()),
            answer,
        });
    }

    pub(super) fn id(&self) -> &RequestId {
        &self.id
    }

    /// The version spoken with the replica.
    #[must_use]
    pub fn upstream_version(&self) -> Version {
        self.version
    }

    /// Sets when waiting ends; `None` waits as long as the replica lives. The
    /// deadline given to `call` holds until the first question: how long people
    /// may take is the caller's business.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// When no answer can come any more.
    pub async fn next(&mut self) -> Result<Event, UpstreamError> {
        loop {
            let incoming = match self.pending.pop_front() {
                Some(incoming) => incoming,
                None => self.receive().await?,
            };
            if let Some(event) = self.take_in(incoming) {
                return Ok(event);
            }
        }
    }

    /// Waits for the answer and drops everything else.
    pub(super) async fn answer_only(mut self) -> Result<Answer, UpstreamError> {
        loop {
            match self.next().await? {
                Event::Done(answer) => return Ok(answer),
                Event::Ask(ask) => self.refuse(&ask.key, &RpcError::method_not_found(&ask.method)),
                Event::Notification(_) | Event::Paused { .. } => {}
            }
        }
    }

    /// Answers an open question.
    ///
    /// # Errors
    /// When there is no such question or the replica cannot be told.
    pub async fn answer(&mut self, key: &RequestId, answer: &Answer) -> Result<(), UpstreamError> {
        let (Some(at), Some(lease)) = (
            self.questions.iter().position(|open| open == key),
            &self.lease,
        ) else {
            return Err(UpstreamError::NoSuchQuestion);
        };
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let reply = one_line(response_bytes(key, answer));
        lease
            .session
            .link
            .send(&self.shared, reply, deadline)
            .await?;
        self.questions.swap_remove(at);
        Ok(())
    }

    /// The next message. Cancel safe.
    async fn receive(&mut self) -> Result<Incoming, UpstreamError> {
        let deadline = self.deadline;
        let receiving = async {
            match &mut self.source {
                Source::Nothing => Err(ended()),
                Source::Shared(registration) => registration.next().await,
                Source::Post(stream, side) => {
                    let side_event = async {
                        match side {
                            Some(registration) => registration.event().await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        event = side_event => Ok(event),
                        item = stream.next_item() => match item? {
                            Item::Paused(pause) => Ok(Incoming::Paused(pause)),
                            Item::Event(event) => {
                                incoming::read(&event.data, &mut self.pending)?;
                                self.pending.pop_front().ok_or_else(never_answered)
                            }
                        }
                    }
                }
            }
        };
        let received = match deadline {
            Some(deadline) => timeout_at(deadline, receiving)
                .await
                .unwrap_or(Err(UpstreamError::TimedOut { sent: true })),
            None => receiving.await,
        };
        if let Err(error) = &received {
            self.count(outcome_of(error));
            // Where nobody is left who could be at work, there is nothing to cancel.
            self.running &= matches!(error, UpstreamError::TimedOut { .. });
            if !matches!(error, UpstreamError::TimedOut { .. }) {
                self.source = Source::Nothing;
            }
        }
        received
    }

    fn take_in(&mut self, incoming: Incoming) -> Option<Event> {
        match incoming {
            Incoming::Answer { id, answer } => {
                if !answers(id.as_ref(), &self.id, &answer) {
                    debug!("an answer to another request");
                    return None;
                }
                self.count(if answer.is_error() {
                    Outcome::RpcError
                } else {
                    Outcome::Ok
                });
                self.done();
                Some(Event::Done(answer))
            }
            Incoming::Notification(notice) => self.take_notice(&notice).map(Event::Notification),
            Incoming::Request { id, method, params } => self.take_question(id, method, params),
            Incoming::Paused(retry) => Some(Event::Paused { retry }),
        }
    }

    fn done(&mut self) {
        self.running = false;
        self.questions.clear();
        self.pending.clear();
        if let Source::Post(mut stream, _) = std::mem::replace(&mut self.source, Source::Nothing)
            && let Some(rest) = stream.finish()
        {
            self.shared.tasks.spawn_brief(rest);
        }
        self.lease = None;
    }

    /// The notification as it is handed up, `None` when it is not for the caller.
    fn take_notice(&self, notice: &Notice) -> Option<Bytes> {
        let from_post = matches!(self.source, Source::Post(..) | Source::Nothing);
        if from_post {
            // Shared channels report changes themselves.
            self.changes.report(notice);
        }
        match notice.method.as_str() {
            method::PROGRESS => {
                let ours = notice.progress_token().as_ref() == Some(&self.id);
                let token = self.token.as_ref().filter(|_| ours)?;
                let params = envelope::with_progress_token(notice.params.as_deref()?, token);
                Some(notice.with_params(&params))
            }
            method::LOG_MESSAGE => self.wants_log(notice).then(|| notice.whole.clone()),
            _ if self.is_of_pool() && self.version.era() == Era::Legacy => {
                // On a session of many callers the rest concerns no caller.
                (notice.method == method::CANCELLED).then(|| notice.whole.clone())
            }
            _ => Some(notice.whole.clone()),
        }
    }

    fn wants_log(&self, notice: &Notice) -> bool {
        match self.logs {
            Logs::All => true,
            Logs::Nothing => false,
            Logs::From(least) => notice
                .text_param("level")
                .and_then(|level| LogLevel::parse(&level))
                .is_none_or(|level| level >= least),
        }
    }

    fn is_of_pool(&self) -> bool {
        self.lease
            .as_ref()
            .is_none_or(|lease| lease.session.terms.owner == Owner::Pool)
    }

    fn take_question(
        &mut self,
        id: RequestId,
        method: String,
        params: Option<Box<Raw>>,
    ) -> Option<Event> {
        let Some(lease) = &self.lease else {
            debug!(method, "a modern server sent a request: ignored");
            return None;
        };
        if method == method::PING {
            self.reply(response_bytes(&id, &pong()));
            return None;
        }
        let kind = InputKind::of(&method, params.as_deref());
        let allowed = lease.session.terms.capabilities.allows(kind);
        if !allowed {
            self.refuse(&id, &refusal(&method, kind, lease));
            return None;
        }
        if self.questions.len() == MAX_QUESTIONS {
            self.refuse(&id, &RpcError::internal("too many questions are open"));
            return None;
        }
        self.questions.push(id.clone());
        self.deadline = None;
        Some(Event::Ask(Ask {
            key: id,
            method,
            params,
        }))
    }

    fn refuse(&self, id: &RequestId, error: &RpcError) {
        self.reply(response_bytes(id, &Answer::error(error)));
    }

    /// Sends a reply that nobody waits for.
    fn reply(&self, reply: Bytes) {
        let Some(lease) = &self.lease else { return };
        let (session, shared) = (Arc::clone(&lease.session), Arc::clone(&self.shared));
        self.shared.tasks.spawn_brief(async move {
            let deadline = Instant::now() + REPLY_TIMEOUT;
            if let Err(error) = session.link.send(&shared, one_line(reply), deadline).await {
                debug!(%error, "a reply did not reach the replica");
            }
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.count(Outcome::Cancelled);
        if !self.running {
            return;
        }
        // Dropping the source closes a modern stream, which is its cancellation.
        let Some(lease) = self.lease.take() else {
            return;
        };
        let mut notice = Vec::new();
        let params = cancelled(&self.id);
        message::write_notification(&mut notice, method::CANCELLED, Some(&params));
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn_brief(async move {
            let deadline = Instant::now() + REPLY_TIMEOUT;
            let sent = lease
                .session
                .link
                .send(&shared, notice.into(), deadline)
                .await;
            if let Err(error) = sent {
                debug!(%error, "a cancellation did not reach the replica");
            }
        });
    }
}

/// How a failure is counted.
pub(super) fn outcome_of(error: &UpstreamError) -> Outcome {
    match error.root() {
        UpstreamError::TimedOut { .. } => Outcome::TimedOut,
        UpstreamError::Busy(_) | UpstreamError::NotTaken(..) | UpstreamError::Stopping => {
            Outcome::Shed
        }
        UpstreamError::Refused { .. } | UpstreamError::NotOffered(_) => Outcome::Refused,
        UpstreamError::NoSuchQuestion => Outcome::Internal,
        UpstreamError::ConnectFailed(_)
        | UpstreamError::SpawnFailed(_)
        | UpstreamError::NotReady(_)
        | UpstreamError::Closed { .. }
        | UpstreamError::Http { .. }
        | UpstreamError::TooLarge { .. }
        | UpstreamError::Malformed(_)
        | UpstreamError::Incompatible(_)
        | UpstreamError::SessionLost
        | UpstreamError::SessionGone => Outcome::Unavailable,
    }
}

fn cancelled(id: &RequestId) -> Box<Raw> {
    let mut params = RawObject::new();
    params.set("requestId", id.as_raw());
    params.set("reason", json::raw_str("the caller went away"));
    params.to_raw()
}

/// Why a question is not passed on: the whole kind, or this variant of it.
fn refusal(method: &str, kind: InputKind, lease: &Lease) -> RpcError {
    let capabilities = &lease.session.terms.capabilities;
    let variant_only = match kind {
        InputKind::Sampling { tools: true } => {
            capabilities.allows(InputKind::Sampling { tools: false })
        }
        InputKind::ElicitUrl => capabilities.allows(InputKind::ElicitForm),
        InputKind::ElicitForm => capabilities.allows(InputKind::ElicitUrl),
        InputKind::Roots | InputKind::Sampling { tools: false } | InputKind::Other => false,
    };
    if variant_only {
        RpcError::invalid_params("the client did not declare this kind of request")
    } else {
        RpcError::method_not_found(method)
    }
}

/// The same message without line breaks, which pipes forbid and nobody needs.
pub(super) fn one_line(message: Bytes) -> Bytes {
    match json::single_line(&message) {
        std::borrow::Cow::Borrowed(_) => message,
        std::borrow::Cow::Owned(line) => line.into(),
    }
}
