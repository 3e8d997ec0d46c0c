//! What is in flight at one process, and to whom what it says belongs.
//!
//! Answers go by id, progress by token, changes of a subscription by its id. A
//! question names no call: it goes to the only session that can have caused
//! it, and is refused when that cannot be told. Nothing here waits.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::debug;

use super::{
    memory::Memory,
    outbox::Outbox,
    session::Session,
    splice::{Kind, Parts, Rope},
    worker::Worker,
};
use crate::mcp::{
    capabilities::InputKind,
    error::RpcError,
    json::{self, RawObject},
    message::{self, Answer, RequestId, error_bytes, response_bytes},
    method,
};

/// Questions of a process that may be open.
const QUESTIONS: usize = 1024;

/// To whom the answer goes.
#[derive(Debug)]
pub enum Sink {
    /// The stream of a client's request.
    Stream(Arc<Outbox>),
    /// The bridge itself.
    Own(oneshot::Sender<Bytes>),
}

/// A request that was given to the process.
#[derive(Debug)]
pub struct Call {
    sink: Sink,
    /// The client's id.
    id: RequestId,
    session: Option<Arc<Session>>,
    token: Option<Token>,
    method: String,
    wants_logs: bool,
    /// Whether the process may have seen it.
    sent: bool,
}

#[derive(Debug)]
struct Token {
    /// As the process knows it.
    sent: RequestId,
    /// As the client wrote it, where that is something else.
    original: Option<String>,
}

#[derive(Debug)]
struct Question {
    /// The process's id.
    id: RequestId,
    session: Arc<Session>,
    /// The call whose stream it was asked on.
    call: Option<u64>,
}

/// Lines of a process that were for nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strays {
    /// Answers to what was never asked, or is answered already.
    pub forged: u64,
    /// What is no message.
    pub unreadable: u64,
    /// Messages that could not be attributed, or for which nobody was there.
    pub unclaimed: u64,
}

impl Strays {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.forged + self.unreadable + self.unclaimed
    }
}

/// What is in flight at one process.
#[derive(Debug)]
pub struct Table {
    /// Numbers for requests and questions, never used twice in a bridge.
    numbers: Arc<AtomicU64>,
    worker: Weak<Worker>,
    calls: HashMap<u64, Call>,
    tokens: HashMap<RequestId, u64>,
    questions: HashMap<u64, Question>,
    asked: HashMap<RequestId, u64>,
    sessions: HashMap<Arc<str>, Arc<Session>>,
    /// What a new process has to be told.
    pub memory: Memory,
    /// What was for nobody so far.
    pub strays: Strays,
}

impl Table {
    /// Nothing in flight.
    #[must_use]
    pub fn new(numbers: Arc<AtomicU64>, worker: Weak<Worker>) -> Self {
        Self {
            numbers,
            worker,
            calls: HashMap::new(),
            tokens: HashMap::new(),
            questions: HashMap::new(),
            asked: HashMap::new(),
            sessions: HashMap::new(),
            memory: Memory::default(),
            strays: Strays::default(),
        }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A session hears what concerns everybody from now on.
    pub fn attach(&mut self, session: &Arc<Session>) {
        self.sessions
            .insert(Arc::clone(&session.id), Arc::clone(session));
    }

    /// It is gone: what the process is told about its questions.
    pub fn detach(&mut self, session: &Session) -> Vec<Rope> {
        self.sessions.remove(&session.id);
        let gone = RpcError::internal("the client is gone");
        let open = self
            .questions
            .extract_if(|_, question| question.session.id == session.id);
        let refused = open.map(|(_, question)| {
            self.asked.remove(&question.id);
            error_bytes(Some(&question.id), &gone).into()
        });
        refused.collect()
    }

    /// The sessions there are.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.values()
    }

    /// A request of the bridge itself: its number, and where the answer comes.
    pub fn admit_own(&mut self) -> (u64, oneshot::Receiver<Bytes>) {
        let (sender, answer) = oneshot::channel();
        let number = self.number();
        let call = Call {
            sink: Sink::Own(sender),
            id: RequestId::new_number(number),
            session: None,
            token: None,
            method: String::new(),
            wants_logs: false,
            sent: true,
        };
        self.calls.insert(number, call);
        (number, answer)
    }

    /// A client's request: its number, and the message as the process is to get it.
    pub fn admit(
        &mut self,
        message: &Bytes,
        parts: &Parts<'_>,
        (id, method): (RequestId, String),
        session: Option<&Arc<Session>>,
        sink: Sink,
    ) -> (u64, Rope) {
        let number = self.number();
        let mut edits = Vec::with_capacity(2);
        edits.extend(parts.id().map(|place| (place, number.to_string())));
        let token = parts.progress_token().and_then(|raw| {
            let wanted = RequestId::parse(raw).ok()?;
            let is_taken = self.tokens.contains_key(&wanted);
            let token = match is_taken {
                false => Token {
                    sent: wanted,
                    original: None,
                },
                true => Token {
                    sent: self.free_token(number),
                    original: Some(raw.get().to_owned()),
                },
            };
            if token.original.is_some() {
                edits.push((parts.place(raw), token.sent.as_raw().get().to_owned()));
            }
            self.tokens.insert(token.sent.clone(), number);
            Some(token)
        });
        let call = Call {
            sink,
            id,
            session: session.cloned(),
            token,
            wants_logs: session.is_some() || parts.wants_logs(),
            method,
            sent: false,
        };
        self.calls.insert(number, call);
        (number, Rope::splice(message, edits))
    }

    /// A progress token that nobody uses.
    fn free_token(&self, number: u64) -> RequestId {
        let mut text = format!("mcp-fleet-{number}");
        loop {
            let token = RequestId::new_string(&text);
            if !self.tokens.contains_key(&token) {
                return token;
            }
            text.push('-');
        }
    }

    /// The request is being written; `false` when nobody wants it any more.
    pub fn mark_sent(&mut self, number: u64) -> bool {
        let call = self.calls.get_mut(&number);
        call.map(|call| call.sent = true).is_some()
    }

    /// Whether a request is in flight.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        self.calls.contains_key(&number)
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    fn remove(&mut self, number: u64) -> Option<Call> {
        let call = self.calls.remove(&number)?;
        if let Some(token) = &call.token {
            self.tokens.remove(&token.sent);
        }
        let asked = self
            .questions
            .extract_if(|_, question| question.call == Some(number));
        for (open, question) in asked {
            self.asked.remove(&question.id);
            question.session.take_question(open);
        }
        Some(call)
    }

    /// Nobody waits for the answer any more: what to tell the process.
    pub fn give_up(&mut self, number: u64, why: &str) -> Option<Rope> {
        let call = self.remove(number)?;
        // The protocol forbids cancelling these, or the process may not know
        // yet that it is spoken to.
        let is_quiet = matches!(&*call.method, method::INITIALIZE | method::DISCOVER | "");
        if !call.sent || is_quiet {
            return None;
        }
        Some(cancelled(number, why))
    }

    /// Ends the streams of changes.
    pub fn end_listening(&mut self) {
        let listening = self
            .calls
            .extract_if(|_, call| call.method == method::LISTEN);
        for (_, call) in listening {
            if let Some(token) = &call.token {
                self.tokens.remove(&token.sent);
            }
            if let Sink::Stream(outbox) = &call.sink {
                outbox.end();
            }
        }
    }

    /// The client cancels: what the process is told, and the stream's end.
    pub fn cancel(&mut self, number: u64, message: &Bytes, parts: &Parts<'_>) -> Option<Rope> {
        let call = self.remove(number)?;
        if let Sink::Stream(outbox) = &call.sink {
            outbox.end();
        }
        let id = parts.param("requestId").filter(|_| call.sent)?;
        let edits = vec![(parts.place(id), number.to_string())];
        Some(Rope::splice(message, edits))
    }

    /// The client answers a question: the message as the process is to get it.
    pub fn answer(
        &mut self,
        number: u64,
        session: &Session,
        message: &Bytes,
        parts: &Parts<'_>,
    ) -> Option<Rope> {
        let asked = self.questions.get(&number)?;
        if asked.session.id != session.id {
            return None;
        }
        let question = self.questions.remove(&number)?;
        self.asked.remove(&question.id);
        let id = question.id.as_raw().get().to_owned();
        Some(Rope::splice(message, vec![(parts.id()?, id)]))
    }

    /// The process is gone: requests that it may have seen fail. Those it has
    /// not seen stay, for the next one, unless there is none.
    pub fn fail(&mut self, error: &RpcError, also_unsent: bool) {
        for (number, question) in self.questions.drain() {
            question.session.take_question(number);
        }
        self.asked.clear();
        let failed: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| also_unsent || call.sent)
            .map(|(number, _)| *number)
            .collect();
        for number in failed {
            let Some(call) = self.remove(number) else {
                continue;
            };
            if let Sink::Stream(outbox) = &call.sink {
                outbox.fail(error_bytes(Some(&call.id), error).into());
            }
        }
    }

    /// Gives a line to whom it belongs; answers what the process is to be told.
    pub fn route(&mut self, line: &Bytes) -> Option<Rope> {
        match Parts::read(line) {
            Err(error) => {
                debug!(%error, "a line of output is skipped");
                self.strays.unreadable += 1;
                None
            }
            Ok((parts, Kind::Answer(id))) => self.route_answer(line, &parts, id.as_ref()),
            Ok((parts, Kind::Notification(method))) => {
                let (delivered, reply) = self.route_notification(line, &parts, &method);
                self.strays.unclaimed += u64::from(!delivered);
                reply
            }
            Ok((_, Kind::Request(id, method))) if method == method::PING => {
                let pong = Answer::Result(RawObject::new().to_raw());
                Some(response_bytes(&id, &pong).into())
            }
            Ok((parts, Kind::Request(id, method))) => {
                let refusal = self.route_question(line, &parts, &id, &method).err()?;
                self.strays.unclaimed += 1;
                Some(error_bytes(Some(&id), &refusal).into())
            }
        }
    }

    fn route_answer(
        &mut self,
        line: &Bytes,
        parts: &Parts<'_>,
        id: Option<&RequestId>,
    ) -> Option<Rope> {
        let number = id.and_then(RequestId::as_number);
        let known = number.filter(|number| self.calls.get(number).is_some_and(|call| call.sent));
        let Some(call) = known.and_then(|number| self.remove(number)) else {
            self.strays.forged += 1;
            return None;
        };
        match call.sink {
            // Whoever asked may be gone.
            Sink::Own(answer) => drop(answer.send(line.clone())),
            Sink::Stream(outbox) => {
                let client = call.id.as_raw().get();
                let mut edits: Vec<_> = parts
                    .id()
                    .map(|place| (place, client.to_owned()))
                    .into_iter()
                    .collect();
                if call.method == method::LISTEN {
                    let subscription = parts.subscription();
                    edits.extend(subscription.map(|id| (parts.place(id), client.to_owned())));
                }
                if outbox.finish(Rope::splice(line, edits)).is_err() {
                    outbox.cut(Some(too_slow(&call.id)));
                }
            }
        }
        None
    }

    /// Whether the notification found somebody, and what the process is told.
    fn route_notification(
        &mut self,
        line: &Bytes,
        parts: &Parts<'_>,
        method: &str,
    ) -> (bool, Option<Rope>) {
        if method == method::PROGRESS {
            let token = parts.param("progressToken");
            let number = token
                .and_then(|token| RequestId::parse(token).ok())
                .and_then(|token| self.tokens.get(&token).copied());
            let (Some(token), Some(number)) = (token, number) else {
                return (false, None);
            };
            let original = self.calls.get(&number).and_then(|call| {
                let original = call.token.as_ref()?.original.clone()?;
                Some((parts.place(token), original))
            });
            let edits = original.into_iter().collect();
            return self.send_on(number, Rope::splice(line, edits));
        }
        if let Some(id) = parts.subscription() {
            return self.route_to_listener(line, parts, id);
        }
        match method {
            method::CANCELLED => (self.route_withdrawal(line, parts), None),
            method::LOG_MESSAGE => self.route_log(line, parts),
            method::TOOLS_CHANGED | method::PROMPTS_CHANGED | method::RESOURCES_CHANGED => {
                (self.tell_all(line, |_| true), None)
            }
            method::RESOURCE_UPDATED => {
                let uri = parts
                    .param("uri")
                    .and_then(json::as_str)
                    .unwrap_or_default();
                let concerned = |session: &Session| self.memory.concerns(&session.id, &uri);
                (self.tell_all(line, concerned), None)
            }
            // It may concern one client only, and nothing says which.
            _ => {
                let session = self.only_session(|table, session| {
                    table.sessions.len() == 1 || table.has_calls(session)
                });
                let delivered = session.is_some_and(|s| s.deliver(line.clone().into()));
                (delivered, None)
            }
        }
    }

    /// Sends every session that is concerned what belongs to no call.
    fn tell_all(&self, line: &Bytes, concerned: impl Fn(&Session) -> bool) -> bool {
        let mut delivered = false;
        for session in self.sessions.values().filter(|session| concerned(session)) {
            delivered |= session.deliver(line.clone().into());
        }
        delivered
    }

    fn route_to_listener(
        &mut self,
        line: &Bytes,
        parts: &Parts<'_>,
        id: &crate::mcp::Raw,
    ) -> (bool, Option<Rope>) {
        let number = RequestId::parse(id).ok().and_then(|id| id.as_number());
        let Some((number, call)) = number.and_then(|n| Some((n, self.calls.get(&n)?))) else {
            return (false, None);
        };
        let client = call.id.as_raw().get().to_owned();
        let rope = Rope::splice(line, vec![(parts.place(id), client)]);
        self.send_on(number, rope)
    }

    /// The process withdraws a question, or ends a listen stream early.
    fn route_withdrawal(&mut self, line: &Bytes, parts: &Parts<'_>) -> bool {
        let Some(raw) = parts.param("requestId") else {
            return false;
        };
        let Ok(id) = RequestId::parse(raw) else {
            return false;
        };
        if let Some(number) = self.asked.remove(&id)
            && let Some(question) = self.questions.remove(&number)
        {
            question.session.take_question(number);
            let rope = Rope::splice(line, vec![(parts.place(raw), number.to_string())]);
            return match question.call.filter(|call| self.calls.contains_key(call)) {
                Some(call) => self.send_on(call, rope).0,
                None => question.session.deliver(rope),
            };
        }
        let number = id.as_number();
        let Some((number, call)) = number.and_then(|n| Some((n, self.calls.get(&n)?))) else {
            return false;
        };
        let client = call.id.as_raw().get().to_owned();
        let rope = Rope::splice(line, vec![(parts.place(raw), client)]);
        self.send_on(number, rope).0
    }

    fn route_log(&mut self, line: &Bytes, parts: &Parts<'_>) -> (bool, Option<Rope>) {
        let mut in_flight = self.calls.iter().filter(|(_, call)| call.is_of_client());
        let rope = Rope::from(line.clone());
        match (in_flight.next(), in_flight.next()) {
            (Some((number, call)), None) => {
                let wanted = call.session.as_ref().is_none_or(|s| s.wants(parts));
                if !call.wants_logs || !wanted {
                    return (true, None);
                }
                let number = *number;
                self.send_on(number, rope)
            }
            // Of one of several calls: only a client alone may see it.
            (Some(_), Some(_)) => {
                let session = self.only_session(|_, _| true);
                let session = session.filter(|_| self.calls.values().all(Call::has_session));
                let delivered =
                    session.is_some_and(|session| !session.wants(parts) || session.deliver(rope));
                (delivered, None)
            }
            (None, _) => {
                let mut delivered = false;
                for session in self.sessions.values() {
                    delivered |= !session.wants(parts) || session.deliver(rope.clone());
                }
                (delivered, None)
            }
        }
    }

    fn route_question(
        &mut self,
        line: &Bytes,
        parts: &Parts<'_>,
        id: &RequestId,
        method: &str,
    ) -> Result<(), RpcError> {
        if self.questions.len() >= QUESTIONS {
            return Err(RpcError::internal("too many questions are open"));
        }
        let kind = InputKind::of(method, parts.params);
        let allowing = |session: &Session| session.capabilities.allows(kind);
        if !self.sessions.values().any(|session| allowing(session)) {
            return Err(RpcError::method_not_found(method));
        }
        let at_work = self.only_session(|table, s| allowing(s) && table.newest_call(s).is_some());
        let listening = || {
            let nobody_works = !self
                .sessions
                .values()
                .any(|s| allowing(s) && self.newest_call(s).is_some());
            self.only_session(|_, s| nobody_works && allowing(s) && s.is_listening())
        };
        let session = at_work.or_else(listening).ok_or_else(|| {
            RpcError::internal("the question cannot be attributed to one client's call")
        })?;
        let session = Arc::clone(session);
        let call = self.newest_call(&session);
        let number = self.number();
        let place = parts.id().into_iter();
        let rope = Rope::splice(line, place.map(|id| (id, number.to_string())).collect());
        session.asked(number, self.worker.clone());
        let delivered = match call {
            Some(call) => self.send_on(call, rope).0,
            None => session.deliver(rope),
        };
        if !delivered {
            session.take_question(number);
            return Err(RpcError::internal(
                "the client does not read what it is sent",
            ));
        }
        let question = Question {
            id: id.clone(),
            session,
            call,
        };
        self.questions.insert(number, question);
        self.asked.insert(id.clone(), number);
        Ok(())
    }

    /// The session, if exactly one qualifies.
    fn only_session(&self, qualifies: impl Fn(&Self, &Session) -> bool) -> Option<&Arc<Session>> {
        let mut found = self.sessions.values().filter(|s| qualifies(self, s));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    fn calls_of<'t>(&'t self, session: &'t Session) -> impl Iterator<Item = (u64, &'t Call)> {
        let of_session =
            move |call: &Call| call.session.as_ref().is_some_and(|s| s.id == session.id);
        self.calls
            .iter()
            .filter(move |(_, call)| of_session(call))
            .map(|(number, call)| (*number, call))
    }

    fn has_calls(&self, session: &Session) -> bool {
        self.calls_of(session).next().is_some()
    }

    /// The session's latest call that can have caused a question.
    fn newest_call(&self, session: &Session) -> Option<u64> {
        self.calls_of(session)
            .filter(|(_, call)| call.sent && call.can_ask())
            .map(|(number, _)| number)
            .max()
    }

    /// Sends a message on the stream of a call, which is cut when it is full:
    /// whether it was sent, and what the process is told.
    fn send_on(&mut self, number: u64, rope: Rope) -> (bool, Option<Rope>) {
        let Some(call) = self.calls.get(&number) else {
            return (false, None);
        };
        let Sink::Stream(outbox) = &call.sink else {
            return (false, None);
        };
        if outbox.push(rope).is_ok() {
            return (true, None);
        }
        outbox.cut(Some(too_slow(&call.id)));
        let told = self.give_up(number, "the client reads too slowly");
        (false, told)
    }
}

impl Call {
    fn has_session(&self) -> bool {
        self.session.is_some()
    }

    fn is_of_client(&self) -> bool {
        matches!(self.sink, Sink::Stream(_)) && self.sent
    }

    fn can_ask(&self) -> bool {
        method::allows_input_required(&self.method)
            || matches!(&*self.method, method::COMPLETE | method::TASKS_RESULT)
    }
}

fn too_slow(id: &RequestId) -> Rope {
    let error = RpcError::internal("the stream was cut: what waited for it was not read in time");
    error_bytes(Some(id), &error).into()
}

fn cancelled(number: u64, why: &str) -> Rope {
    let mut params = RawObject::new();
    params.set("requestId", json::raw(&number));
    params.set("reason", json::raw_str(why));
    let mut notice = Vec::new();
    message::write_notification(&mut notice, method::CANCELLED, Some(&params.to_raw()));
    notice.into()
}
