//! Child processes of stdio servers: started from configuration only, ended
//! with everything they started.
//!
//! A process that ends takes its calls with it; the next call starts a new one
//! and initializes it again, after a pause that grows while it keeps dying.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::FutureExt as _;
use tokio::{
    io::AsyncWriteExt,
    process::{ChildStderr, ChildStdin, ChildStdout},
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Shared, UpstreamError,
    incoming::{self, ended},
    link::{Channel, Link},
    peer::{Peer, Way},
    router::{Kind, Owner, Router},
};
use crate::{
    servers::StdioCommand,
    stdio::{
        backoff,
        lines::{LineError, Lines},
        process::{Pipes, Process, Program},
        tail::LINE,
    },
    telemetry::metrics::{Counted, Gauge},
};

/// Messages waiting to be written to one process.
const INPUT_QUEUE: usize = 256;
/// How long what a process wrote before its end may take to be read.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Variables a child inherits; everything else could be a secret of ours.
const INHERITED: [&str; 10] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "TZ", "TMPDIR",
];

/// The environment every child starts with.
pub(super) fn minimal_environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os()
        .filter(|(name, _)| INHERITED.iter().any(|known| name == known))
        .collect()
}

/// When the next process may be started.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<Deaths>);

#[derive(Debug, Default)]
struct Deaths {
    backoff: backoff::Backoff,
    not_before: Option<Instant>,
}

impl Backoff {
    fn deaths(&self) -> MutexGuard<'_, Deaths> {
        // Two plain values, whole at every point.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_before(&self) -> Option<Instant> {
        self.deaths().not_before
    }

    /// Notes an end nobody asked for.
    fn died(&self, lived: Duration, now: Instant) {
        let mut deaths = self.deaths();
        let pause = deaths.backoff.after(lived);
        deaths.not_before = Some(now + pause);
    }
}

/// Starts a process for the peer.
///
/// # Errors
/// When it cannot be started, or not before the deadline because it died too often.
pub(super) async fn spawn(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    owner: Owner,
    deadline: Instant,
) -> Result<Arc<Link>, UpstreamError> {
    let Way::Stdio(command) = &peer.way else {
        return Err(UpstreamError::NotOffered("a process"));
    };
    if let Some(not_before) = peer.backoff.not_before() {
        if not_before > deadline {
            return Err(UpstreamError::SpawnFailed(Arc::new(cause_of_pause())));
        }
        tokio::time::sleep_until(not_before).await;
    }
    if shared.closing.is_cancelled() {
        return Err(UpstreamError::Stopping);
    }
    let (process, pipes) = Process::start(&program(shared, command), None)
        .inspect_err(|error| warn!(replica = %peer.id, %error, "a process cannot be started"))
        .map_err(|error| UpstreamError::SpawnFailed(Arc::new(error)))?;
    info!(replica = %peer.id, pid = process.pid(), program = command.argv.first(), "process started");
    let Pipes {
        stdin,
        stdout,
        stderr,
    } = pipes;
    let (input, to_write) = mpsc::channel(INPUT_QUEUE);
    let link = Link::new(
        peer.id.clone(),
        Channel::Stdio { input },
        Router::new(owner, Kind::Shared, peer.changes.clone()),
        shared.closing.child_token(),
    );
    let gone = CancellationToken::new();
    let tasks = &shared.tasks;
    tasks.spawn_brief(write(stdin, to_write, link.end.clone()));
    tasks.spawn_brief(log(stderr, peer.id.to_string(), gone.clone()));
    let running = Running {
        process,
        peer: Arc::clone(peer),
        link: Arc::clone(&link),
        shared: Arc::clone(shared),
        _counted: shared.metrics.count(Gauge::Processes),
    };
    let supervised = shared.children.track_future(async move {
        // Also when this is aborted: the stderr reader must not wait for ever.
        let _gone = gone.drop_guard();
        running.supervise(stdout).await;
    });
    tasks.spawn_brief(supervised);
    Ok(link)
}

fn cause_of_pause() -> std::io::Error {
    std::io::Error::other("it ended soon after its start several times; the next start is delayed")
}

fn program(shared: &Shared, command: &StdioCommand) -> Program {
    let mut environment = shared.environment.clone();
    let own = command.env.iter();
    environment.extend(own.map(|(name, value)| (name.into(), value.into())));
    Program {
        argv: command.argv.iter().map(OsString::from).collect(),
        environment,
        directory: command.directory.as_ref().map(Into::into),
    }
}

/// A running child and whom its end concerns.
struct Running {
    process: Process,
    peer: Arc<Peer>,
    link: Arc<Link>,
    shared: Arc<Shared>,
    _counted: Counted,
}

impl Running {
    /// Reads what the child says until it ends or is ended.
    async fn supervise(mut self, stdout: ChildStdout) {
        let end = self.link.end.clone();
        let link = Arc::clone(&self.link);
        let shared = Arc::clone(&self.shared);
        let reading = read(stdout, &link, &shared).fuse();
        tokio::pin!(reading);
        let error = tokio::select! {
            () = end.cancelled() => {
                // It may still want to write something before it ends.
                tokio::select! {
                    () = self.stop() => {}
                    _ = async { (&mut reading).await; std::future::pending::<()>().await } => {}
                }
                ended()
            }
            error = &mut reading => {
                self.unwanted_end(&error).await;
                error
            }
            end = self.process.wait() => {
                // The last answers are still in the pipe.
                let error = timeout(LAST_MOMENT, &mut reading).await;
                info!(replica = %self.peer.id, %end, "process ended");
                self.peer.backoff.died(self.process.age(), Instant::now());
                error.unwrap_or_else(|_| ended())
            }
        };
        // Whatever the child started and left behind.
        self.process.kill_group();
        self.link.mark_lost();
        self.link.router.close(&error);
        self.link.end.cancel();
        self.shared.freed.notify_waiters();
    }

    /// The output ended or cannot be read on: the process is of no more use.
    async fn unwanted_end(&mut self, error: &UpstreamError) {
        self.link.mark_lost();
        self.link.router.close(error);
        self.link.end.cancel();
        info!(replica = %self.peer.id, %error, "the output of a process ended");
        self.peer.backoff.died(self.process.age(), Instant::now());
        self.stop().await;
    }

    /// Ends the process, whose input is closed already.
    async fn stop(&mut self) {
        let end = self.process.stop(&self.shared.killing).await;
        debug!(replica = %self.peer.id, %end, "process stopped");
    }
}

/// Writes messages, one per line, until the link ends; then closes the input.
async fn write(mut stdin: ChildStdin, mut queue: mpsc::Receiver<Bytes>, end: CancellationToken) {
    let writing = async {
        let mut buffer = BytesMut::new();
        while let Some(message) = queue.recv().await {
            buffer.clear();
            buffer.extend_from_slice(&message);
            buffer.extend_from_slice(b"\n");
            // What waits already goes in the same write.
            while let Ok(message) = queue.try_recv() {
                buffer.extend_from_slice(&message);
                buffer.extend_from_slice(b"\n");
            }
            if let Err(error) = stdin.write_all(&buffer).await {
                debug!(%error, "the input of a process is closed");
                return;
            }
        }
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = writing => {}
    }
}

/// Reads messages until the output ends; says why nothing more can be read.
async fn read(stdout: ChildStdout, link: &Arc<Link>, shared: &Arc<Shared>) -> UpstreamError {
    let mut lines = Lines::bounded(stdout, shared.settings.max_message_bytes);
    let mut messages = VecDeque::new();
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return ended(),
            Err(LineError::TooLong { limit }) => return UpstreamError::TooLarge { limit },
            Err(LineError::Broken(error)) => {
                return UpstreamError::Closed {
                    before_headers: false,
                    cause: Some(Arc::new(error)),
                };
            }
        };
        let message = line.trim_ascii();
        if message.is_empty() {
            continue;
        }
        if let Err(error) = incoming::read(&line.slice_ref(message), &mut messages) {
            debug!(replica = %link.replica, %error, "a line of output is skipped");
        }
        for message in messages.drain(..) {
            link.route(shared, message);
        }
    }
}

/// Logs the free text of stderr, bounded.
async fn log(stderr: ChildStderr, replica: String, gone: CancellationToken) {
    let logging = async {
        let mut lines = Lines::shortened(stderr, LINE);
        while let Ok(Some(line)) = lines.next().await {
            let line = String::from_utf8_lossy(&line);
            debug!(replica, line = line.trim_end(), "stderr");
        }
    };
    tokio::select! {
        () = gone.cancelled() => {}
        () = logging => {}
    }
}
