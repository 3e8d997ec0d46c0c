//! What was found, as the shared cache keeps it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{DiscoveryError, Silent, Source};
use crate::{cache::Cacheable, lists::Items};

/// Tools and who told them.
#[derive(Debug, Clone)]
pub struct Found {
    /// The tools, each as it was told.
    pub tools: Items,
    /// Who told them.
    pub source: Source,
    /// The server that was asked, where it is one.
    pub server: Option<String>,
    /// Who was asked and told nothing.
    pub silent: Vec<Silent>,
}

/// How the cache keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    format: u8,
    source: Source,
    server: Option<String>,
    silent: Vec<Silent>,
    #[serde(with = "serde_bytes")]
    array: Vec<u8>,
    ends: Vec<u32>,
}

/// The version of [`Wire`].
const FORMAT: u8 = 1;

impl Found {
    pub(super) fn encode(&self) -> Result<Bytes, String> {
        let wire = Wire {
            format: FORMAT,
            source: self.source,
            server: self.server.clone(),
            silent: self.silent.clone(),
            array: self.tools.array().to_vec(),
            ends: self.tools.ends().to_vec(),
        };
        rmp_serde::to_vec(&wire)
            .map(Bytes::from)
            .map_err(|error| error.to_string())
    }
}

impl Cacheable for Found {
    type FetchError = DiscoveryError;

    fn decode(payload: &Bytes) -> Result<Self, String> {
        let wire: Wire = rmp_serde::from_slice(payload).map_err(|error| error.to_string())?;
        if wire.format != FORMAT {
            return Err(format!("format {} is not known", wire.format));
        }
        let tools = Items::from_parts(wire.array.into(), wire.ends);
        Ok(Self {
            tools: tools.map_err(|error| error.to_string())?,
            source: wire.source,
            server: wire.server,
            silent: wire.silent,
        })
    }

    fn weight(&self) -> u32 {
        u32::try_from(self.tools.array().len() + 512).unwrap_or(u32::MAX)
    }
}
