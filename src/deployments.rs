//! Deployments: what users want to run, and what runs of it.
//!
//! What is wanted is a table of the store ([`definition`]), which every node
//! may change ([`commands`]). Bringing an engine's containers in line with it is
//! a duty of one node that has the engine (`reconciler`): `plan` decides, `jobs`
//! do, and a fenced [`record`] tells all nodes what came of it. From the records
//! every node makes the servers it sends calls to ([`routes`]).
//!
//! Without the store nothing is made or removed; what runs stays in routing,
//! and what ended is started again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use tokio::sync::{Notify, broadcast::error::RecvError};

use self::{
    definition::Definition,
    definition::Wish,
    engines::{ASK_AGAIN, OwnEngine},
    plan::Pace,
    reconciler::Reconciler,
    record::{Phase, Record, ReplicaRecord, ReplicaState},
    routes::Routes,
};
use crate::{
    bridge::signer::Signer,
    cluster::{
        duties::{Duties, Work},
        membership::Membership,
    },
    engine::EngineError,
    fleet::{Fleet, Heard, News},
    ids::{NodeId, ServerId},
    lifecycle::Tasks,
    registry::{Registry, Shared},
    servers::Replica,
    store::{
        Channel, Event, RecordKey, Store, StoreError,
        leases::DutyKind,
        registry::{Edition, Table, Which},
    },
    telemetry::metrics::Metrics,
    templates::Catalogue,
    upstream::Upstreams,
};

pub mod commands;
pub mod definition;
pub mod engines;
pub mod ephemeral;
pub mod history;
mod jobs;
pub mod naming;
pub mod plan;
mod pressure;
mod reconciler;
pub mod record;
pub mod routes;
pub mod status;

/// Records read at once.
const BATCH: usize = 200;
/// Longest wait of a node that starts for its engine's first words.
const ACQUAINTANCE: Duration = Duration::from_secs(1);
/// Time for the containers of a node that takes them with it.
const GOODBYE: Duration = Duration::from_secs(15);

/// How deployments are looked after.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Deployments there may be.
    pub most: u32,
    /// How often a node looks whether it missed a change.
    pub check: Duration,
    /// Longest wait for the answer to a call, where a template says none.
    pub timeout: Duration,
    /// How long a server may take to end by itself where nobody says it.
    pub grace: Duration,
    /// Times of updates and of failures.
    pub pace: Pace,
    /// What the containers of this node are marked with, when they end with it.
    pub owner: Option<String>,
}

/// The parts of a node that deployments concern.
#[derive(Debug)]
pub struct Parts {
    /// The node's name.
    pub node: NodeId,
    /// Its engine.
    pub engine: Arc<OwnEngine>,
    /// The shared state.
    pub store: Arc<dyn Store>,
    /// What nodes tell each other.
    pub fleet: Arc<Fleet>,
    /// Where servers that run are made known.
    pub registry: Arc<Registry>,
    /// Templates.
    pub catalogue: Arc<Catalogue>,
    /// The way to replicas.
    pub upstreams: Arc<Upstreams>,
    /// The nodes that live.
    pub membership: Arc<Membership>,
    /// What this node does for all.
    pub duties: Arc<Duties>,
    /// The fleet's key.
    pub signer: Signer,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The node's tasks.
    pub tasks: Tasks,
}

/// Deployments, as one node sees them and sees to them.
pub struct Deployments {
    settings: Settings,
    parts: Parts,
    table: Shared,
    known: Mutex<Known>,
    /// One set of servers is published after the other.
    publishing: Mutex<Routes>,
    /// There may be something for the reconciler to do.
    wake: Notify,
}

/// What this node knows.
#[derive(Debug, Default)]
struct Known {
    wanted: BTreeMap<String, Wanted>,
    records: BTreeMap<String, Record>,
    /// What was removed: containers of that name that turn up are none of anybody's.
    removed: BTreeSet<String>,
}

/// A deployment's entry.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// When it was last changed.
    pub edition: Edition,
    /// What it is to be; why this node does not understand it.
    pub definition: Result<Arc<Definition>, String>,
}

/// A deployment as it is wanted and as it is.
#[derive(Debug, Clone)]
pub struct View {
    /// Its name.
    pub name: String,
    /// What is wanted; `None`: nothing says that it should run.
    pub wanted: Option<Wanted>,
    /// What runs; `None`: nobody has begun.
    pub record: Option<Record>,
}

impl View {
    /// What it is to be, where that is known and understood.
    #[must_use]
    pub fn definition(&self) -> Option<&Definition> {
        let definition = self.wanted.as_ref()?.definition.as_ref();
        definition.ok().map(|known| &**known)
    }

    /// Where it runs, as `kind/id`.
    #[must_use]
    pub fn engine(&self) -> Option<String> {
        let wanted = self.definition().map(|known| known.engine.to_string());
        wanted.or_else(|| self.record.as_ref().map(|record| record.engine.clone()))
    }

    /// How many replicas of what is wanted answer.
    #[must_use]
    pub fn ready(&self) -> usize {
        let hash = self.definition().map(|known| known.hash().to_string());
        let replicas = self.record.iter().flat_map(|record| &record.replicas);
        let is_wanted = |one: &&ReplicaRecord| hash.as_ref().is_none_or(|hash| one.spec == *hash);
        replicas
            .filter(is_wanted)
            .filter(|one| one.state == ReplicaState::Ready)
            .count()
    }

    /// How far it is, and why it is no further. What was recorded before the
    /// last change of what is wanted does not count.
    #[must_use]
    pub fn state(&self) -> (Phase, Option<String>) {
        let told = self.record.as_ref();
        let told = told.map(|record| (record.phase, record.reason.clone()));
        if let Some(Err(problem)) = self.wanted.as_ref().map(|wanted| &wanted.definition) {
            return (Phase::Unknown, Some(problem.clone()));
        }
        let (Some(definition), Some((phase, reason))) = (self.definition(), told.clone()) else {
            return told.unwrap_or_default();
        };
        if phase == Phase::EngineAway {
            return (phase, reason);
        }
        let is_current = match definition.wish {
            Wish::Run => {
                let spec = self.record.as_ref().map(|record| record.spec.as_str());
                let is_right = self.ready() == definition.replicas as usize;
                let attempt = self.record.as_ref().map(|record| record.attempt);
                attempt == Some(definition.attempt)
                    && spec == Some(definition.hash().as_str())
                    && (phase != Phase::Ready || is_right)
            }
            Wish::Stop { .. } => matches!(phase, Phase::Stopping | Phase::Stopped),
            Wish::Remove => phase == Phase::Removing,
        };
        match (is_current, definition.wish) {
            (true, _) => (phase, reason),
            (false, Wish::Run) => (Phase::Pending, None),
            (false, Wish::Stop { .. }) => (Phase::Stopping, None),
            (false, Wish::Remove) => (Phase::Removing, None),
        }
    }
}

impl fmt::Debug for Deployments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deployments")
            .field("engine", &self.parts.engine)
            .finish_non_exhaustive()
    }
}

impl Deployments {
    /// Knows nothing yet; [`follow`](Self::follow) and [`attend`](Self::attend) learn.
    #[must_use]
    pub fn new(settings: Settings, parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            table: Shared::new(Which::Deployments, Arc::clone(&parts.store)),
            settings,
            parts,
            known: Mutex::default(),
            publishing: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// This node's engine.
    #[must_use]
    pub fn engine(&self) -> &OwnEngine {
        &self.parts.engine
    }

    /// All deployments, by name.
    #[must_use]
    pub fn all(&self) -> Vec<View> {
        let known = self.known();
        let orphans = known
            .records
            .values()
            .filter(|record| self.is_orphan(record));
        let names: BTreeSet<_> = known
            .wanted
            .keys()
            .chain(orphans.map(|record| &record.name))
            .collect();
        names.into_iter().map(|name| known.view(name)).collect()
    }

    /// Whether it runs, as far as is known, and nothing says that it should.
    fn is_orphan(&self, record: &Record) -> bool {
        record.phase == Phase::Orphaned || !self.table.is_read()
    }

    /// The deployment of that name.
    #[must_use]
    pub fn one(&self, name: &str) -> Option<View> {
        let known = self.known();
        let record = known.records.get(name);
        let is_there =
            known.wanted.contains_key(name) || record.is_some_and(|record| self.is_orphan(record));
        is_there.then(|| known.view(name))
    }

    /// The servers that were made from a template.
    #[must_use]
    pub fn made_from(&self, template: &str) -> Vec<ServerId> {
        let is_of_it = |view: &View| {
            let definition = view.definition();
            definition.is_some_and(|known| known.spec.template == template)
        };
        let made = self.all().into_iter().filter(is_of_it);
        made.filter_map(|view| ServerId::try_from(view.name.as_str()).ok())
            .collect()
    }

    /// Learns what there is, before the first request if the store answers;
    /// from the engine's labels if it does not. Before the first request too:
    /// where no request may come from.
    pub async fn begin(self: &Arc<Self>) {
        let meeting = async {
            if self.parts.engine.identify().await.is_some() {
                self.join_networks().await;
            }
        };
        if tokio::time::timeout(ACQUAINTANCE, meeting).await.is_err() {
            tracing::warn!("the engine did not say in time which networks its servers are in");
        }
        if self.look().await.is_err() {
            let limit = Duration::from_secs(2);
            let listing = reconciler::routes_from_labels(self);
            if tokio::time::timeout(limit, listing).await.is_err() {
                tracing::warn!("the engine did not say in time which containers run");
            }
        }
    }

    /// Follows what is wanted and what runs until the node ends.
    pub async fn follow(self: Arc<Self>) {
        let mut feed = self.parts.store.subscribe();
        let mut news = self.parts.fleet.listen();
        self.look_or_say().await;
        loop {
            let pause = self
                .settings
                .check
                .mul_f64(rand::rng().random_range(0.8..1.2));
            let pause = tokio::time::sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    event = feed.recv() => match event {
                        Ok(Event::Message { channel: Channel::Deployments, payload }) => {
                            if let Some(record) = Record::decode(&payload) {
                                self.reach(&record).await;
                                self.learn(record);
                            }
                        }
                        Ok(Event::Gap) | Err(RecvError::Lagged(_)) => break,
                        Ok(_) => {}
                        Err(RecvError::Closed) => return,
                    },
                    heard = news.next() => match heard {
                        Some(Heard::News(news)) if *news == News::DeploymentsChanged {} => break,
                        Some(Heard::News(_)) => {}
                        Some(Heard::Gap) => break,
                        None => return,
                    },
                }
            }
            self.look_or_say().await;
        }
    }

    async fn look_or_say(&self) {
        if let Err(error) = self.look().await {
            tracing::debug!(%error, "deployments cannot be looked up now");
        }
    }

    /// Looks at the table, and at what runs of what is in it.
    async fn look(&self) -> Result<(), StoreError> {
        self.table.refresh(|table| self.apply(table)).await?;
        let names: Vec<_> = self.known().wanted.keys().cloned().collect();
        for names in names.chunks(BATCH) {
            for record in self.stored(names).await? {
                self.reach(&record).await;
                self.learn(record);
            }
        }
        self.publish();
        Ok(())
    }

    /// Learns of the networks of containers on this node's engine, and joins
    /// them before calls go there.
    async fn reach(&self, record: &Record) {
        let known = self.known().records.get(&record.name).cloned();
        // Also those that no calls go to yet: they may call already.
        let containers = |record: &Record| -> BTreeSet<_> {
            let replicas = record.replicas.iter();
            let containers = replicas.map(|one| (one.id.clone(), one.url.clone()));
            containers.collect()
        };
        let is_new = known.is_none_or(|known| containers(&known) != containers(record));
        let engine = &self.parts.engine;
        let is_here = engine
            .identity()
            .is_some_and(|own| own.to_string() == record.engine);
        if is_new && is_here {
            self.join_networks().await;
        }
    }

    async fn join_networks(&self) {
        let fleet = self.parts.signer.public().fleet_id();
        let joined = self.parts.engine.docker.join_networks(&fleet).await;
        if let Err(error) = joined {
            tracing::warn!(%error, "containers on this node's engine may be out of its reach");
        }
    }

    /// What the store has of these.
    async fn stored(&self, names: &[String]) -> Result<Vec<Record>, StoreError> {
        let names = names.iter().map(String::as_str);
        let keys: Vec<_> = names
            .filter_map(|name| ServerId::try_from(name).ok())
            .map(RecordKey::Deployment)
            .collect();
        let found = self.parts.store.get_fenced(&keys).await?;
        let found = found.into_iter().flatten();
        Ok(found
            .filter_map(|(_, bytes)| Record::decode(&bytes))
            .collect())
    }

    fn apply(&self, table: &Table) {
        let wanted = table.entries.iter().map(|entry| {
            let definition = Definition::decode(&entry.definition).map(Arc::new);
            if let Err(problem) = &definition {
                tracing::warn!(
                    deployment = entry.name,
                    problem,
                    "a deployment is left alone"
                );
            }
            let wanted = Wanted {
                edition: entry.edition,
                definition,
            };
            (entry.name.clone(), wanted)
        });
        {
            let mut known = self.known();
            known.wanted = wanted.collect();
            let Known {
                wanted,
                records,
                removed,
            } = &mut *known;
            removed.retain(|name| !wanted.contains_key(name));
            records.retain(|name, record| {
                wanted.contains_key(name) || record.phase == Phase::Orphaned
            });
        }
        self.publish();
        self.wake.notify_one();
    }

    /// Takes note of a record, unless it is older than what is known.
    fn learn(&self, record: Record) {
        {
            let mut known = self.known();
            let before = known.records.get(&record.name);
            if before.is_some_and(|before| !record.is_newer(before)) {
                return;
            }
            let was = before.map(|before| before.phase);
            let is_news = was.is_some() || record.phase != Phase::Removed;
            if was != Some(record.phase) && is_news {
                tracing::info!(
                    deployment = record.name,
                    phase = record.phase.as_str(),
                    reason = record.reason,
                    "a deployment's phase changed"
                );
            }
            if record.phase == Phase::Removed {
                known.records.remove(&record.name);
                if !known.wanted.contains_key(&record.name) {
                    known.removed.insert(record.name);
                }
            } else {
                known.records.insert(record.name.clone(), record);
            }
        }
        self.publish();
    }

    /// Serves what runs.
    fn publish(&self) {
        let mut routes = lock(&self.publishing);
        let (servers, names) = {
            let known = self.known();
            let is_read = self.table.is_read();
            let is_served = |record: &&Record| {
                !is_read
                    || known.wanted.contains_key(&record.name)
                    || record.phase == Phase::Orphaned
            };
            let records = known.records.values().filter(is_served);
            let names: BTreeSet<_> = known
                .wanted
                .keys()
                .chain(records.clone().map(|record| &record.name))
                .cloned()
                .collect();
            self.parts.metrics.deployments(known.records.values());
            (routes.servers(records, self.settings.timeout), names)
        };
        self.parts.registry.set_deployed(servers, names);
    }

    /// The replica at an address: the one that calls go to, if any do.
    fn replica(&self, server: &str, url: &str, audience: Option<&str>) -> Option<Arc<Replica>> {
        let server = ServerId::try_from(server).ok()?;
        lock(&self.publishing).replica(&server, url, audience)
    }

    /// Looks after this node's engine, as far as it is this node's turn, until
    /// the node stops.
    pub async fn attend(self: Arc<Self>) {
        let mut reconciler: Option<Arc<Reconciler>> = None;
        let mut availability = self.parts.engine.docker.watch_availability();
        let mut view = self.parts.membership.watch();
        let fresh = self.parts.engine.docker.settings().fresh;
        loop {
            let identity = self.parts.engine.identify().await;
            let identity = identity.or_else(|| self.parts.engine.identity());
            let ours = identity.filter(|identity| {
                let me = self.parts.membership.me().as_str();
                let view = self.parts.membership.view();
                self.parts.engine.is_ours(identity, me, &view)
            });
            match (&reconciler, ours) {
                (Some(known), Some(ours)) if known.engine == ours => self.join_networks().await,
                (None, None) => {}
                (_, Some(engine)) => {
                    self.join_networks().await;
                    let new = Reconciler::new(engine, &self);
                    let work = Arc::clone(&new) as Arc<dyn Work>;
                    let subject = new.engine.to_string().into();
                    self.parts
                        .duties
                        .set(DutyKind::Engine, vec![(subject, work)]);
                    reconciler = Some(new);
                }
                (Some(_), None) => {
                    self.parts.duties.set(DutyKind::Engine, Vec::new());
                    reconciler = None;
                }
            }
            let is_there = self.parts.engine.docker.availability().is_available();
            let pause = if is_there { fresh } else { ASK_AGAIN };
            tokio::select! {
                changed = availability.changed() => if changed.is_err() { return },
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause.mul_f64(rand::rng().random_range(0.8..1.2))) => {}
            }
        }
    }

    /// Removes the containers of a node that takes them with it.
    pub async fn end(&self) {
        if self.settings.owner.is_none() || self.parts.engine.identity().is_none() {
            return;
        }
        let removing = reconciler::remove_all(self);
        match tokio::time::timeout(GOODBYE, removing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "containers of this node may be left; it removes them when it starts again");
            }
            Err(_) => tracing::warn!("not all containers of this node were removed in time"),
        }
    }

    /// Removes what an earlier life of this node left behind.
    async fn remove_leftovers(&self, fleet: &str) -> Result<(), EngineError> {
        let Some(owner) = &self.settings.owner else {
            return Ok(());
        };
        let docker = &self.parts.engine.docker;
        let mut fleets = BTreeSet::new();
        for left in docker.owned(owner).await? {
            let of = left.labels.get(crate::engine::labels::FLEET);
            let Some(other) = of.filter(|of| *of != fleet) else {
                continue;
            };
            tracing::info!(
                container = left.name,
                "a container that an earlier life of this node left is removed"
            );
            docker.remove(&left.name).await?;
            fleets.insert(other.clone());
        }
        for other in fleets {
            docker.remove_unused(&other).await?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

impl Known {
    fn view(&self, name: &str) -> View {
        View {
            name: name.to_owned(),
            wanted: self.wanted.get(name).cloned(),
            record: self.records.get(name).cloned(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Changed in single steps: a panic cannot leave one in between.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
