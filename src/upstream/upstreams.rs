//! [`Upstreams`]: requests to replicas, whatever they speak.

mod call;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{
    Change, ClientSession, Description, Exchange, Outgoing, Resources, SessionUse, Settings,
    Shared, UpstreamError, dedicated,
    exchange::{Logs, Parts, Source, one_line, outcome_of},
    open::Want,
    peer::{Peer, Speaks, Way, says_modern},
    pool::SlotKey,
    router::Owner,
    watch,
};
use crate::{
    bridge::service::Service,
    cluster::membership::Membership,
    ids::ReplicaId,
    lifecycle::Tasks,
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        message,
        version::{Era, Version},
    },
    servers::{Endpoint, Replica, Server},
    store::Store,
    telemetry::metrics::Metrics,
};

/// All that a node holds toward replicas.
#[derive(Debug)]
pub struct Upstreams {
    pub(super) shared: Arc<Shared>,
    peers: RwLock<HashMap<ReplicaId, Arc<Peer>>>,
}

impl Upstreams {
    /// Opens nothing yet; starts the task that ends idle sessions.
    #[must_use]
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let upstreams = Arc::new(Self {
            shared: Shared::new(settings, store, tasks.clone(), metrics),
            peers: RwLock::default(),
        });
        let weak = Arc::downgrade(&upstreams);
        let stopping = tasks.stopping().clone();
        tasks.spawn("upstream-sessions", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = keep_tidy(weak.clone()) => stopping.cancelled().await,
            }
            // Other nodes read them to no end.
            if let Some(upstreams) = weak.upgrade() {
                let locals = upstreams.locals();
                locals
                    .iter()
                    .for_each(|local| local.backend().end_streams());
            }
        });
        upstreams
    }

    /// Who else is of this node's fleet: with them it shares the sessions that
    /// clients have with its stdio servers.
    pub fn join(&self, members: Arc<Membership>) {
        if self.shared.members.set(members).is_err() {
            debug!("the fleet is known already");
        }
    }

    /// What answers other nodes for a stdio server that this node runs.
    pub(crate) fn bridge(&self, server: &Server) -> Option<Arc<Service>> {
        let is_local = |replica: &&Arc<Replica>| matches!(replica.endpoint, Endpoint::Stdio(_));
        let replica = server.replicas.iter().find(is_local)?;
        self.check_open().ok()?;
        let peer = self.peer(replica);
        peer.local().map(|local| Arc::clone(local.service()))
    }

    fn locals(&self) -> Vec<Arc<Service>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let locals = peers.values().filter_map(|peer| peer.local());
        locals.map(|local| Arc::clone(local.service())).collect()
    }

    /// Era and self-description of a replica.
    ///
    /// # Errors
    /// When the replica cannot be reached or understood.
    pub async fn describe(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        deadline: Instant,
    ) -> Result<Arc<Description>, UpstreamError> {
        self.check_open()?;
        let peer = self.peer(replica);
        match peer.describe(&self.shared, deadline).await {
            // It was taken for legacy; the verdict has been corrected.
            Err(error) if says_modern(&error) => peer.describe(&self.shared, deadline).await,
            other => other,
        }
    }

    /// Sends a request. Dropping the future or the exchange cancels it upstream.
    ///
    /// # Errors
    /// When no answer can come; see [`UpstreamError::is_safe_to_retry`].
    pub async fn call(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        request: Outgoing<'_>,
        session: SessionUse,
        deadline: Instant,
    ) -> Result<Exchange, UpstreamError> {
        self.check_open()?;
        let peer = self.peer(replica);
        let begun = Instant::now();
        match self.start(&peer, &request, &session, deadline).await {
            Ok(mut exchange) => {
                exchange.count_from(begun);
                Ok(exchange)
            }
            Err(error) => {
                let era = peer.speaks().map_or(Era::Modern, Speaks::era);
                let (outcome, took) = (outcome_of(&error), begun.elapsed());
                let metrics = &self.shared.metrics;
                metrics.upstream_request(&peer.server, era, outcome, took);
                Err(error)
            }
        }
    }

    /// Sends a notification on a client's session. Nothing is sent to a modern replica.
    ///
    /// # Errors
    /// When the replica did not take it.
    pub async fn notify(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        session: &ClientSession,
        method: &str,
        params: Option<&Raw>,
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        self.check_open()?;
        let peer = self.peer(replica);
        if !peer.serves_legacy(&*peer.verdict(&self.shared, deadline).await?) {
            return Ok(());
        }
        let lease = self.client_lease(&peer, session, deadline).await?;
        let mut notice = Vec::new();
        message::write_notification(&mut notice, method, params);
        let notice = one_line(notice.into());
        lease
            .session
            .link
            .send(&self.shared, notice, deadline)
            .await
    }

    /// Messages of a client's session that belong to no call. Opens the session
    /// if needed; the exchange is never done.
    ///
    /// # Errors
    /// When there is no such stream: [`UpstreamError::NotOffered`].
    pub async fn session_stream(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        session: &ClientSession,
        deadline: Instant,
    ) -> Result<Exchange, UpstreamError> {
        self.check_open()?;
        let peer = self.peer(replica);
        if !peer.serves_legacy(&*peer.verdict(&self.shared, deadline).await?) {
            return Err(UpstreamError::NotOffered("messages outside of calls"));
        }
        let first = self.open_session_stream(&peer, session, deadline).await;
        match first {
            Err(UpstreamError::SessionLost) => {
                self.open_session_stream(&peer, session, deadline).await
            }
            other => other,
        }
    }

    /// Whether the replica keeps a session for this client, which is opened if
    /// it is not there yet: what belongs to a session can be sent there then.
    pub async fn keeps_session(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        session: &ClientSession,
        deadline: Instant,
    ) -> bool {
        let peer = self.peer(replica);
        let Ok(verdict) = peer.verdict(&self.shared, deadline).await else {
            return false;
        };
        peer.serves_legacy(&verdict) && self.client_lease(&peer, session, deadline).await.is_ok()
    }

    async fn open_session_stream(
        &self,
        peer: &Arc<Peer>,
        session: &ClientSession,
        deadline: Instant,
    ) -> Result<Exchange, UpstreamError> {
        let lease = self.client_lease(peer, session, deadline).await?;
        let link = Arc::clone(&lease.session.link);
        let registration = link.router.listen()?;
        if let Err(error) = link.read_standalone(&self.shared, deadline).await {
            if matches!(error, UpstreamError::SessionLost) {
                link.mark_lost();
                dedicated::disown(peer, &self.shared, &session.key, &lease.session).await;
            }
            return Err(error);
        }
        let mut exchange = Exchange::new(Parts {
            shared: Arc::clone(&self.shared),
            server: peer.server.clone(),
            version: lease.session.terms.version,
            id: self.shared.next_id(),
            token: None,
            logs: Logs::All,
            deadline: None,
            lease: Some(lease),
            changes: peer.changes.clone(),
        });
        exchange.set_source(Source::Shared(registration));
        Ok(exchange)
    }

    /// The replica that holds the upstream session of a client's session:
    /// only there is it known. `None`: any replica will do.
    pub async fn bound_replica(&self, session: &Arc<str>, server: &Server) -> Option<ReplicaId> {
        let key = SlotKey::Client(Arc::clone(session));
        let mut stateless = false;
        for replica in &server.replicas {
            let Some(peer) = self.known_peer(&replica.id) else {
                continue;
            };
            if let Some(lease) = peer.slots.existing(&key, &self.shared) {
                let link = &lease.session.link;
                let bound = link.has_id() || link.is_shared_stream();
                return bound.then(|| replica.id.clone());
            }
            stateless |= peer.is_stateless();
        }
        if stateless {
            return None;
        }
        let key = dedicated::record_key(session, &server.id);
        let stored = self.shared.store.get(&key).await.ok().flatten()?;
        let record = dedicated::Record::read(&stored)?;
        let held = |replica: &&Arc<Replica>| record.is_at(&replica.id);
        server.replicas.iter().find(held).map(|r| r.id.clone())
    }

    /// Forgets this node's upstream session of a client's session at a replica
    /// that is gone: the next call opens one elsewhere, or follows another node there.
    pub fn unbind(&self, session: &Arc<str>, replica: &ReplicaId) {
        let Some(peer) = self.known_peer(replica) else {
            return;
        };
        for open in peer.slots.take(&SlotKey::Client(Arc::clone(session))) {
            open.retire(&self.shared);
        }
    }

    /// Ends the upstream session of a client's session and forgets it.
    pub async fn retire(self: &Arc<Self>, session: &Arc<str>, server: &Server) {
        let key = SlotKey::Client(Arc::clone(session));
        let mut was_here = false;
        for replica in &server.replicas {
            let Some(peer) = self.known_peer(&replica.id) else {
                continue;
            };
            for open in peer.slots.take(&key) {
                was_here |= open.link.has_id();
                open.retire(&self.shared);
            }
        }
        let record = match dedicated::take(&*self.shared.store, session, &server.id).await {
            Ok(Some(record)) if !was_here => record,
            Ok(_) => return,
            Err(error) => {
                debug!(server = %server.id, %error, "the record of an ended session is left to expire");
                return;
            }
        };
        // Another node opened it: ended from here just the same.
        for replica in &server.replicas {
            let peer = self.peer(replica);
            if record.is_of(&peer) {
                self.retire_recorded(&peer, &record).await;
            }
        }
    }

    async fn retire_recorded(&self, peer: &Peer, record: &dedicated::Record) {
        let Way::Http(target) = &peer.way else { return };
        let want = Want {
            owner: Owner::Client,
            capabilities: ClientCapabilities::none(),
            client_info: self.shared.settings.client_info.clone(),
            version: Version::LATEST_LEGACY,
            ttl: Duration::ZERO,
        };
        if let Ok(session) = record.resume(&self.shared, peer, target, want).await {
            session.retire(&self.shared);
        }
    }

    /// Changes that a replica tells in the sessions this node has with it.
    pub fn changes_of(&self, replica: &Arc<Replica>) -> broadcast::Receiver<Change> {
        self.peer(replica).changes.subscribe()
    }

    /// Reports changes of a replica until its stream ends.
    ///
    /// # Errors
    /// Why the stream ended; [`UpstreamError::NotOffered`] when there is none to have.
    pub async fn watch(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        resources: Resources,
        changes: mpsc::Sender<Change>,
    ) -> Result<(), UpstreamError> {
        self.check_open()?;
        let peer = self.peer(replica);
        watch::watch(self, &self.shared, &peer, replica, resources, changes).await
    }

    /// Ends pooled sessions and child processes; with them all that still runs.
    pub async fn shutdown(&self, deadline: Instant) {
        let peers: Vec<_> = {
            let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
            peers.values().cloned().collect()
        };
        let keep = self.shared.settings.keep_dedicated;
        let mut ending = Vec::new();
        for peer in &peers {
            for (key, session) in peer.slots.take_all() {
                // What other nodes can continue stays, if the server does.
                let is_elsewhere = peer.local().is_none() || session.elsewhere().is_some();
                let is_shared = matches!(key, SlotKey::Client(_)) && session.link.has_id();
                let kept = keep && is_shared && is_elsewhere;
                if !kept {
                    let shared = Arc::clone(&self.shared);
                    ending.push(async move { session.finish(&shared).await });
                }
            }
        }
        if timeout_at(deadline, join_all(ending)).await.is_err() {
            warn!("not all upstream sessions were ended in time");
        }
        self.shared.closing.cancel();
        for local in peers.iter().filter_map(|peer| peer.local()) {
            local.service().backend().stop();
        }
        // A second is left for what has to be killed.
        let patience = deadline.checked_sub(Duration::from_secs(1));
        let patience = patience.unwrap_or(deadline).max(Instant::now());
        let children = &self.shared.children;
        if timeout_at(patience, children.finished()).await.is_err() {
            self.shared.killing.cancel();
            let killed = timeout(Duration::from_secs(2), children.finished());
            if killed.await.is_err() {
                warn!("not all child processes ended");
            }
        }
    }

    pub(super) fn check_open(&self) -> Result<(), UpstreamError> {
        if self.shared.closing.is_cancelled() {
            Err(UpstreamError::Stopping)
        } else {
            Ok(())
        }
    }

    fn known_peer(&self, id: &ReplicaId) -> Option<Arc<Peer>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(id).cloned()
    }

    pub(super) fn peer(&self, replica: &Arc<Replica>) -> Arc<Peer> {
        if let Some(peer) = self.known_peer(&replica.id)
            && peer.is_of(replica)
        {
            return peer;
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&replica.id) {
            Some(peer) if peer.is_of(replica) => Arc::clone(peer),
            former => {
                // A replica of that address was there before, with other headers.
                if let Some(former) = former {
                    former.retire_all(&self.shared);
                }
                let peer = Peer::new(replica, &self.shared);
                peers.insert(replica.id.clone(), Arc::clone(&peer));
                peer
            }
        }
    }

    /// Ends idle sessions and forgets replicas that are no more.
    pub(crate) fn tidy(&self) {
        let now = Instant::now();
        let mut removed = Vec::new();
        let kept: Vec<_> = {
            let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
            peers.retain(|_, peer| {
                let keep = peer.replica.strong_count() > 0;
                if !keep {
                    removed.push(Arc::clone(peer));
                }
                keep
            });
            peers.values().cloned().collect()
        };
        for peer in kept {
            peer.slots.retire_idle(&self.shared, now);
            if let Some(local) = peer.local() {
                local.service().backend().tidy();
            }
        }
        for peer in removed {
            debug!(replica = %peer.id, "replica forgotten");
            peer.retire_all(&self.shared);
        }
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

async fn keep_tidy(upstreams: Weak<Upstreams>) {
    loop {
        let Some(pause) = upstreams.upgrade().map(|upstreams| {
            upstreams.tidy();
            upstreams.shared.settings.session_idle / 4
        }) else {
            return;
        };
        tokio::time::sleep(pause.clamp(Duration::from_millis(50), Duration::from_secs(60))).await;
    }
}
