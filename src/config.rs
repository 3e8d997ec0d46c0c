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
mod engine;
mod error;
mod health;
mod limits;
mod node;
mod redis;
mod secret;
mod servers;
mod telemetry;
mod templates;
mod upstream;

pub use self::{
    auth::{Auth, AuthMode},
    cache::Cache,
    engine::{Docker, Engine},
    error::{ConfigErrors, Finding},
    health::Health,
    limits::Limits,
    node::Node,
    redis::Redis,
    secret::Secret,
    servers::{ReplicaConfig, ServerConfig},
    telemetry::{LogFormat, Telemetry},
    templates::Templates,
    upstream::Upstream,
};

/// Everything a node is told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// This process.
    pub node: Node,
    /// The shared store; absent: the embedded one.
    pub redis: Option<Redis>,
    /// The shared list cache.
    pub cache: Cache,
    /// Probes.
    pub health: Health,
    /// MCP servers, in configured order; the built-in `demo` is not among them.
    pub servers: Vec<ServerConfig>,
    /// Bounds.
    pub limits: Limits,
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
}

/// Reads and checks the configuration.
///
/// # Errors
/// With every finding at once, when there is one.
pub fn load(sources: Sources) -> Result<Loaded, ConfigErrors> {
    todo!("{sources:?}")
}

impl Config {
    /// Reads TOML, for tests and tools; no environment, no flags.
    ///
    /// # Errors
    /// With every finding at once.
    pub fn from_toml(text: &str) -> Result<Self, ConfigErrors> {
        todo!("{text}")
    }
}
