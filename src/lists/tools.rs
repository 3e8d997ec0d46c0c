//! What calls have to know of tools, apart from the list they come from.
//!
//! A call looks at its tool far more often than the list changes, so what it
//! needs is found without the cache as long as L1 has the copy it was made of.
//! And when L1 had no room for a list, calls go on with what they knew of it
//! for a while: they never cost a look into the store each.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use memchr::memmem;
use tokio::time::Instant;

use super::{Catalogue, Listing};
use crate::{
    cache::Witness,
    mcp::{Raw, json::RawObject, param_header::ParamHeaders},
    servers::Server,
};

/// For how long calls do with what was known of a list that L1 has no copy of.
const WITHOUT_LIST: Duration = Duration::from_secs(60);

/// What the node needs to know of a tool to carry a call to it.
#[derive(Debug, Default)]
pub struct Tool {
    /// Which arguments travel in headers.
    pub param_headers: ParamHeaders,
    /// What it says of repeating it.
    pub annotations: Annotations,
}

/// A tool's hints about what a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Annotations {
    /// It changes nothing.
    pub read_only: bool,
    /// Calling it again with the same arguments changes nothing more.
    pub idempotent: bool,
}

impl Tool {
    /// Whether a call may be sent again although it may have run: the tool
    /// says that it does no harm, and its server is believed.
    #[must_use]
    pub fn is_repeatable(&self, server: &Server) -> bool {
        server.trust_annotations && (self.annotations.read_only || self.annotations.idempotent)
    }

    fn understand(raw: &Bytes) -> Self {
        let item: Option<&Raw> = serde_json::from_slice(raw).ok();
        let object = item.and_then(|item| RawObject::parse(item).ok());
        let param_headers = object
            .as_ref()
            .and_then(|tool| tool.get("inputSchema"))
            .and_then(|schema| ParamHeaders::from_schema(schema).ok())
            .unwrap_or_default();
        let annotations = object
            .as_ref()
            .and_then(|tool| tool.get_object("annotations"))
            .map(|annotations| Annotations {
                read_only: is_true(annotations.get("readOnlyHint")),
                idempotent: is_true(annotations.get("idempotentHint")),
            })
            .unwrap_or_default();
        Self {
            param_headers,
            annotations,
        }
    }
}

fn is_true(value: Option<&Raw>) -> bool {
    value.is_some_and(|value| value.get() == "true")
}

/// The tools of one list by name. Most say nothing that calls have to know;
/// they share one entry.
#[derive(Debug, Default)]
pub struct Tools(HashMap<Box<str>, Arc<Tool>>);

static PLAIN: LazyLock<Arc<Tool>> = LazyLock::new(Arc::default);

impl Tools {
    /// Reads named items, the first of each name.
    pub(super) fn of<'n>(items: impl Iterator<Item = (&'n str, Bytes)>) -> Self {
        let mut tools = HashMap::new();
        for (name, item) in items {
            tools
                .entry(name.into())
                .or_insert_with(|| understood(&item));
        }
        tools.shrink_to_fit();
        Self(tools)
    }

    /// The tool of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Tool>> {
        self.0.get(name).cloned()
    }
}

fn understood(item: &Bytes) -> Arc<Tool> {
    // A word that is written with escapes has a backslash.
    const WORDS: [&[u8]; 4] = [b"x-mcp-header", b"readOnlyHint", b"idempotentHint", b"\\u"];
    if WORDS.iter().any(|word| memmem::find(item, word).is_some()) {
        Arc::new(Tool::understand(item))
    } else {
        Arc::clone(&PLAIN)
    }
}

/// The tools of a server as callers of one kind see them.
#[derive(Debug)]
pub(super) struct Known {
    tools: Arc<Tools>,
    /// What the server said of itself, which decides which list is meant, and
    /// that list, if L1 has them.
    from: Option<[Witness<Listing>; 2]>,
    since: Instant,
}

impl Known {
    pub(super) fn of(catalogue: &Catalogue) -> Self {
        Self {
            tools: catalogue.tools(),
            from: None,
            since: Instant::now(),
        }
    }

    /// The same, found in L1.
    pub(super) fn witnessed(mut self, from: [Witness<Listing>; 2]) -> Self {
        self.from = Some(from);
        self
    }

    /// Whether it is what a look into L1 would find.
    pub(super) fn stands(&self) -> bool {
        let from = self.from.as_ref();
        from.is_some_and(|from| from.iter().all(Witness::stands))
    }

    /// Whether it may do although L1 has no copy of its list.
    pub(super) fn may_do(&self) -> bool {
        self.since.elapsed() < WITHOUT_LIST
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Tool>> {
        self.tools.get(name)
    }
}
