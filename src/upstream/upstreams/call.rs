//! One request: the way it takes, and the repairs that are tried once when
//! the replica has become another in the meantime.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Upstreams;
use crate::{
    mcp::{envelope::LogLevel, json, message::Answer, method, version::Version},
    telemetry::metrics::Retry,
    upstream::{
        ClientSession, Exchange, Outgoing, SessionUse, UpstreamError, dedicated, demo, elsewhere,
        exchange::{Logs, Parts},
        kept::Kept,
        peer::{Peer, Speaks, Verdict, Way, says_modern},
        pool::{Need, SlotKey},
        request::{Failure, on_session, over_modern_http, simple_request},
        session::{Lease, Session, can_be_asked},
    },
};

/// Within this time after a probe an answer is believed rather than the probe doubted.
const TRUSTED: Duration = Duration::from_secs(10);

impl Upstreams {
    /// Sends a request; once more where the replica has become another in the meantime.
    pub(super) async fn start(
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
            (Speaks::ModernHttp(_), _)
                if matches!(session, SessionUse::Dedicated(_)) && peer.serves_legacy(verdict) =>
            {
                self.on_legacy(peer, request, session, deadline).await
            }
            (Speaks::ModernHttp(version), Way::Http(target)) => {
                over_modern_http(peer, shared, target, version, request, deadline).await
            }
            (Speaks::LegacyHttp { .. } | Speaks::LegacySse | Speaks::ModernHttp(_), _) => {
                self.on_legacy(peer, request, session, deadline).await
            }
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
        if elsewhere::has_left(&self.shared, &used).await {
            let error = UpstreamError::SessionGone;
            return Err(self.end_if_gone(peer, session, &used, error).await.into());
        }
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
            Err(Failure::Error(error)) => {
                let error = self.end_if_gone(peer, session, &used, error).await;
                Err(Failure::Error(error))
            }
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

    /// What is told of an error of a client's session whose process may have
    /// ended with its node.
    async fn end_if_gone(
        &self,
        peer: &Peer,
        session: &SessionUse,
        used: &Session,
        error: UpstreamError,
    ) -> UpstreamError {
        let SessionUse::Dedicated(client) = session else {
            return error;
        };
        if !elsewhere::is_gone(&self.shared, used, &error).await {
            return error;
        }
        used.link.mark_lost();
        dedicated::disown(peer, &self.shared, &client.key, used).await;
        UpstreamError::SessionGone
    }

    async fn pooled_lease(
        &self,
        peer: &Arc<Peer>,
        request: &Outgoing<'_>,
        deadline: Instant,
    ) -> Result<Lease, UpstreamError> {
        let asks =
            method::allows_input_required(request.method) && can_be_asked(request.capabilities);
        let key = SlotKey::Capabilities(Arc::clone(request.capabilities.fingerprint()));
        let mut need = Need {
            key: &key,
            capabilities: request.capabilities,
            client: None,
            alone: asks && peer.asks_per_session(),
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

    pub(super) async fn client_lease(
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
            Speaks::ModernHttp(version) => version,
            Speaks::LegacyHttp { .. } | Speaks::LegacySse => Version::LATEST_LEGACY,
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
