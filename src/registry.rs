//! Servers that are registered while the fleet runs: kept in the store, known
//! to every node, beside those of each node's own configuration.
//!
//! Configuration wins: a name that a node is configured with is not taken by a
//! registered server there, which is told as a [`Registry::problems`] entry. The
//! store's table is the fact, [`News::ServersChanged`] the hint to look; a node
//! also looks from time to time, so that a lost hint is made up for.
//!
//! A node knows the newest edition it has seen. When the store knows an older
//! one only, because it was restarted empty or failed over, the node puts back
//! what it knows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt as _;

use self::definition::build;
pub use self::definition::configured;
use crate::{
    config::{ConfigErrors, ServerConfig},
    fleet::{self, Fleet, Heard, News},
    ids::ServerId,
    servers::{Server, Servers},
    store::{
        Store, StoreError,
        registry::{Change, Changed, Entry, Table},
    },
    telemetry::metrics::Metrics,
    upstream::Upstreams,
};

mod definition;

/// Bytes of a definition.
pub const MAX_DEFINITION: usize = 64 << 10;
/// Attempts at a change while the store has to be put right first.
const ATTEMPTS: usize = 3;
/// How soon what is left of a removed server is looked after again.
const SOON: Duration = Duration::from_secs(1);

/// Bounds of the registry.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Servers it may hold.
    pub most: u32,
    /// How often a node looks whether it missed a change.
    pub check: Duration,
}

/// What a change of servers has consequences for.
#[derive(Debug)]
pub struct Affected {
    /// The servers that are known.
    pub servers: Arc<Servers>,
    /// Sessions with their replicas.
    pub upstreams: Arc<Upstreams>,
    /// Series of them.
    pub metrics: Arc<Metrics>,
}

/// Why the registry was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The definition cannot be used.
    #[error("{0}")]
    Invalid(ConfigErrors),
    /// The definition is too long.
    #[error("a definition may have at most {MAX_DEFINITION} bytes")]
    TooLong,
    /// This node is configured with that name.
    #[error("server {name} comes from this node's configuration ({origin}), which wins")]
    Configured {
        /// The name.
        name: String,
        /// Where it is configured.
        origin: &'static str,
    },
    /// No server of that name is registered.
    #[error("no server {name:?} is registered")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There are as many as there may be.
    #[error("{most} servers are registered, more are not taken (limits.registered_servers)")]
    Full {
        /// The bound.
        most: u32,
    },
    /// The store did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What this node knows of the registry.
#[derive(Debug, Default)]
struct Known {
    table: Table,
    /// Registered servers that are not served here, and why.
    problems: BTreeMap<String, String>,
    /// Servers that are gone, but for calls that still run.
    leaving: Vec<(ServerId, Weak<Server>)>,
}

/// The registry, as one node sees and serves it.
#[derive(Debug)]
pub struct Registry {
    configured: Vec<Arc<Server>>,
    settings: Settings,
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    affected: Affected,
    known: Mutex<Known>,
    /// One look at a time: an older table is never applied over a newer one.
    looking: tokio::sync::Mutex<()>,
}

impl Registry {
    /// Knows nothing of the store's table yet.
    #[must_use]
    pub fn new(
        configured: Vec<Arc<Server>>,
        settings: Settings,
        store: Arc<dyn Store>,
        fleet: Arc<Fleet>,
        affected: Affected,
    ) -> Self {
        Self {
            configured,
            settings,
            store,
            fleet,
            affected,
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Registers a server, or changes it, for all nodes: a JSON object as
    /// [`ServerConfig::from_request`] takes it. Doing it again changes nothing.
    ///
    /// # Errors
    /// Nothing was changed; after [`StoreError::Unreachable`] it may have been.
    pub async fn register(&self, json: &str) -> Result<(ServerId, Changed), RegistryError> {
        if json.len() > MAX_DEFINITION {
            return Err(RegistryError::TooLong);
        }
        let server = ServerConfig::from_request(json).map_err(RegistryError::Invalid)?;
        self.check_not_configured(server.id.as_str())?;
        let change = Change::Put {
            name: server.id.to_string(),
            definition: Bytes::copy_from_slice(json.trim().as_bytes()),
            most: self.settings.most,
        };
        match self.change(&change).await? {
            Changed::Full => Err(RegistryError::Full {
                most: self.settings.most,
            }),
            changed => Ok((server.id, changed)),
        }
    }

    /// Takes a server out, for all nodes.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub async fn unregister(&self, name: &str) -> Result<(), RegistryError> {
        let name = name.to_owned();
        let change = Change::Remove { name: name.clone() };
        if self.change(&change).await? == Changed::Unknown {
            self.check_not_configured(&name)?;
            return Err(RegistryError::Unknown { name });
        }
        Ok(())
    }

    /// Registered servers that this node does not serve, and why.
    #[must_use]
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.known().problems.clone()
    }

    fn check_not_configured(&self, name: &str) -> Result<(), RegistryError> {
        match self.configured(name) {
            Some(server) => Err(RegistryError::Configured {
                name: name.to_owned(),
                origin: server.origin,
            }),
            None => Ok(()),
        }
    }

    fn configured(&self, name: &str) -> Option<&Arc<Server>> {
        self.configured
            .iter()
            .find(|server| server.id.as_str() == name)
    }

    async fn change(&self, change: &Change) -> Result<Changed, RegistryError> {
        let mut changed = Changed::Behind;
        for _ in 0..ATTEMPTS {
            let edition = self.known().table.edition;
            changed = self.store.change_registry(change, edition).await?;
            if changed != Changed::Behind {
                break;
            }
            self.refresh().await?;
        }
        match changed {
            Changed::Behind => Err(StoreError::Refused(
                "the registry changes too often for this node to follow".to_owned(),
            )
            .into()),
            Changed::Created | Changed::Replaced | Changed::Removed => {
                // Served here before the answer goes out, elsewhere right after.
                self.refresh_or_say().await;
                self.fleet.tell(News::ServersChanged {}).await;
                Ok(changed)
            }
            Changed::Unchanged | Changed::Unknown | Changed::Full => Ok(changed),
        }
    }

    /// Follows the registry until the node ends.
    pub async fn follow(&self) {
        let mut news = self.fleet.listen();
        loop {
            let is_leaving = self.see_off();
            let pause = if is_leaving {
                SOON.min(self.settings.check)
            } else {
                self.settings
                    .check
                    .mul_f64(rand::rng().random_range(0.8..1.2))
            };
            let pause = tokio::time::sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    heard = news.next() => match heard {
                        Some(Heard::News(news)) if *news == News::ServersChanged {} => break,
                        Some(Heard::News(_)) => {}
                        Some(Heard::Gap) => break,
                        None => return,
                    },
                }
            }
            self.refresh_or_say().await;
        }
    }

    /// Looks at the store; without an answer everything stays as it is.
    pub async fn refresh_or_say(&self) {
        if let Err(error) = self.refresh().await {
            tracing::debug!(%error, "registered servers cannot be looked up now");
        }
    }

    /// Brings this node's servers in line with the store's table.
    async fn refresh(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.looking.lock().await;
        let stored = self.store.registry_edition().await?;
        let known = self.known().table.clone();
        if stored == known.edition {
            return Ok(());
        }
        if stored < known.edition && self.store.restore_registry(&known).await? {
            tracing::warn!(
                servers = known.entries.len(),
                "the store had lost registered servers; they were put back"
            );
            return Ok(());
        }
        let table = self.store.registry().await?;
        self.apply(table);
        Ok(())
    }

    /// Makes the registered servers those of the table.
    fn apply(&self, table: Table) {
        let before = self.affected.servers.all();
        let mut after = self.configured.clone();
        let mut problems = BTreeMap::new();
        for entry in &table.entries {
            match self.server(entry, &before) {
                Ok(server) => after.push(server),
                Err(problem) => {
                    problems.insert(entry.name.clone(), problem);
                }
            }
        }
        self.affected.servers.replace(after.clone());
        self.note(table, problems);
        self.tell_differences(&before, &after);
    }

    /// The server of an entry, the one that is there already when nothing changed.
    fn server(&self, entry: &Entry, before: &[Arc<Server>]) -> Result<Arc<Server>, String> {
        if let Some(configured) = self.configured(&entry.name) {
            return Err(format!(
                "registered through the API as well; this node serves the one of its \
                 configuration ({})",
                configured.origin
            ));
        }
        let is_of_entry = |server: &&Arc<Server>| server.id.as_str() == entry.name;
        let known = before.iter().find(is_of_entry);
        if let Some(known) = known.filter(|known| known.edition == entry.edition) {
            return Ok(Arc::clone(known));
        }
        // A newer node may have taken what this one does not understand.
        let json = std::str::from_utf8(&entry.definition).unwrap_or_default();
        let config = ServerConfig::from_request(json)
            .map_err(|errors| format!("this node does not understand its definition: {errors}"))?;
        let built = build(&config, known.map(|known| &**known));
        Ok(Arc::new(built.of_edition(entry.edition)))
    }

    fn note(&self, table: Table, problems: BTreeMap<String, String>) {
        let mut known = self.known();
        for (server, problem) in &problems {
            if known.problems.get(server) != Some(problem) {
                tracing::warn!(server, problem, "a registered server is not served here");
            }
        }
        known.table = table;
        known.problems = problems;
    }

    fn tell_differences(&self, before: &[Arc<Server>], after: &[Arc<Server>]) {
        let is_in = |servers: &[Arc<Server>], one: &Arc<Server>| {
            servers.iter().any(|server| Arc::ptr_eq(server, one))
        };
        for gone in before.iter().filter(|server| !is_in(after, server)) {
            let left = (gone.id.clone(), Arc::downgrade(gone));
            self.known().leaving.push(left);
            if !after.iter().any(|server| server.id == gone.id) {
                tracing::info!(server = %gone.id, "a server was taken out");
                self.tell_change(&gone.id);
            }
        }
        for new in after.iter().filter(|server| !is_in(before, server)) {
            tracing::info!(server = %new.id, replicas = new.replicas.len(), "a server was registered");
            self.tell_change(&new.id);
        }
    }

    /// Clients of this node learn that its lists are others now.
    fn tell_change(&self, server: &ServerId) {
        for change in [
            fleet::Change::Tools,
            fleet::Change::Prompts,
            fleet::Change::Resources,
        ] {
            let server = server.to_string();
            self.fleet.tell_here(News::Changed { server, change });
        }
    }

    /// Ends what this node holds toward servers that are gone, as far as no
    /// call uses it; whether something is left.
    fn see_off(&self) -> bool {
        let leaving = std::mem::take(&mut self.known().leaving);
        if leaving.is_empty() {
            return false;
        }
        self.affected.upstreams.tidy();
        for (server, _) in &leaving {
            // Calls that still run bring series back.
            if self.affected.servers.get(server.as_str()).is_none() {
                self.affected.metrics.forget_server(server);
            }
        }
        let still_used = leaving
            .into_iter()
            .filter(|(_, left)| left.strong_count() > 0);
        let mut known = self.known();
        known.leaving.extend(still_used);
        !known.leaving.is_empty()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Changed in single steps: a panic cannot leave one in between.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
