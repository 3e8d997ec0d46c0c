//! The lists of all servers as one.
//!
//! Order: the servers as configured, then each server's own. Where two items
//! would have the same name or URI, the first server's stays. What was merged
//! is kept as long as its parts are the same objects, so that serving it again
//! costs no more than serving one server's list.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};

use super::{
    catalogue::Catalogue,
    items::Items,
    page::{Keeping, Missing},
};
use crate::{
    cache::{CacheStatus, Scope, Served},
    mcp::{method::ListKind, version::Version},
};

/// A list with missing parts is to be asked for again soon.
pub(super) const PARTIAL_TTL: Duration = Duration::from_secs(5);

/// How many merged lists are kept: kinds, versions and capabilities of clients
/// multiply, but few of the products occur.
const KEPT: u64 = 64;

/// One server's part of a merged list.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) served: Served<super::Listing>,
}

/// The parts that came, in configured order, and the servers whose did not.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) present: Vec<Part>,
    pub(super) missing: Vec<Missing>,
}

impl Parts {
    /// What a client is told about keeping the whole.
    pub(super) fn keeping(&self) -> Keeping {
        let served = || self.present.iter().map(|part| &part.served);
        let shortest = served().map(|part| part.remaining).min();
        let ttl = shortest.unwrap_or(PARTIAL_TTL);
        Keeping {
            ttl: if self.missing.is_empty() {
                ttl
            } else {
                ttl.min(PARTIAL_TTL)
            },
            public: served().all(|part| part.scope == Scope::Public)
                && self.missing.is_empty()
                && !self.present.is_empty(),
            status: served()
                .map(|part| part.status)
                .fold(CacheStatus::Hit, worse),
        }
    }

    /// The same on every node that holds the same parts.
    pub(super) fn generation(&self) -> u64 {
        let mut digest = Sha256::new();
        for part in &self.present {
            digest.update(part.catalogue.server().as_str().as_bytes());
            digest.update([0]);
            digest.update(part.served.digest.to_be_bytes());
        }
        let digest = digest.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        u64::from_be_bytes(first)
    }
}

/// Of two ways of coming by a part, the one that describes the whole.
fn worse(a: CacheStatus, b: CacheStatus) -> CacheStatus {
    let rank = |status| match status {
        CacheStatus::Hit => 0,
        CacheStatus::Stale => 1,
        CacheStatus::Miss => 2,
        CacheStatus::Bypass => 3,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// A merged list, and what it was merged from.
#[derive(Debug)]
struct Merged {
    parts: Vec<Arc<Catalogue>>,
    items: Items,
    generation: u64,
}

/// Merged lists that were made lately.
#[derive(Debug)]
pub(super) struct Merger {
    made: moka::sync::Cache<(ListKind, Version, u64), Arc<Merged>>,
}

impl Merger {
    pub(super) fn new() -> Self {
        Self {
            made: moka::sync::Cache::new(KEPT),
        }
    }

    /// The merged list for a client of `version`, and its generation.
    pub(super) fn merge(&self, kind: ListKind, version: Version, parts: &Parts) -> (Items, u64) {
        let same = |merged: &Merged| {
            merged.parts.len() == parts.present.len()
                && merged
                    .parts
                    .iter()
                    .zip(&parts.present)
                    .all(|(made, part)| Arc::ptr_eq(made, &part.catalogue))
        };
        let key = (kind, version, identity(parts));
        // The addresses in the key may have been used again: compare the objects.
        if let Some(merged) = self.made.get(&key).filter(|merged| same(merged)) {
            return (merged.items.clone(), merged.generation);
        }
        let merged = Arc::new(Merged {
            items: merge(version, parts),
            generation: parts.generation(),
            parts: parts
                .present
                .iter()
                .map(|part| Arc::clone(&part.catalogue))
                .collect(),
        });
        self.made.insert(key, Arc::clone(&merged));
        (merged.items.clone(), merged.generation)
    }
}

/// Tells sets of parts apart within this process.
fn identity(parts: &Parts) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    for part in &parts.present {
        Arc::as_ptr(&part.catalogue).hash(&mut hasher);
    }
    hasher.finish()
}

fn merge(version: Version, parts: &Parts) -> Items {
    let mut seen = HashSet::new();
    let mut items = Vec::new();
    for part in &parts.present {
        let shown = part.catalogue.merged_for(version);
        for (at, name) in part.catalogue.merged_names().enumerate() {
            if seen.insert(name) {
                items.push(shown.run(at..at + 1));
            }
        }
    }
    Items::join(&items).unwrap_or_else(|error| {
        tracing::error!(%error, "the merged list is too long");
        Items::default()
    })
}
