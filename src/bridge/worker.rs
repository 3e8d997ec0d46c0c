//! One process of the server: kept alive, written to, listened to.
//!
//! A process that ends takes the calls it has seen with it. What it had not
//! seen yet waits for the next one, which is started at once and initialized
//! as the first was, so that sessions need not know.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{FusedFuture, FutureExt as _};
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    process::{ChildStderr, ChildStdin, ChildStdout},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    flood::Flood,
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
        json,
        message::{self, RequestId},
        method,
    },
    stdio::{
        backoff::Backoff,
        lines::{LineError, Lines},
        process::{End, Pipes, Process, Program},
        reaper::Reaper,
        tail::{LINE, Tail},
    },
};

/// While the next process is further away than this, requests are refused
/// instead of waiting for it.
const WORTH_WAITING: Duration = Duration::from_secs(2);
/// How long a process that closed its output may take to end.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// How long a process may take to be initialized again.
const REPLAY: Duration = Duration::from_secs(60);
/// Lines of stderr that an error quotes.
const QUOTED: usize = 10;
/// Bytes gathered before they are written.
const BUFFER: usize = 64 * 1024;

/// Takes the lines that processes write to stderr.
pub type StderrSink = Box<dyn Fn(&[u8]) + Send + Sync>;

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
    /// Takes what processes write to stderr.
    pub stderr: StderrSink,
    /// Cancelled when there is no more time for processes to end by themselves.
    pub hurry: CancellationToken,
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
    last_words: Mutex<Option<RpcError>>,
    stop: CancellationToken,
    used: Mutex<Instant>,
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
        let worker = Arc::new_cyclic(|weak| Self {
            host: Arc::clone(host),
            lives,
            table: Mutex::new(Table::new(Arc::clone(&host.numbers), weak.clone())),
            input: Input::default(),
            phase: Mutex::new(Phase::Up),
            handshake: Mutex::new(handshake),
            initializing: Arc::default(),
            last_words: Mutex::new(None),
            tail: Tail::default(),
            stop: CancellationToken::new(),
            used: Mutex::new(Instant::now()),
        });
        let living = Arc::clone(&worker);
        host.tasks.spawn_brief(async move {
            living.live().await;
            drop(place);
        });
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
            answer = answer => answer.map_err(|_| Refusal::Ended(self.last_words()))?,
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
            Ok(Err(_)) => Err(NoAnswer::Ended),
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

    /// Why a request fails whose process has just ended.
    fn last_words(&self) -> RpcError {
        let said = lock(&self.last_words).clone();
        said.unwrap_or_else(|| RpcError::internal("the server's process ended"))
    }

    async fn live(&self) {
        let mut backoff = Backoff::default();
        loop {
            *lock(&self.phase) = Phase::Up;
            let (lived, why) = self.run_once().await;
            *lock(&self.last_words) = Some(why.clone());
            if self.stop.is_cancelled() || self.lives == Lives::Once {
                *lock(&self.phase) = Phase::Over;
                self.table().fail(&why, true);
                self.input.clear();
                return;
            }
            let pause = backoff.after(lived);
            warn!(again_ms = pause.as_millis() as u64, "{}", why.message);
            let until = Instant::now() + pause;
            let why_too = why.clone();
            *lock(&self.phase) = Phase::Down {
                until,
                why: why_too,
            };
            self.table().fail(&why, pause > WORTH_WAITING);
            self.input.forget_own();
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
            self.host.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs one process from its start to its end: how long it lived, and what
    /// is said to those who waited for it.
    async fn run_once(&self) -> (Duration, RpcError) {
        if self.stop.is_cancelled() {
            return (
                Duration::ZERO,
                RpcError::internal("the server is being stopped"),
            );
        }
        self.tail.clear();
        let host = &self.host;
        let (mut process, pipes) = match Process::start(&host.program, host.reaper.as_ref()) {
            Ok(started) => started,
            Err(error) => {
                let why = format!("the server's command cannot be started: {error}");
                return (Duration::ZERO, RpcError::internal(why));
            }
        };
        info!(pid = process.pid(), "the server was started");
        let Pipes {
            stdin,
            stdout,
            stderr,
        } = pipes;
        let mut listening = pin!(self.listen(stderr).fuse());
        let why = {
            let mut reading = pin!(self.read(stdout).fuse());
            let mut writing = Box::pin(self.write(stdin));
            let outcome = loop {
                tokio::select! {
                    () = self.stop.cancelled() => break None,
                    why = &mut reading => break Some(why),
                    end = process.wait() => break Some(Why::Ended(end)),
                    why = &mut writing => break Some(why),
                    () = &mut listening => {}
                }
            };
            // Closes its input.
            drop(writing);
            self.conclude(&mut process, outcome, &mut reading, &mut listening)
                .await
        };
        process.kill_group();
        (process.age(), self.explain(&why))
    }

    /// Sees to it that a process has ended which is not wanted any more, or
    /// has ended by itself.
    async fn conclude(
        &self,
        process: &mut Process,
        outcome: Option<Why>,
        mut reading: impl FusedFuture<Output = Why> + Unpin,
        mut listening: impl FusedFuture<Output = ()> + Unpin,
    ) -> Why {
        let now = CancellationToken::new();
        let why = match outcome {
            // Its last answers may still be in the pipe.
            Some(Why::Ended(end)) => {
                timeout(LAST_MOMENT, &mut reading).await.ok();
                Why::Ended(end)
            }
            // It may be about to end: how it does says more.
            Some(Why::Closed) => {
                let reading_on = async {
                    reading.await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    end = process.wait() => Why::Ended(end),
                    () = sleep(LAST_MOMENT) => Why::Closed,
                    () = reading_on => Why::Closed,
                }
            }
            Some(why) => why,
            None => {
                let stopping = process.stop(&self.host.hurry);
                let reading_on = async {
                    reading.await;
                    std::future::pending::<End>().await
                };
                tokio::select! {
                    end = stopping => Why::Ended(end),
                    end = reading_on => Why::Ended(end),
                }
            }
        };
        if !matches!(why, Why::Ended(_)) {
            now.cancel();
            process.stop(&now).await;
        }
        // What it said last says why.
        if !listening.is_terminated() {
            timeout(LAST_MOMENT / 2, &mut listening).await.ok();
        }
        why
    }

    /// What is said to those who waited for a process.
    fn explain(&self, why: &Why) -> RpcError {
        let said = self.tail.last(QUOTED);
        let mut text = match why {
            Why::Ended(end) => format!("the server's process ended: {end}"),
            other => format!("the server's process was ended: {other}"),
        };
        if let Some(last) = said.last().filter(|last| !last.is_empty()) {
            text = format!("{text}; its last words: {last}");
        }
        let (code, signal) = match why {
            Why::Ended(End::Code(code)) => (Some(*code), None),
            Why::Ended(End::Signal(signal)) => (None, Some(*signal)),
            _ => (None, None),
        };
        RpcError::internal(text).with_data(&serde_json::json!({
            "exitCode": code,
            "signal": signal,
            "stderr": said,
        }))
    }

    /// Writes what waits, after the handshake of the process before; why it cannot.
    async fn write(&self, stdin: ChildStdin) -> Why {
        let mut stdin = BufWriter::with_capacity(BUFFER, stdin);
        let written = async {
            if let Some(handshake) = self.handshake() {
                match timeout(REPLAY, self.replay(&mut stdin, &handshake)).await {
                    Ok(Ok(true)) => {}
                    Ok(Err(error)) => return Err(error),
                    Ok(Ok(false)) => return Ok(Why::Refuses),
                    Err(_) => return Ok(Why::Silent),
                }
            }
            loop {
                let job = match self.input.try_next() {
                    Some(job) => job,
                    None => {
                        stdin.flush().await?;
                        self.input.next().await
                    }
                };
                let is_wanted = job.call.is_none_or(|call| self.table().mark_sent(call));
                if is_wanted {
                    write_line(&mut stdin, job.rope).await?;
                }
            }
        };
        let outcome: std::io::Result<Why> = written.await;
        match outcome {
            Ok(why) => why,
            Err(error) => {
                debug!(%error, "the server does not read its input");
                Why::Closed
            }
        }
    }

    /// Initializes a process as the one before was; `false` when it refuses.
    async fn replay(
        &self,
        stdin: &mut BufWriter<ChildStdin>,
        handshake: &Handshake,
    ) -> std::io::Result<bool> {
        let (number, answer) = self.table().admit_own();
        write_line(stdin, handshake.request(number)).await?;
        stdin.flush().await?;
        let Ok(answer) = answer.await else {
            return Ok(false);
        };
        if !Parts::read(&answer).is_ok_and(|(parts, _)| parts.result().is_some()) {
            return Ok(false);
        }
        write_line(stdin, initialized()).await?;
        let retold = self.table().memory.retold();
        for (method, params) in retold {
            let (number, _nobody_waits) = self.table().admit_own();
            write_line(stdin, request(number, method, &params)).await?;
        }
        stdin.flush().await?;
        debug!("the server was initialized again");
        Ok(true)
    }

    /// Reads what the process says; why nothing more can be read.
    async fn read(&self, stdout: ChildStdout) -> Why {
        let mut lines = Lines::bounded(stdout, self.host.max_line);
        let mut flood = Flood::default();
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Why::Closed,
                Err(LineError::TooLong { limit }) => return Why::TooLong(limit),
                Err(LineError::Broken(error)) => {
                    debug!(%error, "the server's output cannot be read");
                    return Why::Closed;
                }
            };
            let Some(line) = one_line(line) else { continue };
            let (told, strays) = {
                let mut table = self.table();
                let before = table.strays.total();
                let told = table.route(&line);
                (told, table.strays.total() - before)
            };
            if let Some(rope) = told {
                self.tell_own(rope);
            }
            if let Some(pause) = flood.note(strays, Instant::now()) {
                debug!("the server says much that is for nobody: it has to wait");
                sleep(pause).await;
            }
        }
    }

    async fn listen(&self, stderr: ChildStderr) {
        let mut lines = Lines::shortened(stderr, LINE);
        while let Ok(Some(line)) = lines.next().await {
            self.tail.push(&line);
            (self.host.stderr)(&line);
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// The process ended.
    Ended,
    /// Not in time.
    Silent,
}

/// Why a process is over.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Why {
    #[error("{0}")]
    Ended(End),
    #[error("it closed its output")]
    Closed,
    #[error("it wrote a line of more than {0} bytes")]
    TooLong(usize),
    #[error("it does not let itself be initialized again")]
    Refuses,
    #[error("it does not answer when it is initialized again")]
    Silent,
}

async fn write_line(stdin: &mut BufWriter<ChildStdin>, rope: Rope) -> std::io::Result<()> {
    for piece in rope.into_pieces() {
        stdin.write_all(&piece).await?;
    }
    stdin.write_all(b"\n").await
}

/// A line of output as a message, `None` when it is empty. Event streams end
/// lines at carriage returns too.
fn one_line(line: Bytes) -> Option<Bytes> {
    let trimmed = line.trim_ascii();
    if trimmed.is_empty() {
        return None;
    }
    Some(match json::single_line(trimmed) {
        std::borrow::Cow::Borrowed(same) => line.slice_ref(same),
        std::borrow::Cow::Owned(other) => other.into(),
    })
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
