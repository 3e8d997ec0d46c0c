//! Configuration: parsed once, checked, plain typed structs.
//!
//! A file (TOML, YAML or JSON), the environment and the command line are laid
//! over each other as one tree of located values (`tree`), which the sections
//! then read key by key. All findings are reported together, each with the
//! place it comes from; see [`ConfigErrors`]. After that nobody reads the
//! environment.

use std::path::PathBuf;

mod auth;
mod cache;
mod cluster;
mod engine;
mod error;
mod health;
mod limits;
mod networks;
mod node;
mod rates;
mod redis;
mod secret;
pub(crate) mod section;
mod servers;
mod source;
mod telemetry;
mod templates;
pub(crate) mod tree;
mod upstream;
pub(crate) mod values;

#[cfg(test)]
mod tests;

use self::{
    section::{Findings, Section},
    source::Gathered,
};

pub use self::{
    auth::{Auth, AuthMode},
    cache::Cache,
    cluster::Cluster,
    engine::{Docker, Engine},
    error::{ConfigErrors, Finding},
    health::Health,
    limits::Limits,
    networks::Network,
    node::{Advertised, Node, Tls},
    rates::RateLimits,
    redis::Redis,
    secret::Secret,
    section::Setting,
    servers::{ReplicaConfig, ServerConfig},
    telemetry::{LogFormat, Telemetry},
    templates::Templates,
    upstream::Upstream,
};
pub(crate) use self::{
    source::{json_document, without_comments},
    values::{parse_duration, parse_size},
};
use crate::servers::Endpoint;

/// Everything a node is told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// This process.
    pub node: Node,
    /// The shared store; absent: the embedded one.
    pub redis: Option<Redis>,
    /// The shared list cache.
    pub cache: Cache,
    /// How nodes share work.
    pub cluster: Cluster,
    /// Probes.
    pub health: Health,
    /// MCP servers, in configured order; the built-in `demo` is not among them.
    pub servers: Vec<ServerConfig>,
    /// Bounds.
    pub limits: Limits,
    /// How fast clients may call.
    pub rate_limits: RateLimits,
    /// Connections and sessions toward servers.
    pub upstream: Upstream,
    /// Who may call.
    pub auth: Auth,
    /// Logs, traces, metrics.
    pub telemetry: Telemetry,
    /// Recipes for servers.
    pub templates: Templates,
    /// Where containers run.
    pub engine: Engine,
}

/// Where configuration is taken from.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file; its name's ending (`.toml`, `.yaml`, `.yml`, `.json`) says its language.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// What the command line says.
    pub flags: Overrides,
}

/// What the command line says; it outranks the rest.
#[derive(Debug, Default)]
pub struct Overrides {
    /// `--listen ADDRESS`
    pub listen: Option<String>,
    /// `--redis URL`
    pub redis: Option<String>,
    /// `--server NAME=URL`, any number
    pub servers: Vec<String>,
    /// `--mcp-json FILE`, any number
    pub mcp_json: Vec<PathBuf>,
}

/// A checked configuration.
#[derive(Debug)]
pub struct Loaded {
    /// What is to be done.
    pub config: Config,
    /// What was understood but may surprise.
    pub warnings: Vec<Finding>,
    /// What is not the default.
    pub changed: Vec<Setting>,
}

/// Reads and checks the configuration.
///
/// # Errors
/// With every finding at once, when there is one.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut findings = Findings::default();
    let gathered = source::gather(sources, &mut findings);
    read(gathered, findings)
}

impl Config {
    /// Reads TOML, for tests and tools; no environment, no flags.
    ///
    /// # Errors
    /// With every finding at once.
    pub fn from_toml(text: &str) -> Result<Self, ConfigErrors> {
        let mut findings = Findings::default();
        let tree = source::toml_text(text, &mut findings);
        let imported = Vec::new();
        read(Gathered { tree, imported }, findings).map(|loaded| loaded.config)
    }
}

fn read(gathered: Gathered, mut findings: Findings) -> Result<Loaded, ConfigErrors> {
    let config = Config::read(gathered, &mut findings);
    findings.settle_unknown();
    let changed = std::mem::take(&mut findings.changed);
    let (errors, warnings) = findings.in_order();
    if errors.is_empty() {
        Ok(Loaded {
            config,
            warnings,
            changed,
        })
    } else {
        Err(ConfigErrors(errors))
    }
}

impl Config {
    fn read(gathered: Gathered, findings: &mut Findings) -> Self {
        let mut root = Section::root(gathered.tree, findings);
        let config = Self {
            auth: Auth::read(root.section("auth")),
            node: Node::read(root.section("node")),
            redis: Redis::read(root.section("redis")),
            cache: Cache::read(root.section("cache")),
            cluster: Cluster::read(root.section("cluster")),
            health: Health::read(root.section("health")),
            servers: servers::read_all(root.section("servers"), &gathered.imported),
            limits: Limits::read(root.section("limits")),
            rate_limits: RateLimits::read(root.section("rate_limits")),
            upstream: Upstream::read(root.section("upstream")),
            telemetry: Telemetry::read(root.section("telemetry")),
            templates: Templates::read(root.section("templates")),
            engine: Engine::read(root.section("engine")),
        };
        config.check_exposure(&mut root);
        config.check_reach(&mut root);
        root.finish();
        config
    }

    /// Sessions with a stdio server that runs beside a node go through other
    /// nodes only if those can reach it.
    fn check_reach(&self, root: &mut Section<'_>) {
        let listen = self.node.listen;
        let is_program = |server: &&ServerConfig| {
            let mut replicas = server.replicas.iter();
            replicas.any(|replica| matches!(replica.endpoint, Endpoint::Stdio(_)))
        };
        let (Some(server), None) = (
            self.servers.iter().find(is_program),
            self.node.reached_at(listen),
        ) else {
            return;
        };
        let Some(place) = root
            .place_within("node", "listen")
            .filter(|_| self.redis.is_some())
        else {
            return;
        };
        let message = format!(
            "{listen} does not say where other nodes reach this one: sessions with its stdio servers \
             ({} among them) stay on this node until node.advertise says it",
            server.id
        );
        root.findings.warn(&place, "node.listen", message);
    }

    /// Whoever opens the port to others has to say who may call.
    fn check_exposure(&self, root: &mut Section<'_>) {
        if self.node.is_loopback() || self.auth.mode.is_some() {
            return;
        }
        let place = root.place_within("node", "listen");
        let message = format!(
            "{} can be reached from other machines, and nothing says who may call: write \
             `mode = \"none\"` under [auth] (or set MCP_FLEET__AUTH__MODE=none) to let everybody, or \
             listen on 127.0.0.1:{}",
            self.node.listen,
            self.node.listen.port()
        );
        if let Some(place) = place {
            root.findings.error(&place, "node.listen", message);
        }
    }
}
