//! Engines: where containers run, in words that no engine's client library
//! appears in. [`docker`] is the one there is.
//!
//! An engine is told what a deployment runs ([`ServerSpec`]) and makes a
//! container of it that may do as little as possible. What should run, and
//! which node sees to it, is not decided here ([`crate::deployments`]).

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::templates::spec::ServerSpec;

pub mod docker;
mod error;
mod subnets;
mod time;

pub use self::{
    error::{Cause, EngineError, Operation, Subject},
    subnets::Subnets,
    time::unix_time,
};

/// Names of the labels by which a container is known as the fleet's.
pub mod labels {
    /// The fleet: [`fleet_id`](crate::engine) of eight hex digits.
    pub const FLEET: &str = "dev.mcp-fleet.fleet";
    /// Name of the server it is a replica of.
    pub const SERVER: &str = "dev.mcp-fleet.server";
    /// Ordinal of the replica.
    pub const REPLICA: &str = "dev.mcp-fleet.replica";
    /// Hash of what it runs.
    pub const SPEC: &str = "dev.mcp-fleet.spec";
    /// Fence under which it was made.
    pub const FENCE: &str = "dev.mcp-fleet.fence";
    /// How it is spoken to: `http:PORT:/path` or `stdio:PORT`. Set by the
    /// engine from the spec.
    pub const TRANSPORT: &str = "dev.mcp-fleet.transport";
    /// The template it was made from.
    pub const TEMPLATE: &str = "dev.mcp-fleet.template";
    /// The deployment, without secrets.
    pub const DEFINITION: &str = "dev.mcp-fleet.definition";
    /// The node it ends with, when it ends with one.
    pub const OWNER: &str = "dev.mcp-fleet.owner";
    /// What a container is for that is no replica, such as filling a volume.
    pub const HELPER: &str = "dev.mcp-fleet.helper";
}

/// How nodes reach containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// By `Network` where that works, else by `Publish`.
    #[default]
    Auto,
    /// By the containers' own addresses. A node that runs in a container of
    /// that engine joins the containers' networks.
    Network,
    /// By ports published on the engine's machine.
    Publish,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Its own identity; the same for every node that uses it.
    pub id: String,
    /// Such as `20.10.24`.
    pub version: String,
    /// The newest version of its interface, such as `1.41`.
    pub api: String,
    /// Operating system and architecture of its containers, such as `linux/x86_64`.
    pub platform: String,
    /// What its machine runs, for people.
    pub operating_system: String,
    /// `1` or `2`.
    pub cgroups: String,
    /// Limits it cannot enforce: `memory`, `swap`, `pids`, `cpus`. Empty as a rule.
    pub missing_limits: Vec<&'static str>,
    /// What it warns of.
    pub warnings: Vec<String>,
    /// Its clock when it was asked, seconds since 1970.
    pub clock: u64,
}

/// Whether an engine can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// Nobody has asked yet.
    Unknown,
    /// It answered.
    Available,
    /// It did not.
    Unavailable(EngineError),
}

impl Availability {
    /// Whether the engine answered when it was last asked.
    #[must_use]
    pub fn is_available(&self) -> bool {
        *self == Self::Available
    }
}

/// An image that is present, as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedImage {
    /// The engine's id of it (`sha256:...`), which containers are made from.
    pub id: String,
    /// `repository@sha256:...`, by which other engines pull the same; images
    /// that never came from a registry have none.
    pub digest: Option<String>,
    /// Its entry point.
    pub entrypoint: Vec<String>,
    /// Its command.
    pub command: Vec<String>,
    /// Its user, for information: containers run as the spec says.
    pub user: String,
    /// `linux/amd64` and such.
    pub platform: String,
}

/// How far the pull of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullProgress {
    /// Layers the image has, as far as known.
    pub layers: usize,
    /// Layers that are complete.
    pub done: usize,
    /// Bytes that have come.
    pub bytes: u64,
    /// Bytes there are, as far as known.
    pub total: u64,
}

impl fmt::Display for PullProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, layers) = (self.done, self.layers);
        if layers == 0 {
            return f.write_str("waiting");
        }
        let mib = |bytes: u64| bytes >> 20;
        let (bytes, total) = (mib(self.bytes), mib(self.total));
        write!(f, "{done} of {layers} layers, {bytes} of {total} MiB")
    }
}

/// A container to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewContainer<'a> {
    /// Its name, which the engine gives only once: of two nodes that make the
    /// same container one is told [`Created::AlreadyThere`].
    pub name: &'a str,
    /// See [`labels`].
    pub labels: &'a BTreeMap<String, String>,
    /// What it runs.
    pub spec: &'a ServerSpec,
    /// The spec's image, resolved.
    pub image: &'a ResolvedImage,
    /// The network it joins, from [`docker::Docker::ensure_network`].
    pub network: &'a str,
    /// What makes a stdio server reachable; `None` for a server that speaks HTTP.
    pub bridge: Option<&'a BridgeLaunch>,
}

/// How the bridge is started inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeLaunch {
    /// The volume with the program, from [`docker::Docker::ensure_bridge`].
    pub volume: String,
    /// The fleet's public key, base64.
    pub public_key: String,
    /// Whom tokens have to be for: the container's name.
    pub audience: String,
    /// The port it listens on.
    pub port: u16,
    /// Further arguments, before the `--`.
    pub arguments: Vec<String>,
}

/// Port of the bridge where nothing else is wanted.
pub const BRIDGE_PORT: u16 = 8765;

/// What came of making a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is made, and not started.
    Created,
    /// A container of that name is there already.
    AlreadyThere,
}

/// A container of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name, without a slash.
    pub name: String,
    /// The engine's id of it.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Id of its image.
    pub image: String,
    /// What it does.
    pub state: State,
    /// Where nodes reach its server; only while it runs.
    pub address: Option<SocketAddr>,
    /// Seconds since 1970, on the engine's clock, when it was made.
    pub created: u64,
}

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    /// Running since then (seconds since 1970 on the engine's clock).
    Running {
        /// When it was last started.
        since: u64,
    },
    /// Halted by somebody: it answers nobody.
    Paused,
    /// Over.
    Exited(Exit),
    /// Being removed, or beyond repair.
    Going,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code of its program; 128 + the signal when one ended it.
    pub code: i64,
    /// Whether it was killed for using more memory than it may.
    pub oom_killed: bool,
    /// Why the engine could not run it, where that is what happened.
    pub error: Option<String>,
    /// When it was last started, seconds since 1970.
    pub started: u64,
    /// When it ended, seconds since 1970.
    pub finished: u64,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.oom_killed, &self.error, self.code) {
            (true, _, _) => f.write_str("was killed for using more memory than it may"),
            (_, Some(error), _) => write!(f, "could not be run: {error}"),
            (_, _, 0) => f.write_str("ended by itself"),
            // As shells and inits say it.
            (_, _, code @ (126 | 127)) => {
                write!(f, "found no program it could run (exit code {code})")
            }
            (_, _, code @ 129..=192) => write!(f, "was ended by signal {}", code - 128),
            (_, _, code) => write!(f, "ended with exit code {code}"),
        }
    }
}

/// What a container printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it printed it.
    pub stream: LogStream,
    /// The line without its end; what is no UTF-8 is replaced.
    pub text: String,
}

/// One of the two outputs of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Bytes of memory, without caches that can be dropped.
    pub memory: u64,
    /// The most it may use.
    pub memory_limit: u64,
    /// Share of one processor's time: 100 is one processor.
    pub cpu_percent: f64,
    /// Processes and threads.
    pub pids: u64,
}

/// What a container uses of what it may. Zero: the engine does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processes and threads.
    pub pids: u64,
    /// The most it may have.
    pub pids_limit: u64,
    /// Bytes of memory, without caches that can be dropped.
    pub memory: u64,
    /// The most it may use.
    pub memory_limit: u64,
}

/// What happened on an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// From now on everything is heard; what happened before has to be listed.
    Connected,
    /// Nothing is heard until the next [`Connected`](Self::Connected).
    Lost(EngineError),
    /// Something happened to a container of the fleet.
    Container {
        /// Its name.
        name: String,
        /// What happened.
        action: Action,
    },
}

/// What can happen to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It was made.
    Created,
    /// It was started.
    Started,
    /// It ended, with this exit code.
    Died(i64),
    /// One of its processes was killed for want of memory; it may go on.
    OutOfMemory,
    /// It is gone.
    Removed,
    /// Something else: paused, renamed, its health changed.
    Changed,
}

/// How an engine is used.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `unix:///path`, `tcp://host:port` or `http://host:port`.
    pub host: String,
    /// Registry that images without a registry of their own are pulled from.
    pub registry_mirror: Option<String>,
    /// How nodes reach containers.
    pub reach: Reach,
    /// Address of the engine's machine that ports are published at.
    pub publish_address: IpAddr,
    /// The bridge program; absent: `mcp-fleet-bridge` beside this program.
    pub bridge: Option<std::path::PathBuf>,
    /// Longest one operation may take; pulling and stopping have more.
    pub timeout: std::time::Duration,
    /// Longest one pull may take.
    pub pull_timeout: std::time::Duration,
    /// Operations at once.
    pub max_in_flight: usize,
    /// How long an answer about its availability is believed (`cache.engines.fresh`).
    pub fresh: std::time::Duration,
}
