//! An initialized session with a legacy replica: who may use it, how a message
//! is sent on it, how it ends.
//!
//! Opening is in `open`, choosing one for a call in `pool`.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::debug;

use super::{
    Description, Shared, dedicated,
    elsewhere::Home,
    link::{Channel, Link},
    router::Owner,
};
use crate::{
    mcp::{
        capabilities::{ClientCapabilities, InputKind},
        envelope::LogLevel,
        version::Version,
    },
    store::RecordKey,
    telemetry::metrics::{Counted, Gauge},
};

/// How long the end of a session may take at the other side.
const DELETE_TIMEOUT: Duration = Duration::from_secs(5);

/// What was agreed when the session was opened.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) version: Version,
    pub(super) description: Arc<Description>,
    pub(super) capabilities: ClientCapabilities,
    pub(super) owner: Owner,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) terms: Terms,
    pub(super) link: Arc<Link>,
    /// One question at a time where nothing names the call it belongs to.
    turn: Arc<Semaphore>,
    usage: Mutex<Usage>,
    /// The most verbose level set so far, as its rank counted from 1; 0: none.
    log_rank: AtomicU8,
    /// Held while a level is being set.
    pub(super) setting_level: tokio::sync::Mutex<()>,
    recorded: OnceLock<Recorded>,
    _counted: Counted,
}

/// The record of a client's session in the store.
#[derive(Debug)]
pub(super) struct Recorded {
    key: RecordKey,
    value: Bytes,
    ttl: Duration,
    /// The other node in whose process it lives.
    elsewhere: Option<Home>,
    written: Mutex<Instant>,
}

impl Recorded {
    pub(super) fn new(key: RecordKey, value: Bytes, ttl: Duration) -> Self {
        Self {
            key,
            value,
            ttl,
            elsewhere: None,
            written: Mutex::new(Instant::now()),
        }
    }

    /// The same, living in a process of another node.
    pub(super) fn elsewhere(mut self, home: Option<Home>) -> Self {
        self.elsewhere = home;
        self
    }
}

#[derive(Debug)]
struct Usage {
    count: usize,
    last_used: Instant,
    /// Ends as soon as nobody uses it.
    retiring: bool,
    ended: bool,
}

impl Session {
    pub(super) fn new(shared: &Shared, terms: Terms, link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            terms,
            link,
            turn: Arc::new(Semaphore::new(1)),
            usage: Mutex::new(Usage {
                count: 0,
                last_used: Instant::now(),
                retiring: false,
                ended: false,
            }),
            log_rank: AtomicU8::new(0),
            setting_level: tokio::sync::Mutex::new(()),
            recorded: OnceLock::new(),
            _counted: shared.metrics.count(Gauge::UpstreamSessions),
        })
    }

    /// Whether a new call may use it.
    pub(super) fn is_usable(&self) -> bool {
        self.link.is_usable() && !self.usage().retiring
    }

    /// Whether its client can be asked for anything.
    pub(super) fn is_interactive(&self) -> bool {
        can_be_asked(&self.terms.capabilities)
    }

    /// Counts a use until the lease is dropped; `None` when it takes no more.
    pub(super) fn lease(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<Lease> {
        let mut usage = self.usage();
        if usage.retiring || !self.link.is_usable() {
            return None;
        }
        usage.count += 1;
        Some(Lease {
            session: Arc::clone(self),
            shared: Arc::clone(shared),
            turn: None,
        })
    }

    /// Like [`lease`](Self::lease), if no other call that can ask has the session.
    pub(super) fn lease_turn(self: &Arc<Self>, shared: &Arc<Shared>) -> Option<Lease> {
        let turn = Arc::clone(&self.turn).try_acquire_owned().ok()?;
        let mut lease = self.lease(shared)?;
        lease.turn = Some(turn);
        Some(lease)
    }

    /// How long it has not been used; `None` while it is.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        let usage = self.usage();
        (usage.count == 0 && !self.link.router.has_listeners())
            .then(|| now.saturating_duration_since(usage.last_used))
    }

    /// Remembers where the session is recorded.
    pub(super) fn set_recorded(&self, recorded: Recorded) {
        // A session is recorded once, where it is opened.
        self.recorded.set(recorded).ok();
    }

    /// The other node in whose process it lives.
    pub(super) fn elsewhere(&self) -> Option<&Home> {
        self.recorded.get()?.elsewhere.as_ref()
    }

    /// How long its record lives.
    pub(super) fn recorded_ttl(&self) -> Option<Duration> {
        self.recorded.get().map(|recorded| recorded.ttl)
    }

    /// What to write again so that the record outlives the session's use;
    /// `None` while it is young.
    pub(super) fn record_due(&self, now: Instant) -> Option<(RecordKey, Bytes, Duration)> {
        let recorded = self.recorded.get()?;
        let mut written = recorded
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(*written) < dedicated::renewal(recorded.ttl) {
            return None;
        }
        *written = now;
        let key = recorded.key.clone();
        Some((key, recorded.value.clone(), recorded.ttl))
    }

    /// Whether log messages of `level` are already being sent, or need not be asked for.
    pub(super) fn sends_logs_of(&self, level: LogLevel) -> bool {
        let rank = self.log_rank.load(Ordering::Acquire);
        rank != 0 && rank <= rank_of(level)
    }

    /// Remembers the level that was set.
    pub(super) fn set_log_level(&self, level: LogLevel) {
        self.log_rank.store(rank_of(level), Ordering::Release);
    }

    /// Ends the session as soon as nobody uses it: with DELETE, or by closing its channel.
    pub(super) fn retire(self: &Arc<Self>, shared: &Arc<Shared>) {
        let now = {
            let mut usage = self.usage();
            usage.retiring = true;
            usage.count == 0 && !std::mem::replace(&mut usage.ended, true)
        };
        if now {
            let (session, shared_too) = (Arc::clone(self), Arc::clone(shared));
            shared
                .tasks
                .spawn_brief(async move { session.finish(&shared_too).await });
        }
    }

    /// Ends the session now, whoever uses it.
    pub(super) async fn finish(&self, shared: &Shared) {
        self.usage().ended = true;
        let known = self.link.mark_lost();
        if let Channel::Http { target, headers } = &self.link.channel
            && known
            && self.link.has_id()
        {
            let deadline = Instant::now() + DELETE_TIMEOUT;
            match shared.http.delete(target, headers.clone(), deadline).await {
                Ok(status) => debug!(replica = %self.link.replica, %status, "session ended"),
                // It will expire at the server by itself.
                Err(error) => {
                    debug!(replica = %self.link.replica, %error, "session not ended");
                }
            }
        }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        // Only numbers are kept in it: whole also after a panic.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use a session; it is not ended before the lease is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) session: Arc<Session>,
    shared: Arc<Shared>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.turn = None;
        let retire = {
            let mut usage = self.session.usage();
            usage.count -= 1;
            usage.last_used = Instant::now();
            usage.count == 0 && usage.retiring
        };
        if retire {
            self.session.retire(&self.shared);
        }
        self.shared.freed.notify_waiters();
    }
}

/// Whether a server may ask this client anything.
pub(super) fn can_be_asked(capabilities: &ClientCapabilities) -> bool {
    [
        InputKind::Roots,
        InputKind::Sampling { tools: false },
        InputKind::ElicitForm,
        InputKind::ElicitUrl,
    ]
    .into_iter()
    .any(|kind| capabilities.allows(kind))
}

fn rank_of(level: LogLevel) -> u8 {
    LogLevel::ALL
        .iter()
        .position(|known| *known == level)
        .map_or(u8::MAX, |at| at as u8 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_rank_from_verbose_to_silent() {
        assert_eq!(rank_of(LogLevel::Debug), 1);
        assert!(rank_of(LogLevel::Error) > rank_of(LogLevel::Info));
    }
}
