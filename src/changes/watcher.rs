//! Holds a server's change stream and tells everybody what comes of it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rand::RngExt as _;
use tokio::{
    sync::{broadcast, broadcast::error::RecvError, mpsc, watch},
    time::{Instant, timeout_at},
};

use super::{
    Changes, INTEREST_TTL,
    interest::{self, Interest},
};
use crate::{
    cluster::duties::{Grant, Work},
    fleet::{self, Heard, News},
    mcp::method::ListKind,
    servers::Server,
    store::rosters::{RosterChange, RosterKey},
    telemetry::metrics::Gauge,
    upstream::{Change, Confirmed, Resources, UpstreamError},
};

/// First wait before a lost change stream is opened again; doubled up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How long changes are gathered.
const MOMENT: Duration = Duration::from_millis(30);
/// A server without a change stream is asked again after this: it may have been replaced.
const NOT_OFFERED: Duration = Duration::from_secs(300);

/// The duty of watching one server.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) server: Arc<Server>,
    pub(super) changes: Weak<Changes>,
}

impl Work for Watcher {
    fn run(self: Arc<Self>, grant: Grant) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(changes) = self.changes.upgrade() {
                changes.watch_for_all(&self.server, grant).await;
            }
        })
    }
}

impl Changes {
    /// Watches a server as soon as anybody in the fleet uses it.
    async fn watch_for_all(self: &Arc<Self>, server: &Arc<Server>, grant: Grant) {
        let interest = self.interest(server);
        let (wanted, all) = watch::channel(None);
        let mut watching = all.clone();
        let watch = async {
            // The channel lives as long as this function.
            if watching.wait_for(Option::is_some).await.is_ok() {
                let confirmed = watch::Sender::new(Confirmed::Nothing);
                let (uris, resources) = watch::channel(BTreeSet::new());
                let watching =
                    self.keep_watching(server, resources, confirmed.clone(), grant.is_inherited());
                tokio::select! {
                    () = watching => {}
                    () = follow_wanted(all, uris) => {}
                    () = self.tell_confirmed(server, confirmed.subscribe()) => {}
                }
            }
        };
        let _is_watching = Flag::raise(&interest.is_watching);
        tokio::select! {
            () = watch => {}
            () = self.gather_wanted(server, wanted) => {}
        }
    }

    /// Watches a server that only this node can reach, until the node stops.
    pub(super) async fn watch_alone(self: &Arc<Self>, server: &Arc<Server>, interest: &Interest) {
        let (uris, resources) = watch::channel(BTreeSet::new());
        let wanted = interest.wanted.subscribe();
        tokio::select! {
            () = self.keep_watching(server, resources, interest.confirmed.clone(), false) => {}
            () = follow_wanted(wanted, uris) => {}
        }
    }

    /// Keeps `all` what clients of all nodes want of the server.
    async fn gather_wanted(
        self: &Arc<Self>,
        server: &Arc<Server>,
        all: watch::Sender<Option<BTreeSet<String>>>,
    ) {
        let interest = self.interest(server);
        let mut mine = interest.wanted.subscribe();
        let mut news = self.fleet.listen();
        let mut theirs: Option<BTreeSet<String>> = None;
        let mut read = true;
        loop {
            if read {
                // While the store is away, what was known stays.
                theirs = self.wanted_elsewhere(server).await.unwrap_or(theirs);
            }
            let own = mine.borrow_and_update().clone();
            all.send_if_modified(|all| {
                let now = match (&own, &theirs) {
                    (None, None) => None,
                    (Some(one), None) | (None, Some(one)) => Some(one.clone()),
                    (Some(one), Some(other)) => Some(one.union(other).cloned().collect()),
                };
                let changed = *all != now && (now.is_some() || all.is_some());
                if now.is_some() {
                    *all = now;
                }
                changed
            });
            read = tokio::select! {
                changed = mine.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                heard = news.next() => match heard {
                    Some(Heard::News(news)) => {
                        matches!(&*news, News::Interest { server: of } if of == server.id.as_str())
                    }
                    Some(Heard::Gap) => true,
                    None => return,
                },
                // A node that died is noticed by its silence.
                () = tokio::time::sleep(INTEREST_TTL / 3) => true,
            };
        }
    }

    async fn wanted_elsewhere(&self, server: &Server) -> Option<Option<BTreeSet<String>>> {
        let key = RosterKey::Interest(server.id.clone());
        let me = self.me.as_str();
        let lines = self
            .store
            .roster(&key, me, RosterChange::Keep, INTEREST_TTL)
            .await;
        match lines {
            Ok(lines) => Some(interest::of_others(&lines, me)),
            Err(error) => {
                tracing::debug!(server = %server.id, %error, "the other nodes' subscriptions are not known");
                None
            }
        }
    }

    /// Tells all nodes what the server has confirmed since they were told last.
    async fn tell_confirmed(&self, server: &Server, mut confirmed: watch::Receiver<Confirmed>) {
        let mut told = BTreeSet::new();
        while confirmed.changed().await.is_ok() {
            let now = confirmed.borrow_and_update().clone();
            let resources = match now {
                Confirmed::Nothing => {
                    told.clear();
                    continue;
                }
                Confirmed::Never => None,
                Confirmed::These(now) => {
                    let new: Vec<_> = now.difference(&told).cloned().collect();
                    told = now;
                    if new.is_empty() {
                        continue;
                    }
                    Some(new)
                }
            };
            let server = server.id.to_string();
            self.fleet.tell(News::Watched { server, resources }).await;
        }
    }

    /// Watches a server, again and again.
    async fn keep_watching(
        self: &Arc<Self>,
        server: &Arc<Server>,
        uris: watch::Receiver<BTreeSet<String>>,
        confirmed: watch::Sender<Confirmed>,
        mut may_have_missed: bool,
    ) {
        let mut wait = BACKOFF.0;
        loop {
            let (sender, mut received) = mpsc::channel(64);
            let Some(replica) = server.any(&[]) else {
                return;
            };
            let resources = Resources {
                wanted: uris.clone(),
                confirmed: confirmed.clone(),
            };
            let watching = self.upstreams.watch(&replica, resources, sender);
            let reporting = async {
                while let Some(first) = received.recv().await {
                    let mut moment = Vec::new();
                    self.note(server, &mut moment, first).await;
                    let until = Instant::now() + MOMENT;
                    while let Ok(Some(change)) = timeout_at(until, received.recv()).await {
                        self.note(server, &mut moment, change).await;
                    }
                    for change in moment {
                        if matches!(change, Change::Watching) {
                            wait = BACKOFF.0;
                            if may_have_missed {
                                self.everything_changed(server).await;
                            }
                            may_have_missed = true;
                        } else if let Some(change) = as_news(change) {
                            self.tell(server, change).await;
                        }
                    }
                }
            };
            let counted = self.metrics.count(Gauge::Watches);
            let (ended, ()) = tokio::join!(watching, reporting);
            drop(counted);
            confirmed.send_replace(match &ended {
                Err(UpstreamError::NotOffered(_)) => Confirmed::Never,
                _ => Confirmed::Nothing,
            });
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
            let pause = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// Changes that a replica tells in the sessions of this node's calls while
    /// another node watches it: many servers tell only the session in which
    /// something changed.
    pub(super) async fn overhear(
        self: Arc<Self>,
        server: Weak<Server>,
        mut told: broadcast::Receiver<Change>,
        is_watching: watch::Receiver<bool>,
    ) {
        loop {
            let first = match told.recv().await {
                Ok(change) => change,
                // Too many to keep count: everything may have changed.
                Err(RecvError::Lagged(_)) => Change::Watching,
                Err(RecvError::Closed) => return,
            };
            let Some(server) = server.upgrade() else {
                return;
            };
            if *is_watching.borrow() {
                continue;
            }
            if matches!(first, Change::Watching) {
                self.everything_changed(&server).await;
                continue;
            }
            let mut moment = Vec::new();
            self.note(&server, &mut moment, first).await;
            let until = Instant::now() + MOMENT;
            while let Ok(Ok(change)) = timeout_at(until, told.recv()).await {
                self.note(&server, &mut moment, change).await;
            }
            for change in moment {
                if let Some(change) = as_news(change) {
                    self.tell(&server, change).await;
                }
            }
        }
    }

    async fn everything_changed(&self, server: &Server) {
        for change in [
            fleet::Change::Tools,
            fleet::Change::Prompts,
            fleet::Change::Resources,
        ] {
            self.lists.invalidate(&server.id, &change).await;
            self.tell(server, change).await;
        }
    }

    /// Takes note of a change, unless it is one of those of the same moment: a
    /// server tells every session of ours, and some tell several times. Entries
    /// are out of date at once.
    async fn note(&self, server: &Server, moment: &mut Vec<Change>, change: Change) {
        if moment.iter().any(|known| known.is_same(&change)) {
            return;
        }
        if let Some(change) = as_news(change.clone()) {
            self.lists.invalidate(&server.id, &change).await;
        }
        moment.push(change);
    }

    async fn tell(&self, server: &Server, change: fleet::Change) {
        tracing::debug!(server = %server.id, ?change, "a server changed");
        let server = server.id.to_string();
        self.fleet.tell(News::Changed { server, change }).await;
    }
}

/// Keeps `uris` what is wanted.
async fn follow_wanted(
    mut wanted: watch::Receiver<Option<BTreeSet<String>>>,
    uris: watch::Sender<BTreeSet<String>>,
) {
    loop {
        let now = wanted.borrow_and_update().clone().unwrap_or_default();
        uris.send_if_modified(|uris| {
            let changed = *uris != now;
            *uris = now;
            changed
        });
        if wanted.changed().await.is_err() {
            return;
        }
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

/// True until dropped.
struct Flag<'a>(&'a watch::Sender<bool>);

impl<'a> Flag<'a> {
    fn raise(flag: &'a watch::Sender<bool>) -> Self {
        flag.send_replace(true);
        Self(flag)
    }
}

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}
