//! The shared cache: several nodes (each with its own L1 and, on Redis, its own
//! connections) over one store. What has to hold on every store runs on both.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
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
    sync::{broadcast, watch},
    time::{Instant, timeout},
};

use crate::support::{deaf::DeafStore, eventually, redis::RedisServer};

macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Fleet::embedded()).await; })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Fleet::on_redis()).await; })*
        }
    };
}

on_both_stores!(
    a_thousand_requests_on_an_expired_entry_fetch_once,
    a_thousand_requests_on_an_absent_entry_fetch_once,
    a_stale_entry_is_served_while_one_refresh_runs,
    a_hot_entry_is_refreshed_before_it_goes_stale,
    a_refresh_reaches_nodes_whose_copies_are_fresh,
    an_invalidation_reaches_the_other_nodes,
    an_invalidation_reaches_a_fetch_under_way,
    who_asks_after_an_invalidation_is_not_served_what_was_fetched_before,
    an_invalidation_of_one_resource_leaves_the_others,
    a_private_answer_is_for_its_principal_only,
    an_answer_that_turns_private_is_not_served_to_others,
    an_answer_that_turns_public_is_shared,
    a_writer_that_finishes_between_look_and_lock_is_noticed,
    waiting_nodes_are_woken_by_the_writer,
    a_failing_upstream_is_not_hammered,
    a_failure_on_one_node_is_a_pause_for_all,
    a_failed_refresh_keeps_the_old_entry_until_max_stale,
    an_empty_list_after_a_non_empty_one_is_checked_once,
    what_must_not_be_stored_is_not,
    a_caller_that_goes_away_does_not_cancel_the_fetch,
    a_fetch_that_panics_does_not_wedge_the_key,
    messages_that_were_missed_are_made_up_for,
    an_upstream_that_hangs_costs_the_deadline_and_no_more,
);

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

async fn a_thousand_requests_on_an_expired_entry_fetch_once(fleet: Fleet) {
    let nodes = fleet.nodes(5).await;
    let upstream = Upstream::new("old");
    fill(&nodes[0], &upstream, SOON_EXPIRED, CacheStatus::Stale).await;
    upstream.says("new");
    let asked = nodes
        .iter()
        .flat_map(|node| (0..200).map(|_| node.get(&upstream)));
    let begun = Instant::now();
    for served in join_all(asked).await {
        assert_eq!(served.value.0, "new");
    }
    println!("1000 requests on 5 nodes took {:?}", begun.elapsed());
    assert_eq!(upstream.fetches(), 2, "one to fill, one for all");
}

async fn a_thousand_requests_on_an_absent_entry_fetch_once(fleet: Fleet) {
    let nodes = fleet.nodes(5).await;
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let asked = nodes
        .iter()
        .flat_map(|node| (0..200).map(|_| node.get(&upstream)));
    let open = async {
        eventually("the fetch begins", async || upstream.fetches() > 0).await;
        // Longer than the lock's time to live: the holder renews it.
        tokio::time::sleep(2 * settings().lock_ttl).await;
        upstream.opens(true);
    };
    let (served, ()) = tokio::join!(join_all(asked), open);
    assert!(served.iter().all(|served| served.value.0 == "x"));
    assert_eq!(upstream.fetches(), 1);
}

async fn a_stale_entry_is_served_while_one_refresh_runs(fleet: Fleet) {
    let nodes = fleet.nodes(3).await;
    let upstream = Upstream::new("old");
    fill(&nodes[0], &upstream, SOON_STALE, CacheStatus::Stale).await;
    upstream.says("new");
    upstream.opens(false);
    for _ in 0..50 {
        for served in join_all(nodes.iter().map(|node| node.get(&upstream))).await {
            assert_eq!(served.value.0, "old");
            assert_eq!(served.status, CacheStatus::Stale);
            assert_eq!(served.remaining, Duration::ZERO);
        }
    }
    eventually("a refresh runs", async || upstream.fetches() == 2).await;
    upstream.opens(true);
    for node in &nodes {
        eventually("the refreshed entry is served", async || {
            let served = node.get(&upstream).await;
            served.value.0 == "new" && served.status == CacheStatus::Hit
        })
        .await;
    }
    assert_eq!(upstream.fetches(), 2);
}

async fn a_hot_entry_is_refreshed_before_it_goes_stale(fleet: Fleet) {
    let eager = Settings {
        early_refresh: 50.0,
        ..settings()
    };
    let node = fleet.node_with(eager).await;
    let upstream = Upstream::new("x");
    let brief = Durations {
        fresh: Duration::from_millis(1500),
        ..LONG_LIVED
    };
    let end = Instant::now() + Duration::from_secs(5);
    let mut last = Instant::now();
    while Instant::now() < end {
        // Traffic is steady only while this machine is.
        let steady = last.elapsed() < Duration::from_millis(50);
        last = Instant::now();
        let served = node
            .ask("anyone", &upstream, brief)
            .await
            .expect("an answer");
        assert!(
            served.status != CacheStatus::Stale || !steady,
            "aged {:?}",
            served.age
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let fetches = upstream.fetches();
    assert!(
        (3..=8).contains(&fetches),
        "{fetches} fetches in three lives"
    );
}

async fn a_refresh_reaches_nodes_whose_copies_are_fresh(fleet: Fleet) {
    let eager = Settings {
        early_refresh: 1000.0,
        ..settings()
    };
    let lazy = Settings {
        early_refresh: 0.0,
        ..settings()
    };
    let (eager, lazy) = (fleet.node_with(eager).await, fleet.node_with(lazy).await);
    let upstream = Upstream::new("old");
    let fresh = Duration::from_secs(3);
    let brief = Durations {
        fresh,
        ..LONG_LIVED
    };
    for node in [&eager, &lazy] {
        fill(node, &upstream, brief, CacheStatus::Hit).await;
    }
    upstream.says("new");
    let end = Instant::now() + fresh - Duration::from_millis(200);
    loop {
        eager
            .ask("anyone", &upstream, brief)
            .await
            .expect("an answer");
        let served = lazy
            .ask("anyone", &upstream, brief)
            .await
            .expect("an answer");
        assert_eq!(served.status, CacheStatus::Hit);
        if served.value.0 == "new" {
            break;
        }
        assert!(Instant::now() < end, "it was not told of the refresh");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(upstream.fetches(), 2);
}

async fn an_invalidation_reaches_the_other_nodes(fleet: Fleet) {
    let nodes = fleet.nodes(3).await;
    let upstream = Upstream::new("old");
    for node in &nodes {
        fill(node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    }
    assert_eq!(upstream.fetches(), 1);
    upstream.says("new");
    nodes[0].cache.invalidate(&tools()).await;
    let served = nodes[0].get(&upstream).await;
    assert_eq!(served.value.0, "new");
    for node in &nodes {
        eventually("the other nodes know", async || {
            node.get(&upstream).await.value.0 == "new"
        })
        .await;
    }
    assert_eq!(upstream.fetches(), 2);
    // A node that comes now finds the new entry.
    let late = fleet.node().await;
    let served = late.get(&upstream).await;
    assert_eq!(
        (served.value.0.as_str(), served.status),
        ("new", CacheStatus::Hit)
    );
}

async fn an_invalidation_reaches_a_fetch_under_way(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("old");
    upstream.opens(false);
    let change = async {
        eventually("the fetch begins", async || upstream.fetches() == 1).await;
        upstream.says("new");
        nodes[1].cache.invalidate(&tools()).await;
        upstream.opens(true);
    };
    let (before, ()) = tokio::join!(nodes[0].get(&upstream), change);
    assert_eq!(before.value.0, "old", "it was asked before the change");
    for node in nodes.iter().rev() {
        assert_eq!(node.get(&upstream).await.value.0, "new");
    }
    assert_eq!(upstream.fetches(), 2);
}

async fn who_asks_after_an_invalidation_is_not_served_what_was_fetched_before(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("old");
    upstream.opens(false);
    let change = async {
        eventually("the fetch begins", async || upstream.fetches() == 1).await;
        upstream.says("new");
        node.cache.invalidate(&tools()).await;
        // Joins the flight that asked before the change.
        let asked = node.get(&upstream);
        let open = async { upstream.opens(true) };
        tokio::join!(asked, open).0
    };
    let (_, after) = tokio::join!(node.get(&upstream), change);
    assert_eq!(after.value.0, "new");
}

async fn an_invalidation_of_one_resource_leaves_the_others(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("old");
    let read = async |node: &Node, uri: &str| {
        let key = CacheKey::new(
            &server(),
            "resources/read",
            Some(uri),
            "",
            Principal::ANONYMOUS,
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        let fetch = upstream.fetch("anyone");
        let served = node.cache.get(&key, &LONG_LIVED, fetch, deadline).await;
        served.expect("an answer").value.0.clone()
    };
    for node in &nodes {
        for uri in ["file:///1", "file:///2"] {
            assert_eq!(read(node, uri).await, "old");
        }
    }
    upstream.says("new");
    let mut changed = Subject {
        server: server(),
        method: "resources/read",
        uri: Some("file:///1".to_owned()),
    };
    nodes[0].cache.invalidate(&changed).await;
    for node in &nodes {
        eventually("the change is seen", async || {
            read(node, "file:///1").await == "new"
        })
        .await;
        assert_eq!(read(node, "file:///2").await, "old");
    }
    changed.uri = None;
    nodes[0].cache.invalidate(&changed).await;
    for node in &nodes {
        eventually("the change is seen", async || {
            read(node, "file:///2").await == "new"
        })
        .await;
    }
}

const CALLERS: [&str; 6] = ["anna", "boris", "chandra", "dilek", "emeka", "fatima"];

async fn a_private_answer_is_for_its_principal_only(fleet: Fleet) {
    let nodes = fleet.nodes(3).await;
    let upstream = Upstream::new("tools");
    upstream.scope(Scope::Private);
    // All at once, when nobody knows yet that answers are private; then again
    // from L1 and from the store.
    for round in 0..3 {
        let asked = nodes.iter().flat_map(|node| {
            let upstream = &upstream;
            (0..60).map(move |n| async move {
                let caller = CALLERS[n % CALLERS.len()];
                let served = node.ask(caller, upstream, LONG_LIVED).await;
                (caller, served.expect("an answer"))
            })
        });
        for (caller, served) in join_all(asked).await {
            assert_eq!(served.value.0, format!("tools for {caller}"));
            assert_eq!(served.scope, Scope::Private);
            if round > 0 {
                assert_eq!(served.status, CacheStatus::Hit);
            }
        }
    }
    for node in &nodes {
        for caller in CALLERS {
            let held = node.cache.peek(&key(caller)).expect("in L1");
            assert_eq!(held.value.0, format!("tools for {caller}"));
        }
        assert!(node.cache.peek(&key("a stranger")).is_none());
    }
    let callers = u32::try_from(CALLERS.len()).expect("few");
    assert_eq!(upstream.fetches(), callers, "one per principal");
}

async fn an_answer_that_turns_private_is_not_served_to_others(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("tools");
    for node in &nodes {
        assert_eq!(node.get(&upstream).await.value.0, "tools");
    }
    upstream.scope(Scope::Private);
    nodes[0].cache.invalidate(&tools()).await;
    for (node, caller) in [(0, "anna"), (0, "boris"), (1, "chandra"), (1, "anna")] {
        eventually("the private answer is served", async || {
            let served = nodes[node].ask(caller, &upstream, LONG_LIVED).await;
            served.expect("an answer").value.0 == format!("tools for {caller}")
        })
        .await;
    }
    for caller in CALLERS {
        for node in &nodes {
            let served = node.ask(caller, &upstream, LONG_LIVED).await;
            assert_eq!(
                served.expect("an answer").value.0,
                format!("tools for {caller}")
            );
        }
    }
}

async fn an_answer_that_turns_public_is_shared(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("tools");
    upstream.scope(Scope::Private);
    for node in &nodes {
        for caller in CALLERS {
            node.ask(caller, &upstream, LONG_LIVED)
                .await
                .expect("an answer");
        }
    }
    upstream.scope(Scope::Public);
    nodes[0].cache.invalidate(&tools()).await;
    let served = nodes[0].ask("anna", &upstream, LONG_LIVED).await;
    assert_eq!(served.expect("an answer").value.0, "tools");
    let fetches = upstream.fetches();
    for caller in CALLERS {
        for node in &nodes {
            eventually("all share the answer", async || {
                let served = node.ask(caller, &upstream, LONG_LIVED).await;
                served.expect("an answer").value.0 == "tools"
            })
            .await;
        }
    }
    assert_eq!(upstream.fetches(), fetches);
}

async fn a_writer_that_finishes_between_look_and_lock_is_noticed(fleet: Fleet) {
    let tasks = Tasks::new();
    let (staged, _events) = DeafStore::new(fleet.store(&tasks).await);
    let staged = Arc::new(staged);
    let node = Node::new(Arc::clone(&staged) as Arc<dyn Store>, settings(), tasks);
    let other = fleet.node().await;
    let upstream = Upstream::new("x");
    let pause = staged.pause_before_lock();
    let meanwhile = async {
        pause.reached.notified().await;
        other.get(&upstream).await;
        pause.go_on.notify_one();
    };
    let (served, ()) = tokio::join!(node.get(&upstream), meanwhile);
    assert_eq!(served.value.0, "x");
    assert_eq!(upstream.fetches(), 1);
}

async fn waiting_nodes_are_woken_by_the_writer(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let mut waited = Duration::ZERO;
    for _ in 0..5 {
        let upstream = Upstream::new("x");
        upstream.opens(false);
        nodes[0].cache.invalidate(&tools()).await;
        let open = async {
            eventually("one fetches", async || upstream.fetches() == 1).await;
            tokio::time::sleep(20 * MOMENT).await;
            upstream.opens(true);
            Instant::now()
        };
        let asked = nodes.iter().map(|node| node.get(&upstream));
        let (_, opened) = tokio::join!(join_all(asked), open);
        waited += opened.elapsed();
        assert_eq!(upstream.fetches(), 1);
    }
    println!("woken after {:?} on average", waited / 5);
    // Without the wake-up it is half a second each time.
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

async fn a_failure_on_one_node_is_a_pause_for_all(fleet: Fleet) {
    let patient = Settings {
        retry_first: Duration::from_millis(800),
        ..settings()
    };
    let first = fleet.node_with(patient.clone()).await;
    let second = fleet.node_with(patient).await;
    let upstream = Upstream::new("x");
    upstream.breaks(true);
    let failed = first.ask("anyone", &upstream, LONG_LIVED).await;
    failed.expect_err("the upstream is broken");
    let begun = Instant::now();
    let failed = second.ask("anyone", &upstream, LONG_LIVED).await;
    assert!(
        matches!(failed, Err(CacheError::Fetch(Broken))),
        "its own failure"
    );
    assert_eq!(upstream.fetches(), 2);
    let paused = begun.elapsed();
    assert!(paused > Duration::from_millis(300), "{paused:?}");
}

async fn a_failing_upstream_is_not_hammered(fleet: Fleet) {
    let nodes = fleet.nodes(3).await;
    let upstream = Upstream::new("x");
    upstream.breaks(true);
    let end = Instant::now() + Duration::from_secs(2);
    let asks = nodes.iter().flat_map(|node| {
        let upstream = &upstream;
        (0..10).map(move |_| async move {
            while Instant::now() < end {
                let error = node.ask("anyone", upstream, LONG_LIVED).await;
                let error = error.expect_err("the upstream is broken");
                assert!(matches!(error, CacheError::Fetch(Broken)), "{error}");
            }
        })
    });
    join_all(asks).await;
    let fetches = upstream.fetches();
    println!("{fetches} fetches in 2 s by 30 callers that ask again at once");
    assert!((3..=40).contains(&fetches), "{fetches}");
    upstream.breaks(false);
    let mended = Instant::now();
    eventually("it is used again", async || {
        let served = nodes[0].ask("anyone", &upstream, LONG_LIVED).await;
        served.is_ok()
    })
    .await;
    assert!(mended.elapsed() < Duration::from_secs(4));
}

async fn a_failed_refresh_keeps_the_old_entry_until_max_stale(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("old");
    let life = Duration::from_millis(1500);
    let brief = Durations {
        max_stale: life,
        ..SOON_EXPIRED
    };
    let born = Instant::now();
    fill(&node, &upstream, brief, CacheStatus::Stale).await;
    upstream.breaks(true);
    let mut served_stale = 0;
    loop {
        let asked = Instant::now();
        match node.ask("anyone", &upstream, brief).await {
            Ok(served) => {
                assert_eq!(served.status, CacheStatus::Stale);
                // When it was asked for; the answer may have taken a while on a busy machine.
                let age = served.age.saturating_sub(asked.elapsed());
                assert!(age < life, "served at {age:?}");
                assert!(asked.elapsed() < Duration::from_secs(2));
                served_stale += 1;
            }
            Err(error) => {
                assert!(matches!(error, CacheError::Fetch(Broken)), "{error}");
                assert!(born.elapsed() >= life, "gone after {:?}", born.elapsed());
                break;
            }
        }
        tokio::time::sleep(MOMENT).await;
    }
    assert!(served_stale > 100, "{served_stale}");
    let fetches = upstream.fetches();
    assert!(fetches < 20, "{fetches} fetches while it failed");
}

async fn an_empty_list_after_a_non_empty_one_is_checked_once(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("tools");
    fill(&node, &upstream, SOON_EXPIRED, CacheStatus::Stale).await;
    upstream.says("");
    let served = node.get(&upstream).await;
    assert_eq!(served.value.0, "");
    assert_eq!(upstream.fetches(), 3, "fill, empty, and once more");
    node.cache.invalidate(&tools()).await;
    node.get(&upstream).await;
    assert_eq!(upstream.fetches(), 4, "empty after empty is believed");
}

async fn what_must_not_be_stored_is_not(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("partial");
    upstream.storable.store(false, Ordering::SeqCst);
    for node in &nodes {
        let served = node.get(&upstream).await;
        assert_eq!(served.value.0, "partial");
        assert_eq!(served.status, CacheStatus::Bypass);
        assert!(node.cache.peek(&key("anyone")).is_none());
    }
    assert_eq!(upstream.fetches(), 2);
    // It does not replace what is stored either.
    upstream.storable.store(true, Ordering::SeqCst);
    upstream.says("whole");
    assert_eq!(nodes[0].get(&upstream).await.value.0, "whole");
    upstream.storable.store(false, Ordering::SeqCst);
    upstream.says("partial");
    nodes[0].cache.invalidate(&tools()).await;
    assert_eq!(nodes[0].get(&upstream).await.value.0, "partial");
    assert_eq!(
        nodes[0].cache.peek(&key("anyone")).expect("kept").value.0,
        "whole"
    );
}

async fn a_caller_that_goes_away_does_not_cancel_the_fetch(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let impatient = timeout(Duration::from_millis(50), node.get(&upstream)).await;
    assert!(impatient.is_err());
    eventually("the fetch began", async || upstream.fetches() == 1).await;
    upstream.opens(true);
    eventually("the fetch is used", async || {
        node.cache.peek(&key("anyone")).is_some()
    })
    .await;
    assert_eq!(node.get(&upstream).await.status, CacheStatus::Hit);
    assert_eq!(upstream.fetches(), 1);
}

async fn a_fetch_that_panics_does_not_wedge_the_key(fleet: Fleet) {
    // A crash leaves the lock to its time to live; here it is not that which
    // makes the next fetch wait.
    let brief = Settings {
        lock_ttl: 20 * MOMENT,
        ..settings()
    };
    let node = fleet.node_with(brief).await;
    let upstream = Upstream::new("x");
    let panics = Arc::new(AtomicU32::new(0));
    let fetch: Fetch<Broken> = {
        let (upstream, panics) = (Arc::clone(&upstream), Arc::clone(&panics));
        Arc::new(move || {
            let crash = panics.fetch_add(1, Ordering::SeqCst) < 2;
            let answer = Arc::clone(&upstream).answer("anyone");
            Box::pin(async move {
                assert!(!crash, "a bug in the fetch, on purpose");
                answer.await
            })
        })
    };
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(10);
    let served = node
        .cache
        .get(&key("anyone"), &LONG_LIVED, fetch, deadline)
        .await;
    assert_eq!(served.expect("an answer").value.0, "x");
    assert_eq!(panics.load(Ordering::SeqCst), 3);
    // A crash is a failure: the next fetch waits.
    assert!(begun.elapsed() > settings().retry_first);
}

async fn messages_that_were_missed_are_made_up_for(fleet: Fleet) {
    let tasks = Tasks::new();
    let (deaf, events) = DeafStore::new(fleet.store(&tasks).await);
    let node = Node::new(Arc::new(deaf), settings(), tasks);
    let other = fleet.node().await;
    let upstream = Upstream::new("old");
    fill(&node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    // Something changes while this node hears nothing.
    upstream.says("new");
    other.cache.invalidate(&tools()).await;
    assert_eq!(other.get(&upstream).await.value.0, "new");
    let unaware = node.get(&upstream).await;
    assert_eq!(
        (unaware.value.0.as_str(), unaware.status),
        ("old", CacheStatus::Hit)
    );
    // It learns that it may have missed something; not what.
    send(&events, Event::Gap);
    eventually("the change is seen", async || {
        node.get(&upstream).await.value.0 == "new"
    })
    .await;
    assert_eq!(upstream.fetches(), 2, "the new entry came from the store");

    // Nothing has changed: the copies are good again, without a fetch.
    send(&events, Event::Gap);
    eventually("served again", async || {
        node.get(&upstream).await.status == CacheStatus::Hit
    })
    .await;
    assert_eq!(upstream.fetches(), 2);
}

fn send(events: &broadcast::Sender<Event>, event: Event) {
    events.send(event).expect("the node follows");
}

async fn an_upstream_that_hangs_costs_the_deadline_and_no_more(fleet: Fleet) {
    let node = fleet.node().await;
    let upstream = Upstream::new("old");
    upstream.opens(false);
    let ask = async || {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(300);
        let fetch = upstream.fetch("anyone");
        let served = node
            .cache
            .get(&key("anyone"), &SOON_EXPIRED, fetch, deadline)
            .await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        served
    };
    let error = ask().await.expect_err("nothing to serve");
    assert!(matches!(error, CacheError::TimedOut { .. }), "{error}");
    upstream.opens(true);
    eventually("the entry has come and aged", async || {
        let held = node.cache.peek(&key("anyone"));
        held.is_some_and(|held| held.age > 5 * MOMENT)
    })
    .await;
    upstream.opens(false);
    let served = ask().await.expect("the old entry");
    assert_eq!(served.status, CacheStatus::Stale);
}

// What needs a Redis of its own.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_entry_costs_no_store_command() {
    let fleet = Fleet::on_redis();
    let node = fleet.node().await;
    let upstream = Upstream::new("x");
    fill(&node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    let server = fleet.server.as_ref().expect("on redis");
    let before = server.commands_run();
    let key = key("anyone");
    let fetch = upstream.fetch("anyone");
    let count = 20_000;
    let begun = std::time::Instant::now();
    for _ in 0..count {
        let deadline = Instant::now() + HOUR;
        let served = node
            .cache
            .get(&key, &LONG_LIVED, Arc::clone(&fetch), deadline)
            .await;
        assert_eq!(served.expect("an answer").status, CacheStatus::Hit);
    }
    println!("{:?} per hit in L1 (test build)", begun.elapsed() / count);
    assert_eq!(server.commands_run(), before);
}

/// Runs a node in a runtime of its own, which can be stopped in mid-air or
/// blocked as a whole.
struct Lonely {
    runtime: tokio::runtime::Runtime,
    node: Node,
}

fn lonely(server: &RedisServer, settings_of: &RedisSettings) -> Lonely {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let node = runtime.block_on(async {
        let tasks = Tasks::new();
        let store = Arc::new(server.store(settings_of, &tasks).await);
        hears(&*store).await;
        Node::new(store, settings(), tasks)
    });
    Lonely { runtime, node }
}

#[test]
fn a_writer_paused_past_its_lock_does_not_overwrite_newer_data() {
    let server = RedisServer::start();
    let redis = server.settings();
    let paused = lonely(&server, &redis);
    let next = lonely(&server, &redis);
    let upstream = Upstream::new("old");
    // The fetch blocks the only thread of its node, as SIGSTOP would: nothing
    // there runs, neither the renewal of the lock nor the following of events.
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let resumed = Mutex::new(resumed);
    let (began, begun) = std::sync::mpsc::channel();
    let blocked = Arc::new(AtomicBool::new(false));
    let fetch: Fetch<Broken> = {
        let upstream = Arc::clone(&upstream);
        let resumed = Arc::new(resumed);
        Arc::new(move || {
            let answer = Arc::clone(&upstream).answer("anyone");
            let (resumed, began) = (Arc::clone(&resumed), began.clone());
            let first = !blocked.swap(true, Ordering::SeqCst);
            Box::pin(async move {
                let fetched = answer.await;
                if first {
                    began.send(()).expect("the test waits");
                    resumed
                        .lock()
                        .expect("unpoisoned")
                        .recv()
                        .expect("the test resumes");
                }
                fetched
            })
        })
    };
    let cache = Arc::clone(&paused.node.cache);
    let asked = paused.runtime.spawn(async move {
        let deadline = Instant::now() + Duration::from_secs(20);
        cache
            .get(&key("anyone"), &LONG_LIVED, fetch, deadline)
            .await
    });
    begun.recv().expect("the fetch begins");
    upstream.says("new");
    // The other node takes over when the lock has ended, and writes.
    let taken_over = next.runtime.block_on(next.node.get(&upstream));
    assert_eq!(taken_over.value.0, "new");
    resume.send(()).expect("the fetch waits");
    let late = next
        .runtime
        .block_on(asked)
        .expect("no panic")
        .expect("an answer");
    assert_eq!(late.value.0, "new", "the paused node adopts what is newer");
    assert_eq!(paused.node.cache.counters().writes_refused.get(), 1);
    let third = lonely(&server, &redis);
    for node in [&paused, &next, &third] {
        let served = node.runtime.block_on(node.node.get(&upstream));
        assert_eq!(served.value.0, "new");
    }
    assert_eq!(upstream.fetches(), 2);
}

#[test]
fn a_waiter_takes_over_when_the_holder_dies() {
    let server = RedisServer::start();
    let redis = server.settings();
    let dying = lonely(&server, &redis);
    let waiting = lonely(&server, &redis);
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let cache = Arc::clone(&dying.node.cache);
    let fetch = upstream.fetch("anyone");
    dying.runtime.spawn(async move {
        let deadline = Instant::now() + HOUR;
        cache
            .get(&key("anyone"), &LONG_LIVED, fetch, deadline)
            .await
            .ok();
    });
    let begun = std::time::Instant::now();
    while upstream.fetches() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "no fetch");
        std::thread::sleep(MOMENT);
    }
    // Dies with everything it runs; nothing is given back.
    dying.runtime.shutdown_background();
    upstream.opens(true);
    let died = std::time::Instant::now();
    let served = waiting.runtime.block_on(waiting.node.get(&upstream));
    let took = died.elapsed();
    println!(
        "taken over after {took:?} with a lock of {:?}",
        settings().lock_ttl
    );
    assert_eq!(served.value.0, "x");
    assert_eq!(upstream.fetches(), 2);
    assert!(took < 2 * settings().lock_ttl, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_nodes_serve_what_they_have_and_fetch_once_each() {
    let mut fleet = Fleet::on_redis();
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("known");
    for node in &nodes {
        fill(node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    }
    fleet.redis_server().kill();
    for node in &nodes {
        let served = node.get(&upstream).await;
        assert_eq!(
            (served.value.0.as_str(), served.status),
            ("known", CacheStatus::Hit)
        );
        eventually("the circuit opens", async || !node.store.is_reachable()).await;
    }
    // A miss: one flight per node, however many ask.
    let prompts = |node: &'static str| {
        CacheKey::new(&server(), "prompts/list", None, node, Principal::ANONYMOUS)
    };
    let fetches = upstream.fetches();
    let asked = nodes.iter().flat_map(|node| {
        let upstream = &upstream;
        (0..100).map(move |_| async move {
            let deadline = Instant::now() + Duration::from_secs(10);
            let fetch = upstream.fetch("anyone");
            let served = node
                .cache
                .get(&prompts(""), &LONG_LIVED, fetch, deadline)
                .await;
            served.expect("an answer")
        })
    });
    let begun = Instant::now();
    join_all(asked).await;
    println!(
        "200 misses on 2 nodes without redis took {:?}",
        begun.elapsed()
    );
    assert_eq!(upstream.fetches(), fetches + 2);
    // An invalidation without the store: this node at once, the others when
    // the store is back.
    upstream.says("changed");
    nodes[0].cache.invalidate(&tools()).await;
    assert_eq!(nodes[0].get(&upstream).await.value.0, "changed");
    assert_eq!(nodes[1].get(&upstream).await.value.0, "known");
    let all_prompts = Subject {
        method: "prompts/list",
        ..tools()
    };
    nodes[0].cache.invalidate(&all_prompts).await;

    // Back, and empty: the nodes put back what they have, and nobody fetches.
    let fetches = upstream.fetches();
    fleet.redis_server().run();
    for node in &nodes {
        eventually("the circuit closes", async || node.store.is_reachable()).await;
    }
    eventually("the other node knows of the change", async || {
        nodes[1].get(&upstream).await.value.0 == "changed"
    })
    .await;
    eventually(
        "the other node knows of what was not fetched anew",
        async || {
            let deadline = Instant::now() + Duration::from_secs(10);
            let fetch = upstream.fetch("anyone");
            let key = prompts("");
            let served = nodes[1].cache.get(&key, &LONG_LIVED, fetch, deadline).await;
            served.expect("an answer").value.0 == "changed"
        },
    )
    .await;
    let after = upstream.fetches();
    assert!(after <= fetches + 2, "{after} after {fetches}: a stampede");
    let written = |name: &str| {
        fleet
            .server
            .as_ref()
            .expect("on redis")
            .cli(&["keys", name])
    };
    eventually("the entries are back", async || {
        written("*:entry:*")
            .lines()
            .filter(|line| !line.is_empty())
            .count()
            == 2
    })
    .await;
    let late = fleet.node().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let fetch = upstream.fetch("anyone");
    let served = late
        .cache
        .get(&prompts(""), &LONG_LIVED, fetch, deadline)
        .await;
    assert_eq!(served.expect("an answer").status, CacheStatus::Hit);
    assert_eq!(late.get(&upstream).await.value.0, "changed");
    assert_eq!(upstream.fetches(), after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_redis_delays_a_miss_by_its_time_out_and_hits_by_nothing() {
    let fleet = Fleet::on_redis();
    let node = fleet.node().await;
    let upstream = Upstream::new("x");
    fill(&node, &upstream, LONG_LIVED, CacheStatus::Hit).await;
    fleet.server.as_ref().expect("on redis").pause();
    let begun = Instant::now();
    assert_eq!(node.get(&upstream).await.status, CacheStatus::Hit);
    assert!(begun.elapsed() < Duration::from_millis(200));
    let miss = |n: u32| {
        CacheKey::new(
            &server(),
            "tools/list",
            None,
            &n.to_string(),
            Principal::ANONYMOUS,
        )
    };
    let mut times = Vec::new();
    for n in 0..20 {
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(10);
        let fetch = upstream.fetch("anyone");
        let served = node.cache.get(&miss(n), &LONG_LIVED, fetch, deadline).await;
        served.expect("an answer");
        times.push(begun.elapsed());
    }
    println!("misses while redis hangs: {times:?}");
    assert!(times[0] < Duration::from_secs(2), "{times:?}");
    let slow = times
        .iter()
        .filter(|time| **time > Duration::from_millis(200))
        .count();
    assert!(slow <= 4, "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_end_when_the_node_stops() {
    let fleet = Fleet::on_redis();
    let node = fleet.node().await;
    let upstream = Upstream::new("x");
    node.get(&upstream).await;
    node.tasks.stop();
    timeout(Duration::from_secs(3), node.tasks.finished())
        .await
        .expect("all tasks end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_does_not_wait_for_fetches_nobody_waits_for() {
    let fleet = Fleet::embedded();
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let impatient = timeout(Duration::from_millis(50), nodes[0].get(&upstream)).await;
    assert!(impatient.is_err());
    nodes[0].tasks.stop();
    timeout(Duration::from_secs(3), nodes[0].tasks.finished())
        .await
        .expect("all tasks end");
    upstream.opens(true);
    let begun = Instant::now();
    nodes[1].get(&upstream).await;
    assert!(
        begun.elapsed() < settings().lock_ttl,
        "the lock was given back"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_fetches_at_once_are_refused() {
    let fleet = Fleet::embedded();
    let few = Settings {
        max_flights: 3,
        ..settings()
    };
    let node = fleet.node_with(few).await;
    let upstream = Upstream::new("x");
    upstream.opens(false);
    let asks = (0..10).map(|n: u32| {
        let key = CacheKey::new(
            &server(),
            "tools/list",
            None,
            &n.to_string(),
            Principal::ANONYMOUS,
        );
        let (node, upstream) = (&node, &upstream);
        async move {
            let deadline = Instant::now() + Duration::from_secs(10);
            let fetch = upstream.fetch("anyone");
            node.cache.get(&key, &LONG_LIVED, fetch, deadline).await
        }
    });
    let open = async {
        eventually("three fetches", async || upstream.fetches() == 3).await;
        upstream.opens(true);
    };
    let (answers, ()) = tokio::join!(join_all(asks), open);
    let refused = answers
        .iter()
        .filter(|answer| matches!(answer, Err(CacheError::Busy { .. })))
        .count();
    assert_eq!(refused, 7);
}

#[test]
fn slots_do_not_run_together() {
    let keys: HashSet<String> = [
        ("a", "tools/list", None, ""),
        ("a", "tools/list", None, "v"),
        ("a", "tools/list", Some(""), ""),
        ("a", "tools/list", Some("v"), ""),
        ("a", "prompts/list", None, ""),
        ("b", "tools/list", None, ""),
    ]
    .into_iter()
    .map(|(name, method, uri, variant)| {
        let server = ServerId::try_from(name).expect("good name");
        let key = CacheKey::new(&server, method, uri, variant, Principal::ANONYMOUS);
        format!("{key:?}")
    })
    .collect();
    assert_eq!(keys.len(), 6);
}
