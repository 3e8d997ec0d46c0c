//! The sessions open toward one replica, and which of them a call gets.
//!
//! A slot holds the sessions that are alike: opened with the same
//! capabilities, or for the same client. Opening happens once per slot at a
//! time, in a task of its own, so that a caller who gives up neither wastes
//! nor repeats it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    ClientSession, Shared, UpstreamError,
    kept::Kept,
    open::Want,
    peer::{Peer, Speaks},
    router::Owner,
    session::{Lease, Session},
};
use crate::mcp::{Raw, capabilities::ClientCapabilities, version::Version};

/// An opening goes on this long for others when its caller's deadline is near.
const OPEN_AT_LEAST: Duration = Duration::from_secs(10);

/// How often a place for a session is looked for while there is none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which sessions are alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum SlotKey {
    /// Opened with these capabilities, for anyone.
    Capabilities(Arc<str>),
    /// Opened for a client's session.
    Client(Arc<str>),
}

/// Alike sessions.
#[derive(Debug, Default)]
struct Slot {
    sessions: Mutex<Vec<Arc<Session>>>,
    opening: Arc<tokio::sync::Mutex<()>>,
    /// When and why the last opening failed.
    failed: Mutex<Option<(Instant, UpstreamError)>>,
    /// What the client's session was asked to remember.
    kept: Mutex<Kept>,
}

/// All sessions toward one replica.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<HashMap<SlotKey, Arc<Slot>>>);

/// What a call needs of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'a> {
    pub(super) key: &'a SlotKey,
    pub(super) capabilities: &'a ClientCapabilities,
    /// The client whose own session it is.
    pub(super) client: Option<&'a ClientSession>,
    /// Whether no other call that can be asked may share the session: nothing
    /// would name the call that a question belongs to.
    pub(super) alone: bool,
}

impl Need<'_> {
    fn want(&self, shared: &Shared) -> Want {
        let ours = || shared.settings.client_info.clone();
        match self.client {
            None => Want {
                owner: Owner::Pool,
                capabilities: self.capabilities.clone(),
                client_info: ours(),
                version: Version::LATEST_LEGACY,
                ttl: Duration::ZERO,
            },
            Some(client) => Want {
                owner: Owner::Client,
                capabilities: client.capabilities.clone(),
                client_info: client.client_info.clone().unwrap_or_else(ours),
                version: client.version.min(Version::LATEST_LEGACY),
                ttl: client.ttl,
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves the value whole at every point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn pick(&self, need: Need<'_>, shared: &Arc<Shared>) -> Option<Lease> {
        lock(&self.sessions).iter().find_map(|session| {
            if need.alone {
                session.lease_turn(shared)
            } else {
                session.lease(shared)
            }
        })
    }

    /// Whether one more session would help.
    fn may_open(&self, need: Need<'_>) -> bool {
        need.alone || lock(&self.sessions).iter().all(|s| !s.is_usable())
    }

    fn failed_since(&self, start: Instant) -> Option<UpstreamError> {
        lock(&self.failed)
            .as_ref()
            .filter(|(at, _)| *at > start)
            .map(|(_, error)| error.clone())
    }

    /// Removes what cannot be used any more.
    fn sweep(&self, shared: &Arc<Shared>) {
        let mut gone = Vec::new();
        lock(&self.sessions).retain(|session| {
            let keep = session.is_usable();
            if !keep {
                gone.push(Arc::clone(session));
            }
            keep
        });
        for session in gone {
            session.retire(shared);
        }
    }
}

impl Slots {
    /// A session for a call: one that is open, else a new one, else the next
    /// that gets free.
    ///
    /// # Errors
    /// Before the request was sent: all are safe to retry.
    pub(super) async fn lease(
        &self,
        peer: &Arc<Peer>,
        shared: &Arc<Shared>,
        need: Need<'_>,
        deadline: Instant,
    ) -> Result<Lease, UpstreamError> {
        let start = Instant::now();
        let slot = self.slot(need.key);
        // The way of almost all calls.
        if let Some(lease) = slot.pick(need, shared) {
            return Ok(lease);
        }
        loop {
            let freed = shared.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let one_at_a_time = timeout_at(deadline, Arc::clone(&slot.opening).lock_owned())
                .await
                .map_err(|_| UpstreamError::TimedOut { sent: false })?;
            if let Some(lease) = slot.pick(need, shared) {
                return Ok(lease);
            }
            if let Some(error) = slot.failed_since(start) {
                return Err(error);
            }
            slot.sweep(shared);
            if slot.may_open(need) && self.make_room(peer, shared, need.key) {
                let (opened, wait) = oneshot::channel();
                let (slot, peer, shared_too) =
                    (Arc::clone(&slot), Arc::clone(peer), Arc::clone(shared));
                let (key, want, alone) = (need.key.clone(), need.want(shared), need.alone);
                shared.tasks.spawn_brief(async move {
                    let outcome = slot
                        .open(&peer, &shared_too, &key, want, alone, deadline)
                        .await;
                    drop(one_at_a_time);
                    opened.send(outcome).ok();
                });
                match timeout_at(deadline, wait).await {
                    // A bridge has no process left: its others may get free.
                    Ok(Ok(Err(UpstreamError::Busy(_)))) => {}
                    Ok(Ok(outcome)) => return outcome,
                    Ok(Err(_)) => return Err(UpstreamError::Stopping),
                    Err(_) => return Err(UpstreamError::TimedOut { sent: false }),
                }
            } else {
                drop(one_at_a_time);
            }
            // Those of other nodes get free without a word.
            let again = deadline.min(Instant::now() + LOOK_AGAIN);
            if timeout_at(again, freed).await.is_err() && again == deadline {
                return Err(UpstreamError::Busy(
                    "all sessions with the replica are taken",
                ));
            }
        }
    }

    fn slot(&self, key: &SlotKey) -> Arc<Slot> {
        let mut slots = lock(&self.0);
        match slots.get(key) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(slots.entry(key.clone()).or_default()),
        }
    }

    /// Notes what a client's session is asked to remember.
    pub(super) fn keep(&self, key: &SlotKey, method: &str, params: &Raw) {
        lock(&self.slot(key).kept).note(method, params);
    }

    /// The session of that key, if it can be used; nothing is opened.
    pub(super) fn existing(&self, key: &SlotKey, shared: &Arc<Shared>) -> Option<Lease> {
        let slot = lock(&self.0).get(key).cloned()?;
        let sessions = lock(&slot.sessions);
        sessions.iter().find_map(|session| session.lease(shared))
    }

    /// Takes the sessions of that key out, to be ended by the caller.
    pub(super) fn take(&self, key: &SlotKey) -> Vec<Arc<Session>> {
        let slot = lock(&self.0).remove(key);
        slot.map(|slot| std::mem::take(&mut *lock(&slot.sessions)))
            .unwrap_or_default()
    }

    /// Takes all sessions out.
    pub(super) fn take_all(&self) -> Vec<(SlotKey, Arc<Session>)> {
        let slots = std::mem::take(&mut *lock(&self.0));
        let mut all = Vec::new();
        for (key, slot) in slots {
            for session in std::mem::take(&mut *lock(&slot.sessions)) {
                all.push((key.clone(), session));
            }
        }
        all
    }

    /// Ends what was not used for long and forgets empty slots.
    pub(super) fn retire_idle(&self, shared: &Arc<Shared>, now: Instant) {
        let slots: Vec<_> = lock(&self.0)
            .iter()
            .map(|(key, slot)| (key.clone(), Arc::clone(slot)))
            .collect();
        for (key, slot) in slots {
            slot.sweep(shared);
            let idle: Vec<_> = lock(&slot.sessions)
                .extract_if(.., |session| {
                    session
                        .idle(now)
                        .is_some_and(|idle| idle >= shared.settings.session_idle)
                })
                .collect();
            for session in idle {
                drop_idle(&key, &session, shared);
            }
        }
        lock(&self.0).retain(|_, slot| {
            // Somebody may be about to open one in a slot that is still held.
            Arc::strong_count(slot) > 1 || !lock(&slot.sessions).is_empty()
        });
    }

    /// Sees to it that one more session fits, at the cost of the one that was
    /// unused for longest.
    fn make_room(&self, peer: &Peer, shared: &Arc<Shared>, key: &SlotKey) -> bool {
        let settings = &shared.settings;
        let is_stream = peer.speaks().is_some_and(Speaks::is_shared_stream);
        let (limit, of_kind): (usize, fn(&SlotKey) -> bool) = match (is_stream, key) {
            (true, _) => (settings.streams_per_replica, |_| true),
            (false, SlotKey::Client(_)) => (settings.dedicated_sessions, is_client),
            (false, _) => (settings.sessions_per_replica, |key| !is_client(key)),
        };
        let slots: Vec<_> = lock(&self.0)
            .iter()
            .filter(|(key, _)| of_kind(key))
            .map(|(key, slot)| (key.clone(), Arc::clone(slot)))
            .collect();
        let count: usize = slots.iter().map(|(_, s)| lock(&s.sessions).len()).sum();
        if count < limit {
            return true;
        }
        let now = Instant::now();
        let oldest = slots
            .iter()
            .flat_map(|(key, slot)| {
                let sessions = lock(&slot.sessions).clone();
                sessions
                    .into_iter()
                    .filter_map(move |session| Some((session.idle(now)?, key, slot, session)))
            })
            .max_by_key(|(idle, ..)| *idle);
        let Some((_, key, slot, session)) = oldest else {
            return false;
        };
        lock(&slot.sessions).retain(|other| !Arc::ptr_eq(other, &session));
        drop_idle(key, &session, shared);
        true
    }
}

impl Slot {
    async fn open(
        &self,
        peer: &Arc<Peer>,
        shared: &Arc<Shared>,
        key: &SlotKey,
        want: Want,
        alone: bool,
        deadline: Instant,
    ) -> Result<Lease, UpstreamError> {
        let deadline = deadline.max(Instant::now() + OPEN_AT_LEAST);
        let opened = peer
            .open(shared, key, want, deadline)
            .await
            .and_then(|session| {
                let lease = if alone {
                    session.lease_turn(shared)
                } else {
                    session.lease(shared)
                };
                lease
                    .map(|lease| (session, lease))
                    .ok_or(UpstreamError::SessionLost)
            });
        match opened {
            Ok((session, lease)) => {
                let kept = lock(&self.kept).clone();
                kept.tell(peer, shared, &session, deadline).await;
                lock(&self.sessions).push(session);
                Ok(lease)
            }
            Err(error @ UpstreamError::Busy(_)) => Err(error),
            Err(error) => {
                debug!(replica = %peer.id, %error, "no session");
                *lock(&self.failed) = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

fn is_client(key: &SlotKey) -> bool {
    matches!(key, SlotKey::Client(_))
}

/// An unused session is ended, except a client's own over HTTP: other nodes may
/// be using it, so this node only forgets it.
fn drop_idle(key: &SlotKey, session: &Arc<Session>, shared: &Arc<Shared>) {
    if is_client(key) && !session.link.is_shared_stream() {
        session.link.end.cancel();
    } else {
        session.retire(shared);
    }
}
