//! What nodes tell each other as it happens: a server's lists changed, a
//! session ended, a call is to be cancelled.
//!
//! Messages are hints, not facts: they can be lost with their connection, and
//! then [`Heard::Gap`] says so. A message reaches this node's own listeners
//! also when the store is down. Facts live in records ([`crate::store`]).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    ids::NodeId,
    store::{Channel, Event, Store},
};

/// Messages kept for a slow listener before it is told of a gap.
const BACKLOG: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// A server said that something about it changed.
    Changed {
        /// The server's name.
        server: String,
        /// What changed.
        change: Change,
    },
    /// A client cancelled a request that any node may hold.
    Cancelled {
        /// The client session's key.
        session: String,
        /// The request id, as the client wrote it.
        request: String,
    },
    /// A client session was ended.
    Revoked {
        /// The client session's key.
        session: String,
    },
    /// What is remembered of a client session changed (log level, subscriptions).
    SessionChanged {
        /// The client session's key.
        session: String,
    },
    /// A client session opened a standalone stream: older ones fall silent.
    StreamTaken {
        /// The client session's key.
        session: String,
        /// The new stream.
        stream: String,
    },
    /// Clients of a node want to hear something else of a server than before.
    Interest {
        /// The server's name.
        server: String,
    },
    /// The node that watches a server has it confirmed that it will hear of resources.
    Watched {
        /// The server's name.
        server: String,
        /// Those confirmed since this was told last; none: there is no stream of changes.
        resources: Option<Vec<String>>,
    },
    /// A node gave leases back: whose turn it is may take them.
    LeasesReleased {},
    /// A trial found that a replica answers again: circuit breakers close.
    ReplicaRecovered {
        /// The replica's id.
        replica: String,
    },
    /// A trial found that a replica does not answer yet: the next one is later.
    TrialFailed {
        /// The replica's id.
        replica: String,
        /// Failed trials in a row, the opening included.
        openings: u32,
        /// Time until the next trial.
        pause_ms: u64,
    },
    /// The registry of servers changed.
    ServersChanged {},
    /// What is to run changed.
    DeploymentsChanged {},
    /// A standalone stream ended: the one before it gets the messages again.
    StreamEnded {
        /// The client session's key.
        session: String,
        /// The stream.
        stream: String,
    },
}

/// What a server's change notification is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// `notifications/tools/list_changed`
    Tools,
    /// `notifications/prompts/list_changed`
    Prompts,
    /// `notifications/resources/list_changed`
    Resources,
    /// `notifications/resources/updated`
    Resource {
        /// The resource.
        uri: String,
    },
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something happened, on this node or another.
    News(Arc<News>),
    /// Messages may have been lost.
    Gap,
}

#[derive(Serialize, Deserialize)]
struct Letter {
    from: String,
    news: News,
}

/// This node's ear and mouth.
#[derive(Debug)]
pub struct Fleet {
    node: NodeId,
    store: Arc<dyn Store>,
    local: broadcast::Sender<Heard>,
}

impl Fleet {
    /// Joins the conversation; [`follow`](Self::follow) has to run for other nodes to be heard.
    #[must_use]
    pub fn new(node: NodeId, store: Arc<dyn Store>) -> Self {
        Self {
            node,
            store,
            local: broadcast::Sender::new(BACKLOG),
        }
    }

    /// Tells this node's listeners at once and the other nodes as soon as the
    /// store takes it. An unreachable store costs the others the message; they
    /// learn of the gap when they reconnect.
    pub async fn tell(&self, news: News) {
        let letter = Letter {
            from: self.node.to_string(),
            news: news.clone(),
        };
        self.tell_here(news);
        let payload = match rmp_serde::to_vec(&letter) {
            Ok(payload) => Bytes::from(payload),
            Err(error) => return tracing::error!(%error, "news could not be encoded"),
        };
        if let Err(error) = self.store.publish(Channel::Fleet, payload).await {
            tracing::debug!(%error, "news did not reach the other nodes");
        }
    }

    /// Tells this node's listeners only: every node finds it out for itself.
    pub fn tell_here(&self, news: News) {
        // No listener on this node is not an error.
        self.local.send(Heard::News(Arc::new(news))).ok();
    }

    /// What happens from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener(self.local.subscribe())
    }

    /// Passes on what other nodes tell, until the store's feed ends.
    pub async fn follow(&self) {
        let mut feed = self.store.subscribe();
        loop {
            let heard = match feed.recv().await {
                Ok(Event::Message {
                    channel: Channel::Fleet,
                    payload,
                }) => match self.open(&payload) {
                    Some(news) => Heard::News(Arc::new(news)),
                    None => continue,
                },
                // What others tell is for others to hear.
                Ok(
                    Event::Written { .. }
                    | Event::Released { .. }
                    | Event::Invalidated { .. }
                    | Event::Message { .. },
                ) => {
                    continue;
                }
                Ok(Event::Gap) | Err(RecvError::Lagged(_)) => Heard::Gap,
                Err(RecvError::Closed) => return,
            };
            self.local.send(heard).ok();
        }
    }

    /// The news of another node; `None` for our own echo and for what a node
    /// of another version says that we do not understand.
    fn open(&self, payload: &[u8]) -> Option<News> {
        match rmp_serde::from_slice::<Letter>(payload) {
            Ok(letter) if letter.from == self.node.as_str() => None,
            Ok(letter) => Some(letter.news),
            Err(error) => {
                tracing::debug!(%error, "news of an unknown kind");
                None
            }
        }
    }
}

/// Hears what happens in the fleet.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Heard>);

impl Listener {
    /// The next thing that happened; `None` when the node is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(heard) => Some(heard),
            Err(RecvError::Lagged(_)) => Some(Heard::Gap),
            Err(RecvError::Closed) => None,
        }
    }
}
