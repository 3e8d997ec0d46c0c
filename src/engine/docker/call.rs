//! How anything is asked of the engine: its turn, its time limit, and what an
//! error of the client library means.

use std::{
    future::Future,
    panic::resume_unwind,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bollard::errors::Error;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{error::Elapsed, timeout},
};
use tracing::Instrument as _;

use super::{Cause, Docker, EngineError, Operation, Subject};

/// bollard's own limit covers only the time to the first byte; ours are
/// shorter and cover all. A day, so that it never decides.
const NEVER_S: u64 = 86_400;

/// What an operation is about, for its errors.
#[derive(Debug, Clone)]
pub(super) struct About(pub(super) Operation, pub(super) Subject);

impl About {
    pub(super) fn container(operation: Operation, name: &str) -> Self {
        Self(operation, Subject::Container(name.to_owned()))
    }

    pub(super) fn image(operation: Operation, name: &str) -> Self {
        Self(operation, Subject::Image(name.to_owned()))
    }

    pub(super) fn network(operation: Operation, name: &str) -> Self {
        Self(operation, Subject::Network(name.to_owned()))
    }

    pub(super) fn volume(operation: Operation, name: &str) -> Self {
        Self(operation, Subject::Volume(name.to_owned()))
    }

    pub(super) fn error(&self, cause: Cause) -> EngineError {
        EngineError::new(self.0, self.1.clone(), cause)
    }
}

/// Whether an address is one that can be used.
pub(super) fn check_host(host: &str) -> Result<(), EngineError> {
    let known = ["unix:///", "tcp://", "http://"];
    if known.iter().any(|scheme| host.starts_with(scheme)) {
        return Ok(());
    }
    let why = "expected unix:///path, tcp://host:port or http://host:port".to_owned();
    let subject = Subject::Engine(host.to_owned());
    Err(EngineError::new(
        Operation::Reach,
        subject,
        Cause::Invalid { why },
    ))
}

impl Docker {
    pub(super) fn about_engine(&self, operation: Operation) -> About {
        About(operation, Subject::Engine(self.settings.host.clone()))
    }

    /// The client. It holds no connection: each request makes one.
    pub(super) fn client(&self, about: &About) -> Result<&bollard::Docker, EngineError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let host = &self.settings.host;
        let version = bollard::API_DEFAULT_VERSION;
        let client = match host.strip_prefix("unix://") {
            Some(path) => bollard::Docker::connect_with_unix(path, NEVER_S, version),
            None => bollard::Docker::connect_with_http(host, NEVER_S, version),
        };
        match client {
            Ok(client) => Ok(self.client.get_or_init(|| client)),
            Err(error) => Err(self.noted(about, about.error(self.meaning(about, error)))),
        }
    }

    /// Does one operation when it is its turn, within the usual time from then on.
    pub(super) async fn ask<T, F>(
        &self,
        about: &About,
        operation: impl FnOnce(bollard::Docker) -> F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let limit = self.settings.timeout;
        self.ask_in_turn(&self.turns, limit, about, operation).await
    }

    /// The same for what the engine mostly waits for itself: a container that
    /// has `grace` to end. Others need not wait for that.
    pub(super) async fn ask_patiently<T, F>(
        &self,
        grace: Duration,
        about: &About,
        operation: impl FnOnce(bollard::Docker) -> F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let limit = grace.saturating_add(self.settings.timeout);
        self.ask_in_turn(&self.patient_turns, limit, about, operation)
            .await
    }

    async fn ask_in_turn<T, F>(
        &self,
        turns: &Arc<Semaphore>,
        limit: Duration,
        about: &About,
        operation: impl FnOnce(bollard::Docker) -> F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let operation = operation(self.client(about)?.clone());
        let turns = Arc::clone(turns);
        let done = apart(async move {
            // It is never closed.
            let _turn = turns.acquire().await;
            timeout(limit, operation).await
        });
        self.came_of(limit, about, done.await)
    }

    /// Does one operation that waits for no turn, or has it already.
    pub(super) async fn bounded<T, F>(
        &self,
        limit: Duration,
        about: &About,
        operation: impl FnOnce(bollard::Docker) -> F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let operation = operation(self.client(about)?.clone());
        let done = apart(timeout(limit, operation));
        self.came_of(limit, about, done.await)
    }

    fn came_of<T>(
        &self,
        limit: Duration,
        about: &About,
        done: Option<Result<Result<T, Error>, Elapsed>>,
    ) -> Result<T, EngineError> {
        let cause = match done {
            Some(Ok(Ok(answer))) => {
                self.note_answer();
                return Ok(answer);
            }
            Some(Ok(Err(error))) => self.meaning(about, error),
            Some(Err(_)) => Cause::TimedOut { limit },
            None => self.unreachable("this node is ending".to_owned()),
        };
        Err(self.noted(about, about.error(cause)))
    }

    /// Lets an error have its say about the engine's availability.
    pub(super) fn noted(&self, about: &About, error: EngineError) -> EngineError {
        match &error.cause {
            Cause::Unreachable { .. } => self.note_failure(&error),
            // One slow container is no proof that the engine hangs.
            Cause::TimedOut { .. } if matches!(about.1, Subject::Engine(_)) => {
                self.note_failure(&error);
            }
            Cause::TimedOut { .. } => {}
            _ => self.note_answer(),
        }
        error
    }

    /// What an error of the client library means.
    pub(super) fn meaning(&self, about: &About, error: Error) -> Cause {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => refusal(about, status_code, message),
            Error::DockerStreamError { error } => refusal(about, 500, error),
            Error::SocketNotFoundError(path) => self.unreachable(format!("there is no {path}")),
            Error::RequestTimeoutError => Cause::TimedOut {
                limit: self.settings.timeout,
            },
            Error::JsonDataError { .. }
            | Error::JsonSerdeError { .. }
            | Error::StrParseError { .. }
            | Error::HttpHeaderNotFoundError(_) => Cause::Answer { why: chain(&error) },
            Error::HyperLegacyError { err } => self.unreachable(chain(&err)),
            error => self.unreachable(chain(&error)),
        }
    }

    fn unreachable(&self, why: String) -> Cause {
        Cause::Unreachable {
            host: self.settings.host.clone(),
            why,
        }
    }
}

/// Does something in a task of its own, which ends when nobody waits for it
/// any more. A caller that waits for several things at once may leave one of
/// them alone for a while; what has a turn must not be left alone, or everybody
/// else waits for it. `None`: the runtime ends.
async fn apart<T: Send + 'static>(
    operation: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let mut alone = JoinSet::new();
    alone.spawn(operation.in_current_span());
    match alone.join_next().await? {
        Ok(done) => Some(done),
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// What an engine that answered "no" means. Its sentences are all it gives:
/// there are no codes beside the status.
fn refusal(about: &About, status: u16, message: String) -> Cause {
    let why = one_line(&message);
    let said = why.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if says(&["no space left on device"]) {
        return Cause::NoSpace { why };
    }
    if says(&["port is already allocated", "address already in use"]) {
        return Cause::PortTaken { why };
    }
    if says(&["non-overlapping", "all predefined address pools"]) {
        return Cause::NoAddresses { why };
    }
    if says(&["docker-init"]) && says(&["not found", "no such file"]) {
        return Cause::NoInit { why };
    }
    let is_starting = matches!(about.0, Operation::Start | Operation::Restart);
    if is_starting
        && says(&[
            "executable file not found",
            "no such file or directory",
            "permission denied",
            "exec format error",
            "is a directory",
        ])
    {
        return Cause::NotRunnable { why };
    }
    // "There is none" would be the container.
    if is_starting && says(&["network"]) && says(&["not found"]) {
        return Cause::NetworkGone { why };
    }
    match status {
        404 => Cause::NotFound,
        400 => Cause::Invalid { why },
        status => Cause::Engine { status, why },
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    one_line(&text)
}

/// Bounded, and without line ends: it is shown within sentences.
pub(super) fn one_line(text: &str) -> String {
    const MOST: usize = 600;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A lock whose holder panicked holds a value as good as any.
pub(super) fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_say_is_understood() {
        let start = About::container(Operation::Start, "c");
        let is = |status, message: &str| refusal(&start, status, message.to_owned());
        let why = |text: &str| text.to_owned();
        for (said, cause) in [
            (
                "driver failed programming external connectivity on endpoint c: Bind for 127.0.0.1:8080 failed: port is already allocated",
                "the port is taken",
            ),
            (
                "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \"/sbin/docker-init\": stat /sbin/docker-init: no such file or directory: unknown",
                "the engine has no docker-init",
            ),
            (
                "OCI runtime create failed: exec: \"run\": executable file not found in $PATH: unknown",
                "its program cannot be run",
            ),
            ("exec /run: exec format error", "its program cannot be run"),
            (
                "could not find an available, non-overlapping IPv4 address pool among the defaults",
                "the engine has no addresses left",
            ),
            (
                "mkdir /var/lib/docker/overlay2/x: no space left on device",
                "no space is left",
            ),
            (
                "failed to set up container networking: network 3f2a not found",
                "its network is gone",
            ),
            ("something\n  else", "the engine said: something else"),
        ] {
            let text = is(500, said).to_string();
            assert!(text.starts_with(cause), "{said}: {text}");
        }
        assert_eq!(is(404, "No such container: c"), Cause::NotFound);
        let gone = is(404, "network 3f2a not found");
        assert!(matches!(gone, Cause::NetworkGone { .. }), "{gone}");
        assert_eq!(is(400, "bad"), Cause::Invalid { why: why("bad") });
        assert_eq!(
            is(409, "busy"),
            Cause::Engine {
                status: 409,
                why: why("busy")
            }
        );
        let long = is(500, &"x".repeat(10_000)).to_string();
        assert!(long.len() < 1000);
    }
}
