//! A legacy client's side of a call: the request stays open while questions
//! and answers travel on its stream, and outlives the client's connection.
//!
//! Losing the connection must not cancel the call: it is carried by whoever
//! waits for its answer, and goes on as a task of its own when that one goes
//! away, when there is more than an answer to send, or when it takes long. What it sends is also written to the stream's log as soon as
//! there is more than one answer to send, so that the client can resume on any
//! node. Answers to questions come back through a mailbox, from any node.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::{
    Begun, Call, Relay, RelayError,
    event_log::EventLog,
    mailbox::{Delivery, Letter, Mailbox},
};
use crate::{
    fleet::{Heard, News},
    ids::{Principal, hex},
    lifecycle::Tasks,
    mcp::{
        Raw,
        capabilities::InputKind,
        envelope::{LogLevel, TraceContext},
        error::RpcError,
        json::{self, RawObject},
        message::{self, Answer, Message, RequestId},
        method,
        mrtr::{self, InputRequired},
        shape,
        version::Era,
    },
    servers::Server,
    session::{MERGED, Session},
    store::StoreError,
    upstream::{ClientSession, Event},
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
    },
    /// There is no answer: the server's side of the session has ended with the
    /// node it lived on. Nothing follows.
    Gone,
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
    begun: Instant,
    tasks: Tasks,
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

    /// Lets the call go on by itself.
    fn detach(&mut self) {
        let ending = self.tasks.ending();
        let Some(carrier) = self.carrier.take().filter(|_| !ending.is_cancelled()) else {
            return;
        };
        let ending = ending.clone();
        let carried = async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = carrier => {}
            }
        };
        self.tasks
            .spawn_brief(carried.instrument(self.span.clone()));
    }

    /// Where the stream's events are written for those who resume it.
    pub(crate) fn log(&self) -> &Arc<EventLog> {
        &self.log
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.detach();
    }
}

/// The calls that run on this node, for those who want to cancel one.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashMap<Arc<str>, HashMap<String, CancellationToken>>>);

impl Running {
    fn map(&self) -> MutexGuard<'_, HashMap<Arc<str>, HashMap<String, CancellationToken>>> {
        // Single inserts and removes: a panic cannot leave the map in between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, session: &Arc<str>, request: String) -> CancellationToken {
        let token = CancellationToken::new();
        self.map()
            .entry(Arc::clone(session))
            .or_default()
            .insert(request, token.clone());
        token
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
        let token = map.get(session).and_then(|requests| requests.get(request));
        token.inspect(|token| token.cancel()).is_some()
    }

    /// Cancels every call of a session that ended.
    pub(crate) fn cancel_all(&self, session: &str) {
        if let Some(requests) = self.map().get(session) {
            requests.values().for_each(CancellationToken::cancel);
        }
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
    let request = id.as_raw().get().to_owned();
    let cancelled = relay.running.add(&session.key, request.clone());
    let carrier = Carrier {
        relay: Arc::clone(relay),
        session: Arc::clone(session),
        id: id.clone(),
        original: call.params.clone(),
        call,
        begun: None,
        out: Out {
            items,
            log: Arc::clone(&log),
        },
        questions: Questions::default(),
        rounds: 0,
        last_progress: f64::NEG_INFINITY,
        era: Era::Modern,
    };
    let listed = Listed {
        relay: Arc::clone(relay),
        session: Arc::clone(&session.key),
        request,
    };
    let carrier = Box::pin(async move {
        let _listed = listed;
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = carrier.run() => {}
        }
    });
    Flow {
        items: received,
        log,
        carrier: Some(carrier),
        begun: Instant::now(),
        tasks: relay.tasks.clone(),
        span: Span::current(),
    }
}

/// A call's place among those that run.
struct Listed {
    relay: Arc<Relay>,
    session: Arc<str>,
    request: String,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.relay.running.remove(&self.session, &self.request);
    }
}

/// Where the client's items go.
struct Out {
    items: mpsc::Sender<Item>,
    log: Arc<EventLog>,
}

impl Out {
    async fn message(&self, message: Bytes) {
        let id = self.log.append(&message, false).await;
        // A client that is gone resumes from the log.
        self.items.send(Item::Message { id, message }).await.ok();
    }

    async fn paused(&self, retry: std::time::Duration) {
        self.items.send(Item::Paused { retry }).await.ok();
    }

    async fn done(&self, id: &RequestId, answer: Answer) {
        let id = match self.log.was_opened() {
            true => {
                self.log
                    .append(&message::response_bytes(id, &answer), true)
                    .await
            }
            false => None,
        };
        self.items.send(Item::Done { id, answer }).await.ok();
    }
}

/// Questions to the client that wait for their answers.
#[derive(Default)]
struct Questions {
    mailbox: Option<Mailbox>,
    prefix: String,
    next: u64,
    open: HashMap<String, Question>,
    /// A modern server's round: answers by its keys, in order.
    round: Option<Round>,
}

enum Question {
    /// A legacy server waits for it.
    OfExchange(RequestId),
    /// Part of a modern server's round.
    OfRound { key: String, method: String },
}

struct Round {
    answers: BTreeMap<String, Box<Raw>>,
    state: Option<Box<Raw>>,
}

/// The task that carries one call.
struct Carrier {
    relay: Arc<Relay>,
    session: Arc<Session>,
    id: RequestId,
    original: Option<Box<Raw>>,
    call: Call,
    begun: Option<Begun>,
    out: Out,
    questions: Questions,
    rounds: u32,
    /// Progress that does not increase is not passed on.
    last_progress: f64,
    /// The era spoken with the server, which decides what is translated.
    era: Era,
}

enum Next {
    Event(Result<Event, RelayError>),
    Letter(Letter),
}

impl Carrier {
    async fn run(mut self) {
        let answer = match self.carry().await {
            Ok(answer) => answer,
            // Whoever has read part of the stream is told on it.
            Err(error) if error.is_end_of_session() && !self.out.log.was_opened() => {
                self.out.items.send(Item::Gone).await.ok();
                return;
            }
            Err(error) => Answer::error(&error.to_rpc()),
        };
        let answer = self.shaped(answer);
        self.out.done(&self.id, answer).await;
    }

    async fn carry(&mut self) -> Result<Answer, RelayError> {
        let call_ends = Instant::now() + self.relay.settings.max_duration;
        let mut deadline = Instant::now() + self.call.server.timeout;
        self.begin(deadline.min(call_ends)).await?;
        loop {
            match self.next(deadline.min(call_ends)).await? {
                Next::Event(event) => match event? {
                    Event::Notification(message) => {
                        if is_progress(&message) {
                            deadline = Instant::now() + self.call.server.timeout;
                        }
                        if self.wants(&message) {
                            self.out.message(message).await;
                        }
                    }
                    Event::Paused { retry } => self.out.paused(retry).await,
                    Event::Ask(asked) => {
                        let question = Question::OfExchange(asked.key);
                        self.ask(&asked.method, asked.params.as_deref(), question)
                            .await;
                        deadline = Instant::now() + self.relay.settings.answer_timeout;
                    }
                    Event::Done(answer) => match input_required(&answer)? {
                        Some(required) => {
                            self.begun = None;
                            if let Some(failed) = self.begin_round(required).await? {
                                return Ok(failed);
                            }
                            deadline = Instant::now() + self.relay.settings.answer_timeout;
                            if self.questions.open.is_empty() {
                                deadline = self.next_round(call_ends).await?;
                            }
                        }
                        None => return Ok(answer),
                    },
                },
                Next::Letter(Letter::Answered { key, answer }) => {
                    if let Some(failed) = self.answered(&key, answer).await? {
                        return Ok(failed);
                    }
                    if self.questions.open.is_empty() {
                        deadline = match self.questions.round {
                            Some(_) => self.next_round(call_ends).await?,
                            None => Instant::now() + self.call.server.timeout,
                        };
                    }
                }
                Next::Letter(_) => {}
            }
        }
    }

    async fn begin(&mut self, deadline: Instant) -> Result<(), RelayError> {
        let begun = self.relay.begin(&self.call, deadline).await?;
        self.era = begun.era();
        self.begun = Some(begun);
        Ok(())
    }

    async fn next(&mut self, deadline: Instant) -> Result<Next, RelayError> {
        let event = async {
            match &mut self.begun {
                Some(begun) => begun.next(deadline).await,
                None => {
                    tokio::time::sleep_until(deadline).await;
                    Err(RelayError::Rpc(RpcError::internal(
                        "the client did not answer the server's question in time",
                    )))
                }
            }
        };
        match &mut self.questions.mailbox {
            Some(mailbox) => tokio::select! {
                letter = mailbox.next() => Ok(Next::Letter(letter)),
                event = event => Ok(Next::Event(event)),
            },
            None => Ok(Next::Event(event.await)),
        }
    }

    /// Whether a notification goes out on this call's stream.
    fn wants(&mut self, bytes: &[u8]) -> bool {
        let Ok(Message::Notification(notification)) = message::parse_message(bytes) else {
            return false;
        };
        match &*notification.method {
            method::PROGRESS => {
                let params = notification
                    .params
                    .and_then(|params| RawObject::parse(params).ok());
                let progress =
                    params.and_then(|params| params.get("progress")?.get().parse::<f64>().ok());
                let grows = self.call.progress_token.is_some()
                    && progress.is_some_and(|now| now > self.last_progress);
                if let Some(progress) = progress.filter(|_| grows) {
                    self.last_progress = progress;
                }
                grows
            }
            method::LOG_MESSAGE => {
                let params = notification
                    .params
                    .and_then(|params| RawObject::parse(params).ok());
                let level = params.and_then(|params| LogLevel::parse(&params.get_str("level")?));
                let least = self.session.log_level();
                least.is_none_or(|least| level.is_none_or(|level| level >= least))
            }
            // On the merged endpoint changes reach the client as news, from
            // whichever server, on its standalone stream.
            method::TOOLS_CHANGED
            | method::PROMPTS_CHANGED
            | method::RESOURCES_CHANGED
            | method::RESOURCE_UPDATED => &*self.session.endpoint != MERGED,
            _ => true,
        }
    }

    /// Sends a question to the client as a request on the call's stream.
    async fn ask(&mut self, method: &str, params: Option<&Raw>, question: Question) {
        if self.questions.mailbox.is_none() {
            self.questions.prefix = hex(&rand::random::<[u8; 8]>());
            let address = mailbox_address(&self.session.key, &self.questions.prefix);
            self.questions.mailbox = Some(self.relay.mailboxes.open(address).await);
        }
        let number = self.questions.next;
        self.questions.next += 1;
        let id = RequestId::new_string(&format!("{}.{number}", self.questions.prefix));
        let mut message = Vec::new();
        message::write_request(&mut message, &id, method, params);
        self.questions.open.insert(number.to_string(), question);
        self.out.message(message.into()).await;
    }

    /// A modern server's questions. Answers what the call ends with when the
    /// client cannot be asked.
    async fn begin_round(&mut self, required: InputRequired) -> Result<Option<Answer>, RelayError> {
        self.rounds += 1;
        if self.rounds > self.relay.settings.max_rounds {
            let message = "the server asks more questions than this gateway passes on";
            return Err(RelayError::Rpc(RpcError::internal(message)));
        }
        for question in &required.questions {
            let kind = InputKind::of(&question.method, question.params.as_deref());
            if !self.call.capabilities.allows(kind) {
                return Ok(Some(self.cannot_ask(&question.method)));
            }
        }
        self.questions.round = Some(Round {
            answers: BTreeMap::new(),
            state: required.state,
        });
        for asked in required.questions {
            let id = hex(&rand::random::<[u8; 8]>());
            let for_client = |params| {
                shape::question_for_legacy(&asked.method, params, self.session.version, &id)
            };
            let params = asked
                .params
                .as_deref()
                .map(|params| for_client(params).into_owned());
            let question = Question::OfRound {
                key: asked.key,
                method: asked.method.clone(),
            };
            self.ask(&asked.method, params.as_deref(), question).await;
        }
        Ok(None)
    }

    /// What a call ends with whose question this client never agreed to.
    fn cannot_ask(&self, question: &str) -> Answer {
        let text = format!(
            "the server asks the client for {question}, which this client does not support"
        );
        if self.call.method == method::TOOLS_CALL {
            let result = serde_json::json!({ "content": [{ "type": "text", "text": text }], "isError": true });
            return Answer::Result(json::raw(&result));
        }
        Answer::error(&RpcError::invalid_request(text))
    }

    /// The client answered. Answers what the call ends with if it cannot go on.
    async fn answered(&mut self, key: &str, answer: Answer) -> Result<Option<Answer>, RelayError> {
        // A second answer to the same question finds nothing and is dropped.
        match self.questions.open.remove(key) {
            Some(Question::OfExchange(asked)) => {
                if let Some(begun) = &mut self.begun {
                    begun.answer(&asked, &answer).await?;
                }
                Ok(None)
            }
            Some(Question::OfRound { key, method }) => {
                let answer = match answer {
                    Answer::Result(result) => result,
                    // A modern server only knows results; refusing has a word for elicitations.
                    Answer::Error(_) if method == method::ELICITATION_CREATE => {
                        json::raw(&serde_json::json!({ "action": "cancel" }))
                    }
                    Answer::Error(_) => return Ok(Some(self.cannot_ask(&method))),
                };
                if let Some(round) = &mut self.questions.round {
                    round.answers.insert(key, answer);
                }
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Sends the call again with the round's answers; answers the new deadline.
    async fn next_round(&mut self, call_ends: Instant) -> Result<Instant, RelayError> {
        let deadline = (Instant::now() + self.call.server.timeout).min(call_ends);
        if let Some(round) = self.questions.round.take() {
            let answers = round
                .answers
                .iter()
                .map(|(key, answer)| (key.as_str(), &**answer));
            let params =
                mrtr::with_retry(self.original.as_deref(), answers, round.state.as_deref());
            self.call.params = Some(params);
        }
        self.begin(deadline).await?;
        Ok(deadline)
    }

    fn shaped(&self, answer: Answer) -> Answer {
        let version = self.session.version;
        match answer {
            Answer::Result(result) => Answer::Result(
                match shape::result_for_legacy(&self.call.method, &result, version) {
                    Cow::Owned(shaped) => shaped,
                    Cow::Borrowed(_) => result,
                },
            ),
            Answer::Error(error) if self.era == Era::Legacy => Answer::Error(error),
            Answer::Error(error) => Answer::Error(
                shape::error_for_legacy(&self.call.method, &error, version).into_owned(),
            ),
        }
    }
}

fn input_required(answer: &Answer) -> Result<Option<InputRequired>, RelayError> {
    match answer {
        Answer::Result(result) => InputRequired::parse(result).map_err(|error| {
            RelayError::Rpc(RpcError::internal(format!("the server sent {error}")))
        }),
        Answer::Error(_) => Ok(None),
    }
}

fn is_progress(bytes: &[u8]) -> bool {
    matches!(message::parse_message(bytes), Ok(Message::Notification(n)) if n.method == method::PROGRESS)
}

pub(super) fn mailbox_address(session: &str, call: &str) -> Arc<str> {
    // Part of the address is the session's key, so an answer reaches only questions of its own session.
    format!("ask-{session}-{call}").into()
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

    /// Passes a notification of a legacy client on to its session at a server.
    pub(crate) async fn notify(
        &self,
        server: &Server,
        session: &ClientSession,
        method: &str,
        params: Option<&Raw>,
    ) {
        let Some(replica) = self.home_of(server, session).await else {
            return;
        };
        let deadline = Instant::now() + server.timeout;
        if let Err(error) = self
            .upstreams
            .notify(&replica, session, method, params, deadline)
            .await
        {
            tracing::debug!(server = %server.id, method, error = &error as &dyn std::error::Error, "a notification was not passed on");
        }
    }

    /// Tells a server the log level of a client session, if that server keeps one.
    pub(crate) async fn set_level(
        self: &Arc<Self>,
        server: &Arc<Server>,
        session: &ClientSession,
        principal: Principal,
        level: LogLevel,
    ) {
        let deadline = Instant::now() + server.timeout;
        // A modern server has no such method and learns the level with each call.
        if !self.keeps_session(server, session, deadline).await {
            return;
        }
        let described = self.describe(server, deadline).await;
        if !described.is_ok_and(|described| described.capabilities.has_logging()) {
            return;
        }
        let call = Call {
            server: Arc::clone(server),
            method: method::LOGGING_SET_LEVEL.to_owned(),
            params: Some(json::raw(&serde_json::json!({ "level": level.as_str() }))),
            principal,
            capabilities: session.capabilities.clone(),
            log_level: None,
            progress_token: None,
            trace: TraceContext::default(),
            headers: Vec::new(),
            repeatable: false,
            session: Some(session.clone()),
        };
        if let Err(error) = self.finish_quietly(&call, deadline).await {
            tracing::debug!(server = %server.id, %error, "a log level was not passed on");
        }
    }

    /// Whether the server keeps a session for this client.
    pub(crate) async fn keeps_session(
        &self,
        server: &Server,
        session: &ClientSession,
        deadline: Instant,
    ) -> bool {
        match self.home_of(server, session).await {
            Some(replica) => {
                self.upstreams
                    .keeps_session(&replica, session, deadline)
                    .await
            }
            None => false,
        }
    }

    async fn finish_quietly(
        self: &Arc<Self>,
        call: &Call,
        deadline: Instant,
    ) -> Result<(), RelayError> {
        let mut begun = self.begin(call, deadline).await?;
        while !matches!(begun.next(deadline).await?, Event::Done(_)) {}
        Ok(())
    }

    /// Passes a legacy client's answer to whoever asked, on any node. An
    /// answer nobody waits for is dropped.
    ///
    /// # Errors
    /// When the asker is on another node and the store cannot be asked.
    pub async fn deliver_answer(
        &self,
        session: &Session,
        id: &RequestId,
        answer: Answer,
    ) -> Result<(), StoreError> {
        let Ok(id) = serde_json::from_str::<String>(id.as_raw().get()) else {
            return Ok(());
        };
        let Some((call, question)) = id.split_once('.') else {
            return Ok(());
        };
        let address = mailbox_address(&session.key, call);
        let letter = Letter::Answered {
            key: question.to_owned(),
            answer,
        };
        if self.mailboxes.send(&address, letter).await? == Delivery::NobodyThere {
            tracing::debug!("an answer came that nobody waits for");
        }
        Ok(())
    }
}
