//! Watches servers for changes and turns them into invalidations and news.
//!
//! Watching a server is a duty: one node of the fleet holds its change stream
//! (`watcher`), for the clients of all nodes (`interest`), once any of them
//! uses the server. What arrives makes cache entries stale and reaches
//! listening clients through [`crate::fleet`]. A change stream has no replay:
//! after it was lost, or when another node takes over, everything from the
//! server counts as changed.
//!
//! Programs run beside each node, and are watched by it without a lease.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    cluster::{
        Incarnation,
        duties::{Duties, Work},
    },
    fleet::{Fleet, Heard, News},
    ids::ServerId,
    lifecycle::Tasks,
    lists::Lists,
    servers::{Endpoint, Server, Servers},
    store::{
        Store,
        leases::DutyKind,
        rosters::{RosterChange, RosterKey},
    },
    telemetry::metrics::Metrics,
    upstream::Upstreams,
};

mod interest;
mod watcher;

pub use self::interest::{Subscription, confirmed};
use self::{interest::Interest, watcher::Watcher};

/// How long a client waits until its server has confirmed a subscription.
pub const CONFIRMATION: Duration = Duration::from_secs(2);
/// How long a subscription lasts that only bridges the time to another.
const BRIEFLY: Duration = Duration::from_secs(10);
/// A node that has not repeated for this long what its clients want, wants nothing.
const INTEREST_TTL: Duration = Duration::from_secs(60);

/// What clients want to hear of servers, and this node's share of watching them.
#[derive(Debug)]
pub struct Changes {
    upstreams: Arc<Upstreams>,
    lists: Arc<Lists>,
    fleet: Arc<Fleet>,
    store: Arc<dyn Store>,
    servers: Arc<Servers>,
    duties: Arc<Duties>,
    me: Incarnation,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<ServerId, Known>>,
    changed: Arc<Notify>,
}

/// One server.
#[derive(Debug)]
struct Known {
    watcher: Arc<Watcher>,
    interest: Arc<Interest>,
    /// What the other nodes were told last.
    told: Option<BTreeSet<String>>,
}

impl Changes {
    /// Watches nothing before [`run`](Self::run) does.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a node that changes concern"
    )]
    #[must_use]
    pub fn new(
        upstreams: Arc<Upstreams>,
        lists: Arc<Lists>,
        fleet: Arc<Fleet>,
        store: Arc<dyn Store>,
        servers: Arc<Servers>,
        duties: Arc<Duties>,
        me: Incarnation,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            upstreams,
            lists,
            fleet,
            store,
            servers,
            duties,
            me,
            tasks,
            metrics,
            known: Mutex::default(),
            changed: Arc::default(),
        })
    }

    /// Sees to it that the server is watched.
    pub fn watch(self: &Arc<Self>, server: &Arc<Server>) {
        let interest = self.interest(server);
        if interest.note_use() {
            self.begin(server, &interest);
        }
    }

    /// Watches a resource of the server until the subscription is dropped.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, server: &Arc<Server>, uri: &str) -> Subscription {
        self.watch(server);
        let interest = self.interest(server);
        interest.change(uri, true);
        self.changed.notify_one();
        Subscription {
            interest: Arc::downgrade(&interest),
            changed: Arc::downgrade(&self.changed),
            confirmed: interest.confirmed.subscribe(),
            uri: uri.to_owned(),
        }
    }

    /// Watches a resource for a few seconds, which begin when the server has
    /// confirmed it.
    pub async fn subscribe_briefly(self: &Arc<Self>, server: &Arc<Server>, uri: &str) {
        let subscription = self.subscribe(server, uri);
        confirmed([&subscription]).await;
        let stopping = self.tasks.stopping().clone();
        self.tasks.spawn_brief(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(BRIEFLY) => {}
            }
            drop(subscription);
        });
    }

    /// Tells the other nodes what this one's clients want, and hears what the
    /// watching nodes say, until the node ends.
    pub async fn run(self: Arc<Self>) {
        let mut news = self.fleet.listen();
        let mut servers = self.servers.watch();
        let mut repeat = tokio::time::interval(INTEREST_TTL / 3);
        self.take_up();
        loop {
            tokio::select! {
                heard = news.next() => match heard {
                    Some(Heard::News(news)) => {
                        if let News::Watched { server, resources } = &*news {
                            self.heard(server, resources.as_deref());
                        }
                    }
                    Some(Heard::Gap) => self.announce(true).await,
                    None => return,
                },
                changed = servers.changed() => match changed {
                    Ok(()) => self.take_up(),
                    Err(_) => return,
                },
                () = self.changed.notified() => self.announce(false).await,
                _ = repeat.tick() => self.announce(true).await,
            }
        }
    }

    /// Makes watching exactly the servers there are a duty of the fleet.
    fn take_up(self: &Arc<Self>) {
        let servers = self.servers.all();
        let mut known = lock(&self.known);
        known.retain(|id, _| servers.iter().any(|server| server.id == *id));
        let mut works: Vec<(Arc<str>, Arc<dyn Work>)> = Vec::new();
        let mut anew = Vec::new();
        for server in servers.iter().filter(|server| is_shared(server)) {
            let before = known.get(&server.id).map(|one| Arc::clone(&one.watcher));
            let one = self.entry(&mut known, server);
            let is_other = before.is_some_and(|before| !Arc::ptr_eq(&before, &one.watcher));
            if is_other && one.interest.is_used() {
                anew.push((Arc::clone(server), Arc::clone(&one.interest)));
            }
            works.push((
                server.id.as_str().into(),
                Arc::clone(&one.watcher) as Arc<dyn Work>,
            ));
        }
        drop(known);
        for (server, interest) in anew {
            self.begin(&server, &interest);
        }
        self.duties.set(DutyKind::Watch, works);
    }

    fn entry<'a>(
        self: &Arc<Self>,
        known: &'a mut HashMap<ServerId, Known>,
        server: &Arc<Server>,
    ) -> &'a mut Known {
        let new = || {
            Arc::new(Watcher {
                server: Arc::clone(server),
                changes: Arc::downgrade(self),
            })
        };
        let one = known.entry(server.id.clone()).or_insert_with(|| Known {
            watcher: new(),
            interest: Arc::new(Interest::new()),
            told: None,
        });
        // The server was defined anew; its clients still want what they wanted.
        if !Arc::ptr_eq(&one.watcher.server, server) {
            one.watcher = new();
        }
        one
    }

    fn interest(self: &Arc<Self>, server: &Arc<Server>) -> Arc<Interest> {
        let mut known = lock(&self.known);
        Arc::clone(&self.entry(&mut known, server).interest)
    }

    /// The first client of this node uses the server.
    fn begin(self: &Arc<Self>, server: &Arc<Server>, interest: &Arc<Interest>) {
        if !is_shared(server) {
            let (changes, server) = (Arc::clone(self), Arc::clone(server));
            let interest = Arc::clone(interest);
            return self.until_stopping(async move {
                changes.watch_alone(&server, &interest).await;
            });
        }
        self.changed.notify_one();
        for replica in &server.replicas {
            let told = self.upstreams.changes_of(replica);
            let is_watching = interest.is_watching.subscribe();
            let changes = Arc::clone(self);
            self.until_stopping(changes.overhear(Arc::downgrade(server), told, is_watching));
        }
    }

    fn until_stopping(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.tasks.stopping().clone();
        self.tasks.spawn_brief(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn heard(&self, server: &str, resources: Option<&[String]>) {
        if let Ok(id) = ServerId::try_from(server)
            && let Some(one) = lock(&self.known).get(&id)
        {
            one.interest.heard(resources);
        }
    }

    /// Writes this node's lines: all of them, or those that changed.
    async fn announce(&self, all: bool) {
        let mut changed = Vec::new();
        for (id, one) in &mut *lock(&self.known) {
            let wanted = one.interest.wanted.borrow().clone();
            let is_new = wanted != one.told;
            if let Some(wanted) = wanted
                && (all || is_new)
                && is_shared(&one.watcher.server)
            {
                one.told = Some(wanted.clone());
                changed.push((id.clone(), wanted, is_new));
            }
        }
        for (id, wanted, is_new) in changed {
            let Some(line) = interest::line(&wanted) else {
                continue;
            };
            let key = RosterKey::Interest(id.clone());
            let put = RosterChange::Put(line);
            let written = self
                .store
                .roster(&key, self.me.as_str(), put, INTEREST_TTL)
                .await;
            match written {
                Ok(_) if is_new => {
                    let server = id.to_string();
                    self.fleet.tell(News::Interest { server }).await;
                }
                Ok(_) => {}
                // Repeated soon, and after the gap.
                Err(error) => {
                    tracing::debug!(server = %id, %error, "the other nodes do not know what is wanted")
                }
            }
        }
    }
}

/// Whether all nodes reach the same copies of it.
fn is_shared(server: &Server) -> bool {
    let mut replicas = server.replicas.iter();
    replicas.all(|replica| matches!(replica.endpoint, Endpoint::Http(_)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts and maps are changed in single steps: a panic cannot leave one in between.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
