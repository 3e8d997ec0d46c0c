//! What this node knows of one replica: what it speaks, its sessions.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use super::{
    Description, Shared, UpstreamError,
    changes::Changes,
    client::{Target, failure},
    dedicated, demo,
    era::{Finding, Reply, describe_discovered, read_pipe_reply, read_reply},
    legacy_sse,
    open::{self, Want, ask, read_whole},
    pool::{Need, SlotKey, Slots},
    request::{body, rpc_error},
    router::Owner,
    session::{Session, Terms},
    stdio::{self, Backoff},
};
use crate::{
    ids::{ReplicaId, ServerId},
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        envelope::{self, OutgoingMeta, TraceContext},
        error::{HEADER_MISMATCH, UNSUPPORTED_VERSION},
        header,
        message::Answer,
        method,
        version::{Era, Version},
    },
    servers::{Endpoint, Replica, StdioCommand},
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
    /// Stateless requests over a pipe.
    ModernStdio(Version),
    /// A pipe with `initialize`.
    LegacyStdio,
    /// The demo server in this process.
    Demo,
}

impl Speaks {
    /// The era of its requests.
    pub(super) fn era(self) -> Era {
        match self {
            Self::ModernHttp(_) | Self::ModernStdio(_) | Self::Demo => Era::Modern,
            Self::LegacyHttp { .. } | Self::LegacySse | Self::LegacyStdio => Era::Legacy,
        }
    }

    /// Whether its messages share one stream.
    pub(super) fn is_shared_stream(self) -> bool {
        match self {
            Self::LegacySse | Self::ModernStdio(_) | Self::LegacyStdio => true,
            Self::ModernHttp(_) | Self::LegacyHttp { .. } | Self::Demo => false,
        }
    }
}

/// How the replica is reached.
#[derive(Debug)]
pub(super) enum Way {
    Http(Target),
    Stdio(StdioCommand),
    Demo,
}

impl Way {
    fn to(replica: &Replica) -> Self {
        match &replica.endpoint {
            Endpoint::Http(uri) => Self::Http(Target::new(uri.clone(), &replica.headers)),
            Endpoint::Stdio(command) => Self::Stdio(command.clone()),
            Endpoint::Demo => Self::Demo,
        }
    }
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
    pub(super) backoff: Backoff,
}

impl Peer {
    pub(super) fn new(replica: &Arc<Replica>) -> Arc<Self> {
        Arc::new(Self {
            id: replica.id.clone(),
            server: replica.server.clone(),
            way: Way::to(replica),
            replica: Arc::downgrade(replica),
            changes: Changes::new(),
            slots: Slots::default(),
            verdict: ArcSwapOption::empty(),
            probing: tokio::sync::Mutex::new(()),
            rechecking: AtomicBool::new(false),
            refuses_legacy: Mutex::new(None),
            failed: Mutex::new(None),
            backoff: Backoff::default(),
        })
    }

    /// How the replica is spoken to, if that is known.
    pub(super) fn speaks(&self) -> Option<Speaks> {
        self.verdict.load().as_ref().map(|verdict| verdict.speaks)
    }

    /// Whether legacy clients get sessions of their own here: also a modern
    /// replica may offer them, and through them nothing has to be translated.
    pub(super) fn serves_legacy(&self, verdict: &Verdict) -> bool {
        match verdict.speaks {
            Speaks::LegacyHttp { .. } | Speaks::LegacySse | Speaks::LegacyStdio => true,
            // Not every server of both eras names the older versions in its
            // description, so the first client's session finds out.
            Speaks::ModernHttp(_) => !self.refused_legacy(),
            Speaks::ModernStdio(_) => {
                let described = verdict.description.as_ref();
                described.is_some_and(|description| description.speaks_legacy())
                    && !self.refused_legacy()
            }
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
            Speaks::Demo | Speaks::ModernStdio(_) | Speaks::ModernHttp(_) => {
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
            Speaks::LegacyHttp { .. } | Speaks::LegacySse | Speaks::LegacyStdio => {
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
            key: &SlotKey::Capabilities(nobody.fingerprint()),
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
        if before.is_none_or(|before| before.speaks != speaks) {
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
            Way::Demo => Ok(self.settle(Speaks::Demo, Some(Arc::new(describe_demo()?)))),
            Way::Http(target) => self.probe_http(shared, target, soon).await,
            Way::Stdio(_) => self.probe_stdio(shared, soon).await,
        };
        found.inspect_err(|error| {
            debug!(replica = %self.id, %error, "the era could not be found out");
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed = Some((Instant::now(), error.clone()));
        })
    }

    async fn probe_http(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        deadline: Instant,
    ) -> Result<Arc<Verdict>, UpstreamError> {
        let mut version = Version::LATEST_MODERN;
        for _ in 0..2 {
            let reply = discover_over_http(shared, target, version, deadline).await;
            match read_reply(reply, version) {
                Finding::Modern(version, description) => {
                    let description = Some(Arc::new(*description));
                    return Ok(self.settle(Speaks::ModernHttp(version), description));
                }
                Finding::AskAgain(other) => version = other,
                Finding::Legacy => {
                    // Which of the legacy transports it is, was found out before.
                    let known = self.speaks().filter(|speaks| speaks.era() == Era::Legacy);
                    let speaks = known.unwrap_or(Speaks::LegacyHttp { verified: false });
                    return Ok(self.settle(speaks, None));
                }
                Finding::Reserved(error) | Finding::NoEvidence(error) => return Err(error),
                Finding::Incompatible(why) => return Err(UpstreamError::Incompatible(why)),
            }
        }
        Err(UpstreamError::Incompatible(
            "it refuses the version it names".into(),
        ))
    }

    /// Probes a process. A modern one is kept; a legacy one may be confused by
    /// the probe, or gone, and is thrown away.
    async fn probe_stdio(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Arc<Verdict>, UpstreamError> {
        match self.open_modern_stdio(shared, deadline).await {
            Ok(session) => {
                let terms = &session.terms;
                let speaks = Speaks::ModernStdio(terms.version);
                let verdict = self.settle(speaks, Some(Arc::clone(&terms.description)));
                self.slots.put(&SlotKey::Modern, session);
                Ok(verdict)
            }
            Err(NotModern::Legacy) => Ok(self.settle(Speaks::LegacyStdio, None)),
            Err(NotModern::Error(error)) => Err(error),
        }
    }

    async fn open_modern_stdio(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Arc<Session>, NotModern> {
        let link = stdio::spawn(shared, self, Owner::Pool, deadline).await?;
        // Ends the process on every way out but the last.
        let unless_kept = link.end.clone().drop_guard();
        let mut version = Version::LATEST_MODERN;
        for _ in 0..2 {
            let params = discover_params(shared, version);
            let reply = match ask(shared, &link, method::DISCOVER, &params, deadline).await {
                Ok(answer) => Reply::Answer(None, answer),
                Err(error) => Reply::Failed(error),
            };
            match read_pipe_reply(reply, version) {
                Finding::Modern(version, description) => {
                    unless_kept.disarm();
                    let terms = Terms {
                        version,
                        description: Arc::new(*description),
                        capabilities: ClientCapabilities::none(),
                        owner: Owner::Pool,
                    };
                    return Ok(Session::new(shared, terms, link));
                }
                Finding::AskAgain(other) => version = other,
                Finding::Legacy => return Err(NotModern::Legacy),
                Finding::Reserved(error) | Finding::NoEvidence(error) => {
                    return Err(error.into());
                }
                Finding::Incompatible(why) => return Err(UpstreamError::Incompatible(why).into()),
            }
        }
        Err(NotModern::Legacy)
    }

    /// Opens a session of the kind the verdict asks for.
    ///
    /// # Errors
    /// When the replica does not open one. A verdict that proves wrong is corrected.
    pub(super) async fn open(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        key: &SlotKey,
        want: Want,
        deadline: Instant,
    ) -> Result<Arc<Session>, UpstreamError> {
        let verdict = self.verdict(shared, deadline).await?;
        match (&self.way, verdict.speaks) {
            (Way::Http(target), Speaks::LegacyHttp { verified }) => {
                let opened =
                    dedicated::open(self, shared, key, target, want.clone(), deadline).await;
                match opened {
                    Ok(session) => {
                        if !verified {
                            self.settle(Speaks::LegacyHttp { verified: true }, None);
                        }
                        Ok(session)
                    }
                    Err(error) if says_modern(&error) => {
                        self.forget(&verdict);
                        Err(error)
                    }
                    Err(error) if is_no_streamable(&error) && !verified => {
                        self.open_sse_instead(shared, target, want, error, deadline)
                            .await
                    }
                    Err(error) => {
                        if is_no_streamable(&error) {
                            self.forget(&verdict);
                        }
                        Err(error)
                    }
                }
            }
            (Way::Http(target), Speaks::LegacySse) => {
                let opened = self.open_sse(shared, target, want, deadline).await;
                if let Err(UpstreamError::NotOffered(_) | UpstreamError::Malformed(_)) = &opened {
                    self.forget(&verdict);
                }
                opened
            }
            (Way::Http(target), Speaks::ModernHttp(_)) if want.owner == Owner::Client => {
                let opened = dedicated::open(self, shared, key, target, want, deadline).await;
                if opened.as_ref().is_err_and(is_final) {
                    self.note_refusal(shared);
                }
                opened
            }
            (Way::Stdio(_), Speaks::LegacyStdio) => self.open_process(shared, want, deadline).await,
            (Way::Stdio(_), Speaks::ModernStdio(_)) if want.owner == Owner::Client => {
                let opened = self.open_process(shared, want, deadline).await;
                if opened.as_ref().is_err_and(is_final) {
                    self.note_refusal(shared);
                }
                opened
            }
            (Way::Stdio(_), Speaks::ModernStdio(_)) => {
                match self.open_modern_stdio(shared, deadline).await {
                    Ok(session) => Ok(session),
                    Err(NotModern::Error(error)) => Err(error),
                    Err(NotModern::Legacy) => {
                        self.forget(&verdict);
                        Err(UpstreamError::Incompatible(
                            "it spoke another era before".into(),
                        ))
                    }
                }
            }
            // The verdict follows from the endpoint; these have no sessions.
            (_, Speaks::ModernHttp(_) | Speaks::Demo) | (Way::Demo, _) => {
                Err(UpstreamError::NotOffered("sessions"))
            }
            (Way::Http(_), Speaks::ModernStdio(_) | Speaks::LegacyStdio)
            | (Way::Stdio(_), Speaks::LegacyHttp { .. } | Speaks::LegacySse) => {
                Err(UpstreamError::NotOffered("this transport"))
            }
        }
    }

    /// Starts a process of its own and initializes it.
    async fn open_process(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        want: Want,
        deadline: Instant,
    ) -> Result<Arc<Session>, UpstreamError> {
        let link = stdio::spawn(shared, self, want.owner, deadline).await?;
        let unless_opened = link.end.clone().drop_guard();
        let session = open::over_link(shared, link, want, deadline).await?;
        unless_opened.disarm();
        Ok(session)
    }

    /// `initialize` was refused: a server of 2024-11-05 has its stream at this address.
    async fn open_sse_instead(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        want: Want,
        refusal: UpstreamError,
        deadline: Instant,
    ) -> Result<Arc<Session>, UpstreamError> {
        match self.open_sse(shared, target, want, deadline).await {
            Ok(session) => {
                self.settle(Speaks::LegacySse, None);
                Ok(session)
            }
            Err(error) => {
                // Neither era is certain: the next caller probes again.
                self.verdict.store(None);
                match error {
                    UpstreamError::NotOffered(_) | UpstreamError::Malformed(_) => Err(refusal),
                    other => Err(other),
                }
            }
        }
    }

    async fn open_sse(
        &self,
        shared: &Arc<Shared>,
        target: &Target,
        want: Want,
        deadline: Instant,
    ) -> Result<Arc<Session>, UpstreamError> {
        let owner = want.owner;
        let link =
            legacy_sse::connect(shared, &self.id, target, &self.changes, owner, deadline).await?;
        let unless_opened = link.end.clone().drop_guard();
        let session = open::over_link(shared, link, want, deadline).await?;
        unless_opened.disarm();
        Ok(session)
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

    async fn recheck(&self, shared: &Arc<Shared>, old: &Arc<Verdict>) {
        let Way::Http(target) = &self.way else {
            return;
        };
        let deadline = Instant::now() + shared.settings.probe_timeout;
        let reply = discover_over_http(shared, target, Version::LATEST_MODERN, deadline).await;
        match read_reply(reply, Version::LATEST_MODERN) {
            Finding::Modern(version, description) => {
                self.settle(Speaks::ModernHttp(version), Some(Arc::new(*description)));
                for (_, session) in self.slots.take_all() {
                    session.retire(shared);
                }
            }
            // Checked, or not to be checked now: either way not again for a while.
            Finding::Legacy
            | Finding::Reserved(_)
            | Finding::AskAgain(_)
            | Finding::NoEvidence(_)
            | Finding::Incompatible(_) => {
                self.settle(old.speaks, old.description.clone());
            }
        }
    }
}

/// Why a process is not used as a modern one.
enum NotModern {
    Legacy,
    Error(UpstreamError),
}

impl From<UpstreamError> for NotModern {
    fn from(error: UpstreamError) -> Self {
        Self::Error(error)
    }
}

/// Whether a refusal of `initialize` leaves HTTP+SSE as a possibility.
fn is_no_streamable(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Http { status, .. } => is_refusal(*status),
        UpstreamError::Refused { status, .. } => status.is_some_and(is_refusal),
        _ => false,
    }
}

/// Whether trying `initialize` again is no use.
fn is_final(error: &UpstreamError) -> bool {
    matches!(
        error,
        UpstreamError::Refused { .. } | UpstreamError::Incompatible(_)
    ) || is_no_streamable(error)
}

/// Whether a refusal of `initialize` comes from a modern server.
pub(super) fn says_modern(error: &UpstreamError) -> bool {
    let UpstreamError::Refused { answer, .. } = error.root() else {
        return false;
    };
    matches!(
        answer.error_code(),
        Some(UNSUPPORTED_VERSION | HEADER_MISMATCH)
    )
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 404 | 405)
}

fn discover_params(shared: &Shared, version: Version) -> Box<Raw> {
    envelope::with_modern_meta(
        None,
        &OutgoingMeta {
            version,
            capabilities: &carried(),
            client_info: &shared.settings.client_info,
            log_level: None,
            progress_token: None,
            trace: &TraceContext::default(),
        },
    )
}

async fn discover_over_http(
    shared: &Shared,
    target: &Target,
    version: Version,
    deadline: Instant,
) -> Reply {
    let id = shared.next_id();
    let message = body(
        &id,
        method::DISCOVER,
        Some(&discover_params(shared, version)),
    );
    let mut headers = HeaderMap::with_capacity(8);
    header::standard_headers(&mut headers, version, method::DISCOVER, None);
    let response = match shared.http.post(target, headers, message, deadline).await {
        Ok(response) => response,
        Err(error) => return Reply::Failed(error),
    };
    let status = response.status();
    if !status.is_success() {
        let (error, text) = failure(response, deadline).await;
        return match rpc_error(status, text.as_ref(), &id) {
            Some(answer) => Reply::Answer(Some(status), answer),
            None => Reply::Failed(error),
        };
    }
    let limit = shared.settings.max_message_bytes;
    match read_whole(response, &id, limit, deadline).await {
        Ok(answer) => Reply::Answer(Some(status), answer),
        Err(error) => Reply::Failed(error),
    }
}

/// The description of the demo server.
pub(super) fn describe_demo() -> Result<Description, UpstreamError> {
    match demo::answer(method::DISCOVER, None) {
        Answer::Result(result) => describe_discovered(
            &result,
            Version::LATEST_MODERN,
            vec![Version::LATEST_MODERN.as_str().to_owned()],
        ),
        answer @ Answer::Error(_) => Err(UpstreamError::Refused {
            status: None,
            answer,
        }),
    }
}

/// What this gateway can carry back from a server to a client that supports it.
fn carried() -> ClientCapabilities {
    let all = crate::mcp::json::raw(&serde_json::json!({
        "elicitation": {"form": {}, "url": {}},
        "roots": {},
        "sampling": {},
    }));
    ClientCapabilities::parse(&all).unwrap_or_else(|_| ClientCapabilities::none())
}
