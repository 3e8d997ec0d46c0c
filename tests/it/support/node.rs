//! Real nodes: in this process, or as processes of their own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use http::Request;
use mcp_fleet::{
    config::Config,
    fleet::{Heard, News},
    gateway::Gateway,
    telemetry::metrics::Metrics,
};

use super::{
    eventually,
    fake_server::{FakeServer, Speaks},
    redis::{RedisServer, free_port},
    wire::{self, Owned, within},
};

/// The configuration of a node. Times are long where a test waits for none of
/// them: the machine may be busy with something else.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Values as TOML, by section and key.
    sections: BTreeMap<String, BTreeMap<String, String>>,
    servers: String,
}

const PATIENT: [(&str, &str); 10] = [
    // Nobody's containers are touched, whatever runs on this machine.
    ("engine.docker.host", "\"unix:///nonexistent/docker.sock\""),
    ("node.demo", "false"),
    ("health.probe", "false"),
    ("cache.list_deadline", "\"60s\""),
    ("cache.fetch_timeout", "\"60s\""),
    ("cache.lock_ttl", "\"90s\""),
    ("upstream.connect_timeout", "\"30s\""),
    ("upstream.probe_timeout", "\"30s\""),
    ("limits.header_timeout", "\"5m\""),
    ("limits.body_timeout", "\"5m\""),
];

impl Setup {
    pub(crate) fn new() -> Self {
        let empty = Self {
            sections: BTreeMap::new(),
            servers: String::new(),
        };
        PATIENT
            .iter()
            .fold(empty, |setup, (key, value)| setup.set(key, value))
    }

    /// One server, named `up`.
    pub(crate) fn up(server: &FakeServer) -> Self {
        Self::new().server("up", &server.url())
    }

    /// Another server.
    pub(crate) fn server(self, name: &str, url: &str) -> Self {
        self.server_with(name, url, "60s")
    }

    /// Another server with its timeout.
    pub(crate) fn server_with(mut self, name: &str, url: &str, timeout: &str) -> Self {
        self.servers += &format!("[servers.{name}]\nurl = \"{url}\"\ntimeout = \"{timeout}\"\n");
        self
    }

    /// Another server with several replicas, and more keys of it as TOML lines.
    pub(crate) fn replicas(mut self, name: &str, urls: &[String], keys: &str) -> Self {
        self.servers +=
            &format!("[servers.{name}]\nreplicas = {urls:?}\ntimeout = \"60s\"\n{keys}\n");
        self
    }

    /// A server that is a program.
    pub(crate) fn program(self, name: &str, command: &serde_json::Value) -> Self {
        self.program_with(name, command, "")
    }

    /// The same, with more keys as TOML lines.
    pub(crate) fn program_with(
        mut self,
        name: &str,
        command: &serde_json::Value,
        keys: &str,
    ) -> Self {
        self.servers +=
            &format!("[servers.{name}]\ncommand = {command}\ntimeout = \"60s\"\n{keys}\n");
        self
    }

    /// A node's name.
    pub(crate) fn named(self, name: &str) -> Self {
        self.set("node.name", &format!("\"{name}\""))
    }

    /// Another setting, `section.key`, as TOML.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        let (section, key) = key.split_once('.').expect("section.key");
        let section = self.sections.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The store of a Redis.
    pub(crate) fn redis(self, redis: &RedisServer) -> Self {
        self.redis_at((Ipv4Addr::LOCALHOST, redis.port()).into())
    }

    /// The store of a Redis behind that address.
    pub(crate) fn redis_at(self, address: SocketAddr) -> Self {
        self.set("redis.url", &format!("\"redis://{address}\""))
            .set("redis.command_timeout", "\"10s\"")
            .set("redis.connect_timeout", "\"10s\"")
    }

    fn text(&self, listen: &str) -> String {
        let all = self.clone().set("node.listen", &format!("\"{listen}\""));
        let mut text = String::new();
        for (section, values) in &all.sections {
            text += &format!("[{section}]\n");
            for (key, value) in values {
                text += &format!("{key} = {value}\n");
            }
        }
        text + &all.servers
    }

    /// Starts a node in this process.
    pub(crate) async fn start(&self) -> TestNode {
        let config = Config::from_toml(&self.text("127.0.0.1:0"))
            .unwrap_or_else(|errors| panic!("{errors}"));
        let bound = Gateway::build(config, Metrics::for_tests())
            .await
            .expect("a node");
        let gateway = Arc::clone(bound.gateway());
        TestNode {
            address: gateway.listen,
            gateway,
            running: Owned(tokio::spawn(bound.run())),
        }
    }
}

/// A server with the usual contents, and a node that offers it as `up`.
pub(crate) async fn node_with(speaks: Speaks) -> (TestNode, FakeServer) {
    let server = FakeServer::start(speaks).await;
    (Setup::up(&server).start().await, server)
}

/// A node in this process. Dropping it ends it without ceremony.
#[derive(Debug)]
pub(crate) struct TestNode {
    pub(crate) address: SocketAddr,
    pub(crate) gateway: Arc<Gateway>,
    running: Owned<anyhow::Result<()>>,
}

impl TestNode {
    /// Begins the shutdown, as SIGTERM does.
    pub(crate) fn stop(&self) {
        self.gateway.tasks.stop();
    }

    /// What it knows of the replicas of the server `up`.
    pub(crate) fn replicas(&self) -> Vec<Arc<mcp_fleet::servers::Replica>> {
        let server = self.gateway.servers.get("up").expect("known");
        server.replicas.clone()
    }

    /// Waits until it has ended by itself; answers why.
    pub(crate) async fn failed(mut self) -> anyhow::Error {
        let ended = within("the end of the node", &mut self.running.0).await;
        ended.expect("no panic").expect_err("a reason")
    }

    /// Waits until it has ended.
    pub(crate) async fn stopped(mut self) {
        let ended = within("the end of the node", &mut self.running.0).await;
        ended.expect("no panic").expect("no error");
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.gateway.tasks.stop();
        self.gateway.tasks.ending().cancel();
        self.gateway.tasks.closing().cancel();
    }
}

fn get(path: &str) -> Request<http_body_util::Full<bytes::Bytes>> {
    let request = Request::get(path).header("host", "localhost");
    request.body(Default::default()).expect("a request")
}

/// What a node says of itself at `/readyz`: `ready`, `degraded`, `draining`.
pub(crate) async fn readiness(node: &impl Listens) -> String {
    let reply = wire::send(node.address(), get("/readyz")).await;
    let report = reply.json().await;
    report["status"].as_str().expect("a status").to_owned()
}

/// Several nodes on one Redis.
pub(crate) struct TestCluster {
    pub(crate) nodes: Vec<TestNode>,
    pub(crate) redis: RedisServer,
}

impl TestCluster {
    /// Starts two nodes that have heard of their Redis.
    pub(crate) async fn pair(setup: Setup) -> Self {
        Self::named(setup, &["a", "b"]).await
    }

    /// Starts nodes of these names that have heard of their Redis.
    pub(crate) async fn named(setup: Setup, names: &[&str]) -> Self {
        let redis = RedisServer::start();
        // Without one they share what the store keeps, if it answers at once.
        let setup = setup
            .redis(&redis)
            .set("node.secret", "\"the same at every node of this test\"");
        Self::of(setup, redis, names).await
    }

    /// Starts three nodes.
    pub(crate) async fn three(setup: Setup) -> Self {
        Self::named(setup, &["a", "b", "c"]).await
    }

    /// Starts two nodes that find out themselves how to seal.
    pub(crate) async fn pair_without_secret(setup: Setup) -> Self {
        let redis = RedisServer::start();
        let setup = setup.redis(&redis);
        Self::of(setup, redis, &["a", "b"]).await
    }

    async fn of(setup: Setup, redis: RedisServer, names: &[&str]) -> Self {
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(
                setup
                    .clone()
                    .set("node.name", &format!("\"{name}\""))
                    .start()
                    .await,
            );
        }
        for node in &nodes {
            eventually("the node reaches redis", async || {
                node.gateway.store.is_reachable()
            })
            .await;
        }
        let cluster = Self { nodes, redis };
        for from in &cluster.nodes {
            for to in cluster.nodes.iter().filter(|to| to.address != from.address) {
                cluster.acquaint(from, to).await;
            }
        }
        cluster
    }

    /// Waits until one hears the other: until then it may believe that it
    /// missed something, and says so to its clients.
    async fn acquaint(&self, from: &TestNode, to: &TestNode) {
        let mut ear = to.gateway.fleet.listen();
        let hearing = async {
            let session = format!("from {}", from.gateway.node);
            let word = News::SessionChanged { session };
            loop {
                from.gateway.fleet.tell(word.clone()).await;
                let pause = Duration::from_millis(50);
                while let Ok(heard) = tokio::time::timeout(pause, ear.next()).await {
                    if matches!(heard, Some(Heard::News(news)) if *news == word) {
                        return;
                    }
                }
            }
        };
        within("the nodes hear each other", hearing).await;
    }

    pub(crate) fn a(&self) -> &TestNode {
        &self.nodes[0]
    }

    pub(crate) fn b(&self) -> &TestNode {
        &self.nodes[1]
    }
}

/// What takes requests.
pub(crate) trait Listens {
    /// Where.
    fn address(&self) -> SocketAddr;
}

impl Listens for TestNode {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Listens for NodeProcess {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The real program.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    child: Child,
    pub(crate) address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl NodeProcess {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(setup: &Setup) -> Self {
        Self::start_with(setup, Stdio::null()).await
    }

    /// The same, with its log going there.
    pub(crate) async fn start_with(setup: &Setup, log: Stdio) -> Self {
        Self::start_in(setup, log, &[]).await
    }

    /// The same, in that environment.
    pub(crate) async fn start_in(setup: &Setup, log: Stdio, env: &[(&str, &str)]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = directory.path().join("node.toml");
        std::fs::write(&config, setup.text(&address.to_string())).expect("written");
        let child = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"))
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .env_clear()
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program");
        let process = Self {
            child,
            address,
            _directory: directory,
        };
        eventually("the process is ready", async || {
            wire::try_send(address, get("/readyz"))
                .await
                .is_ok_and(|reply| reply.status == 200)
        })
        .await;
        process
    }

    /// Starts several at once, named `a`, `b`, …
    pub(crate) async fn fleet(setup: &Setup, count: usize) -> Vec<Self> {
        let named = ["a", "b", "c", "d"].into_iter().take(count);
        let started = named.map(async |name| Self::start(&setup.clone().named(name)).await);
        join_all(started).await
    }

    /// What it says of itself at `/readyz`.
    pub(crate) async fn readiness(&self) -> String {
        readiness(self).await
    }

    /// Kills it without a word of warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("it has ended");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()
            .expect("kill is installed");
        assert!(sent.success());
    }

    /// What it logs, up to its end.
    pub(crate) async fn stderr(&mut self) -> String {
        let mut log = self.child.stderr.take().expect("a pipe");
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut log, &mut text).expect("text");
            text
        });
        within("the end of the log", reading)
            .await
            .expect("no panic")
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let mut status = None;
        let deadline = tokio::time::Instant::now() + wire::PATIENCE;
        while status.is_none() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the process did not end"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            status = self.child.try_wait().expect("our child");
        }
        status.expect("set")
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
