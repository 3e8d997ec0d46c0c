//! [`Upstreams`]: requests to replicas, whatever they speak.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch as uri_watch},
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{
    Change, ClientSession, Description, Exchange, Outgoing, SessionUse, Settings, Shared,
    UpstreamError, dedicated, demo,
    exchange::{Logs, Parts, Source, one_line, outcome_of},
    kept::Kept,
    open::Want,
    peer::{Peer, Speaks, Verdict, Way, says_modern},
    pool::{Need, SlotKey},
    request::{Failure, on_session, over_modern_http, simple_request},
    router::Owner,
    session::{Lease, can_be_asked},
    watch,
};
use crate::{
    ids::ReplicaId,
    lifecycle::Tasks,
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        envelope::LogLevel,
        json,
        message::{self, Answer},
        method,
        version::{Era, Version},
    },
    servers::{Replica, Server},
    store::Store,
    telemetry::metrics::{Metrics, Retry},
};

/// Within this time after a probe an answer is believed rather than the probe doubted.
const TRUSTED: Duration = Duration::from_secs(10);

/// All that a node holds toward replicas.
#[derive(Debug)]
pub struct Upstreams {
    shared: Arc<Shared>,
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
                () = keep_tidy(weak) => stopping.cancelled().await,
            }
        });
        upstreams
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

    /// Sends a request; once more where the replica has become another in the meantime.
    async fn start(
        &self,
        peer: &Arc<Peer>,
        request: &Outgoing<'_>,
        session: &SessionUse,
        deadline: Instant,
    ) -> Result<Exchange, UpstreamError> {
        // Each repair is tried once; a session may be lost because its server was upgraded.
        let (mut reopened, mut reprobed) = (false, false);
        loop {
            let verdict = peer.verdict(&self.shared, deadline).await;
            let verdict = verdict.map_err(UpstreamError::before_request)?;
            let failure = match self
                .attempt(peer, &verdict, request, session, deadline)
                .await
            {
                Ok(exchange) => return Ok(exchange),
                Err(failure) => failure,
            };
            let why = match failure {
                Failure::SessionLost(said) if reopened => {
                    let outcome = said.ok_or(UpstreamError::SessionLost);
                    return self.concluded(peer, &verdict, outcome);
                }
                Failure::SessionLost(_) => Retry::SessionLost,
                // The verdict has been corrected where it was wrong.
                Failure::Error(error) if !reprobed && is_corrected(&error, session) => {
                    Retry::VersionChanged
                }
                Failure::Error(error) => return Err(error),
                Failure::Doubted(outcome) => {
                    if reprobed
                        || !self
                            .spoke_otherwise(peer, &verdict, &outcome, deadline)
                            .await
                    {
                        return self.concluded(peer, &verdict, *outcome);
                    }
                    Retry::VersionChanged
                }
            };
            self.shared.metrics.retry(&peer.server, why);
            match why {
                Retry::SessionLost => reopened = true,
                _ => reprobed = true,
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
        let held = |replica: &&Arc<Replica>| record.is_of(&replica.id);
        server.replicas.iter().find(held).map(|r| r.id.clone())
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
            if record.is_of(&replica.id) {
                self.retire_recorded(&self.peer(replica), &record);
            }
        }
    }

    fn retire_recorded(&self, peer: &Peer, record: &dedicated::Record) {
        let Way::Http(target) = &peer.way else { return };
        let want = Want {
            owner: Owner::Client,
            capabilities: ClientCapabilities::none(),
            client_info: self.shared.settings.client_info.clone(),
            version: Version::LATEST_LEGACY,
            ttl: Duration::ZERO,
        };
        if let Ok(session) = record.resume(&self.shared, peer, target, want) {
            session.retire(&self.shared);
        }
    }

    /// Reports changes of a replica until its stream ends.
    ///
    /// # Errors
    /// Why the stream ended; [`UpstreamError::NotOffered`] when there is none to have.
    pub async fn watch(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        uris: uri_watch::Receiver<BTreeSet<String>>,
        changes: mpsc::Sender<Change>,
    ) -> Result<(), UpstreamError> {
        self.check_open()?;
        let peer = self.peer(replica);
        watch::watch(self, &self.shared, &peer, replica, uris, changes).await
    }

    /// Ends pooled sessions and child processes; with them all that still runs.
    pub async fn shutdown(&self, deadline: Instant) {
        let peers: Vec<_> = {
            let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
            peers.values().cloned().collect()
        };
        let keep = self.shared.settings.keep_dedicated;
        let mut ending = Vec::new();
        for peer in peers {
            for (key, session) in peer.slots.take_all() {
                // What other nodes can continue stays.
                let kept = keep && matches!(key, SlotKey::Client(_)) && session.link.has_id();
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
        self.shared.children.close();
        // A second is left for what has to be killed.
        let patience = deadline.checked_sub(Duration::from_secs(1));
        let patience = patience.unwrap_or(deadline).max(Instant::now());
        if timeout_at(patience, self.shared.children.wait())
            .await
            .is_err()
        {
            self.shared.killing.cancel();
            let killed = timeout(Duration::from_secs(2), self.shared.children.wait());
            if killed.await.is_err() {
                warn!("not all child processes ended");
            }
        }
    }

    fn check_open(&self) -> Result<(), UpstreamError> {
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

    fn peer(&self, replica: &Arc<Replica>) -> Arc<Peer> {
        if let Some(peer) = self.known_peer(&replica.id) {
            return peer;
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Peer::new(replica);
        Arc::clone(peers.entry(replica.id.clone()).or_insert_with(new))
    }

    async fn attempt(
        &self,
        peer: &Arc<Peer>,
        verdict: &Verdict,
        request: &Outgoing<'_>,
        session: &SessionUse,
        deadline: Instant,
    ) -> Result<Exchange, Failure> {
        let shared = &self.shared;
        match (verdict.speaks, &peer.way) {
            (Speaks::Demo, _) => {
                let answer = demo::answer(request.method, request.params);
                Ok(self.answered(peer, Version::LATEST_MODERN, answer))
            }
            (Speaks::ModernHttp(_) | Speaks::ModernStdio(_), _)
                if matches!(session, SessionUse::Dedicated(_)) && peer.serves_legacy(verdict) =>
            {
                self.on_legacy(peer, request, session, deadline).await
            }
            (Speaks::ModernHttp(version), Way::Http(target)) => {
                over_modern_http(peer, shared, target, version, request, deadline).await
            }
            (Speaks::ModernStdio(_), _) => {
                let need = Need {
                    key: &SlotKey::Modern,
                    capabilities: &ClientCapabilities::none(),
                    client: None,
                    alone: false,
                };
                let lease = peer.slots.lease(peer, shared, need, deadline).await;
                let lease = lease.map_err(UpstreamError::before_request)?;
                on_session(peer, shared, lease, request, deadline).await
            }
            (
                Speaks::LegacyHttp { .. }
                | Speaks::LegacySse
                | Speaks::LegacyStdio
                | Speaks::ModernHttp(_),
                _,
            ) => self.on_legacy(peer, request, session, deadline).await,
        }
    }

    async fn on_legacy(
        &self,
        peer: &Arc<Peer>,
        request: &Outgoing<'_>,
        session: &SessionUse,
        deadline: Instant,
    ) -> Result<Exchange, Failure> {
        let lease = match session {
            SessionUse::Pooled => self.pooled_lease(peer, request, deadline).await,
            SessionUse::Dedicated(client) => self.client_lease(peer, client, deadline).await,
        };
        let lease = lease.map_err(UpstreamError::before_request)?;
        let used = Arc::clone(&lease.session);
        let level = request.log_level;
        let outcome = match (session, level) {
            (SessionUse::Pooled, Some(level)) => {
                self.see_to_logs(peer, &lease, level, deadline).await
            }
            (SessionUse::Pooled, None) | (SessionUse::Dedicated(_), _) => Ok(()),
        };
        if let (SessionUse::Dedicated(client), Some(params)) = (session, request.params)
            && Kept::concerns(request.method)
        {
            let key = SlotKey::Client(Arc::clone(&client.key));
            peer.slots.keep(&key, request.method, params);
        }
        let outcome = match outcome {
            Ok(()) => on_session(peer, &self.shared, lease, request, deadline).await,
            Err(failure) => Err(failure),
        };
        let outcome = match outcome {
            Err(Failure::Error(UpstreamError::SessionLost)) => Err(Failure::SessionLost(None)),
            other => other,
        };
        if let Err(Failure::SessionLost(_)) = &outcome {
            used.link.mark_lost();
            if let SessionUse::Dedicated(client) = session {
                dedicated::disown(peer, &self.shared, &client.key, &used).await;
            }
        }
        outcome
    }

    async fn pooled_lease(
        &self,
        peer: &Arc<Peer>,
        request: &Outgoing<'_>,
        deadline: Instant,
    ) -> Result<Lease, UpstreamError> {
        let asks =
            method::allows_input_required(request.method) && can_be_asked(request.capabilities);
        let shared_stream = |peer: &Peer| peer.speaks().is_some_and(Speaks::is_shared_stream);
        let key = SlotKey::Capabilities(request.capabilities.fingerprint());
        let mut need = Need {
            key: &key,
            capabilities: request.capabilities,
            client: None,
            alone: asks && shared_stream(peer),
        };
        let lease = peer.slots.lease(peer, &self.shared, need, deadline).await?;
        if asks && !need.alone && lease.session.link.is_shared_stream() {
            // Opening it showed that the replica speaks HTTP+SSE.
            drop(lease);
            need.alone = true;
            return peer.slots.lease(peer, &self.shared, need, deadline).await;
        }
        Ok(lease)
    }

    async fn client_lease(
        &self,
        peer: &Arc<Peer>,
        client: &ClientSession,
        deadline: Instant,
    ) -> Result<Lease, UpstreamError> {
        let need = Need {
            key: &SlotKey::Client(Arc::clone(&client.key)),
            capabilities: &client.capabilities,
            client: Some(client),
            alone: false,
        };
        let lease = peer.slots.lease(peer, &self.shared, need, deadline).await?;
        dedicated::keep_recorded(&self.shared, &lease.session);
        Ok(lease)
    }

    /// Sees to it that a pooled session sends log messages of that level.
    async fn see_to_logs(
        &self,
        peer: &Arc<Peer>,
        lease: &Lease,
        level: LogLevel,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let session = &lease.session;
        if !session.terms.description.capabilities.has_logging() || session.sends_logs_of(level) {
            return Ok(());
        }
        let _one_at_a_time = timeout_at(deadline, session.setting_level.lock())
            .await
            .map_err(|_| UpstreamError::TimedOut { sent: false })?;
        if session.sends_logs_of(level) {
            return Ok(());
        }
        let params = json::raw(&serde_json::json!({"level": level.as_str()}));
        let Some(lease) = session.lease(&self.shared) else {
            return Err(Failure::SessionLost(None));
        };
        let set = simple_request(
            peer,
            &self.shared,
            lease,
            method::LOGGING_SET_LEVEL,
            &params,
            deadline,
        );
        if let Answer::Error(error) = set.await? {
            debug!(replica = %peer.id, error = error.get(), "logging/setLevel was refused");
        }
        session.set_log_level(level);
        Ok(())
    }

    /// Probes again because of an answer that a replica of another version
    /// gives; whether it does speak another.
    async fn spoke_otherwise(
        &self,
        peer: &Arc<Peer>,
        verdict: &Arc<Verdict>,
        outcome: &Result<Answer, UpstreamError>,
        deadline: Instant,
    ) -> bool {
        if outcome.is_ok() && verdict.age() < TRUSTED {
            return false;
        }
        match peer.probe_again(&self.shared, deadline, verdict).await {
            Ok(now) => now.speaks != verdict.speaks,
            Err(error) => {
                debug!(replica = %peer.id, %error, "the version could not be checked");
                false
            }
        }
    }

    fn concluded(
        &self,
        peer: &Peer,
        verdict: &Verdict,
        outcome: Result<Answer, UpstreamError>,
    ) -> Result<Exchange, UpstreamError> {
        let version = match verdict.speaks {
            Speaks::ModernHttp(version) | Speaks::ModernStdio(version) => version,
            Speaks::LegacyHttp { .. } | Speaks::LegacySse | Speaks::LegacyStdio => {
                Version::LATEST_LEGACY
            }
            Speaks::Demo => Version::LATEST_MODERN,
        };
        Ok(self.answered(peer, version, outcome?))
    }

    fn answered(&self, peer: &Peer, version: Version, answer: Answer) -> Exchange {
        let mut exchange = Exchange::new(Parts {
            shared: Arc::clone(&self.shared),
            server: peer.server.clone(),
            version,
            id: self.shared.next_id(),
            token: None,
            logs: Logs::All,
            deadline: None,
            lease: None,
            changes: peer.changes.clone(),
        });
        exchange.set_answer(VecDeque::new(), answer);
        exchange
    }

    /// Ends idle sessions and forgets replicas that are no more.
    fn tidy(&self) {
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
        }
        for peer in removed {
            debug!(replica = %peer.id, "replica forgotten");
            for (_, session) in peer.slots.take_all() {
                session.retire(&self.shared);
            }
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

/// Whether opening a session failed in a way that corrected the verdict.
fn is_corrected(error: &UpstreamError, session: &SessionUse) -> bool {
    if says_modern(error) {
        return true;
    }
    let (UpstreamError::NotReady(error), SessionUse::Dedicated(_)) = (error, session) else {
        return false;
    };
    match error.root() {
        UpstreamError::Refused { .. } | UpstreamError::Incompatible(_) => true,
        UpstreamError::Http { status, .. } => matches!(status.as_u16(), 400 | 404 | 405),
        _ => false,
    }
}
