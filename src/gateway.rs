//! What a node is made of, and the one function that builds it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{
        Semaphore,
        broadcast::{self, error::RecvError},
        oneshot,
    },
    time::Instant,
};

use crate::{
    cache::{self, Cache},
    changes::Changes,
    cluster::{
        self, Incarnation,
        duties::Duties,
        membership::{About, Membership},
    },
    config::{Config, Secret},
    fleet::Fleet,
    health::{self, Health},
    http::{
        listener::{self, ListenerSettings},
        mcp::{about, stream::Held},
        router,
    },
    ids::NodeId,
    lifecycle::Tasks,
    lists::{self, Listing, Lists, Target},
    load::Loads,
    mcp::{Raw, error::RpcError, json::RawObject, method::TOOLS_CALL, seal::Sealer},
    permits::Permits,
    rates::{Client, Limited, Limiter},
    registry::{self, Affected, Registry},
    relay::{self, Relay},
    servers::{Server, Servers},
    session::{self, Sessions},
    store::{
        Event, RecordKey, Store, StoreError,
        memory::MemoryStore,
        redis::{RedisSettings, RedisStore},
    },
    telemetry::metrics::{Gauge, Metrics, Refresh, Sampled},
    trials::Trials,
    upstream::{self, Upstreams},
};

/// Time for the last tasks, once draining is over.
const ENDING: Duration = Duration::from_secs(5);
/// A node that has no shared key yet tries again after this, heard or not
/// that the store is back.
const SHARE_KEY_AFTER: Duration = Duration::from_secs(30);
/// Header lines of one request.
const MAX_HEADER_LINES: usize = 200;

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
    /// How fast clients may call.
    pub rates: Arc<Limiter>,
    /// The nodes that live.
    pub membership: Arc<Membership>,
    /// What this node does for all.
    pub duties: Arc<Duties>,
    /// Health of the replicas.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Its tasks.
    pub tasks: Tasks,
    streams: Arc<Semaphore>,
}

/// A node that holds its port and serves nothing yet.
#[derive(Debug)]
pub struct Bound {
    gateway: Arc<Gateway>,
    listener: TcpListener,
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
        let sealer = sealer(&config, &store, &tasks).await;
        let configured = registry::configured(&config)?;
        let counted = Some(Arc::clone(&metrics));
        let servers = Arc::new(Servers::counted(configured.clone(), counted));
        let fleet = Arc::new(Fleet::new(node.clone(), Arc::clone(&store)));
        let upstreams = Upstreams::new(
            upstream_settings(&config),
            Arc::clone(&store),
            tasks.clone(),
            Arc::clone(&metrics),
        );
        let cache: Arc<Cache<Listing>> =
            Cache::new(Arc::clone(&store), cache_settings(&config), tasks.clone());
        let lists = Arc::new(Lists::new(
            Arc::clone(&upstreams),
            Arc::clone(&servers),
            Arc::clone(&cache),
            sealer.clone(),
            lists::Settings::new(&config.cache, &config.limits, about::gateway_info()),
            Arc::clone(&metrics),
        ));
        let sealer = Arc::new(sealer);
        let relay = Arc::new(Relay::new(
            relay_settings(&config),
            Arc::clone(&upstreams),
            Arc::clone(&sealer),
            Arc::clone(&store),
            Arc::clone(&fleet),
            tasks.clone(),
            Arc::clone(&metrics),
        ));
        let sessions = Arc::new(Sessions::new(
            session_settings(&config),
            sealer,
            Arc::clone(&store),
            Arc::clone(&fleet),
        ));
        let address = config.node.listen;
        let listener = listener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; node.listen or --listen choose another address")
        })?;
        let listen = listener.local_addr()?;
        let (started, started_at) = (Instant::now(), wall_clock());
        let cluster = cluster::Settings {
            lease_ttl: config.cluster.lease_ttl,
        };
        let describe = describe(listen, started, started_at, &metrics, &tasks);
        let membership = Arc::new(Membership::new(
            Incarnation::of(&node),
            Arc::clone(&store),
            cluster,
            describe,
        ));
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
            registry_settings(&config),
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
        let health = Health::new(
            health_settings(&config),
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
            rates,
            membership,
            duties,
            health,
            metrics,
            tasks,
        });
        gateway
            .metrics
            .sample(sampled(&gateway.store, cache.counters()));
        gateway.start(cache);
        let signals = Signals::listen()?;
        Ok(Bound {
            gateway,
            listener,
            signals,
        })
    }

    /// Starts the tasks that listen to other nodes.
    fn start(self: &Arc<Self>, cache: Arc<Cache<Listing>>) {
        let ending = self.tasks.ending().clone();
        self.tasks.spawn("cache", cache.follow(ending));
        let fleet = Arc::clone(&self.fleet);
        self.until_ending("fleet", async move { fleet.follow().await });
        let sessions = Arc::clone(&self.sessions);
        self.until_ending("sessions", async move { sessions.follow().await });
        let relay = Arc::clone(&self.relay);
        self.until_ending("relay", async move { relay.follow().await });
        let registry = Arc::clone(&self.registry);
        self.until_ending("registry", async move { registry.follow().await });
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
        let serving = listener::serve(
            self.listener,
            app,
            listener_settings(&gateway.config),
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

/// What this node says of itself to the others.
fn describe(
    listen: SocketAddr,
    started: Instant,
    started_at: SystemTime,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> cluster::membership::Describe {
    let (metrics, tasks) = (Arc::clone(metrics), tasks.clone());
    let since = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Box::new(move || {
        let current = |gauge| u64::try_from(metrics.current(gauge)).unwrap_or(0);
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: listen.to_string(),
            started_at: millis(since),
            uptime: millis(started.elapsed()),
            requests: current(Gauge::Requests),
            answered: metrics.answered(),
            connections: current(Gauge::Connections),
            streams: current(Gauge::Streams),
            duties: current(Gauge::Duties),
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

/// What seals tokens: the configured secret, or one that the first node made
/// and the store keeps. Until the store answers for the first time, a node
/// without a configured secret makes tokens that only itself can open.
async fn sealer(config: &Config, store: &Arc<dyn Store>, tasks: &Tasks) -> Sealer {
    let previous = config.node.previous_secret.as_ref().map(key_of);
    if let Some(secret) = &config.node.secret {
        return Sealer::new(&key_of(secret)).with_previous(previous.iter());
    }
    // Subscribed to first: the store may begin to answer right after the attempt.
    let feed = store.subscribe();
    let own: [u8; 32] = rand::random();
    let shared = shared_key(&**store, &own).await.inspect_err(|error| {
        tracing::warn!(%error, "sessions of this node are its own until the store answers: set node.secret to share them always");
    });
    let key = *shared.as_ref().unwrap_or(&own);
    let sealer = Sealer::new(&key).with_previous(previous.iter());
    let keeping = keep_key_shared(Arc::clone(store), feed, key, shared.is_ok(), sealer.clone());
    let ending = tasks.ending().clone();
    tasks.spawn("shared-key", async move {
        tokio::select! {
            () = ending.cancelled() => {}
            () = keeping => {}
        }
    });
    sealer
}

/// Compares with the store whenever it comes back: it may answer for the
/// first time, or have lost the key, which the first node to notice puts back.
async fn keep_key_shared(
    store: Arc<dyn Store>,
    mut feed: broadcast::Receiver<Event>,
    mut key: [u8; 32],
    mut is_shared: bool,
    sealer: Sealer,
) {
    loop {
        let is_back = async {
            loop {
                match feed.recv().await {
                    Ok(Event::Gap) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                    Ok(_news) => {}
                }
            }
        };
        if is_shared {
            is_back.await;
        } else {
            // Tried again in any case.
            tokio::time::timeout(SHARE_KEY_AFTER, is_back).await.ok();
        }
        match shared_key(&*store, &key).await {
            Ok(kept) => {
                if kept != key {
                    sealer.adopt(&kept);
                    key = kept;
                }
                if !is_shared {
                    tracing::info!("sessions are shared with the other nodes now");
                }
                is_shared = true;
            }
            Err(error) => {
                tracing::debug!(%error, "the shared key cannot be compared now");
                is_shared = false;
            }
        }
    }
}

fn key_of(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.reveal()).into()
}

/// The key that the store keeps; `own` if it has none.
async fn shared_key(store: &dyn Store, own: &[u8; 32]) -> Result<[u8; 32], StoreError> {
    let own = Bytes::copy_from_slice(own);
    let kept = store.put_if_absent(&RecordKey::Secret, own, None).await?;
    Ok(<[u8; 32]>::try_from(&*kept).unwrap_or_else(|_| Sha256::digest(&kept).into()))
}

fn cache_settings(config: &Config) -> cache::Settings {
    let cache = &config.cache;
    cache::Settings {
        l1_bytes: cache.memory,
        min_fresh: cache.min_fresh,
        max_fresh: cache.max_fresh,
        lock_ttl: cache.lock_ttl,
        fetch_limit: cache.fetch_timeout,
        early_refresh: cache.early_refresh,
        retry_first: cache.retry_min,
        retry_stale: cache.retry_max,
        ..cache::Settings::default()
    }
}

fn registry_settings(config: &Config) -> registry::Settings {
    registry::Settings {
        most: config.limits.registered_servers,
        check: config.cluster.lease_ttl,
    }
}

fn upstream_settings(config: &Config) -> upstream::Settings {
    let upstream = &config.upstream;
    upstream::Settings {
        connect_timeout: upstream.connect_timeout,
        pool_idle: upstream.connection_idle,
        max_idle_per_host: upstream.idle_connections,
        verdict_horizon: upstream.version_ttl,
        probe_timeout: upstream.probe_timeout,
        sessions_per_replica: upstream.sessions,
        processes_per_replica: upstream.sessions,
        dedicated_sessions: config.limits.sessions,
        session_idle: upstream.session_idle,
        max_message_bytes: config.limits.message,
        client_info: about::gateway_info(),
        keep_dedicated: config.redis.is_some(),
    }
}

fn relay_settings(config: &Config) -> relay::Settings {
    let limits = &config.limits;
    relay::Settings {
        max_duration: limits.call,
        answer_timeout: limits.wait,
        max_rounds: limits.rounds,
        max_parked: limits.waiting,
        max_events: limits.stream_events,
        events_ttl: limits.stream_ttl,
        stream_retry: Duration::from_secs(5),
        retries: config.upstream.retries,
        retry_budget: config.upstream.retry_budget,
        server_info: about::gateway_info(),
    }
}

fn health_settings(config: &Config) -> health::Settings {
    let health = &config.health;
    health::Settings {
        interval: health.interval,
        timeout: health.timeout,
        thresholds: health::Thresholds {
            unhealthy_after: health.unhealthy_after,
            healthy_after: health.healthy_after,
        },
        probe: health.probe,
    }
}

fn session_settings(config: &Config) -> session::Settings {
    let limits = &config.limits;
    session::Settings {
        max_age: limits.session_max_age,
        idle: limits.session_idle,
        remembered: limits.sessions as u64,
        max_subscriptions: limits.subscriptions,
    }
}

fn listener_settings(config: &Config) -> ListenerSettings {
    let limits = &config.limits;
    ListenerSettings {
        max_connections: limits.connections,
        max_header_bytes: limits.headers,
        max_headers: MAX_HEADER_LINES,
        header_timeout: limits.header_timeout,
        max_http2_streams: limits.http2_streams,
        drain: config.node.drain,
    }
}
