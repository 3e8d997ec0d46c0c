//! The lists of all servers as one.
//!
//! Order: the servers as configured, then each server's own. Where two items
//! would have the same name or URI, the first server's stays. What was merged
//! is kept as long as its parts are the same objects, so that serving it again
//! costs no more than serving one server's list.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use super::{
    catalogue::Catalogue,
    discovery::Document,
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
    pub(super) document: Arc<Document>,
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

/// A merged list: which items of which parts it consists of.
#[derive(Debug)]
pub(super) struct Merged {
    parts: Vec<Arc<Catalogue>>,
    /// Of each part, the items that are shown.
    shown: Vec<Vec<usize>>,
    length: usize,
    generation: u64,
    shaped: [OnceLock<Items>; Version::ALL.len()],
}

impl Merged {
    fn new(parts: &Parts) -> Self {
        let catalogues: Vec<_> = parts
            .present
            .iter()
            .map(|part| Arc::clone(&part.catalogue))
            .collect();
        let shown = choose(&catalogues);
        Self {
            length: shown.iter().map(Vec::len).sum(),
            generation: parts.generation(),
            shaped: Default::default(),
            parts: catalogues,
            shown,
        }
    }

    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Identifies the content on every node.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The items as a client of `version` is to see them.
    pub(super) fn items_for(&self, version: Version) -> &Items {
        self.shaped[version as usize].get_or_init(|| self.join(version))
    }

    fn join(&self, version: Version) -> Items {
        let mut items = Vec::with_capacity(self.length);
        for (part, shown) in self.parts.iter().zip(&self.shown) {
            let renamed = part.merged_for(version);
            items.extend(shown.iter().map(|&at| renamed.run(at..at + 1)));
        }
        Items::join(&items).unwrap_or_else(|error| {
            tracing::error!(%error, "the merged list is too long");
            Items::default()
        })
    }

    fn is_of(&self, parts: &Parts) -> bool {
        let made_of = self.parts.iter();
        self.parts.len() == parts.present.len()
            && made_of
                .zip(&parts.present)
                .all(|(made, part)| Arc::ptr_eq(made, &part.catalogue))
    }
}

/// The items of each part whose name no earlier item has.
fn choose(parts: &[Arc<Catalogue>]) -> Vec<Vec<usize>> {
    let mut seen = HashSet::new();
    parts
        .iter()
        .map(|part| {
            let names = part.merged_names().enumerate();
            names
                .filter_map(|(at, name)| seen.insert(name).then_some(at))
                .collect()
        })
        .collect()
}

/// Merged lists that were made lately.
#[derive(Debug)]
pub(super) struct Merger {
    made: moka::sync::Cache<(ListKind, u64), Arc<Merged>>,
}

impl Merger {
    pub(super) fn new() -> Self {
        Self {
            made: moka::sync::Cache::new(KEPT),
        }
    }

    /// The merged list of these parts.
    pub(super) fn merge(&self, kind: ListKind, parts: &Parts) -> Arc<Merged> {
        let key = (kind, identity(parts));
        // The addresses in the key may have been used again: compare the objects.
        if let Some(merged) = self.made.get(&key).filter(|merged| merged.is_of(parts)) {
            return merged;
        }
        let merged = Arc::new(Merged::new(parts));
        self.made.insert(key, Arc::clone(&merged));
        merged
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
