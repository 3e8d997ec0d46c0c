//! [`ServerSpec`]: what a deployment runs, a template and settings resolved.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// What a deployment runs. Complete: a node that reads it from the desired
/// state needs neither the template nor the settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    /// The template it was made from.
    pub template: String,
    /// The template's version, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_version: Option<String>,
    /// `repository:tag` or `repository@sha256:...`.
    pub image: String,
    /// How the server speaks.
    pub transport: Transport,
    /// Instead of the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// After the command, the image's or the one above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Value>,
    /// Variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Value>,
    /// Files of the engine's machine, or named volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mount>,
    /// What the container may do.
    #[serde(default)]
    pub isolation: Isolation,
    /// Longest wait for the answer to a call; the fleet's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// How a server speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transport {
    /// Streamable HTTP.
    Http {
        /// The port it listens on in its container.
        port: u16,
        /// The path of its endpoint, `/mcp` as a rule.
        path: String,
    },
    /// Lines on standard input and output, reached through the bridge.
    Stdio {
        /// How its process is shared.
        mode: StdioMode,
    },
}

/// How the process of a stdio server is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StdioMode {
    /// One process for everybody.
    #[default]
    Shared,
    /// One process for each session.
    PerSession,
    /// One process for each call.
    PerCall,
}

/// A value that may be a secret; `Debug` shows only what is none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// What the server gets.
    pub value: String,
    /// Whether it must never be shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
}

impl Value {
    /// What people may see of it.
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.sensitive { "***" } else { &self.value }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.shown(), f)
    }
}

/// A directory or volume inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// An absolute path on the engine's machine, or the name of a volume.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the server may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// What a container may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Isolation {
    /// Bytes of memory, swap included. Default 512 MiB.
    pub memory: u64,
    /// Processors' worth of time. Default 1.
    pub cpus: f64,
    /// Processes and threads. Default 128.
    pub pids: u32,
    /// Whether its root file system cannot be written. Default true.
    pub read_only: bool,
    /// Bytes of the writable `/tmp`. Default 64 MiB.
    pub tmpfs: u64,
    /// `uid:gid`. Default `65532:65532`.
    pub user: String,
    /// What it can connect to. Default: nothing.
    pub network: Network,
    /// Capabilities it keeps. Default none.
    pub capabilities: Vec<String>,
    /// What the template loosened, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loosened: Vec<Loosened>,
}

/// What a container can connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing: nodes reach it, it reaches nobody.
    #[default]
    Internal,
    /// What the engine's machine can reach.
    Egress,
}

/// A limit that a template does without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loosened {
    /// The name of the limit, such as `network`.
    pub what: String,
    /// Why the server needs it.
    pub reason: String,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            memory: 512 << 20,
            cpus: 1.0,
            pids: 128,
            read_only: true,
            tmpfs: 64 << 20,
            user: "65532:65532".to_owned(),
            network: Network::default(),
            capabilities: Vec::new(),
            loosened: Vec::new(),
        }
    }
}
