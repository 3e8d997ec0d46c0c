//! Sessions of legacy clients, usable on any node.
//!
//! What is fixed at `initialize` (version, capabilities, principal, endpoint)
//! travels inside the session id, a sealed token that every node can open
//! without asking anyone. What changes (log level, subscriptions, that the
//! session was ended) is a record in the store, read when a node first meets
//! the session and again when another node says that it changed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::{
    fleet::{Fleet, Heard, News},
    ids::{Principal, hex},
    mcp::{
        Raw, capabilities::ClientCapabilities, envelope::LogLevel, seal::Sealer, version::Version,
    },
    store::{RecordKey, Store, StoreError},
};

mod token;

use token::Token;

/// The endpoint of sessions with all servers.
pub const MERGED: &str = "*";

/// Bounds on sessions.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A session is over this long after it began, used or not.
    pub max_age: Duration,
    /// A node forgets what it remembers of a session unused for this long.
    pub idle: Duration,
    /// Sessions a node remembers; the least recently used are looked up again.
    pub remembered: u64,
    /// Resource subscriptions per session.
    pub max_subscriptions: usize,
}

/// A client session.
#[derive(Debug)]
pub struct Session {
    /// A digest of the session's random part: what keys in the store contain.
    pub key: Arc<str>,
    /// The endpoint it was opened on: a server's name, or `*` for all.
    pub endpoint: Arc<str>,
    /// Who opened it.
    pub principal: Principal,
    /// The negotiated version.
    pub version: Version,
    /// What the client can do.
    pub capabilities: ClientCapabilities,
    /// What the client calls itself.
    pub client_info: Option<Box<Raw>>,
    state: Mutex<State>,
    issued: u64,
    /// This node does not remember it any more, or it has ended.
    forgotten: AtomicBool,
    /// When it was last looked up by its key, in seconds.
    touched: AtomicU64,
}

/// What changes in the life of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The level set with `logging/setLevel`, as the protocol writes it.
    pub log_level: Option<String>,
    /// The resources subscribed to.
    pub subscriptions: BTreeSet<String>,
}

impl Session {
    fn new(token: Token, principal: Principal, state: State) -> Option<Self> {
        let capabilities = ClientCapabilities::parse(&token.capabilities).ok()?;
        Some(Self {
            key: hex(&sha2_16(&token.random)).into(),
            endpoint: token.endpoint.into(),
            principal,
            version: Version::parse(&token.version)?,
            capabilities,
            client_info: token.client_info,
            state: Mutex::new(state),
            issued: token.issued,
            forgotten: AtomicBool::new(false),
            touched: AtomicU64::new(token::unix_seconds()),
        })
    }

    /// The log level the client asked for.
    #[must_use]
    pub fn log_level(&self) -> Option<LogLevel> {
        self.state().log_level.as_deref().and_then(LogLevel::parse)
    }

    /// Whether the client subscribed to the resource.
    #[must_use]
    pub fn is_subscribed(&self, uri: &str) -> bool {
        self.state().subscriptions.contains(uri)
    }

    /// The resources subscribed to.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeSet<String> {
        self.state().subscriptions.clone()
    }

    fn is_for(&self, endpoint: &str, principal: &Principal) -> bool {
        &*self.endpoint == endpoint && self.principal == *principal
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole, so a panic elsewhere cannot have left half of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sha2_16(bytes: &[u8]) -> [u8; 16] {
    use sha2::{Digest as _, Sha256};
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(bytes)[..16]);
    short
}

/// What a client says of itself in `initialize`.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The endpoint: a server's name, or `*`.
    pub endpoint: String,
    /// The negotiated version.
    pub version: Version,
    /// What the client can do.
    pub capabilities: ClientCapabilities,
    /// What the client calls itself.
    pub client_info: Option<Box<Raw>>,
}

/// Why a session's state could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A bound was reached.
    #[error("a session may subscribe to at most {0} resources")]
    TooManySubscriptions(usize),
}

/// All sessions, as this node sees them.
#[derive(Debug)]
pub struct Sessions {
    settings: Settings,
    sealer: Arc<Sealer>,
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    known: Cache<Arc<str>, Arc<Session>>,
    /// The known ones by the ids clients send, which then need not be opened.
    opened: Cache<Arc<str>, Arc<Session>>,
    ended: Cache<Arc<str>, ()>,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        sealer: Arc<Sealer>,
        store: Arc<dyn Store>,
        fleet: Arc<Fleet>,
    ) -> Self {
        let remembered = || Cache::builder().max_capacity(settings.remembered);
        let idle = || remembered().time_to_idle(settings.idle);
        let forget = |_: Arc<Arc<str>>, session: Arc<Session>, _| {
            session.forgotten.store(true, Ordering::Relaxed);
        };
        Self {
            known: idle().eviction_listener(forget).build(),
            opened: remembered().time_to_idle(settings.idle).build(),
            ended: Cache::builder()
                .max_capacity(settings.remembered)
                .time_to_live(settings.max_age)
                .build(),
            settings,
            sealer,
            store,
            fleet,
        }
    }

    /// Opens a session. Costs the store nothing. Answers the session id for
    /// the client, visible ASCII, and the session.
    #[must_use]
    pub fn open(&self, hello: Hello, principal: Principal) -> Option<(String, Arc<Session>)> {
        let token = Token::new(hello);
        let id = token.seal(&self.sealer, &principal);
        let session = Arc::new(Session::new(token, principal, State::default())?);
        self.known
            .insert(Arc::clone(&session.key), Arc::clone(&session));
        self.opened.insert(id.as_str().into(), Arc::clone(&session));
        Some((id, session))
    }

    /// The session of that id, if it was opened on this endpoint by this
    /// principal and has not ended. An unreachable store is no reason to turn
    /// a session away: then only what this node knows of its end counts.
    pub async fn find(
        &self,
        id: &str,
        endpoint: &str,
        principal: &Principal,
    ) -> Option<Arc<Session>> {
        if let Some(session) = self.find_opened(id, endpoint, principal) {
            return Some(session);
        }
        let session = self.find_sealed(id, endpoint, principal).await?;
        self.opened.insert(id.into(), Arc::clone(&session));
        Some(session)
    }

    /// A session whose id was opened before.
    fn find_opened(&self, id: &str, endpoint: &str, principal: &Principal) -> Option<Arc<Session>> {
        let session = self.opened.get(id)?;
        let now = token::unix_seconds();
        let is_valid = session.is_for(endpoint, principal)
            && !session.forgotten.load(Ordering::Relaxed)
            && token::age(session.issued, now) <= self.settings.max_age;
        if !is_valid {
            return None;
        }
        // It is not idle, which the list of those remembered has to hear of.
        let since = now.saturating_sub(session.touched.load(Ordering::Relaxed));
        if since > self.settings.idle.as_secs() / 8 {
            session.touched.store(now, Ordering::Relaxed);
            self.known.get(&session.key)?;
        }
        Some(session)
    }

    async fn find_sealed(
        &self,
        id: &str,
        endpoint: &str,
        principal: &Principal,
    ) -> Option<Arc<Session>> {
        let token = Token::open(id, &self.sealer, principal)?;
        if token.endpoint != endpoint || token.age() > self.settings.max_age {
            return None;
        }
        let key: Arc<str> = hex(&sha2_16(&token.random)).into();
        if self.ended.contains_key(&key) {
            return None;
        }
        if let Some(session) = self.known.get(&key) {
            return Some(session);
        }
        let state = match self.look_up(&key).await {
            Ok(Some(state)) => state,
            Ok(None) => {
                self.ended.insert(key, ());
                return None;
            }
            Err(error) => {
                tracing::debug!(%error, "a session is taken at its word");
                State::default()
            }
        };
        let session = Arc::new(Session::new(token, *principal, state)?);
        self.known.insert(key, Arc::clone(&session));
        Some(session)
    }

    /// The stored state; `None` when the session was ended.
    async fn look_up(&self, key: &Arc<str>) -> Result<Option<State>, StoreError> {
        if self
            .store
            .get(&RecordKey::Revoked(Arc::clone(key)))
            .await?
            .is_some()
        {
            return Ok(None);
        }
        let stored = self.store.get(&RecordKey::Session(Arc::clone(key))).await?;
        Ok(Some(
            stored
                .and_then(|bytes| rmp_serde::from_slice(&bytes).ok())
                .unwrap_or_default(),
        ))
    }

    /// Ends a session on all nodes.
    pub async fn end(&self, session: &Session) {
        let key = Arc::clone(&session.key);
        self.known.invalidate(&key);
        self.ended.insert(Arc::clone(&key), ());
        let record = RecordKey::Revoked(Arc::clone(&key));
        if let Err(error) = self
            .store
            .put(&record, Bytes::new(), Some(self.settings.max_age))
            .await
        {
            tracing::warn!(%error, "the end of a session is known to this node only");
        }
        if let Err(error) = self
            .store
            .delete(&RecordKey::Session(Arc::clone(&key)))
            .await
        {
            tracing::debug!(%error, "the record of an ended session stays until its time to live ends");
        }
        self.fleet
            .tell(News::Revoked {
                session: key.to_string(),
            })
            .await;
    }

    /// Sets the log level of a session, on all nodes.
    pub async fn set_log_level(&self, session: &Session, level: LogLevel) {
        session.state().log_level = Some(level.as_str().to_owned());
        self.save(session).await;
    }

    /// Subscribes a session to a resource; `false` when it already was.
    ///
    /// # Errors
    /// When the session has as many subscriptions as it may have.
    pub async fn subscribe(&self, session: &Session, uri: &str) -> Result<bool, SessionError> {
        let is_new = {
            let mut state = session.state();
            let full = state.subscriptions.len() >= self.settings.max_subscriptions;
            if full && !state.subscriptions.contains(uri) {
                return Err(SessionError::TooManySubscriptions(
                    self.settings.max_subscriptions,
                ));
            }
            state.subscriptions.insert(uri.to_owned())
        };
        if is_new {
            self.save(session).await;
        }
        Ok(is_new)
    }

    /// Ends a subscription; `false` when there was none.
    pub async fn unsubscribe(&self, session: &Session, uri: &str) -> bool {
        let was = session.state().subscriptions.remove(uri);
        if was {
            self.save(session).await;
        }
        was
    }

    async fn save(&self, session: &Session) {
        let state = session.state().clone();
        let record = RecordKey::Session(Arc::clone(&session.key));
        match rmp_serde::to_vec(&state) {
            Ok(bytes) => {
                let ttl = Some(self.settings.max_age);
                if let Err(error) = self.store.put(&record, bytes.into(), ttl).await {
                    tracing::warn!(%error, "a change of a session is known to this node only");
                }
            }
            Err(error) => tracing::error!(%error, "a session's state could not be encoded"),
        }
        self.fleet
            .tell(News::SessionChanged {
                session: session.key.to_string(),
            })
            .await;
    }

    /// Learns from other nodes what became of sessions, until the node ends.
    pub async fn follow(&self) {
        let mut listener = self.fleet.listen();
        while let Some(heard) = listener.next().await {
            match heard {
                Heard::News(news) => match &*news {
                    News::Revoked { session } => {
                        self.known.invalidate(session.as_str());
                        self.ended.insert(session.as_str().into(), ());
                    }
                    News::SessionChanged { session } => self.refresh(session).await,
                    // What else happens is for others to hear.
                    _ => {}
                },
                // An end may have been missed: every session is looked up again.
                Heard::Gap => {
                    self.known.invalidate_all();
                    self.opened.invalidate_all();
                }
            }
        }
    }

    /// Takes over what another node wrote.
    async fn refresh(&self, key: &str) {
        if let Some(session) = self.known.get(key) {
            self.reload(&session).await;
        }
    }

    /// Takes over what is stored, into a session that somebody holds while it
    /// may have been forgotten here; `false` when it has ended.
    pub async fn reload(&self, session: &Session) -> bool {
        match self.look_up(&session.key).await {
            Ok(Some(state)) => {
                *session.state() = state;
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::debug!(%error, "a session stays what it was");
                true
            }
        }
    }

    /// Sessions this node remembers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.known.entry_count()
    }
}
