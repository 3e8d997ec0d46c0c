//! A legacy client's session with a bridge: what it declared, its stream for
//! messages that belong to no call, what of it is in flight.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    outbox::Outbox,
    splice::{NoMessage, Parts, Rope},
    worker::Worker,
};
use crate::mcp::{capabilities::ClientCapabilities, envelope::LogLevel, json, message::RequestId};

/// Messages kept for a client that listens to nothing at the moment.
const BACKLOG: usize = 64;
/// The same in bytes.
const BACKLOG_BYTES: usize = 256 * 1024;

/// How a process was initialized, so that another can be.
#[derive(Debug, Clone)]
pub struct Handshake {
    request: Bytes,
    request_id: Range<usize>,
    answer: Bytes,
    answer_id: Range<usize>,
}

impl Handshake {
    /// From a client's `initialize` and what the process answered.
    ///
    /// # Errors
    /// When either has no id.
    pub fn new(request: Bytes, answer: Bytes) -> Result<Self, NoMessage> {
        let id_of = |message: &Bytes| {
            let (parts, _) = Parts::read(message)?;
            parts.id().ok_or(NoMessage::Nothing)
        };
        Ok(Self {
            request_id: id_of(&request)?,
            answer_id: id_of(&answer)?,
            request,
            answer,
        })
    }

    /// The request, for another process.
    #[must_use]
    pub fn request(&self, id: u64) -> Rope {
        Rope::splice(
            &self.request,
            vec![(self.request_id.clone(), id.to_string())],
        )
    }

    /// The answer, for another client.
    #[must_use]
    pub fn answer(&self, id: &RequestId) -> Rope {
        let id = id.as_raw().get().to_owned();
        Rope::splice(&self.answer, vec![(self.answer_id.clone(), id)])
    }
}

/// A session.
pub struct Session {
    /// `Mcp-Session-Id`.
    pub id: Arc<str>,
    /// What its client can be asked for.
    pub capabilities: ClientCapabilities,
    /// How its process is initialized.
    pub handshake: Handshake,
    /// The process it lives in; `None` when each call has its own.
    pub worker: Option<Arc<Worker>>,
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    stream: Option<Arc<Outbox>>,
    backlog: VecDeque<Rope>,
    backlog_bytes: usize,
    calls: HashMap<RequestId, (Weak<Worker>, u64)>,
    questions: HashMap<u64, Weak<Worker>>,
    level: Option<LogLevel>,
    used: Option<Instant>,
}

impl Session {
    /// A new session.
    #[must_use]
    pub fn new(
        id: Arc<str>,
        capabilities: ClientCapabilities,
        handshake: Handshake,
        worker: Option<Arc<Worker>>,
    ) -> Arc<Self> {
        let session = Self {
            id,
            capabilities,
            handshake,
            worker,
            own: Mutex::default(),
        };
        session.touch();
        Arc::new(session)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        // Maps and values that belong to nothing else: whole at every point.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that it is used.
    pub fn touch(&self) {
        self.own().used = Some(Instant::now());
    }

    /// How long nobody has used it; `None` while somebody does.
    #[must_use]
    pub fn idle(&self, now: Instant) -> Option<Duration> {
        let own = self.own();
        let listens = own
            .stream
            .as_ref()
            .is_some_and(|stream| !stream.has_ended());
        if listens || !own.calls.is_empty() {
            return None;
        }
        own.used.map(|used| now.saturating_duration_since(used))
    }

    /// Makes `stream` the one for messages of no call. What waited goes there.
    pub fn listen(&self, stream: &Arc<Outbox>) {
        let mut own = self.own();
        if let Some(before) = own.stream.replace(Arc::clone(stream)) {
            // The newest counts; an older one may be dead without anyone
            // having noticed.
            before.end();
        }
        own.backlog_bytes = 0;
        for rope in std::mem::take(&mut own.backlog) {
            if stream.push(rope).is_err() {
                stream.cut(None);
            }
        }
    }

    /// The stream is gone.
    pub fn unlisten(&self, stream: &Arc<Outbox>) {
        let mut own = self.own();
        let is_current = own.stream.as_ref().is_some_and(|s| Arc::ptr_eq(s, stream));
        if is_current {
            own.stream = None;
        }
        own.used = Some(Instant::now());
    }

    /// Whether there is a stream for messages of no call.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        let own = self.own();
        own.stream
            .as_ref()
            .is_some_and(|stream| !stream.has_ended())
    }

    /// Sends a message that belongs to no call, or keeps it for a while;
    /// `false` when it was dropped.
    pub fn deliver(&self, rope: Rope) -> bool {
        let mut own = self.own();
        if let Some(stream) = own.stream.as_ref().filter(|stream| !stream.has_ended()) {
            if stream.push(rope).is_ok() {
                return true;
            }
            // A client that opens it again knows that it has missed something.
            stream.cut(None);
            own.stream = None;
            return false;
        }
        let length = rope.len();
        if own.backlog.len() >= BACKLOG || own.backlog_bytes + length > BACKLOG_BYTES {
            return false;
        }
        own.backlog_bytes += length;
        own.backlog.push_back(rope);
        true
    }

    /// Notes a request in flight.
    pub fn begin(&self, id: &RequestId, worker: &Arc<Worker>, number: u64) {
        let place = (Arc::downgrade(worker), number);
        self.own().calls.insert(id.clone(), place);
    }

    /// The request is over.
    pub fn done(&self, id: &RequestId) {
        let mut own = self.own();
        own.calls.remove(id);
        own.used = Some(Instant::now());
    }

    /// Where a request in flight runs, and its number there.
    #[must_use]
    pub fn call(&self, id: &RequestId) -> Option<(Arc<Worker>, u64)> {
        let (worker, number) = self.own().calls.get(id)?.clone();
        Some((worker.upgrade()?, number))
    }

    /// Notes a question that the client was asked.
    pub fn asked(&self, number: u64, worker: Weak<Worker>) {
        self.own().questions.insert(number, worker);
    }

    /// Takes a question that is answered or withdrawn.
    pub fn take_question(&self, number: u64) -> Option<Arc<Worker>> {
        self.own().questions.remove(&number)?.upgrade()
    }

    /// What log messages it wants.
    #[must_use]
    pub fn level(&self) -> Option<LogLevel> {
        self.own().level
    }

    /// Sets what log messages it wants.
    pub fn set_level(&self, level: LogLevel) {
        self.own().level = Some(level);
    }

    /// Whether it wants to see this log message.
    #[must_use]
    pub fn wants(&self, message: &Parts<'_>) -> bool {
        let level = message.param("level").and_then(json::as_str);
        let level = level.and_then(|level| LogLevel::parse(&level));
        match (self.level(), level) {
            (Some(least), Some(level)) => level >= least,
            _ => true,
        }
    }

    /// Ends its stream.
    pub fn end(&self) {
        if let Some(stream) = self.own().stream.take() {
            stream.end();
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
