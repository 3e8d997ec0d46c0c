//! Child processes of stdio servers: started from configuration only, ended
//! with everything they started.
//!
//! A process that ends takes its calls with it; the next call starts a new one
//! and initializes it again, after a pause that grows while it keeps dying.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Shared, UpstreamError,
    incoming::{self, cause, ended},
    link::{Channel, Link},
    peer::{Peer, Way},
    router::{Kind, Owner, Router},
};
use crate::{
    servers::StdioCommand,
    telemetry::metrics::{Counted, Gauge},
};

/// Messages waiting to be written to one process.
const INPUT_QUEUE: usize = 256;
/// Longest piece of a stderr line that is logged.
const LOG_LINE: usize = 2000;
/// How long a process may take to end by itself, and again after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);
/// A process that lived this long did not die of its start.
const SETTLED: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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
    in_a_row: u32,
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
        if lived >= SETTLED {
            deaths.in_a_row = 0;
        }
        let pause = (FIRST_PAUSE * 2u32.saturating_pow(deaths.in_a_row)).min(LONGEST_PAUSE);
        deaths.in_a_row = (deaths.in_a_row + 1).min(16);
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
    let (mut child, pid) = start(shared, command)
        .inspect_err(|error| warn!(replica = %peer.id, %error, "a process cannot be started"))
        .map_err(|error| UpstreamError::SpawnFailed(Arc::new(error)))?;
    info!(replica = %peer.id, pid = pid.as_raw(), program = command.argv.first(), "process started");
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(UpstreamError::SpawnFailed(cause("no pipes")));
    };
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
    let process = Process {
        child,
        pid,
        started: Instant::now(),
        peer: Arc::clone(peer),
        link: Arc::clone(&link),
        shared: Arc::clone(shared),
        _counted: shared.metrics.count(Gauge::Processes),
    };
    let supervised = shared.children.track_future(async move {
        // Also when this is aborted: the stderr reader must not wait for ever.
        let _gone = gone.drop_guard();
        process.supervise(stdout).await;
    });
    tasks.spawn_brief(supervised);
    Ok(link)
}

fn cause_of_pause() -> std::io::Error {
    std::io::Error::other("it ended soon after its start several times; the next start is delayed")
}

fn start(shared: &Shared, command: &StdioCommand) -> std::io::Result<(Child, Pid)> {
    let (program, arguments) = command
        .argv
        .split_first()
        .ok_or_else(|| std::io::Error::other("the command is empty"))?;
    let mut process = Command::new(program);
    process
        .args(arguments)
        .env_clear()
        .envs(&shared.environment)
        .envs(&command.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group, so that what it starts can be ended with it.
        .process_group(0)
        .kill_on_drop(true);
    if let Some(directory) = &command.directory {
        process.current_dir(directory);
    }
    let child = process.spawn()?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .ok_or_else(|| std::io::Error::other("it ended at once"))?;
    Ok((child, Pid::from_raw(pid)))
}

/// A running child and whom its end concerns.
struct Process {
    child: Child,
    pid: Pid,
    started: Instant,
    peer: Arc<Peer>,
    link: Arc<Link>,
    shared: Arc<Shared>,
    _counted: Counted,
}

impl Process {
    /// Reads what the child says until it ends or is ended.
    async fn supervise(mut self, stdout: ChildStdout) {
        let end = self.link.end.clone();
        let link = Arc::clone(&self.link);
        let shared = Arc::clone(&self.shared);
        let reading = read(stdout, &link, &shared);
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
            status = self.child.wait() => {
                // The last answers are still in the pipe.
                let error = timeout(Duration::from_secs(1), &mut reading).await;
                info!(replica = %self.peer.id, status = describe(status), "process ended");
                self.peer.backoff.died(self.started.elapsed(), Instant::now());
                error.unwrap_or_else(|_| ended())
            }
        };
        // Whatever the child started and left behind.
        signal(self.pid, Signal::SIGKILL);
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
        self.peer
            .backoff
            .died(self.started.elapsed(), Instant::now());
        self.stop().await;
    }

    /// Ends the process: its input is closed already, then SIGTERM, then SIGKILL.
    async fn stop(&mut self) {
        for ask in [None, Some(Signal::SIGTERM), Some(Signal::SIGKILL)] {
            if let Some(ask) = ask {
                signal(self.pid, ask);
            }
            let is_killed = ask == Some(Signal::SIGKILL);
            let patience = async {
                tokio::select! {
                    () = sleep(PATIENCE) => {}
                    // Whoever is short of time wants it killed, which it is in
                    // the last round: then it is waited for, not left a zombie.
                    () = self.shared.killing.cancelled(), if !is_killed => {}
                }
            };
            tokio::select! {
                biased;
                status = self.child.wait() => {
                    debug!(replica = %self.peer.id, status = describe(status), "process stopped");
                    return;
                }
                () = patience => {}
            }
        }
        warn!(replica = %self.peer.id, pid = self.pid.as_raw(), "a process survives SIGKILL");
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

fn signal(group: Pid, signal: Signal) {
    match killpg(group, signal) {
        // Nobody is left in the group, which is what is wanted.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => debug!(group = group.as_raw(), %signal, %error, "no signal sent"),
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
    let limit = shared.settings.max_message_bytes;
    let mut lines = Lines::new(stdout, limit);
    let mut messages = VecDeque::new();
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return ended(),
            Err(error) => return error,
        };
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if let Err(error) = incoming::read(&Bytes::copy_from_slice(line), &mut messages) {
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
        let mut lines = Lines::new(stderr, usize::MAX);
        lines.keep = LOG_LINE;
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

/// Lines of bounded length.
struct Lines<R> {
    from: R,
    buffer: BytesMut,
    scanned: usize,
    limit: usize,
    /// Of longer lines only the beginning is kept.
    keep: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(from: R, limit: usize) -> Self {
        Self {
            from,
            buffer: BytesMut::with_capacity(8 * 1024),
            scanned: 0,
            limit,
            keep: usize::MAX,
        }
    }

    /// The next line without its end, `None` at the end of the output.
    async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let mut dropped = 0usize;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
                let line = self.buffer.split_to(self.scanned + at).freeze();
                self.buffer.advance(1);
                self.scanned = 0;
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            if self.scanned + dropped > self.limit {
                return Err(UpstreamError::TooLarge { limit: self.limit });
            }
            if self.scanned > self.keep {
                dropped = dropped.saturating_add(self.scanned - self.keep);
                self.buffer.truncate(self.keep);
                self.scanned = self.keep;
            }
            let read = self.from.read_buf(&mut self.buffer).await;
            match read {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => {
                    self.scanned = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
                Ok(_) => {}
                Err(error) => {
                    return Err(UpstreamError::Closed {
                        before_headers: false,
                        cause: Some(Arc::new(error)),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_wherever_chunks_end() {
        let (mut input, output) = tokio::io::duplex(3);
        let writing = async {
            input.write_all(b"{\"a\":1}\n\n{\"b\"").await.unwrap();
            input.write_all(b":2}\nrest").await.unwrap();
            drop(input);
        };
        let reading = async {
            let mut lines = Lines::new(output, 100);
            let mut all = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                all.push(line);
            }
            all
        };
        let ((), all) = tokio::join!(writing, reading);
        assert_eq!(all, ["{\"a\":1}", "", "{\"b\":2}", "rest"]);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_an_error() {
        let mut lines = Lines::new(&b"0123456789\n"[..], 5);
        // The whole line was in one chunk: its end is seen before its length matters.
        lines.limit = 5;
        let (mut input, output) = tokio::io::duplex(4);
        let mut bounded = Lines::new(output, 5);
        let writing = async { input.write_all(b"0123456789").await };
        let (outcome, _) = tokio::join!(bounded.next(), async {
            tokio::time::timeout(Duration::from_millis(100), writing).await
        });
        assert!(matches!(outcome, Err(UpstreamError::TooLarge { limit: 5 })));
    }

    #[tokio::test]
    async fn of_long_log_lines_the_beginning_is_kept() {
        let (mut input, output) = tokio::io::duplex(16);
        let mut lines = Lines::new(output, usize::MAX);
        lines.keep = 8;
        let writing = async move {
            let mut text = vec![b'x'; 1000];
            text.extend_from_slice(b"\nnext\n");
            input.write_all(&text).await.unwrap();
        };
        let reading = async {
            let first = lines.next().await.unwrap().unwrap();
            let second = lines.next().await.unwrap().unwrap();
            (first, second)
        };
        let ((), (first, second)) = tokio::join!(writing, reading);
        assert!(
            first.len() < 32 && first.starts_with(b"xxxxxxxx"),
            "{first:?}"
        );
        assert_eq!(second, "next");
    }

    #[test]
    fn pauses_grow_while_processes_die_young() {
        let backoff = Backoff::default();
        let now = Instant::now();
        let pause = |lived| {
            backoff.died(lived, now);
            backoff.not_before().unwrap() - now
        };
        assert_eq!(pause(Duration::ZERO), Duration::from_millis(100));
        assert_eq!(pause(Duration::ZERO), Duration::from_millis(200));
        assert_eq!(pause(Duration::ZERO), Duration::from_millis(400));
        assert_eq!(pause(SETTLED), Duration::from_millis(100));
        for _ in 0..30 {
            assert!(pause(Duration::ZERO) <= LONGEST_PAUSE);
        }
    }
}
