//! What this node knows of one replica: what it speaks, its sessions.

mod connect;
mod probe;

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

pub(super) use self::connect::says_modern;
use super::{
    Description, Shared, UpstreamError,
    changes::Changes,
    client::Target,
    local::Local,
    pool::{Need, SlotKey, Slots},
};
use crate::{
    ids::{ReplicaId, ServerId},
    mcp::{
        capabilities::ClientCapabilities,
        version::{Era, Version},
    },
    servers::{Endpoint, Replica},
};

/// How a replica is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Stateless requests over HTTP.
    ModernHttp(Version),
    /// Streamable HTTP with `initialize`; `verified` once that was answered.
    LegacyHttp { verified: bool },
    /// HTTP+SSE of 2024-11-05.
    LegacySse,
    /// The demo server in this process.
    Demo,
}

impl Speaks {
    /// The era of its requests.
    pub(super) fn era(self) -> Era {
        match self {
            Self::ModernHttp(_) | Self::Demo => Era::Modern,
            Self::LegacyHttp { .. } | Self::LegacySse => Era::Legacy,
        }
    }

    /// Whether its messages share one stream.
    pub(super) fn is_shared_stream(self) -> bool {
        match self {
            Self::LegacySse => true,
            Self::ModernHttp(_) | Self::LegacyHttp { .. } | Self::Demo => false,
        }
    }
}

/// How the replica is reached.
#[derive(Debug)]
pub(super) enum Way {
    Http(Target),
    Demo,
}

/// What a probe found.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) speaks: Speaks,
    /// Of a modern replica; a legacy one describes itself per session.
    pub(super) description: Option<Arc<Description>>,
    since: Instant,
}

impl Verdict {
    /// How long ago the replica was asked.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }
}

/// What this node knows of one replica.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: ReplicaId,
    pub(super) server: ServerId,
    pub(super) way: Way,
    /// The stdio server, where this node runs it.
    local: Option<Arc<Local>>,
    /// Dead when the replica was removed.
    pub(super) replica: Weak<Replica>,
    pub(super) changes: Changes,
    pub(super) slots: Slots,
    verdict: ArcSwapOption<Verdict>,
    probing: tokio::sync::Mutex<()>,
    rechecking: AtomicBool,
    /// Until when a modern replica is known to refuse `initialize`.
    refuses_legacy: Mutex<Option<Instant>>,
    failed: Mutex<Option<(Instant, UpstreamError)>>,
}

impl Peer {
    pub(super) fn new(replica: &Arc<Replica>, shared: &Arc<Shared>) -> Arc<Self> {
        let (way, local) = match &replica.endpoint {
            Endpoint::Http(uri) => {
                let signature = replica.audience.as_deref();
                let signature = signature.map(|bridge| shared.settings.signer.toward(bridge));
                let target = Target::new(uri.clone(), &replica.headers).signed(signature);
                (Way::Http(target), None)
            }
            Endpoint::Stdio(command) => {
                let local = Local::start(shared, replica, command);
                (Way::Http(Target::new(local.uri(), &[])), Some(local))
            }
            Endpoint::Demo => (Way::Demo, None),
        };
        Arc::new(Self {
            id: replica.id.clone(),
            server: replica.server.clone(),
            way,
            local,
            replica: Arc::downgrade(replica),
            changes: Changes::new(),
            slots: Slots::default(),
            verdict: ArcSwapOption::empty(),
            probing: tokio::sync::Mutex::new(()),
            rechecking: AtomicBool::new(false),
            refuses_legacy: Mutex::new(None),
            failed: Mutex::new(None),
        })
    }

    /// Whether this is what is known of that very replica, not of one that had
    /// its address before.
    pub(super) fn is_of(&self, replica: &Arc<Replica>) -> bool {
        std::ptr::eq(self.replica.as_ptr(), Arc::as_ptr(replica))
    }

    /// Whether nothing but the session names the client a question is for:
    /// its messages share a stream here or behind a bridge.
    pub(super) fn asks_per_session(&self) -> bool {
        let is_bridge = matches!(&self.way, Way::Http(target) if target.is_bridge());
        is_bridge || self.speaks().is_some_and(Speaks::is_shared_stream)
    }

    /// The stdio server, where this node runs it.
    pub(super) fn local(&self) -> Option<&Arc<Local>> {
        self.local.as_ref()
    }

    /// Ends its sessions as soon as nobody uses them.
    pub(super) fn retire_all(&self, shared: &Arc<Shared>) {
        for (_, session) in self.slots.take_all() {
            session.retire(shared);
        }
    }

    /// How the replica is spoken to, if that is known.
    pub(super) fn speaks(&self) -> Option<Speaks> {
        self.verdict.load().as_ref().map(|verdict| verdict.speaks)
    }

    /// Whether legacy clients get sessions of their own here: also a modern
    /// replica may offer them, and through them nothing has to be translated.
    pub(super) fn serves_legacy(&self, verdict: &Verdict) -> bool {
        match verdict.speaks {
            Speaks::LegacyHttp { .. } | Speaks::LegacySse => true,
            // A process would be started for nothing.
            Speaks::ModernHttp(_) if self.local.is_some() => {
                let described = verdict.description.as_ref();
                described.is_some_and(|description| description.speaks_legacy())
                    && !self.refused_legacy()
            }
            // Not every server of both eras names the older versions in its
            // description, so the first client's session finds out.
            Speaks::ModernHttp(_) => !self.refused_legacy(),
            Speaks::Demo => false,
        }
    }

    fn refused_legacy(&self) -> bool {
        let until = self.refuses_legacy.lock();
        let until = until.unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// No client's session is tried here for a while.
    fn note_refusal(&self, shared: &Shared) {
        let until = Instant::now() + shared.settings.verdict_horizon;
        let refuses = self.refuses_legacy.lock();
        *refuses.unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Whether it is known that no client has a session here.
    pub(super) fn is_stateless(&self) -> bool {
        let verdict = self.verdict.load();
        verdict
            .as_ref()
            .is_some_and(|verdict| !self.serves_legacy(verdict))
    }

    /// What the replica speaks; probes it when that is not known.
    ///
    /// # Errors
    /// When it cannot be found out. The request was not sent.
    pub(super) async fn verdict(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Arc<Verdict>, UpstreamError> {
        if let Some(verdict) = self.verdict.load_full() {
            self.recheck_when_old(&verdict, shared);
            return Ok(verdict);
        }
        self.probe(shared, deadline, None).await
    }

    /// What the replica says of itself, not older than it allows.
    ///
    /// # Errors
    /// When it cannot be asked or understood.
    pub(super) async fn describe(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Arc<Description>, UpstreamError> {
        let verdict = self.verdict(shared, deadline).await?;
        match verdict.speaks {
            Speaks::Demo | Speaks::ModernHttp(_) => {
                let fresh_for = verdict
                    .description
                    .as_ref()
                    .and_then(|description| description.ttl)
                    .map_or(Duration::ZERO, |(ttl, _)| ttl)
                    .clamp(Duration::from_secs(1), shared.settings.verdict_horizon);
                let verdict = if verdict.since.elapsed() < fresh_for {
                    verdict
                } else {
                    self.probe(shared, deadline, Some(&verdict)).await?
                };
                match &verdict.description {
                    Some(description) => Ok(Arc::clone(description)),
                    None => self.describe_legacy(shared, deadline).await,
                }
            }
            Speaks::LegacyHttp { .. } | Speaks::LegacySse => {
                self.describe_legacy(shared, deadline).await
            }
        }
    }

    async fn describe_legacy(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Arc<Description>, UpstreamError> {
        let nobody = ClientCapabilities::none();
        let need = Need {
            key: &SlotKey::Capabilities(Arc::clone(nobody.fingerprint())),
            capabilities: &nobody,
            client: None,
            alone: false,
        };
        let lease = self.slots.lease(self, shared, need, deadline).await?;
        Ok(Arc::clone(&lease.session.terms.description))
    }

    /// Forgets a verdict that turned out wrong, unless there is a newer one.
    pub(super) fn forget(&self, verdict: &Arc<Verdict>) {
        let current = self.verdict.load();
        if current
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, verdict))
        {
            self.verdict.store(None);
        }
    }

    fn settle(&self, speaks: Speaks, description: Option<Arc<Description>>) -> Arc<Verdict> {
        let verdict = Arc::new(Verdict {
            speaks,
            description,
            since: Instant::now(),
        });
        let before = self.verdict.swap(Some(Arc::clone(&verdict)));
        let is_certain = speaks != Speaks::LegacyHttp { verified: false };
        if is_certain && before.is_none_or(|before| before.speaks != speaks) {
            info!(replica = %self.id, ?speaks, "era found");
        }
        verdict
    }

    /// Probes again because the verdict is doubted.
    ///
    /// # Errors
    /// When the replica cannot be asked now.
    pub(super) async fn probe_again(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
        doubted: &Arc<Verdict>,
    ) -> Result<Arc<Verdict>, UpstreamError> {
        self.probe(shared, deadline, Some(doubted)).await
    }

    /// Finds out anew, unless somebody did since `old` was read.
    async fn probe(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
        old: Option<&Arc<Verdict>>,
    ) -> Result<Arc<Verdict>, UpstreamError> {
        let start = Instant::now();
        let _one_at_a_time = timeout_at(deadline, self.probing.lock())
            .await
            .map_err(|_| UpstreamError::TimedOut { sent: false })?;
        if let Some(verdict) = self.verdict.load_full()
            && old.is_none_or(|old| !Arc::ptr_eq(old, &verdict))
        {
            return Ok(verdict);
        }
        {
            let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, error)) = &*failed
                && *at > start
            {
                return Err(error.clone());
            }
        }
        let soon = deadline.min(start + shared.settings.probe_timeout);
        let found = match &self.way {
            Way::Demo => Ok(self.settle(Speaks::Demo, Some(Arc::new(probe::describe_demo()?)))),
            Way::Http(target) => self.probe_http(shared, target, soon).await,
        };
        found.inspect_err(|error| {
            debug!(replica = %self.id, %error, "the era could not be found out");
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed = Some((Instant::now(), error.clone()));
        })
    }

    /// A *legacy* verdict never fails by itself: an upgraded server still
    /// answers `initialize`. So it is checked now and then, beside the traffic.
    fn recheck_when_old(self: &Arc<Self>, verdict: &Arc<Verdict>, shared: &Arc<Shared>) {
        let legacy = matches!(
            verdict.speaks,
            Speaks::LegacyHttp { .. } | Speaks::LegacySse
        );
        if !legacy
            || verdict.since.elapsed() < shared.settings.verdict_horizon
            || self.rechecking.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let (peer, shared_too, old) = (Arc::clone(self), Arc::clone(shared), Arc::clone(verdict));
        shared.tasks.spawn_brief(async move {
            peer.recheck(&shared_too, &old).await;
            peer.rechecking.store(false, Ordering::Release);
        });
    }
}
