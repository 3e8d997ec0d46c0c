//! What is in flight at one process, and to whom what it says belongs.
//!
//! Answers go by id, progress by token, changes of a subscription by its id. A
//! question names no call: it goes to the only session that can have caused
//! it, and is refused when that cannot be told. Nothing here waits.

mod route;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    memory::Memory,
    not_taken::NotTaken,
    outbox::Outbox,
    session::Session,
    splice::{Parts, Rope},
    worker::Worker,
};
use crate::mcp::{
    error::RpcError,
    json::{self, RawObject},
    message::{self, RequestId, error_bytes},
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
    /// not seen stay, for the next one, unless they are to go elsewhere (`unsent`).
    pub fn fail(&mut self, error: &RpcError, unsent: Option<NotTaken>) {
        for (number, question) in self.questions.drain() {
            question.session.take_question(number);
        }
        self.asked.clear();
        let failed: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| unsent.is_some() || call.sent)
            .map(|(number, _)| *number)
            .collect();
        for number in failed {
            let Some(call) = self.remove(number) else {
                continue;
            };
            let Sink::Stream(outbox) = &call.sink else {
                continue;
            };
            match unsent {
                Some(not_taken) if !call.sent => outbox.refuse(not_taken, &error.message),
                Some(_) | None => outbox.fail(error_bytes(Some(&call.id), error).into()),
            }
        }
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

fn cancelled(number: u64, why: &str) -> Rope {
    let mut params = RawObject::new();
    params.set("requestId", json::raw(&number));
    params.set("reason", json::raw_str(why));
    let mut notice = Vec::new();
    message::write_notification(&mut notice, method::CANCELLED, Some(&params.to_raw()));
    notice.into()
}
