//! What a node is made of, and the one function that builds it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, oneshot},
    time::Instant,
};

use crate::{
    bridge::signer::Signer,
    cache::{self, Cache, Cacheable},
    changes::Changes,
    cluster::{
        self, Incarnation,
        duties::Duties,
        membership::{About, Membership},
    },
    config::{self, Config},
    deployments::{self, Deployments, engines::OwnEngine, ephemeral::Containers},
    discovery::{self, Discovery, Found},
    engine::docker::Docker,
    fleet::Fleet,
    health::Health,
    http::{
        listener,
        mcp::{about, stream::Held},
        router,
        tls::Identity,
    },
    ids::NodeId,
    lifecycle::Tasks,
    lists::{self, Listing, Lists, Target},
    load::Loads,
    mcp::{Raw, error::RpcError, json::RawObject, method::TOOLS_CALL},
    permits::Permits,
    rates::{Client, Limited, Limiter},
    registry::{self, Affected, Registry},
    relay::{self, Relay},
    servers::{Server, Servers},
    session::Sessions,
    store::{
        Store,
        memory::MemoryStore,
        redis::{RedisSettings, RedisStore},
    },
    telemetry::metrics::{Gauge, Metrics, Refresh, Sampled},
    templates::{Catalogue, Files},
    trials::Trials,
    upstream::Upstreams,
};

mod secret;
mod settings;

/// Time for the last tasks, once draining is over.
const ENDING: Duration = Duration::from_secs(5);

/// The parts of a node.
#[derive(Debug)]
pub struct Gateway {
    /// What the node was told.
    pub config: Arc<Config>,
    /// Its name.
    pub node: NodeId,
    /// When it started.
    pub started: Instant,
    /// The same on the wall clock, for display.
    pub started_at: SystemTime,
    /// The address it listens on.
    pub listen: SocketAddr,
    /// The servers it knows.
    pub servers: Arc<Servers>,
    /// Their lists.
    pub lists: Arc<Lists>,
    /// The way to them.
    pub upstreams: Arc<Upstreams>,
    /// Calls between clients and servers.
    pub relay: Arc<Relay>,
    /// Sessions of legacy clients.
    pub sessions: Arc<Sessions>,
    /// The state shared with other nodes.
    pub store: Arc<dyn Store>,
    /// What nodes tell each other.
    pub fleet: Arc<Fleet>,
    /// Watches of the servers.
    pub changes: Arc<Changes>,
    /// Servers registered while the fleet runs.
    pub registry: Arc<Registry>,
    /// What users want to run, and what runs of it.
    pub deployments: Arc<Deployments>,
    /// How fast clients may call.
    pub rates: Arc<Limiter>,
    /// Recipes for servers.
    pub catalogue: Arc<Catalogue>,
    /// Tools of templates.
    pub discovery: Arc<Discovery>,
    /// The nodes that live.
    pub membership: Arc<Membership>,
    /// What this node does for all.
    pub duties: Arc<Duties>,
    /// Health of the replicas.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How it proves itself to bridges; its public key is what they are given.
    pub signer: Signer,
    /// Its tasks.
    pub tasks: Tasks,
    streams: Arc<Semaphore>,
}

/// A node that holds its port and serves nothing yet.
#[derive(Debug)]
pub struct Bound {
    gateway: Arc<Gateway>,
    listener: TcpListener,
    identity: Option<Arc<Identity>>,
    signals: Signals,
}

impl Gateway {
    /// Builds a node and binds its port. A store that does not answer is no
    /// reason to fail.
    ///
    /// # Errors
    /// When the port is taken or a setting cannot be used.
    pub async fn build(config: Config, metrics: Arc<Metrics>) -> anyhow::Result<Bound> {
        let config = Arc::new(config);
        let tasks = Tasks::new();
        let node = config
            .node
            .name
            .as_deref()
            .map_or_else(NodeId::random, NodeId::named);
        let store = open_store(&config, &tasks).await?;
        let (sealer, signer) = secret::keys(&config, &node, &store, &tasks).await;
        let configured = registry::configured(&config)?;
        let counted = Some(Arc::clone(&metrics));
        let servers = Arc::new(Servers::counted(configured.clone(), counted));
        let fleet = Arc::new(Fleet::new(node.clone(), Arc::clone(&store)));
        let upstreams = Upstreams::new(
            settings::upstream(&config, &signer)?,
            Arc::clone(&store),
            tasks.clone(),
            Arc::clone(&metrics),
        );
        let cache: Arc<Cache<Listing>> =
            Cache::new(Arc::clone(&store), settings::cache(&config), tasks.clone());
        let lists = Arc::new(Lists::new(
            Arc::clone(&upstreams),
            Arc::clone(&servers),
            Arc::clone(&cache),
            sealer.clone(),
            lists::Settings::new(&config.cache, &config.limits, about::gateway_info()),
            Arc::clone(&metrics),
        ));
        let files: Arc<Cache<Files>> = Cache::new(
            Arc::clone(&store),
            settings::small_cache(&config),
            tasks.clone(),
        );
        let catalogue = Arc::new(Catalogue::new(
            config.templates.directories.clone(),
            config.cache.templates,
            Arc::clone(&files),
        ));
        let found: Arc<Cache<Found>> = Cache::new(
            Arc::clone(&store),
            settings::small_cache(&config),
            tasks.clone(),
        );
        let discovery = Arc::new(Discovery::new(
            discovery::Settings::new(config.cache.lists),
            Arc::clone(&lists),
            Arc::clone(&servers),
            Arc::clone(&found),
        ));
        let sealer = Arc::new(sealer);
        let relay = Arc::new(Relay::new(
            settings::relay(&config),
            relay::Parts {
                upstreams: Arc::clone(&upstreams),
                servers: Arc::clone(&servers),
                sealer: Arc::clone(&sealer),
                store: Arc::clone(&store),
                fleet: Arc::clone(&fleet),
                tasks: tasks.clone(),
                metrics: Arc::clone(&metrics),
            },
        ));
        let sessions = Arc::new(Sessions::new(
            settings::session(&config),
            sealer,
            Arc::clone(&store),
            Arc::clone(&fleet),
        ));
        let address = config.node.listen;
        let identity = config.node.tls.clone().map(Identity::load).transpose()?;
        let listener = listener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; node.listen or --listen choose another address")
        })?;
        let listen = listener.local_addr()?;
        let (started, started_at) = (Instant::now(), wall_clock());
        let cluster = cluster::Settings {
            lease_ttl: config.cluster.lease_ttl,
        };
        let docker = Docker::connect(settings::docker(&config))?;
        let engine = Arc::new(OwnEngine::new(docker));
        let reached_at = reached_at(&config.node, listen);
        let describe = describe(reached_at, started, started_at, &metrics, &tasks, &engine);
        let membership = Arc::new(Membership::new(
            Incarnation::of(&node),
            Arc::clone(&store),
            cluster,
            describe,
        ));
        upstreams.join(Arc::clone(&membership));
        let rates = Arc::new(Limiter::new(
            config.rate_limits.principal,
            Arc::clone(&store),
            Arc::clone(&membership),
        ));
        let duties = Arc::new(Duties::new(
            Arc::clone(&membership),
            Arc::clone(&store),
            Arc::clone(&fleet),
            cluster,
            tasks.clone(),
            Arc::clone(&metrics),
        ));
        let changes = Changes::new(
            Arc::clone(&upstreams),
            Arc::clone(&lists),
            Arc::clone(&fleet),
            Arc::clone(&store),
            Arc::clone(&servers),
            Arc::clone(&duties),
            membership.me().clone(),
            tasks.clone(),
            Arc::clone(&metrics),
        );
        let registry = Arc::new(Registry::new(
            configured,
            settings::registry(&config),
            Arc::clone(&store),
            Arc::clone(&fleet),
            Affected {
                servers: Arc::clone(&servers),
                upstreams: Arc::clone(&upstreams),
                metrics: Arc::clone(&metrics),
            },
        ));
        // Known before the first request, if the store answers.
        registry.refresh_or_say().await;
        let deployments = Deployments::new(
            settings::deployments(&config, listen),
            deployments::Parts {
                node: node.clone(),
                engine,
                store: Arc::clone(&store),
                fleet: Arc::clone(&fleet),
                registry: Arc::clone(&registry),
                catalogue: Arc::clone(&catalogue),
                upstreams: Arc::clone(&upstreams),
                membership: Arc::clone(&membership),
                duties: Arc::clone(&duties),
                signer: signer.clone(),
                metrics: Arc::clone(&metrics),
                tasks: tasks.clone(),
            },
        );
        let made = Arc::downgrade(&deployments);
        discovery.knows_servers(Box::new(move |template| {
            made.upgrade()
                .map(|deployments| deployments.made_from(template))
                .unwrap_or_default()
        }));
        discovery.starts_by(Arc::new(Containers::new(
            Arc::clone(&deployments.engine().docker),
            signer.clone(),
            tasks.clone(),
        )));
        deployments.begin().await;
        let health = Health::new(
            settings::health(&config),
            node.clone(),
            Arc::clone(&servers),
            Arc::clone(&upstreams),
            Arc::clone(&store),
            Arc::clone(&membership),
            Arc::clone(&duties),
            Arc::clone(&metrics),
        );
        let gateway = Arc::new(Self {
            listen,
            streams: Arc::new(Semaphore::new(config.limits.streams)),
            config,
            node,
            started,
            started_at,
            servers,
            lists,
            upstreams,
            relay,
            sessions,
            store,
            fleet,
            changes,
            registry,
            deployments,
            rates,
            catalogue,
            discovery,
            membership,
            duties,
            health,
            metrics,
            signer,
            tasks,
        });
        gateway
            .metrics
            .sample(sampled(&gateway.store, cache.counters()));
        gateway.start(cache);
        if let Some(identity) = &identity {
            gateway.until_ending("certificate", Arc::clone(identity).follow());
        }
        gateway.follow("templates", files);
        gateway.follow("discovery", found);
        let signals = Signals::listen()?;
        Ok(Bound {
            gateway,
            listener,
            identity,
            signals,
        })
    }

    /// Starts the tasks that listen to other nodes.
    fn start(self: &Arc<Self>, cache: Arc<Cache<Listing>>) {
        self.follow("cache", cache);
        let fleet = Arc::clone(&self.fleet);
        self.until_ending("fleet", async move { fleet.follow().await });
        let sessions = Arc::clone(&self.sessions);
        self.until_ending("sessions", async move { sessions.follow().await });
        let relay = Arc::clone(&self.relay);
        self.until_ending("relay", async move { relay.follow().await });
        let registry = Arc::clone(&self.registry);
        self.until_ending("registry", async move { registry.follow().await });
        let deployments = Arc::clone(&self.deployments);
        self.until_ending("deployments", deployments.follow());
        let deployments = Arc::clone(&self.deployments);
        self.until_ending("engine", deployments.attend());
        let membership = Arc::clone(&self.membership);
        let (stopping, ending) = (self.tasks.stopping().clone(), self.tasks.ending().clone());
        self.tasks.spawn("membership", async move {
            membership.run(stopping, ending).await;
        });
        let duties = Arc::clone(&self.duties);
        self.tasks.spawn("duties", duties.run());
        let trials = Arc::new(Trials::new(
            Arc::clone(&self.servers),
            Arc::clone(&self.upstreams),
            Arc::clone(&self.store),
            Arc::clone(&self.fleet),
            self.membership.me().clone(),
            self.config.health.timeout,
            self.tasks.clone(),
        ));
        self.tasks.spawn("trials", trials.run());
        let permits = Permits::new(
            Arc::clone(&self.servers),
            Arc::clone(&self.store),
            Arc::clone(&self.membership),
        );
        self.until_ending("permits", permits.run());
        // Without a store of several nodes there is nobody to tell.
        if self.config.redis.is_some() {
            let me = self.membership.me().clone();
            let loads = Loads::new(Arc::clone(&self.servers), Arc::clone(&self.store), me);
            self.tasks.spawn("load", loads.run(self.tasks.clone()));
        }
        self.until_ending("health", Arc::clone(&self.health).run());
        self.until_ending("changes", Arc::clone(&self.changes).run());
    }

    /// Keeps a cache in line with those of other nodes.
    fn follow<V: Cacheable>(&self, name: &'static str, cache: Arc<Cache<V>>) {
        let ending = self.tasks.ending().clone();
        self.tasks.spawn(name, cache.follow(ending));
    }

    fn until_ending(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let ending = self.tasks.ending().clone();
        self.tasks.spawn(name, async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Sees to it that changes of the servers at an endpoint are noticed.
    pub(crate) fn watch(&self, target: &Target) {
        match target {
            Target::One(server) => self.changes.watch(server),
            Target::All => self
                .servers
                .all()
                .iter()
                .for_each(|server| self.changes.watch(server)),
        }
    }

    /// Counts a request of a client against its limits.
    pub(crate) async fn admit(
        &self,
        client: Client,
        server: &Server,
        method: &str,
        params: Option<&Raw>,
    ) -> Result<(), Limited> {
        let name = || {
            // Read only where a tool has a limit of its own.
            let has_any = method == TOOLS_CALL && !server.rates.tools.is_empty();
            let params = RawObject::parse(params.filter(|_| has_any)?).ok()?;
            params.get_str("name").map(|name| name.into_owned())
        };
        let limits = (&server.id, &server.rates);
        self.rates
            .admit(client, limits, method, name().as_deref())
            .await
    }

    /// A place among the streams this node may have open.
    pub(crate) fn stream_place(&self) -> Result<Held, RpcError> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            RpcError::internal("this node has as many streams open as it may (limits.streams)")
        })?;
        Ok(Held {
            _permit: permit,
            _counted: self.metrics.count(Gauge::Streams),
        })
    }
}

impl Bound {
    /// The node.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Serves until the node is told to stop, by a signal or by a task that
    /// failed; then drains and ends.
    ///
    /// # Errors
    /// The task that failed.
    pub async fn run(self) -> anyhow::Result<()> {
        let gateway = self.gateway;
        let tasks = gateway.tasks.clone();
        let (done, served) = oneshot::channel::<()>();
        let app = router::router(&gateway);
        let acceptor = self.identity.as_ref().map(Identity::acceptor).transpose()?;
        let serving = listener::serve(
            self.listener,
            acceptor,
            app,
            settings::listener(&gateway.config),
            tasks.clone(),
            Arc::clone(&gateway.metrics),
        );
        tasks.spawn("listener", async move {
            let _done = done;
            serving.await;
        });
        self.signals.told_to_stop(&tasks).await;
        tracing::info!(node = %gateway.node, "draining");
        tasks.stop();
        // Nothing is sent: it ends with the task.
        served.await.ok();
        gateway.upstreams.shutdown(Instant::now() + ENDING).await;
        gateway.deployments.end().await;
        if tokio::time::timeout(ENDING, tasks.finished())
            .await
            .is_err()
        {
            tracing::warn!("some tasks did not end in time");
        }
        match tasks.failure() {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }
}

/// What the store and the cache count, for the metrics.
fn sampled(
    store: &Arc<dyn Store>,
    counters: &Arc<cache::Counters>,
) -> impl Fn() -> Sampled + Send + Sync + 'static {
    let (store, counters) = (Arc::clone(store), Arc::clone(counters));
    move || Sampled {
        store_reachable: store.is_reachable(),
        store_failures: store.failures(),
        refreshes: [
            (Refresh::Stored, counters.refreshed.get()),
            (Refresh::Refused, counters.writes_refused.get()),
            (Refresh::Failed, counters.refresh_failed.get()),
            (Refresh::Elsewhere, counters.refresh_held.get()),
        ],
    }
}

/// Where other nodes reach this one: for people, and to dial.
fn reached_at(node: &config::Node, listen: SocketAddr) -> (String, String) {
    match node.reached_at(listen) {
        Some(advertised) => (advertised.authority.clone(), node.base(&advertised)),
        None => (listen.to_string(), String::new()),
    }
}

/// What this node says of itself to the others.
fn describe(
    (address, url): (String, String),
    started: Instant,
    started_at: SystemTime,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
    engine: &Arc<OwnEngine>,
) -> cluster::membership::Describe {
    let (metrics, tasks) = (Arc::clone(metrics), tasks.clone());
    let engine = Arc::clone(engine);
    let since = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Box::new(move || {
        let current = |gauge| u64::try_from(metrics.current(gauge)).unwrap_or(0);
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: address.clone(),
            url: url.clone(),
            started_at: millis(since),
            uptime: millis(started.elapsed()),
            requests: current(Gauge::Requests),
            answered: metrics.answered(),
            connections: current(Gauge::Connections),
            streams: current(Gauge::Streams),
            duties: current(Gauge::Duties),
            engines: engine.offered(),
            draining: tasks.stopping().is_cancelled(),
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "only shown to people")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// What an operator stops the node with. Listened for from the moment the
/// port is bound: whoever sees the first screen may send one.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot receive SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot receive SIGINT")?,
        })
    }

    async fn told_to_stop(mut self, tasks: &Tasks) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = tasks.stopping().cancelled() => {}
        }
    }
}

async fn open_store(config: &Config, tasks: &Tasks) -> anyhow::Result<Arc<dyn Store>> {
    let Some(redis) = &config.redis else {
        return Ok(Arc::new(MemoryStore::new()));
    };
    let settings = RedisSettings {
        prefix: redis.prefix.clone(),
        ca_file: redis.ca_file.clone(),
        connect_timeout: redis.connect_timeout,
        command_timeout: redis.command_timeout,
        ..RedisSettings::new(redis.url.reveal())
    };
    Ok(Arc::new(RedisStore::connect(settings, tasks).await?))
}
