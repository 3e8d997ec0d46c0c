//! Clients' sessions in processes of other nodes: each node runs its own copy of
//! a configured stdio server, and a session belongs to the copy that made it.

use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{debug, info};

use super::{Shared, UpstreamError, client::Target, peer::Peer, session::Session};
use crate::{
    cluster::Incarnation,
    ids::{ReplicaId, ServerId},
};

/// Where nodes offer their stdio servers to each other.
pub(crate) const PATH: &str = "/bridge/";

/// What every node answers whoever asks.
const HEALTHZ: &str = "/healthz";
/// How long a node that nobody has heard of may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// The node in whose process a session lives, as its record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Home {
    /// Which life of which node.
    node: String,
    /// Where it is reached.
    url: String,
}

/// Where the process of a session is.
#[derive(Debug)]
pub(super) enum Place {
    /// On this node.
    Here,
    /// On another node.
    There(Target),
    /// Nowhere: the node is gone.
    Gone,
}

/// What tokens for a stdio server of a node are made for. Another life of the
/// node has other processes.
pub(super) fn audience(node: &Incarnation, server: &ServerId) -> String {
    format!("{node}/{server}")
}

impl Home {
    /// This node, if others can reach it.
    pub(super) fn this(shared: &Shared) -> Option<Self> {
        let members = shared.members.get()?;
        let url = members.about_me().url;
        (!url.is_empty()).then(|| Self {
            node: members.me().to_string(),
            url,
        })
    }

    /// Which life of which node.
    fn node(&self) -> Incarnation {
        Incarnation::named(&self.node)
    }

    /// Whether it is this node in this life.
    pub(super) fn is_this(&self, shared: &Shared) -> bool {
        let members = shared.members.get();
        members.is_some_and(|members| members.me().as_str() == self.node)
    }

    /// Where its process is found now.
    pub(super) async fn place(&self, shared: &Shared, peer: &Peer) -> Place {
        if self.is_this(shared) {
            return Place::Here;
        }
        if self.has_left(shared).await {
            return Place::Gone;
        }
        match self.target(shared, &peer.server) {
            Some(target) => Place::There(target),
            None => Place::Gone,
        }
    }

    /// Whether it has left: asked of what this node knows; only when it does
    /// not know that one, of the store and of the node itself. The list of
    /// nodes may have been lost.
    async fn has_left(&self, shared: &Shared) -> bool {
        let Some(members) = shared.members.get() else {
            return true;
        };
        match members.find(&self.node()).await {
            Ok(Some(_)) | Err(_) => false,
            Ok(None) => !self.answers(shared).await,
        }
    }

    /// Whether anybody answers where it is reached.
    async fn answers(&self, shared: &Shared) -> bool {
        let Ok(uri) = format!("{}{HEALTHZ}", self.url).parse::<Uri>() else {
            return false;
        };
        let deadline = Instant::now() + ANSWERS_WITHIN;
        let target = Target::new(uri, &[]);
        let asked = shared.http.get_stream(&target, HeaderMap::new(), deadline);
        asked.await.is_ok()
    }

    fn target(&self, shared: &Shared, server: &ServerId) -> Option<Target> {
        let uri: Uri = format!("{}{PATH}{server}", self.url).parse().ok()?;
        let audience = audience(&self.node(), server);
        let signature = shared.settings.signer.toward(&audience);
        Some(Target::new(uri, &[]).signed(Some(signature)))
    }
}

/// Whether the node of a session has left, asked before each request.
pub(super) async fn has_left(shared: &Shared, session: &Session) -> bool {
    match session.elsewhere() {
        Some(home) => home.has_left(shared).await,
        None => false,
    }
}

/// Whether the node of a session is gone, after what became of a request to it.
pub(super) async fn is_gone(shared: &Shared, session: &Session, error: &UpstreamError) -> bool {
    let Some(Home { node, .. }) = session.elsewhere() else {
        return false;
    };
    let is_refused = match error {
        UpstreamError::SessionGone => return true,
        UpstreamError::Http { status, .. } if *status == StatusCode::GONE => return true,
        UpstreamError::ConnectFailed(cause) => refuses(&**cause),
        UpstreamError::Http { .. } | UpstreamError::TimedOut { .. } => false,
        _ => return false,
    };
    // Where nobody listens any more its processes have ended with it.
    let has_left = is_refused || has_left(shared, session).await;
    if has_left {
        let replica: &ReplicaId = &session.link.replica;
        info!(%replica, %node, "a session has ended with its node");
    } else {
        debug!(%node, %error, "the node of a session does not answer");
    }
    has_left
}

/// Whether the operating system says that nobody listens.
fn refuses(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(|io| io.kind());
        if kind == Some(std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}
