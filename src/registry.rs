//! Servers that are registered while the fleet runs: kept in the store, known
//! to every node, beside those of each node's own configuration.
//!
//! Configuration wins: a name that a node is configured with is not taken by a
//! registered server there, which is told as a [`Registry::problems`] entry. The
//! store's table is the fact, [`News::ServersChanged`] the hint to look; a node
//! also looks from time to time, so that a lost hint is made up for.
//!
//! Servers that deployments run ([`crate::deployments`]) are known beside them;
//! a name that is registered is not theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use rand::RngExt as _;

use self::definition::build;
pub use self::{definition::configured, table::Shared};
use crate::{
    config::{ConfigErrors, ServerConfig},
    fleet::{self, Fleet, Heard, News},
    ids::ServerId,
    servers::{Server, Servers},
    store::{
        Store, StoreError,
        registry::{Change, Changed, Entry, Table, Which},
    },
    telemetry::metrics::Metrics,
    upstream::Upstreams,
};

mod definition;
mod table;

/// Where servers come from that deployments run.
pub const DEPLOYMENT: &str = "deployment";
/// Bytes of a definition.
pub const MAX_DEFINITION: usize = 64 << 10;
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
    /// A deployment has that name.
    #[error("a deployment is called {name}; `mcp-fleet rm {name}` removes it")]
    Deployed {
        /// The name.
        name: String,
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
    /// Those that were registered and can be served here.
    registered: Vec<Arc<Server>>,
    /// Those that deployments run, as far as their names are free.
    deployed: Vec<Arc<Server>>,
    /// The names of all deployments.
    deployments: BTreeSet<String>,
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
    table: Shared,
    fleet: Arc<Fleet>,
    affected: Affected,
    known: Mutex<Known>,
    /// One set of servers is published after the other.
    publishing: Mutex<()>,
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
            table: Shared::new(Which::Servers, store),
            fleet,
            affected,
            known: Mutex::default(),
            publishing: Mutex::default(),
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
        if self.known().deployments.contains(server.id.as_str()) {
            let name = server.id.to_string();
            return Err(RegistryError::Deployed { name });
        }
        let change = Change::Put {
            name: server.id.to_string(),
            definition: Bytes::copy_from_slice(json.trim().as_bytes()),
            most: self.settings.most,
            over: None,
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
        let change = Change::Remove {
            name: name.clone(),
            over: None,
        };
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

    async fn change(&self, change: &Change) -> Result<Changed, StoreError> {
        let changed = self.table.change(change, |table| self.apply(table)).await?;
        if matches!(
            changed,
            Changed::Created | Changed::Replaced | Changed::Removed
        ) {
            self.fleet.tell(News::ServersChanged {}).await;
        }
        Ok(changed)
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
        self.table.refresh(|table| self.apply(table)).await
    }

    /// Makes the registered servers those of the table.
    fn apply(&self, table: &Table) {
        let before = self.affected.servers.all();
        let mut registered = Vec::new();
        let mut problems = BTreeMap::new();
        for entry in &table.entries {
            match self.server(entry, &before) {
                Ok(server) => registered.push(server),
                Err(problem) => {
                    problems.insert(entry.name.clone(), problem);
                }
            }
        }
        self.note(registered, problems);
        self.publish();
    }

    /// Makes these the servers that deployments run, and these their names,
    /// also of those that do not run yet.
    pub fn set_deployed(&self, servers: Vec<Arc<Server>>, names: BTreeSet<String>) {
        {
            let mut known = self.known();
            known.deployments = names;
            let is_same = known.deployed.len() == servers.len()
                && known
                    .deployed
                    .iter()
                    .zip(&servers)
                    .all(|(one, other)| Arc::ptr_eq(one, other));
            if is_same {
                return;
            }
            known.deployed = servers;
        }
        self.publish();
    }

    /// Who has a name that a deployment may not take: the words for it.
    #[must_use]
    pub fn taken(&self, name: &str) -> Option<String> {
        if let Some(server) = self.configured(name) {
            return Some(format!("this node's configuration ({})", server.origin));
        }
        let is_registered = self.table.known().entries.iter().any(|e| e.name == name);
        is_registered.then(|| "a server that was registered through the API".to_owned())
    }

    /// Serves what is configured, registered and deployed; of several with one
    /// name the first.
    fn publish(&self) {
        let _one_at_a_time = lock(&self.publishing);
        let before = self.affected.servers.all();
        let mut after = self.configured.clone();
        {
            let known = self.known();
            after.extend(known.registered.iter().cloned());
            for deployed in &known.deployed {
                if after.iter().all(|server| server.id != deployed.id) {
                    after.push(Arc::clone(deployed));
                }
            }
        }
        self.affected.servers.replace(after.clone());
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
        let is_of_entry =
            |server: &&Arc<Server>| server.id.as_str() == entry.name && server.origin != DEPLOYMENT;
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

    fn note(&self, registered: Vec<Arc<Server>>, problems: BTreeMap<String, String>) {
        let mut known = self.known();
        for (server, problem) in &problems {
            if known.problems.get(server) != Some(problem) {
                tracing::warn!(server, problem, "a registered server is not served here");
            }
        }
        known.registered = registered;
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
            let same = |server: &&Arc<Server>| {
                server.id == new.id && server.origin == DEPLOYMENT && server.edition == new.edition
            };
            // Other replicas of what was there: their lists are the same.
            if new.origin == DEPLOYMENT && before.iter().any(|server| same(&server)) {
                continue;
            }
            tracing::info!(server = %new.id, replicas = new.replicas.len(), origin = new.origin, "a server is served");
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
        lock(&self.known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Changed in single steps: a panic cannot leave one in between.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
