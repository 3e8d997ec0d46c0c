//! Which process a request goes to: the three modes, and the sessions there are.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tracing::debug;

use super::{
    session::{Handshake, Session},
    worker::{Host, Lives, NotSent, Refusal, Worker},
};
use crate::{ids::hex, mcp::capabilities::ClientCapabilities};

/// A session that was not used for this long may make room for another.
const UNUSED: Duration = Duration::from_secs(5);
/// How long that may take.
const ENDING: Duration = Duration::from_secs(6);

/// How processes are shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// One process for everybody.
    Shared,
    /// One for each session, and one for requests without. What servers are
    /// made for: each client has its own.
    #[default]
    PerSession,
    /// One for each call.
    PerCall,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "shared" => Ok(Self::Shared),
            "per-session" => Ok(Self::PerSession),
            "per-call" => Ok(Self::PerCall),
            _ => Err("expected shared, per-session or per-call".to_owned()),
        }
    }
}

/// Bounds of processes and sessions.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Processes at once, where there may be several.
    pub processes: usize,
    /// Sessions at once.
    pub sessions: usize,
    /// A session or process that nobody uses is ended after this.
    pub idle: Duration,
}

/// The processes and sessions of a bridge.
#[derive(Debug)]
pub struct Backend {
    mode: Mode,
    host: Arc<Host>,
    bounds: Bounds,
    places: Arc<Semaphore>,
    /// The process of requests without a session, where one serves them all.
    common: Mutex<Option<Arc<Worker>>>,
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>>>,
}

/// A process for one request.
#[derive(Debug)]
pub struct Lease {
    /// The process.
    pub worker: Arc<Worker>,
    /// Whether it ends with the request.
    is_own: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_own {
            self.worker.stop();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves the value whole at every point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backend {
    /// In shared mode the process is started now.
    #[must_use]
    pub fn new(mode: Mode, host: Arc<Host>, bounds: Bounds) -> Self {
        let common = (mode == Mode::Shared).then(|| Worker::start(&host, Lives::On, None, None));
        Self {
            mode,
            host,
            bounds,
            places: Arc::new(Semaphore::new(bounds.processes)),
            common: Mutex::new(common),
            sessions: Mutex::default(),
        }
    }

    /// The process for a request without a session.
    ///
    /// # Errors
    /// When there are too many.
    pub async fn sessionless(&self) -> Result<Lease, NotSent> {
        if self.mode == Mode::PerCall {
            return self.for_one_call(None).await;
        }
        let is_own = false;
        let known = lock(&self.common).clone();
        if let Some(worker) = known {
            return Ok(Lease { worker, is_own });
        }
        let place = self.place().await?;
        let mut common = lock(&self.common);
        let start = || Worker::start(&self.host, Lives::On, None, Some(place));
        let worker = Arc::clone(common.get_or_insert_with(start));
        Ok(Lease { worker, is_own })
    }

    /// The process for a request of a session.
    ///
    /// # Errors
    /// When there are too many.
    pub async fn for_session(&self, session: &Arc<Session>) -> Result<Lease, NotSent> {
        let Some(worker) = &session.worker else {
            return self.for_one_call(Some(session)).await;
        };
        let (worker, is_own) = (Arc::clone(worker), false);
        Ok(Lease { worker, is_own })
    }

    async fn for_one_call(&self, session: Option<&Arc<Session>>) -> Result<Lease, NotSent> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| NotSent::Stopping)?;
        let handshake = session.map(|session| session.handshake.clone());
        let worker = Worker::start(&self.host, Lives::Once, handshake, Some(place));
        let is_own = true;
        if let Some(session) = session {
            let mut table = worker.table();
            table.attach(session);
            if let Some(level) = session.level() {
                let params = crate::mcp::json::raw(&serde_json::json!({"level": level.as_str()}));
                table.memory.set_level(level, &params, true);
            }
        }
        Ok(Lease { worker, is_own })
    }

    /// A place for one more process; that of a session nobody uses, if need be.
    async fn place(&self) -> Result<OwnedSemaphorePermit, NotSent> {
        let places = Arc::clone(&self.places);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Ok(place);
        }
        if !self.end_longest_idle(UNUSED) {
            return Err(NotSent::TooMany);
        }
        // Comes free when that one's process has ended.
        match timeout(ENDING, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(NotSent::TooMany),
        }
    }

    /// Opens a session with a client's `initialize`.
    ///
    /// # Errors
    /// What the client is answered instead.
    pub async fn open(
        &self,
        request: Bytes,
        capabilities: ClientCapabilities,
    ) -> Result<Arc<Session>, Refusal> {
        let is_full = lock(&self.sessions).len() >= self.bounds.sessions;
        if is_full && !self.end_longest_idle(Duration::ZERO) {
            return Err(NotSent::TooMany.into());
        }
        let (worker, handshake) = match self.mode {
            Mode::Shared => {
                let lease = self.sessionless().await?;
                let handshake = lease.worker.initialize(request).await?;
                (Some(Arc::clone(&lease.worker)), handshake)
            }
            Mode::PerSession => {
                let place = self.place().await?;
                let worker = Worker::start(&self.host, Lives::On, None, Some(place));
                // Ends it on every way out but the last.
                let mut unless_opened = Lease {
                    worker: Arc::clone(&worker),
                    is_own: true,
                };
                let handshake = worker.initialize(request).await?;
                unless_opened.is_own = false;
                (Some(worker), handshake)
            }
            Mode::PerCall => {
                let lease = self.for_one_call(None).await?;
                (None, lease.worker.initialize(request).await?)
            }
        };
        Ok(self.admit(capabilities, handshake, worker))
    }

    fn admit(
        &self,
        capabilities: ClientCapabilities,
        handshake: Handshake,
        worker: Option<Arc<Worker>>,
    ) -> Arc<Session> {
        let id: [u8; 16] = rand::rng().random();
        let session = Session::new(hex(&id).into(), capabilities, handshake, worker);
        if let Some(worker) = &session.worker {
            worker.table().attach(&session);
        }
        lock(&self.sessions).insert(Arc::clone(&session.id), Arc::clone(&session));
        session
    }

    /// The session of that id.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<Arc<Session>> {
        let session = lock(&self.sessions).get(id).cloned()?;
        session.touch();
        Some(session)
    }

    /// Ends a session; `false` when there is none.
    pub fn close(&self, id: &str) -> bool {
        let Some(session) = lock(&self.sessions).remove(id) else {
            return false;
        };
        session.end();
        if let Some(worker) = &session.worker {
            worker.detach(&session);
            if self.mode == Mode::PerSession {
                worker.stop();
            }
        }
        true
    }

    /// Ends the process of requests without a session, where it is not that of all.
    pub fn end_common(&self) {
        if self.mode != Mode::Shared
            && let Some(worker) = lock(&self.common).take()
        {
            worker.stop();
        }
    }

    /// Ends what nobody has used for long.
    pub fn tidy(&self) {
        let now = Instant::now();
        for (idle, id) in self.idle_sessions(now) {
            if idle >= self.bounds.idle {
                debug!("a session nobody uses is ended");
                self.close(&id);
            }
        }
        let is_idle = lock(&self.common)
            .as_ref()
            .and_then(|worker| worker.idle(now))
            .is_some_and(|idle| idle >= self.bounds.idle);
        if is_idle {
            self.end_common();
        }
    }

    fn idle_sessions(&self, now: Instant) -> Vec<(Duration, Arc<str>)> {
        let sessions = lock(&self.sessions);
        let idle = sessions
            .values()
            .filter_map(|session| Some((session.idle(now)?, Arc::clone(&session.id))));
        idle.collect()
    }

    /// Ends the session that was not used for longest, and for at least that long.
    fn end_longest_idle(&self, at_least: Duration) -> bool {
        let longest = self.idle_sessions(Instant::now()).into_iter().max();
        let Some((_, id)) = longest.filter(|(idle, _)| *idle >= at_least) else {
            return false;
        };
        debug!("a session nobody uses makes room for another");
        self.close(&id)
    }

    /// Ends the streams that have no end of their own.
    pub fn end_streams(&self) {
        if let Some(worker) = &*lock(&self.common) {
            worker.table().end_listening();
        }
        for session in lock(&self.sessions).values() {
            session.end();
        }
    }

    /// Ends all processes, also those that are about to be started.
    pub fn stop(&self) {
        self.host.stop.cancel();
        if let Some(worker) = lock(&self.common).take() {
            worker.stop();
        }
        for (_, session) in lock(&self.sessions).drain() {
            session.end();
            if let Some(worker) = &session.worker {
                worker.stop();
            }
        }
    }
}
