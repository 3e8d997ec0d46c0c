//! The upstream sessions of client sessions: recorded in the store, so that
//! any node can continue them.
//!
//! The store is asked when this node first meets a client's session, never for
//! a call after that. Only Streamable HTTP sessions can be shared: a stream
//! belongs to the node that opened it. Where the process of a session is this
//! node's or another's, `elsewhere` knows the way.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::debug;

use super::{
    Shared, UpstreamError,
    client::Target,
    elsewhere::{Home, Place},
    era::describe_initialized,
    link::{Channel, Link, session_headers},
    open::{self, Want},
    peer::Peer,
    pool::SlotKey,
    router::{Kind, Router},
    session::{Recorded, Session},
};
use crate::{
    ids::{ReplicaId, ServerId},
    mcp::Raw,
    store::{RecordKey, Store, StoreError},
};

/// An upstream session as the store keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Only this replica knows the session.
    pub(super) replica: String,
    /// `Mcp-Session-Id`.
    pub(super) session: String,
    /// The result of `initialize`: version, capabilities, identity.
    initialized: Box<Raw>,
    /// The node in whose process it lives, where that is a node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    home: Option<Home>,
}

impl Record {
    fn of(session: &Session, home: Option<Home>) -> Option<Self> {
        let id = session.link.session_id()?.to_str().ok()?;
        Some(Self {
            replica: session.link.replica.as_str().to_owned(),
            session: id.to_owned(),
            initialized: session.terms.description.raw.clone(),
            home,
        })
    }

    pub(super) fn read(bytes: &Bytes) -> Option<Self> {
        // A record of another format version is one we cannot use.
        serde_json::from_slice(bytes).ok()
    }

    fn to_bytes(&self) -> Bytes {
        // Texts and JSON as it came: writing them cannot fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Whether it is of this replica. Nodes may configure a program each in
    /// its way, and it is the same server.
    pub(super) fn is_of(&self, peer: &Peer) -> bool {
        match &self.home {
            Some(_) => peer.local().is_some(),
            None => self.is_at(&peer.id),
        }
    }

    /// Whether that replica, which is no node's process, holds the session.
    pub(super) fn is_at(&self, replica: &ReplicaId) -> bool {
        self.replica == replica.as_str()
    }

    /// What a session remembers of its record.
    fn recorded(&self, key: RecordKey, shared: &Shared, ttl: Duration) -> Recorded {
        let home = self.home.as_ref();
        let other = home.filter(|home| !home.is_this(shared));
        Recorded::new(key, self.to_bytes(), ttl).elsewhere(other.cloned())
    }

    /// Continues the session on this node.
    ///
    /// # Errors
    /// [`UpstreamError::SessionGone`] when the node of its process is.
    pub(super) async fn resume(
        &self,
        shared: &Arc<Shared>,
        peer: &Peer,
        target: &Target,
        want: Want,
    ) -> Result<Arc<Session>, UpstreamError> {
        let place = match &self.home {
            Some(home) => home.place(shared, peer).await,
            None => Place::Here,
        };
        let target = match &place {
            Place::Here => target,
            Place::There(other) => other,
            Place::Gone => return Err(UpstreamError::SessionGone),
        };
        let description = describe_initialized(&self.initialized)?;
        let id = HeaderValue::from_str(&self.session).map_err(UpstreamError::malformed)?;
        let link = Link::new(
            peer.id.clone(),
            Channel::Http {
                target: target.clone(),
                headers: session_headers(description.version, Some(&id)),
            },
            Router::new(want.owner, Kind::Standalone, peer.changes.clone()),
            shared.closing.child_token(),
        );
        Ok(Session::new(shared, want.terms(description), link))
    }
}

/// Where the upstream session of a client's session at a server is recorded.
pub(super) fn record_key(session: &Arc<str>, server: &ServerId) -> RecordKey {
    RecordKey::UpstreamSession {
        session: Arc::clone(session),
        server: server.clone(),
    }
}

/// Opens a session over Streamable HTTP, or continues the recorded one of a client.
///
/// # Errors
/// When the replica does not open one, or the one it had is gone with its node.
/// A store that does not answer is no error: the session then serves on this
/// node only.
pub(super) async fn open(
    peer: &Peer,
    shared: &Arc<Shared>,
    key: &SlotKey,
    target: &Target,
    want: Want,
    deadline: Instant,
) -> Result<Arc<Session>, UpstreamError> {
    let fresh = |want| open::over_http(shared, &peer.id, target, &peer.changes, want, deadline);
    let SlotKey::Client(client) = key else {
        return fresh(want).await;
    };
    let home = peer.local().and_then(|_| Home::this(shared));
    if peer.local().is_some() && home.is_none() {
        // Nobody else reaches its process.
        return fresh(want).await;
    }
    let key = record_key(client, &peer.server);
    let (recorded, unreachable) = match shared.store.get(&key).await {
        Ok(stored) => (stored.as_ref().and_then(Record::read), false),
        Err(error) => {
            report(&peer.id, &error);
            (None, true)
        }
    };
    if let Some(record) = &recorded
        && record.is_of(peer)
    {
        match record.resume(shared, peer, target, want.clone()).await {
            Ok(session) => {
                session.set_recorded(record.recorded(key, shared, want.ttl));
                return Ok(session);
            }
            Err(UpstreamError::SessionGone) => {
                forget(&peer.id, shared, &key).await;
                return Err(UpstreamError::SessionGone);
            }
            Err(_) => {}
        }
    }
    let session = fresh(want.clone()).await?;
    let Some(record) = Record::of(&session, home) else {
        // No id: the replica keeps no sessions, any node can talk to it.
        return Ok(session);
    };
    if unreachable {
        return Ok(session);
    }
    let (ttl, bytes) = (Some(want.ttl), record.to_bytes());
    let stored = match recorded {
        // The caller turned to this replica although another has a session.
        Some(_) => {
            let put = shared.store.put(&key, bytes.clone(), ttl).await;
            put.map(|()| bytes.clone())
        }
        None => shared.store.put_if_absent(&key, bytes.clone(), ttl).await,
    };
    match stored {
        Ok(stored) if stored != bytes => {
            // Another node was faster: its session is the client's.
            let theirs = Record::read(&stored).filter(|record| record.is_of(peer));
            let Some(theirs) = theirs else {
                return Ok(session);
            };
            session.retire(shared);
            let session = theirs.resume(shared, peer, target, want.clone()).await?;
            session.set_recorded(theirs.recorded(key, shared, want.ttl));
            Ok(session)
        }
        Ok(_) => {
            session.set_recorded(record.recorded(key, shared, want.ttl));
            Ok(session)
        }
        Err(error) => {
            report(&peer.id, &error);
            Ok(session)
        }
    }
}

async fn forget(replica: &ReplicaId, shared: &Shared, key: &RecordKey) {
    if let Err(error) = shared.store.delete(key).await {
        report(replica, &error);
    }
}

/// Removes the record of a session that its replica does not know any more,
/// unless another node has replaced it already.
pub(super) async fn disown(peer: &Peer, shared: &Shared, client: &Arc<str>, session: &Session) {
    let Some(lost) = Record::of(session, None) else {
        return;
    };
    let key = record_key(client, &peer.server);
    let outcome = match shared.store.take(&key).await {
        Ok(Some(bytes)) => match Record::read(&bytes) {
            Some(record) if record.session != lost.session => {
                let ttl = session.recorded_ttl();
                shared.store.put_if_absent(&key, bytes, ttl).await.map(drop)
            }
            Some(_) | None => Ok(()),
        },
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        report(&peer.id, &error);
    }
}

/// The record of a client's session, removed from the store.
pub(super) async fn take(
    store: &dyn Store,
    client: &Arc<str>,
    server: &ServerId,
) -> Result<Option<Record>, StoreError> {
    let bytes = store.take(&record_key(client, server)).await?;
    Ok(bytes.as_ref().and_then(Record::read))
}

/// Renews the record of a session in use, now and then and beside the traffic.
pub(super) fn keep_recorded(shared: &Arc<Shared>, session: &Arc<Session>) {
    let Some((key, bytes, ttl)) = session.record_due(Instant::now()) else {
        return;
    };
    let store = Arc::clone(&shared.store);
    let replica = session.link.replica.clone();
    shared.tasks.spawn_brief(async move {
        if let Err(error) = store.put(&key, bytes, Some(ttl)).await {
            report(&replica, &error);
        }
    });
}

/// How often a record is renewed while its session is used.
pub(super) fn renewal(ttl: Duration) -> Duration {
    ttl / 3
}

fn report(replica: &ReplicaId, error: &StoreError) {
    debug!(%replica, %error, "an upstream session is known to this node only");
}
