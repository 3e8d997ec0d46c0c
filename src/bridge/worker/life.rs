//! The life of a worker's processes, one after the other: started, initialized
//! as the one before was, written to, read, ended.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::future::{FusedFuture, FutureExt as _};
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    process::{ChildStderr, ChildStdin, ChildStdout},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{LastWords, Lives, Phase, WORTH_WAITING, Worker, initialized, lock, request};
use crate::{
    bridge::{
        flood::Flood,
        not_taken::{NotTaken, Reason},
        session::Handshake,
        splice::{Parts, Rope},
    },
    mcp::{error::RpcError, json},
    stdio::{
        backoff::Backoff,
        lines::{LineError, Lines},
        process::{End, Pipes, Process},
        tail::LINE,
    },
};

/// How long a process that closed its output may take to end.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// How long a process may take to be initialized again.
const REPLAY: Duration = Duration::from_secs(60);
/// Lines of stderr that an error quotes.
const QUOTED: usize = 10;
/// Bytes of a line of stderr in which secrets are hidden before it is cut: a
/// half of one would not be found.
const HIDDEN_IN: usize = 8 * LINE;
/// Bytes gathered before they are written.
const BUFFER: usize = 64 * 1024;

impl Worker {
    /// Runs processes until there is to be none any more, the first after
    /// `pause`, if others of its kind did not live.
    pub(super) async fn live(&self, pause: Duration) {
        let mut backoff = Backoff::default();
        self.rest(pause).await;
        loop {
            *lock(&self.phase) = Phase::Up;
            self.has_spoken.store(false, Ordering::Release);
            let (lived, last) = self.run_once().await;
            let why = last.why.clone();
            *lock(&self.last_words) = Some(last);
            let is_unwanted = self.stop.is_cancelled();
            if !is_unwanted && !self.has_spoken.load(Ordering::Acquire) {
                self.host.starts.ended(lived, &why, Instant::now());
            }
            if is_unwanted || self.lives == Lives::Once {
                *lock(&self.phase) = Phase::Over;
                let not_taken = NotTaken {
                    reason: Reason::Stopping,
                    after: WORTH_WAITING,
                };
                self.table().fail(&why, Some(not_taken));
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
            let not_taken = (pause > WORTH_WAITING).then_some(NotTaken {
                reason: Reason::Down,
                after: pause,
            });
            self.table().fail(&why, not_taken);
            self.input.forget_own();
            self.rest(pause).await;
            self.host.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Runs one process from its start to its end: how long it lived, and what
    /// is said to those who waited for it.
    async fn run_once(&self) -> (Duration, LastWords) {
        let not_started = |why: String| {
            let (why, was_started) = (RpcError::internal(why), false);
            (Duration::ZERO, LastWords { why, was_started })
        };
        if self.stop.is_cancelled() {
            return not_started("the server is being stopped".to_owned());
        }
        self.tail.clear();
        let host = &self.host;
        let (mut process, pipes) = match Process::start(&host.program, host.reaper.as_ref()) {
            Ok(started) => started,
            Err(error) => {
                let program = host.program.argv.first();
                let program = program.map_or("", |name| name.to_str().unwrap_or_default());
                let why = format!("the server's command {program:?} cannot be started: {error}");
                return not_started(why);
            }
        };
        let _counted = host.count.as_ref().map(|count| count());
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
        let (why, was_started) = (self.explain(&why), true);
        (process.age(), LastWords { why, was_started })
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
            if strays == 0 && !self.has_spoken.swap(true, Ordering::AcqRel) {
                self.host.starts.worked();
            }
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
        let mut lines = Lines::shortened(stderr, HIDDEN_IN);
        while let Ok(Some(line)) = lines.next().await {
            let line = self.host.secrets.hide(&String::from_utf8_lossy(&line));
            let line: String = line.chars().take(LINE).collect();
            self.tail.push(line.as_bytes());
            (self.host.stderr)(line.as_bytes());
        }
    }
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
