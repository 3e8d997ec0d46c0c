//! Contents of resources whose server allows them to be kept.
//!
//! Only plain reads are kept: no answer to a question is part of the request
//! or the result (specification: such results are never cached).

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{fetch, listing::Stored};
use crate::{
    cache::{CacheStatus, Fetched},
    mcp::{
        Raw, envelope,
        json::{self, RawObject},
        shape,
        version::Version,
    },
};

/// The result of one `resources/read`, as the server wrote it.
#[derive(Debug, Clone)]
pub struct ReadResult {
    raw: Bytes,
    /// The version spoken with the server.
    pub upstream: Version,
}

/// A result as the store keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wire<'a> {
    upstream: &'a str,
    raw: &'a str,
}

/// A resource's content with what is left of its freshness.
#[derive(Debug, Clone)]
pub struct Read {
    /// The server's result with `ttlMs` and `cacheScope` as they are now.
    pub result: Box<Raw>,
    /// The version spoken with the server.
    pub upstream: Version,
    /// How it was come by.
    pub status: CacheStatus,
}

impl ReadResult {
    pub(super) fn open(wire: Wire<'_>, payload: &Bytes) -> Result<Self, String> {
        Ok(Self {
            upstream: Version::parse(wire.upstream).ok_or("an unknown version")?,
            raw: payload.slice_ref(wire.raw.as_bytes()),
        })
    }

    /// Whether it is the content, and not a question.
    pub(super) fn is_complete(&self) -> bool {
        let raw: Option<&Raw> = serde_json::from_slice(&self.raw).ok();
        raw.is_some_and(|raw| shape::result_type(raw) == "complete")
    }

    pub(super) fn weight(&self) -> usize {
        128
    }

    /// The result with the hints as they are now.
    pub(super) fn with_hints(&self, ttl: Duration, public: bool) -> Box<Raw> {
        let raw: Option<&Raw> = serde_json::from_slice(&self.raw).ok();
        // What was stored was an object: see `fetched`.
        let mut result = raw
            .and_then(|raw| RawObject::parse(raw).ok())
            .unwrap_or_default();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        result.set("ttlMs", json::raw(&ttl_ms));
        result.set("cacheScope", json::raw_str(scope_name(public)));
        result.to_raw()
    }
}

/// The value of `cacheScope`.
pub(super) fn scope_name(public: bool) -> &'static str {
    if public { "public" } else { "private" }
}

/// The URI of a read that may be answered from the cache: nothing but a URI
/// is asked, and neither progress nor log messages are wanted on the way.
pub(super) fn plain_uri(params: &Raw) -> Option<String> {
    let object = RawObject::parse(params).ok()?;
    let only_uri = object
        .iter()
        .all(|(name, _)| matches!(name, "uri" | "_meta"));
    let wants_messages = object
        .get_object("_meta")
        .is_some_and(|meta| meta.contains("progressToken") || meta.contains(envelope::LOG_LEVEL));
    if !only_uri || wants_messages || object.repeated_name().is_some() {
        return None;
    }
    object.get_str("uri").map(|uri| uri.into_owned())
}

/// A result on its way into the cache; not to be stored unless it is complete
/// and the server grants it a lifetime.
pub(super) fn fetched(result: &Raw, upstream: Version) -> Result<Fetched, String> {
    let object = RawObject::parse(result).map_err(|error| error.to_string())?;
    let hints = fetch::hints(&object);
    let payload = Stored::Read(Wire {
        upstream: upstream.as_str(),
        raw: result.get(),
    })
    .encode()?;
    Ok(Fetched {
        payload,
        ttl: Some(hints.ttl),
        scope: hints.scope,
        storable: shape::result_type(result) == "complete" && !hints.ttl.is_zero(),
        is_empty: false,
    })
}
