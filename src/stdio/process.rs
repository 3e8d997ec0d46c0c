//! One child process: started in a group of its own, ended with all it started.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::reaper::{Owned, Reaper};

/// How long a process may take to end by itself, and again after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is started.
#[derive(Clone)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Its whole environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Where it runs; here, when absent.
    pub directory: Option<PathBuf>,
}

impl fmt::Debug for Program {
    /// Without arguments and the values of variables: they may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("program", &self.argv.first())
            .field("environment", &self.environment.keys())
            .field("directory", &self.directory)
            .finish()
    }
}

/// Its standard streams.
#[derive(Debug)]
pub struct Pipes {
    /// What it reads.
    pub stdin: ChildStdin,
    /// What it says.
    pub stdout: ChildStdout,
    /// What it says to people.
    pub stderr: ChildStderr,
}

/// A process that was started. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Pid,
    started: Instant,
    _owned: Option<Owned>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Code(i32),
    /// By a signal of this number.
    Signal(i32),
    /// It cannot be said.
    Unknown,
}

impl From<io::Result<ExitStatus>> for End {
    fn from(status: io::Result<ExitStatus>) -> Self {
        let Ok(status) = status else {
            return Self::Unknown;
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
            Self::Unknown => f.write_str("an unknown cause"),
        }
    }
}

impl Process {
    /// Starts a program; `reaper` is told of it where there is one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Program, reaper: Option<&Reaper>) -> io::Result<(Self, Pipes)> {
        let begin = || {
            let child = spawn(program)?;
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
            let pid = pid.ok_or_else(|| io::Error::other("it ended at once"))?;
            Ok::<_, io::Error>((child, Pid::from_raw(pid)))
        };
        let (mut child, group, owned) = match reaper {
            Some(reaper) => {
                let mut group = Pid::from_raw(0);
                let (child, owned) = reaper.start(|| {
                    let (child, pid) = begin()?;
                    group = pid;
                    Ok::<_, io::Error>((child, pid))
                })?;
                (child, group, Some(owned))
            }
            None => {
                let (child, group) = begin()?;
                (child, group, None)
            }
        };
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("no pipes"));
        };
        let process = Self {
            child,
            group,
            started: Instant::now(),
            _owned: owned,
        };
        let pipes = Pipes {
            stdin,
            stdout,
            stderr,
        };
        Ok((process, pipes))
    }

    /// Its number, and its group's.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.group.as_raw()
    }

    /// How long ago it was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until it ends. Cancel safe.
    pub async fn wait(&mut self) -> End {
        self.child.wait().await.into()
    }

    /// Ends it, whose input the caller has closed: waits, then SIGTERM, then
    /// SIGKILL. Once `hurry` is cancelled nothing is waited for.
    pub async fn stop(&mut self, hurry: &CancellationToken) -> End {
        for ask in [None, Some(Signal::SIGTERM), Some(Signal::SIGKILL)] {
            if let Some(ask) = ask {
                self.signal(ask);
            }
            let is_killed = ask == Some(Signal::SIGKILL);
            let patience = async {
                tokio::select! {
                    () = sleep(PATIENCE) => {}
                    // Whoever is short of time wants it killed, which it is in
                    // the last round: then it is waited for, not left a zombie.
                    () = hurry.cancelled(), if !is_killed => {}
                }
            };
            tokio::select! {
                biased;
                status = self.child.wait() => return status.into(),
                () = patience => {}
            }
        }
        warn!(pid = self.pid(), "a process survives SIGKILL");
        End::Unknown
    }

    /// Ends whatever of its group is left.
    pub fn kill_group(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        match killpg(self.group, signal) {
            // Nobody is left in the group, which is what is wanted.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => debug!(group = self.pid(), %signal, %error, "no signal sent"),
        }
    }
}

fn spawn(program: &Program) -> io::Result<Child> {
    let (name, arguments) = program
        .argv
        .split_first()
        .ok_or_else(|| io::Error::other("the command is empty"))?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .envs(&program.environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group, so that what it starts can be ended with it.
        .process_group(0)
        .kill_on_drop(true);
    if let Some(directory) = &program.directory {
        command.current_dir(directory);
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_named_for_people() {
        assert_eq!(End::Code(3).to_string(), "exit code 3");
        assert_eq!(End::Signal(9).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(End::Signal(64).to_string(), "signal 64");
    }
}
