//! What a server says of itself: capabilities, name, instructions.
//!
//! Kept in the cache like its lists, so that a node that has just started can
//! answer for a server that is away, and so that its era is known without
//! asking it.

use serde::{Deserialize, Serialize};

use super::listing::Stored;
use crate::{
    cache::{Fetched, Scope},
    mcp::{Raw, capabilities::ServerCapabilities, version::Version},
    upstream::Description,
};

/// A server's description of itself.
#[derive(Debug, Clone)]
pub struct Document {
    /// The version spoken with it.
    pub version: Version,
    /// All versions it names.
    pub supported: Vec<String>,
    /// What it can do.
    pub capabilities: ServerCapabilities,
    /// `{name, version, ..}` as the server gave it.
    pub server_info: Option<Box<Raw>>,
    /// Its advice for models, a JSON string.
    pub instructions: Option<Box<Raw>>,
    /// The whole result of `server/discover` or `initialize`.
    pub raw: Box<Raw>,
}

/// A document as the store keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wire<'a> {
    version: &'a str,
    supported: Vec<String>,
    capabilities: &'a str,
    server_info: Option<&'a str>,
    instructions: Option<&'a str>,
    raw: &'a str,
}

impl Document {
    pub(super) fn open(wire: Wire<'_>) -> Result<Self, String> {
        let capabilities = raw(wire.capabilities)?;
        Ok(Self {
            version: Version::parse(wire.version).ok_or("an unknown version")?,
            supported: wire.supported,
            capabilities: ServerCapabilities::parse(&capabilities)
                .map_err(|error| error.to_string())?,
            server_info: wire.server_info.map(raw).transpose()?,
            instructions: wire.instructions.map(raw).transpose()?,
            raw: raw(wire.raw)?,
        })
    }

    pub(super) fn weight(&self) -> usize {
        self.raw.get().len() * 2 + 256
    }
}

/// A description on its way into the cache. Without a hint it lasts as long
/// as configured: it was made for the fleet's own credential.
pub(super) fn fetched(description: &Description) -> Result<Fetched, String> {
    let payload = Stored::Document(Wire {
        version: description.version.as_str(),
        supported: description.supported.clone(),
        capabilities: description.capabilities.as_raw().get(),
        server_info: description.server_info.as_deref().map(Raw::get),
        instructions: description.instructions.as_deref().map(Raw::get),
        raw: description.raw.get(),
    })
    .encode()?;
    let (ttl, scope) = match description.ttl {
        None => (None, Scope::Fleet),
        Some((ttl, true)) => (Some(ttl), Scope::Public),
        Some((ttl, false)) => (Some(ttl), Scope::Private),
    };
    Ok(Fetched {
        payload,
        ttl,
        scope,
        storable: true,
        is_empty: false,
    })
}

fn raw(text: &str) -> Result<Box<Raw>, String> {
    Raw::from_string(text.to_owned()).map_err(|error| error.to_string())
}
