//! A node's lists over scripted MCP servers on loopback.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router, extract::State, response::IntoResponse as _, response::Response, routing,
};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, time::Instant};

use crate::{
    balance::Policy,
    bridge::signer::Signer,
    cache::{self, Cache},
    certificates, config,
    ids::{NodeId, Principal, ServerId},
    lifecycle::Tasks,
    lists::{Caller, Lists, Settings, Target},
    mcp::{json, seal::Sealer},
    servers::{Endpoint, Replica, Server, Servers},
    store::memory::MemoryStore,
    telemetry::metrics::Metrics,
    upstream::{self, Upstreams},
};

/// What a scripted server answers: a result, or an error as `{"code",..}`.
pub(super) type Script = dyn Fn(&str, &Value) -> Result<Value, Value> + Send + Sync;

/// A scripted server of either era.
#[derive(Clone)]
pub(super) struct Fake {
    script: Arc<Script>,
    legacy: bool,
    delay: Duration,
    /// It lists no tools while this is closed.
    gate: Arc<watch::Sender<bool>>,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Fake {
    /// A modern server. Whatever it is asked it answers by `script`, but
    /// describes itself as having `capabilities`.
    pub(super) fn modern(
        capabilities: Value,
        script: impl Fn(&str, &Value) -> Result<Value, Value> + Send + Sync + 'static,
    ) -> Self {
        let described = move |method: &str, params: &Value| match method {
            "server/discover" => Ok(json!({
                "resultType": "complete",
                "supportedVersions": ["2026-07-28"],
                "capabilities": capabilities,
                "ttlMs": 60_000,
                "cacheScope": "public",
                "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "fake", "version": "1" } },
            })),
            _ => script(method, params),
        };
        Self::new(false, described)
    }

    /// A legacy server.
    pub(super) fn legacy(
        capabilities: Value,
        script: impl Fn(&str, &Value) -> Result<Value, Value> + Send + Sync + 'static,
    ) -> Self {
        let described = move |method: &str, params: &Value| match method {
            "initialize" => Ok(json!({
                "protocolVersion": "2025-11-25",
                "capabilities": capabilities,
                "serverInfo": { "name": "old", "version": "1" },
            })),
            "server/discover" => Err(json!({ "code": -32601, "message": "no such method" })),
            _ => script(method, params),
        };
        Self::new(true, described)
    }

    fn new(
        legacy: bool,
        script: impl Fn(&str, &Value) -> Result<Value, Value> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Arc::new(script),
            legacy,
            delay: Duration::ZERO,
            gate: Arc::new(watch::Sender::new(true)),
            asked: Arc::default(),
        }
    }

    pub(super) fn slow(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Lists no tools until it is [opened](Self::open).
    pub(super) fn gated(self) -> Self {
        self.gate.send_replace(false);
        self
    }

    pub(super) fn open(&self) {
        self.gate.send_replace(true);
    }

    /// How often it was asked that.
    pub(super) fn asked(&self, method: &str) -> usize {
        let asked = self.asked.lock().expect("no test panics here");
        asked.get(method).copied().unwrap_or(0)
    }

    async fn answer(&self, message: Value) -> Response {
        let method = message["method"].as_str().unwrap_or_default();
        *self
            .asked
            .lock()
            .expect("no test panics here")
            .entry(method.to_owned())
            .or_default() += 1;
        tokio::time::sleep(self.delay).await;
        if method == "tools/list" {
            let mut gate = self.gate.subscribe();
            gate.wait_for(|open| *open).await.expect("the gate stays");
        }
        if message.get("id").is_none() {
            return StatusCode::ACCEPTED.into_response();
        }
        let mut answer = json!({ "jsonrpc": "2.0", "id": message["id"] });
        match (self.script)(method, &message["params"]) {
            Ok(result) => answer["result"] = result,
            Err(error) => answer["error"] = error,
        }
        let mut response = Json(answer).into_response();
        if self.legacy && method == "initialize" {
            let id = "session-1".parse().expect("a header value");
            response.headers_mut().insert("mcp-session-id", id);
        }
        response
    }

    async fn start(&self, tasks: &Tasks) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer =
            async |State(fake): State<Self>, Json(message): Json<Value>| fake.answer(message).await;
        let app = Router::new()
            .route("/mcp", routing::post(answer))
            .with_state(self.clone());
        let stop = tasks.stopping().clone();
        tasks.spawn_brief(async move {
            let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
            served.await.expect("the fake serves");
        });
        address
    }
}

/// The lists of one node.
pub(super) struct Node {
    pub(super) lists: Arc<Lists>,
    servers: Arc<Servers>,
    tasks: Tasks,
}

/// A server of the node: fakes, or `None` for a replica nobody answers at.
pub(super) struct Known<'a>(pub(super) &'a str, pub(super) Vec<Option<&'a Fake>>);

/// The configuration most tests run with.
pub(super) fn config() -> config::Config {
    let mut config = config::Config::default();
    config.cache.page_size = 2;
    config.cache.list_deadline = Duration::from_millis(800);
    config.cache.fetch_timeout = Duration::from_secs(3);
    config.limits.list_pages = 5;
    config.limits.list_items = 10;
    config
}

pub(super) async fn node(config: &config::Config, known: Vec<Known<'_>>) -> Node {
    let tasks = Tasks::new();
    let mut servers = Vec::new();
    for Known(name, fakes) in known {
        let id = ServerId::try_from(name).expect("a good name");
        let mut replicas = Vec::new();
        for fake in fakes {
            let address = match fake {
                Some(fake) => fake.start(&tasks).await,
                None => closed_port().await,
            };
            let uri = format!("http://{address}/mcp").parse().expect("a URI");
            replicas.push(Arc::new(Replica::new(id.clone(), Endpoint::Http(uri), 1)));
        }
        // In turn, so that tests know who is asked first.
        let policy = Policy::RoundRobin;
        let timeout = Duration::from_secs(2).max(config.cache.fetch_timeout / 2);
        servers.push(Arc::new(Server::new(
            id, replicas, policy, timeout, "config",
        )));
    }
    let servers = Arc::new(Servers::new(servers));
    let store = Arc::new(MemoryStore::new());
    let metrics = Metrics::for_tests();
    let info = json::raw(&json!({ "name": "mcp-fleet", "version": "0" }));
    let upstreams = Upstreams::new(
        upstream::Settings {
            tls: Arc::new(certificates::client(None).expect("the authorities")),
            connect_timeout: Duration::from_secs(1),
            pool_idle: Duration::from_secs(10),
            max_idle_per_host: 8,
            verdict_horizon: Duration::from_secs(60),
            probe_timeout: Duration::from_secs(1),
            sessions_per_replica: 4,
            streams_per_replica: 1,
            process_idle: Duration::from_secs(60),
            dedicated_sessions: 10,
            session_idle: Duration::from_secs(10),
            max_message_bytes: 1 << 20,
            client_info: info.clone(),
            keep_dedicated: false,
            signer: Signer::new(NodeId::named("test"), &[7; 32]),
        },
        store.clone(),
        tasks.clone(),
        Arc::clone(&metrics),
    );
    let settings = cache::Settings {
        retry_first: Duration::from_millis(1),
        retry_empty: Duration::from_millis(1),
        fetch_limit: config.cache.fetch_timeout,
        l1_bytes: config.cache.memory,
        ..cache::Settings::default()
    };
    let cache = Cache::new(store, settings, tasks.clone());
    let follow = Arc::clone(&cache).follow(tasks.stopping().clone());
    tasks.spawn("cache", follow);
    let lists = Lists::new(
        upstreams,
        Arc::clone(&servers),
        cache,
        Sealer::new(&[1; 32]),
        Settings::new(&config.cache, &config.limits, info),
        metrics,
    );
    Node {
        lists: Arc::new(lists),
        servers,
        tasks,
    }
}

impl Node {
    pub(super) fn server(&self, name: &str) -> Arc<Server> {
        self.servers.get(name).expect("a known server")
    }

    pub(super) fn one(&self, name: &str) -> Target {
        Target::One(self.server(name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

pub(super) fn anyone() -> Caller {
    Caller::plain(Principal::ANONYMOUS)
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// An address where connections are refused.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    listener.local_addr().expect("an address")
}
