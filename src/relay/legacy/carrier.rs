//! What carries one call of a legacy client: events of the server outward,
//! the client's answers inward.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::Item;
use crate::{
    ids::hex,
    mcp::{
        Raw,
        capabilities::InputKind,
        envelope::LogLevel,
        error::RpcError,
        json::{self, RawObject},
        message::{self, Answer, Message, RequestId},
        method,
        mrtr::{self, InputRequired},
        shape,
        version::Era,
    },
    relay::{
        Begun, Call, Relay, RelayError,
        event_log::EventLog,
        mailbox::{Letter, Mailbox},
    },
    session::{MERGED, Session},
    upstream::Event,
};

/// Where the client's items go.
pub(super) struct Out {
    items: mpsc::Sender<Item>,
    log: Arc<EventLog>,
    /// Nobody waits longer for a client that does not read.
    call_ends: Instant,
}

impl Out {
    pub(super) fn new(items: mpsc::Sender<Item>, log: Arc<EventLog>, call_ends: Instant) -> Self {
        Self {
            items,
            log,
            call_ends,
        }
    }

    /// A client that is gone, or reads too late, resumes from the log.
    async fn send(&self, item: Item) {
        timeout_at(self.call_ends, self.items.send(item)).await.ok();
    }

    async fn message(&self, message: Bytes) {
        let id = self.log.append(&message, false).await;
        self.send(Item::Message { id, message }).await;
    }

    async fn paused(&self, retry: std::time::Duration) {
        self.send(Item::Paused { retry }).await;
    }

    async fn done(&self, id: &RequestId, answer: Answer, failure: Option<RelayError>) {
        let id = match self.log.was_opened() {
            true => {
                self.log
                    .append(&message::response_bytes(id, &answer), true)
                    .await
            }
            false => None,
        };
        let done = Item::Done {
            id,
            answer,
            failure,
        };
        self.send(done).await;
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

impl Questions {
    /// The id that the client knows a question by.
    fn id(&self, number: &str) -> String {
        format!("{}.{number}", self.prefix)
    }
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
pub(super) struct Carrier {
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
    pub(super) fn new(
        relay: &Arc<Relay>,
        session: &Arc<Session>,
        id: &RequestId,
        call: Call,
        out: Out,
    ) -> Self {
        Self {
            relay: Arc::clone(relay),
            session: Arc::clone(session),
            id: id.clone(),
            original: call.params.clone(),
            call,
            begun: None,
            out,
            questions: Questions::default(),
            rounds: 0,
            last_progress: f64::NEG_INFINITY,
            era: Era::Modern,
        }
    }

    pub(super) async fn run(mut self) {
        let (answer, failure) = match self.carry().await {
            Ok(answer) => (answer, None),
            Err(error) => (Answer::error(&error.to_rpc()), Some(error)),
        };
        let answer = self.shaped(answer);
        // Its place at the server is free, whenever the client reads this.
        self.begun = None;
        self.out.done(&self.id, answer, failure).await;
    }

    async fn carry(&mut self) -> Result<Answer, RelayError> {
        let call_ends = self.out.call_ends;
        let mut deadline = Instant::now() + self.call.server.timeout;
        self.begin(deadline.min(call_ends)).await?;
        loop {
            match self.next(deadline.min(call_ends)).await? {
                Next::Event(event) => match event? {
                    Event::Notification(message) => {
                        if is_progress(&message) {
                            // An open question may have more time than that.
                            deadline = deadline.max(Instant::now() + self.call.server.timeout);
                        }
                        if let Some(taken_back) = self.taken_back(&message) {
                            self.out.message(taken_back).await;
                            if self.questions.open.is_empty() {
                                deadline = Instant::now() + self.call.server.timeout;
                            }
                        } else if self.wants(&message) {
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
            // What it cancels was not asked here.
            method::CANCELLED => false,
            _ => true,
        }
    }

    /// The server cancels a question of its own: the question is closed, and
    /// the client is told by the id it knows.
    fn taken_back(&mut self, bytes: &[u8]) -> Option<Bytes> {
        if self.questions.open.is_empty() {
            return None;
        }
        let Ok(Message::Notification(notification)) = message::parse_message(bytes) else {
            return None;
        };
        if notification.method != method::CANCELLED {
            return None;
        }
        let mut params = RawObject::parse(notification.params?).ok()?;
        let cancelled = params.get("requestId")?.get();
        let is_meant = |question: &Question| matches!(question, Question::OfExchange(id) if id.as_raw().get() == cancelled);
        let open = &mut self.questions.open;
        let number = open
            .iter()
            .find(|(_, question)| is_meant(question))?
            .0
            .clone();
        open.remove(&number);
        params.set("requestId", json::raw_str(&self.questions.id(&number)));
        let mut message = Vec::new();
        message::write_notification(&mut message, method::CANCELLED, Some(&params.to_raw()));
        Some(message.into())
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
        let number = number.to_string();
        let id = RequestId::new_string(&self.questions.id(&number));
        let mut message = Vec::new();
        message::write_request(&mut message, &id, method, params);
        self.questions.open.insert(number, question);
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

/// Where the answers of a session's client to the questions of a call go.
pub(in crate::relay) fn mailbox_address(session: &str, call: &str) -> Arc<str> {
    // Part of the address is the session's key, so an answer reaches only questions of its own session.
    format!("ask-{session}-{call}").into()
}
