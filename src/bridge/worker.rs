//! One process of the server: kept alive, written to, listened to.
//!
//! A process that ends takes the calls it has seen with it. What it had not
//! seen yet waits for the next one, which is started at once and initialized
//! as the first was, so that sessions need not know.

mod life;
mod starts;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

pub use self::starts::Starts;
use super::{
    input::{Input, Job},
    nodes::Node,
    session::{Handshake, Session},
    splice::{Parts, Rope},
    table::{Sink, Table},
};
use crate::{
    lifecycle::Tasks,
    mcp::{
        Raw,
        error::RpcError,
        message::{self, RequestId},
        method,
    },
    secrets::Secrets,
    stdio::{process::Program, reaper::Reaper, tail::Tail},
    telemetry::metrics::Counted,
};

/// While the next process is further away than this, requests are refused
/// instead of waiting for it.
const WORTH_WAITING: Duration = Duration::from_secs(2);
/// When to ask again for a process that could not be started.
const SOON: Duration = Duration::from_secs(1);

/// Takes the lines that processes write to stderr.
pub type StderrSink = Box<dyn Fn(&[u8]) + Send + Sync>;
/// Counts a process as running for as long as what it gives is kept.
pub type Count = Box<dyn Fn() -> Counted + Send + Sync>;

/// What all processes of a bridge have in common.
pub struct Host {
    /// What is started.
    pub program: Program,
    /// Reaps orphans, where that is this program's business.
    pub reaper: Option<Reaper>,
    /// Owner of the tasks.
    pub tasks: Tasks,
    /// Longest line a process may write.
    pub max_line: usize,
    /// Takes what processes write to stderr, without secrets.
    pub stderr: StderrSink,
    /// What is hidden in it.
    pub secrets: Secrets,
    /// Counts those that run, where somebody wants to know.
    pub count: Option<Count>,
    /// What their log lines belong to; never the request that started one.
    pub span: Span,
    /// Cancelled when there is to be no process any more.
    pub stop: CancellationToken,
    /// Cancelled when there is no more time for processes to end by themselves.
    pub hurry: CancellationToken,
    /// How the last ones began.
    pub starts: Starts,
    /// Numbers for requests, the same for all processes.
    pub numbers: Arc<AtomicU64>,
    /// How often a process that had ended was started again.
    pub restarts: AtomicU64,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// Whether a process that ends is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lives {
    /// Yes, until it is stopped.
    On,
    /// No: it is for one call.
    Once,
}

#[derive(Debug, Clone)]
enum Phase {
    /// A process runs, or is about to.
    Up,
    /// The next one is started then; why the last one ended.
    Down { until: Instant, why: RpcError },
    /// There is none and will be none.
    Over,
}

/// One process of the server, and its successors.
pub struct Worker {
    host: Arc<Host>,
    lives: Lives,
    table: Mutex<Table>,
    input: Input,
    phase: Mutex<Phase>,
    handshake: Mutex<Option<Handshake>>,
    /// Held while the first client initializes it.
    initializing: Arc<tokio::sync::Mutex<()>>,
    tail: Tail,
    last_words: Mutex<Option<LastWords>>,
    /// Whether anything sensible was heard of the process.
    has_spoken: AtomicBool,
    stop: CancellationToken,
    used: Mutex<Instant>,
}

/// Why a process is over.
#[derive(Debug, Clone)]
struct LastWords {
    why: RpcError,
    was_started: bool,
}

/// Why the server does not get a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotSent {
    /// It has ended and will be started again, but not soon.
    #[error("{why}")]
    Down {
        /// When to try again.
        again: Duration,
        /// What happened.
        why: RpcError,
    },
    /// There are as many processes or sessions as there may be.
    #[error("the server has as many sessions as it may")]
    TooMany,
    /// It is being ended.
    #[error("the server is being stopped")]
    Stopping,
}

impl NotSent {
    /// Its command cannot be run.
    pub(super) fn not_started(why: RpcError) -> Self {
        Self::Down { again: SOON, why }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves the value whole at every point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// Starts a process; `handshake` initializes it before anything else.
    #[must_use]
    pub fn start(
        host: &Arc<Host>,
        lives: Lives,
        handshake: Option<Handshake>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Arc<Self> {
        let pause = host.starts.pause(Instant::now());
        let phase = pause.as_ref().map_or(Phase::Up, |(pause, why)| {
            let (until, why) = (Instant::now() + *pause, why.clone());
            Phase::Down { until, why }
        });
        let worker = Arc::new_cyclic(|weak| Self {
            host: Arc::clone(host),
            lives,
            table: Mutex::new(Table::new(Arc::clone(&host.numbers), weak.clone())),
            input: Input::default(),
            phase: Mutex::new(phase),
            handshake: Mutex::new(handshake),
            initializing: Arc::default(),
            last_words: Mutex::new(None),
            has_spoken: AtomicBool::new(false),
            tail: Tail::default(),
            stop: host.stop.child_token(),
            used: Mutex::new(Instant::now()),
        });
        let living = Arc::clone(&worker);
        let pause = pause.map_or(Duration::ZERO, |(pause, _)| pause);
        let living = async move {
            living.live(pause).await;
            drop(place);
        };
        host.span.in_scope(|| host.tasks.spawn_brief(living));
        worker
    }

    /// What is in flight.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// How it was initialized, if it was.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshake> {
        lock(&self.handshake).clone()
    }

    /// How long nothing has been in flight; `None` while something is.
    #[must_use]
    pub fn idle(&self, now: Instant) -> Option<Duration> {
        let is_idle = self.table().in_flight() == 0;
        is_idle.then(|| now.saturating_duration_since(*lock(&self.used)))
    }

    /// Ends the process, at the latest a few seconds from now.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether it takes requests; later ones wait only if a process is near.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self) -> Result<(), NotSent> {
        match &*lock(&self.phase) {
            Phase::Up => Ok(()),
            Phase::Over => Err(NotSent::Stopping),
            Phase::Down { until, why } => {
                let again = until.saturating_duration_since(Instant::now());
                if again <= WORTH_WAITING {
                    return Ok(());
                }
                let why = why.clone();
                Err(NotSent::Down { again, why })
            }
        }
    }

    /// Sends a client's request; its number.
    ///
    /// # Errors
    /// When there is no process to send it to.
    pub fn request(
        &self,
        message: &Bytes,
        parts: &Parts<'_>,
        (id, method): (RequestId, String),
        session: Option<&Arc<Session>>,
        sink: Sink,
        (node, room): (&Node, Option<OwnedSemaphorePermit>),
    ) -> Result<u64, NotSent> {
        self.check()?;
        *lock(&self.used) = Instant::now();
        let (number, rope) = self
            .table()
            .admit(message, parts, (id, method), session, sink);
        let call = Some(number);
        self.input.push(node, Job { call, rope, room });
        Ok(number)
    }

    /// Sends a client's message that is no request.
    pub fn tell(&self, rope: Rope, node: &Node, room: Option<OwnedSemaphorePermit>) {
        let call = None;
        self.input.push(node, Job { call, rope, room });
    }

    /// Sends a message of the bridge's own.
    pub fn tell_own(&self, rope: Rope) {
        if !self.input.push_own(rope) {
            self.table().strays.unclaimed += 1;
        }
    }

    /// Nobody waits for the answer any more.
    pub fn give_up(&self, number: u64) {
        *lock(&self.used) = Instant::now();
        let told = self.table().give_up(number, "the client is gone");
        if let Some(rope) = told {
            self.tell_own(rope);
        }
    }

    /// Initializes it with a client's request, unless it is already: how that went.
    ///
    /// # Errors
    /// What the client is answered instead: the server's own words, or ours.
    pub async fn initialize(self: &Arc<Self>, request: Bytes) -> Result<Handshake, Refusal> {
        let one_at_a_time = Arc::clone(&self.initializing).lock_owned().await;
        if let Some(handshake) = self.handshake() {
            return Ok(handshake);
        }
        self.check()?;
        let (worker, to_send) = (Arc::clone(self), request);
        // Goes on when the client goes away: it cannot be taken back.
        let (done, outcome) = tokio::sync::oneshot::channel();
        self.host.tasks.spawn_brief(async move {
            let outcome = worker.shake_hands(to_send).await;
            drop(one_at_a_time);
            done.send(outcome).ok();
        });
        outcome.await.unwrap_or(Err(Refusal::Stopping))
    }

    async fn shake_hands(&self, request: Bytes) -> Result<Handshake, Refusal> {
        let (parts, _) = Parts::read(&request).map_err(|_| Refusal::Stopping)?;
        let place = parts.id().ok_or(Refusal::Stopping)?;
        let (number, answer) = self.table().admit_own();
        self.tell_own(Rope::splice(&request, vec![(place, number.to_string())]));
        let answer = tokio::select! {
            answer = answer => answer.map_err(|_| self.refusal())?,
            () = self.stop.cancelled() => return Err(Refusal::Stopping),
        };
        let is_result = Parts::read(&answer).is_ok_and(|(parts, _)| parts.result().is_some());
        if !is_result {
            return Err(Refusal::Answer(answer));
        }
        let handshake =
            Handshake::new(request, answer.clone()).map_err(|_| Refusal::Answer(answer))?;
        *lock(&self.handshake) = Some(handshake.clone());
        self.tell_own(initialized());
        Ok(handshake)
    }

    /// A request of the bridge's own, as the client wrote it but for its id.
    ///
    /// # Errors
    /// When no answer came: the process ended, or is not there.
    pub async fn ask(&self, request: &Bytes, within: Duration) -> Result<Bytes, NoAnswer> {
        let (parts, _) = Parts::read(request).map_err(|_| NoAnswer::Ended)?;
        let place = parts.id().ok_or(NoAnswer::Ended)?;
        let (number, answer) = self.table().admit_own();
        self.tell_own(Rope::splice(request, vec![(place, number.to_string())]));
        let outcome = timeout(within, answer).await;
        self.table().give_up(number, "");
        match outcome {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(match lock(&self.last_words).clone() {
                Some(last) if !last.was_started => NoAnswer::NotStarted(last.why),
                Some(_) | None => NoAnswer::Ended,
            }),
            Err(_) => Err(NoAnswer::Silent),
        }
    }

    /// A session ends: its process forgets what only that wanted.
    pub fn detach(&self, session: &Session) {
        let (refused, ended) = {
            let mut table = self.table();
            let refused = table.detach(session);
            (refused, table.memory.forget(&session.id))
        };
        for rope in refused {
            self.tell_own(rope);
        }
        for params in ended {
            let (number, _nobody_waits) = self.table().admit_own();
            self.tell_own(request(number, method::RESOURCES_UNSUBSCRIBE, &params));
        }
    }

    /// Why a session cannot be opened whose process has just ended.
    fn refusal(&self) -> Refusal {
        match lock(&self.last_words).clone() {
            Some(last) if last.was_started => Refusal::Ended(last.why),
            Some(last) => Refusal::NotSent(NotSent::not_started(last.why)),
            None => Refusal::Ended(RpcError::internal("the server's process ended")),
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("lives", &self.lives)
            .finish_non_exhaustive()
    }
}

/// What a client whose `initialize` failed is answered.
#[derive(Debug)]
pub enum Refusal {
    /// The server's own answer.
    Answer(Bytes),
    /// The process ended instead of answering.
    Ended(RpcError),
    /// There is no process to ask.
    NotSent(NotSent),
    /// The bridge is stopping.
    Stopping,
}

impl From<NotSent> for Refusal {
    fn from(why: NotSent) -> Self {
        Self::NotSent(why)
    }
}

/// Why a request of the bridge's own was not answered.
#[derive(Debug, Clone)]
pub enum NoAnswer {
    /// The process ended.
    Ended,
    /// There was none: the command cannot be run.
    NotStarted(RpcError),
    /// Not in time.
    Silent,
}

fn initialized() -> Rope {
    let mut notice = Vec::new();
    message::write_notification(&mut notice, method::INITIALIZED, None);
    notice.into()
}

fn request(number: u64, method: &str, params: &Raw) -> Rope {
    let mut text = Vec::new();
    let id = RequestId::new_number(number);
    message::write_request(&mut text, &id, method, Some(params));
    text.into()
}
