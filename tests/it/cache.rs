//! The shared cache: several nodes (each with its own L1 and, on Redis, its own
//! connections) over one store. What has to hold on every store runs on both.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mcp_fleet::{
    cache::{
        Cache, CacheError, CacheKey, CacheStatus, Cacheable, Durations, Fetch, Fetched, Scope,
        Served, Settings, Subject,
    },
    ids::{Principal, ServerId},
    lifecycle::Tasks,
    store::{Channel, Event, Store, memory::MemoryStore, redis::RedisSettings},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::support::{eventually, redis::RedisServer};

mod failure;
mod freshness;
mod invalidation;
mod scope;
mod with_redis;

/// The tests of a module, on each store.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::super::Fleet::embedded()).await; })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Fleet::on_redis()).await; })*
        }
    };
}
use on_both_stores;

/// A text as the cached value.
#[derive(Debug)]
struct Text(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the upstream is broken")]
struct Broken;

impl Cacheable for Text {
    type FetchError = Broken;

    fn decode(payload: &Bytes) -> Result<Self, String> {
        let text = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }

    fn weight(&self) -> u32 {
        u32::try_from(self.0.len()).expect("small")
    }
}

/// The server whose answers are cached.
struct Upstream {
    fetches: AtomicU32,
    text: Mutex<String>,
    scope: Mutex<Scope>,
    broken: AtomicBool,
    storable: AtomicBool,
    ttl: Mutex<Option<Duration>>,
    /// Fetches wait until it is open.
    gate: watch::Sender<bool>,
}

impl Upstream {
    fn new(text: &str) -> Arc<Self> {
        Arc::new(Self {
            fetches: AtomicU32::new(0),
            text: Mutex::new(text.to_owned()),
            scope: Mutex::new(Scope::Public),
            broken: AtomicBool::new(false),
            storable: AtomicBool::new(true),
            ttl: Mutex::new(None),
            gate: watch::Sender::new(true),
        })
    }

    fn says(&self, text: &str) {
        text.clone_into(&mut self.text.lock().expect("unpoisoned"));
    }

    fn scope(&self, scope: Scope) {
        *self.scope.lock().expect("unpoisoned") = scope;
    }

    fn breaks(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn opens(&self, open: bool) {
        self.gate.send_replace(open);
    }

    fn fetches(&self) -> u32 {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Answers with its text as it was when it was asked.
    async fn answer(self: Arc<Self>, caller: &'static str) -> Result<Fetched, Broken> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let scope = *self.scope.lock().expect("unpoisoned");
        let mut text = self.text.lock().expect("unpoisoned").clone();
        let mut gate = self.gate.subscribe();
        gate.wait_for(|open| *open).await.expect("the gate stays");
        if self.broken.load(Ordering::SeqCst) {
            return Err(Broken);
        }
        if scope == Scope::Private {
            text = format!("{text} for {caller}");
        }
        Ok(Fetched {
            is_empty: text.is_empty(),
            payload: text.into(),
            ttl: *self.ttl.lock().expect("unpoisoned"),
            scope,
            storable: self.storable.load(Ordering::SeqCst),
        })
    }

    fn fetch(self: &Arc<Self>, caller: &'static str) -> Fetch<Broken> {
        let upstream = Arc::clone(self);
        Arc::new(move || Box::pin(Arc::clone(&upstream).answer(caller)))
    }
}

/// A node: a cache and its tasks.
struct Node {
    cache: Arc<Cache<Text>>,
    tasks: Tasks,
    store: Arc<dyn Store>,
}

impl Node {
    fn new(store: Arc<dyn Store>, settings: Settings, tasks: Tasks) -> Self {
        let cache = Cache::new(Arc::clone(&store), settings, tasks.clone());
        let following = Arc::clone(&cache).follow(tasks.stopping().clone());
        tasks.spawn("cache", following);
        Self {
            cache,
            tasks,
            store,
        }
    }

    async fn get(&self, upstream: &Arc<Upstream>) -> Served<Text> {
        self.ask("anyone", upstream, LONG_LIVED)
            .await
            .expect("an answer")
    }

    async fn ask(
        &self,
        caller: &'static str,
        upstream: &Arc<Upstream>,
        durations: Durations,
    ) -> Result<Served<Text>, CacheError<Broken>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let fetch = upstream.fetch(caller);
        self.cache
            .get(&key(caller), &durations, fetch, deadline)
            .await
    }
}

/// What nodes share.
struct Fleet {
    server: Option<RedisServer>,
    memory: Arc<MemoryStore>,
    redis: Option<RedisSettings>,
}

impl Fleet {
    fn embedded() -> Self {
        Self {
            server: None,
            memory: Arc::new(MemoryStore::new()),
            redis: None,
        }
    }

    fn on_redis() -> Self {
        let server = RedisServer::start();
        Self {
            redis: Some(server.settings()),
            server: Some(server),
            memory: Arc::new(MemoryStore::new()),
        }
    }

    async fn store(&self, tasks: &Tasks) -> Arc<dyn Store> {
        match (&self.server, &self.redis) {
            (Some(server), Some(settings)) => {
                let store = server.store(settings, tasks).await;
                eventually("redis answers", async || store.is_reachable()).await;
                Arc::new(store)
            }
            _ => Arc::clone(&self.memory) as Arc<dyn Store>,
        }
    }

    async fn node(&self) -> Node {
        self.node_with(settings()).await
    }

    async fn node_with(&self, settings: Settings) -> Node {
        let tasks = Tasks::new();
        let store = self.store(&tasks).await;
        let node = Node::new(store, settings, tasks);
        hears(&*node.store).await;
        node
    }

    async fn nodes(&self, count: usize) -> Vec<Node> {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(self.node().await);
        }
        nodes
    }

    fn redis_server(&mut self) -> &mut RedisServer {
        self.server.as_mut().expect("on redis")
    }
}

/// Waits until what is published is heard.
async fn hears(store: &dyn Store) {
    eventually("the node hears the store", async || {
        let mut events = store.subscribe();
        let hello = Bytes::from_static(b"hello");
        store
            .publish(Channel::Fleet, hello)
            .await
            .expect("reachable");
        let heard = async { while !matches!(events.recv().await, Ok(Event::Message { .. })) {} };
        timeout(Duration::from_millis(100), heard).await.is_ok()
    })
    .await;
}

fn settings() -> Settings {
    Settings {
        min_fresh: Duration::from_millis(1),
        lock_ttl: Duration::from_millis(1500),
        ..Settings::default()
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

const LONG_LIVED: Durations = Durations {
    fresh: Duration::from_secs(600),
    stale: Duration::from_secs(600),
    max_stale: HOUR,
};

/// Stale at once.
const SOON_STALE: Durations = Durations {
    fresh: MOMENT,
    stale: HOUR,
    max_stale: HOUR,
};

/// Expired at once.
const SOON_EXPIRED: Durations = Durations {
    fresh: MOMENT,
    stale: Duration::ZERO,
    max_stale: HOUR,
};

fn server() -> ServerId {
    ServerId::try_from("demo").expect("good name")
}

fn key(caller: &str) -> CacheKey {
    let principal = Principal::from_credential(caller.as_bytes());
    CacheKey::new(&server(), "tools/list", None, "", principal)
}

fn tools() -> Subject {
    Subject {
        server: server(),
        method: "tools/list",
        uri: None,
    }
}

/// Fills the cache and waits until the entry is `status` on this node.
async fn fill(node: &Node, upstream: &Arc<Upstream>, durations: Durations, status: CacheStatus) {
    node.ask("anyone", upstream, durations)
        .await
        .expect("an answer");
    eventually("the entry has aged", async || {
        let held = node.cache.peek(&key("anyone")).expect("in L1");
        held.status == status && (status == CacheStatus::Hit || held.age > 5 * MOMENT)
    })
    .await;
}
