//! Reaching replicas of every era, real ones (rmcp) and misbehaving ones.

pub(crate) mod eras;
mod exchange;
mod legacy_sessions;
mod misbehaviour;
mod real_servers;
mod stdio;
mod watch;

use std::{borrow::Borrow, collections::BTreeSet, num::NonZeroUsize, sync::Arc, time::Duration};

use mcp_fleet::{
    bridge::signer::Signer,
    certificates,
    ids::{NodeId, ServerId},
    lifecycle::Tasks,
    mcp::{Raw, capabilities::ClientCapabilities, json::raw, message::Answer, version::Version},
    servers::{Endpoint, Replica, StdioCommand},
    store::{Store, memory::MemoryStore},
    telemetry::metrics::Metrics,
    upstream::{
        ClientSession, Confirmed, Event, Exchange, Outgoing, Resources, SessionUse, Settings,
        UpstreamError, Upstreams,
    },
};
use serde_json::{Value, json};
use tokio::{sync::watch as watch_channel, time::Instant};

/// A node's side toward one replica.
pub(crate) struct Side {
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) tasks: Tasks,
}

pub(crate) fn settings() -> Settings {
    Settings {
        tls: Arc::new(certificates::client(None).expect("the authorities")),
        connect_timeout: Duration::from_secs(2),
        pool_idle: Duration::from_secs(30),
        max_idle_per_host: 32,
        verdict_horizon: Duration::from_secs(600),
        probe_timeout: Duration::from_secs(2),
        sessions_per_replica: 8,
        streams_per_replica: 4,
        dedicated_sessions: 100,
        session_idle: Duration::from_secs(60),
        process_idle: Duration::from_secs(60),
        max_message_bytes: 1024 * 1024,
        client_info: raw(&json!({"name": "test-node", "version": "0"})),
        keep_dedicated: false,
        signer: Signer::new(NodeId::named("test-node"), &[7; 32]),
    }
}

/// What a watch is about, where nobody asks what was confirmed.
pub(crate) fn wanted(wanted: watch_channel::Receiver<BTreeSet<String>>) -> Resources {
    Resources {
        wanted,
        confirmed: watch_channel::Sender::new(Confirmed::Nothing),
    }
}

fn server_id() -> ServerId {
    ServerId::try_from("upstream").expect("a good name")
}

impl Side {
    pub(crate) fn http(url: &str) -> Self {
        Self::with(url, settings(), Arc::new(MemoryStore::new()))
    }

    pub(crate) fn with(url: &str, settings: Settings, store: Arc<dyn Store>) -> Self {
        let uri = url.parse().expect("a good URL");
        Self::of(Endpoint::Http(uri), settings, store)
    }

    pub(crate) fn stdio(argv: &[&str]) -> Self {
        let command = StdioCommand {
            argv: argv.iter().map(ToString::to_string).collect(),
            max_processes: NonZeroUsize::new(4).expect("not zero"),
            ..StdioCommand::default()
        };
        let store = Arc::new(MemoryStore::new());
        Self::of(Endpoint::Stdio(command), settings(), store)
    }

    pub(crate) fn of(endpoint: Endpoint, settings: Settings, store: Arc<dyn Store>) -> Self {
        let tasks = Tasks::new();
        let metrics = Metrics::for_tests();
        Self {
            upstreams: Upstreams::new(settings, store, tasks.clone(), metrics),
            replica: Arc::new(Replica::new(server_id(), endpoint, 1)),
            tasks,
        }
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        params: Value,
        capabilities: impl Borrow<Value>,
        session: SessionUse,
    ) -> Result<Exchange, UpstreamError> {
        let params = raw(&params);
        let capabilities = caps(capabilities.borrow());
        let request = Outgoing {
            method,
            params: Some(&params),
            capabilities: &capabilities,
            log_level: None,
            progress_token: None,
            trace: Default::default(),
            headers: Vec::new(),
        };
        self.upstreams
            .call(&self.replica, request, session, soon())
            .await
    }

    /// A pooled request by a client that cannot be asked anything.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Result<Value, UpstreamError> {
        let exchange = self
            .call(method, params, json!({}), SessionUse::Pooled)
            .await?;
        answer_of(exchange).await
    }

    pub(crate) async fn stop(self) {
        self.upstreams.shutdown(soon()).await;
        self.tasks.stop();
        tokio::time::timeout(Duration::from_secs(5), self.tasks.finished())
            .await
            .expect("all tasks end");
    }
}

pub(crate) fn caps(value: &Value) -> ClientCapabilities {
    ClientCapabilities::parse(&raw(value)).expect("an object")
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

pub(crate) fn within(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// The answer of an exchange: a result, or an object with `error`.
pub(crate) async fn answer_of(mut exchange: Exchange) -> Result<Value, UpstreamError> {
    loop {
        match exchange.next().await? {
            Event::Done(answer) => return Ok(value_of(&answer)),
            Event::Notification(_) | Event::Paused { .. } => {}
            Event::Ask(ask) => panic!("asked {}", ask.method),
        }
    }
}

pub(crate) fn value_of(answer: &Answer) -> Value {
    let parse = |raw: &Raw| serde_json::from_str::<Value>(raw.get()).expect("JSON");
    match answer {
        Answer::Result(result) => parse(result),
        Answer::Error(error) => json!({ "error": parse(error) }),
    }
}

pub(crate) fn client_session(key: &str, capabilities: &Value) -> ClientSession {
    ClientSession {
        key: key.into(),
        capabilities: caps(capabilities),
        client_info: Some(raw(&json!({"name": "their-client", "version": "9"}))),
        version: Version::V2025_11_25,
        ttl: Duration::from_secs(60),
    }
}

pub(crate) fn dedicated(key: &str) -> SessionUse {
    SessionUse::Dedicated(client_session(key, &json!({})))
}
