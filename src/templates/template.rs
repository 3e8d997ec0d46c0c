//! [`Template`]: one recipe, read and checked.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use http::Uri;
use jsonschema::Validator;
use sha2::{Digest as _, Sha256};

use super::{
    property::Property,
    spec::{Isolation, Mount, Transport, Value},
};
use crate::{
    config::Finding,
    ids::{ServerId, hex},
    mcp::Raw,
};

/// A recipe for a server. Its schema is compiled when it is read.
#[derive(Debug)]
pub struct Template {
    /// The name of its directory, by which it is known.
    pub name: ServerId,
    /// Its name in words.
    pub title: String,
    /// What the server is for.
    pub description: String,
    /// Its own version.
    pub version: Option<String>,
    /// `repository:tag` or `repository@sha256:...`.
    pub image: String,
    /// How the server speaks.
    pub transport: Transport,
    /// The ways it could speak, as they were written.
    pub supported: Vec<String>,
    /// Instead of the image's entry point.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's command.
    pub command: Option<Vec<String>>,
    /// Variables that do not depend on settings.
    pub env: BTreeMap<String, Value>,
    /// Mounts that do not depend on settings.
    pub volumes: Vec<Mount>,
    /// Its settings, in the order they were written.
    pub properties: Vec<Property>,
    /// Tools it says the server has, each as MCP describes one.
    pub tools: Vec<Box<Raw>>,
    /// How its tools are to be found out.
    pub tool_discovery: ToolDiscovery,
    /// A running server of that kind that can be asked for its tools.
    pub endpoint: Option<Uri>,
    /// What its containers may do.
    pub isolation: Isolation,
    /// Longest wait for the answer to a call.
    pub timeout: Option<Duration>,
    /// Where it was read from.
    pub origin: Origin,
    /// What was understood but may surprise.
    pub warnings: Vec<Finding>,
    /// Changes whenever its text does.
    pub digest: TextDigest,
    pub(super) validator: Validator,
}

/// How the tools of a template are to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolDiscovery {
    /// From its own list only, unless a server made from it runs.
    Static,
    /// From whoever answers; its own list comes last.
    #[default]
    Dynamic,
}

/// Where a template was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It is part of the program.
    BuiltIn,
    /// A file in one of the user's directories.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A digest of a template's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextDigest([u8; 16]);

impl TextDigest {
    /// The digest of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(text.as_bytes())[..16]);
        Self(digest)
    }
}

impl fmt::Display for TextDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Template {
    /// The setting of that name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties
            .iter()
            .find(|property| property.name == name)
    }
}
