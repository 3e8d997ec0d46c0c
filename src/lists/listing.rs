//! What the list cache holds: one value type for all that is cached of a server.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    catalogue::{self, Catalogue},
    discovery::{self, Document},
    error::ListError,
    read::{self, ReadResult},
};
use crate::cache::Cacheable;

/// A cached answer of a server.
#[derive(Debug, Clone)]
pub enum Listing {
    /// A whole list.
    Catalogue(Arc<Catalogue>),
    /// What the server says of itself.
    Document(Arc<Document>),
    /// The content of a resource.
    Read(Arc<ReadResult>),
}

/// How the store keeps it. A variant's name ends in the version of its
/// format: what a node of another version wrote is a miss, not an error.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Stored<'a> {
    #[serde(rename = "catalogue/1", borrow)]
    Catalogue(catalogue::Wire<'a>),
    #[serde(rename = "document/1", borrow)]
    Document(discovery::Wire<'a>),
    #[serde(rename = "read/1", borrow)]
    Read(read::Wire<'a>),
}

impl Stored<'_> {
    /// The payload of a cache entry.
    pub(super) fn encode(&self) -> Result<Bytes, String> {
        rmp_serde::to_vec(self)
            .map(Bytes::from)
            .map_err(|error| error.to_string())
    }
}

impl Cacheable for Listing {
    type FetchError = ListError;

    fn decode(payload: &Bytes) -> Result<Self, String> {
        let stored: Stored<'_> =
            rmp_serde::from_slice(payload).map_err(|error| error.to_string())?;
        Ok(match stored {
            Stored::Catalogue(wire) => Self::Catalogue(Arc::new(Catalogue::open(wire, payload)?)),
            Stored::Document(wire) => Self::Document(Arc::new(Document::open(wire)?)),
            Stored::Read(wire) => Self::Read(Arc::new(ReadResult::open(wire, payload)?)),
        })
    }

    fn weight(&self) -> u32 {
        let bytes = match self {
            Self::Catalogue(catalogue) => catalogue.weight(),
            Self::Document(document) => document.weight(),
            Self::Read(read) => read.weight(),
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}
