//! Watches servers for changes and turns them into invalidations and news.
//!
//! One watch per server, begun when somebody first uses the server. It holds
//! the server's change stream; what arrives makes cache entries stale and
//! reaches listening clients through [`crate::fleet`]. A change stream has no
//! replay: after it was lost, everything from the server counts as changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use rand::RngExt as _;
use tokio::sync::{mpsc, watch};

use crate::{
    fleet::{self, Fleet, News},
    ids::ServerId,
    lifecycle::Tasks,
    lists::Lists,
    mcp::method::ListKind,
    servers::Server,
    telemetry::metrics::{Gauge, Metrics},
    upstream::{Change, UpstreamError, Upstreams},
};

/// First wait before a lost change stream is opened again; doubled up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How long a subscription lasts that only bridges the time to another.
const BRIEFLY: Duration = Duration::from_secs(10);
/// How long changes are gathered.
const MOMENT: Duration = Duration::from_millis(30);
/// A server without a change stream is asked again after this: it may have been replaced.
const NOT_OFFERED: Duration = Duration::from_secs(300);

/// All watches of this node.
#[derive(Debug)]
pub struct Changes {
    upstreams: Arc<Upstreams>,
    lists: Arc<Lists>,
    fleet: Arc<Fleet>,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    watched: Mutex<HashMap<ServerId, Arc<Interest>>>,
}

/// The resources of one server that clients of this node want to hear of.
#[derive(Debug)]
struct Interest {
    counts: Mutex<BTreeMap<String, usize>>,
    uris: watch::Sender<BTreeSet<String>>,
}

impl Interest {
    fn new() -> Self {
        Self {
            counts: Mutex::default(),
            uris: watch::Sender::new(BTreeSet::new()),
        }
    }

    /// Adds to (`true`) or takes from the count of a resource and publishes the set.
    fn change(&self, uri: &str, wanted: bool) {
        let mut counts = lock(&self.counts);
        if wanted {
            *counts.entry(uri.to_owned()).or_insert(0) += 1;
        } else if let Some(count) = counts.get_mut(uri) {
            *count -= 1;
            if *count == 0 {
                counts.remove(uri);
            }
        }
        self.uris.send_replace(counts.keys().cloned().collect());
    }
}

/// Keeps a resource watched until dropped.
#[derive(Debug)]
pub struct Subscription {
    interest: Weak<Interest>,
    uri: String,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(interest) = self.interest.upgrade() {
            interest.change(&self.uri, false);
        }
    }
}

impl Changes {
    /// Watches nothing yet.
    #[must_use]
    pub fn new(
        upstreams: Arc<Upstreams>,
        lists: Arc<Lists>,
        fleet: Arc<Fleet>,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            upstreams,
            lists,
            fleet,
            tasks,
            metrics,
            watched: Mutex::default(),
        })
    }

    /// Sees to it that the server is watched.
    pub fn watch(self: &Arc<Self>, server: &Arc<Server>) {
        self.interest(server);
    }

    /// Watches a resource of the server until the subscription is dropped.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, server: &Arc<Server>, uri: &str) -> Subscription {
        let interest = self.interest(server);
        interest.change(uri, true);
        Subscription {
            interest: Arc::downgrade(&interest),
            uri: uri.to_owned(),
        }
    }

    /// Watches a resource for a few seconds.
    pub fn subscribe_briefly(self: &Arc<Self>, server: &Arc<Server>, uri: &str) {
        let subscription = self.subscribe(server, uri);
        let stopping = self.tasks.stopping().clone();
        self.tasks.spawn_brief(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(BRIEFLY) => {}
            }
            drop(subscription);
        });
    }

    fn interest(self: &Arc<Self>, server: &Arc<Server>) -> Arc<Interest> {
        let mut watched = lock(&self.watched);
        if let Some(interest) = watched.get(&server.id) {
            return Arc::clone(interest);
        }
        let interest = Arc::new(Interest::new());
        watched.insert(server.id.clone(), Arc::clone(&interest));
        let (changes, server, uris) = (
            Arc::clone(self),
            Arc::clone(server),
            interest.uris.subscribe(),
        );
        self.tasks.spawn_brief(async move {
            let stopping = changes.tasks.stopping().clone();
            tokio::select! {
                () = stopping.cancelled() => {}
                () = changes.keep_watching(server, uris) => {}
            }
        });
        interest
    }

    async fn keep_watching(
        self: Arc<Self>,
        server: Arc<Server>,
        uris: watch::Receiver<BTreeSet<String>>,
    ) {
        let mut wait = BACKOFF.0;
        let mut was_watching = false;
        loop {
            let (sender, mut received) = mpsc::channel(64);
            let Some(replica) = server.any(&[]) else {
                return;
            };
            let watching = self.upstreams.watch(&replica, uris.clone(), sender);
            let reporting = async {
                while let Some(first) = received.recv().await {
                    let changes = self.gather(&server.id, first, &mut received).await;
                    for change in changes {
                        if matches!(change, Change::Watching) {
                            wait = BACKOFF.0;
                            if was_watching {
                                self.everything_changed(&server.id).await;
                            }
                            was_watching = true;
                        } else if let Some(change) = as_news(change) {
                            self.tell(&server.id, change).await;
                        }
                    }
                }
            };
            let counted = self.metrics.count(Gauge::Watches);
            let (ended, ()) = tokio::join!(watching, reporting);
            drop(counted);
            let pause = match ended {
                Err(UpstreamError::NotOffered(what)) => {
                    tracing::debug!(server = %server.id, what, "the server offers no changes");
                    NOT_OFFERED
                }
                Ok(()) => wait,
                Err(error) => {
                    tracing::debug!(
                        server = %server.id,
                        error = &error as &dyn std::error::Error,
                        "a change stream ended"
                    );
                    wait
                }
            };
            // Spread, so that nodes do not return to a server all at once.
            let pause = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn everything_changed(&self, server: &ServerId) {
        for change in [
            fleet::Change::Tools,
            fleet::Change::Prompts,
            fleet::Change::Resources,
        ] {
            self.lists.invalidate(server, &change).await;
            self.tell(server, change).await;
        }
    }

    /// What changes within a moment, each once: a server tells every session
    /// of ours, and some tell several times. Entries are out of date at once.
    async fn gather(
        &self,
        server: &ServerId,
        first: Change,
        received: &mut mpsc::Receiver<Change>,
    ) -> Vec<Change> {
        let until = tokio::time::Instant::now() + MOMENT;
        let mut changes: Vec<Change> = Vec::new();
        let mut next = Some(first);
        while let Some(change) = next {
            if !changes.iter().any(|known| known.is_same(&change)) {
                if let Some(change) = as_news(change.clone()) {
                    self.lists.invalidate(server, &change).await;
                }
                changes.push(change);
            }
            next = tokio::time::timeout_at(until, received.recv())
                .await
                .ok()
                .flatten();
        }
        changes
    }

    async fn tell(&self, server: &ServerId, change: fleet::Change) {
        tracing::debug!(%server, ?change, "a server changed");
        let server = server.to_string();
        self.fleet.tell(News::Changed { server, change }).await;
    }
}

/// What listeners are told; nothing of the watch itself.
fn as_news(change: Change) -> Option<fleet::Change> {
    Some(match change {
        Change::Watching => return None,
        Change::List(ListKind::Tools) => fleet::Change::Tools,
        Change::List(ListKind::Prompts) => fleet::Change::Prompts,
        Change::List(ListKind::Resources | ListKind::ResourceTemplates) => fleet::Change::Resources,
        Change::Resource { uri, .. } => fleet::Change::Resource { uri },
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts and maps are changed in single steps: a panic cannot leave one in between.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
