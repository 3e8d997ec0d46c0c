//! One page of a list for a client, and the list result it becomes.

use std::{io::Write as _, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{catalogue::Catalogue, items::Items, merged::Merged, read::scope_name};
use crate::{
    cache::CacheStatus,
    ids::{Principal, ServerId},
    mcp::{
        Raw,
        cursor::{BadCursor, Cursor},
        envelope::SERVER_INFO,
        json::{self, RawObject},
        message::RequestId,
        method::ListKind,
        seal::Sealer,
        version::{Era, Version},
    },
};

/// The `_meta` key that names the servers missing from a merged list.
pub const MISSING: &str = "mcp-fleet/missing";

/// `_meta` keys of the specification, which legacy clients do not know.
const SPECIFICATION_PREFIX: &str = "io.modelcontextprotocol/";

/// A page of a list.
#[derive(Debug, Clone)]
pub struct ListPage {
    /// Which list.
    pub kind: ListKind,
    pub(super) source: Source,
    pub(super) range: Range<usize>,
    /// Who modern clients are told has answered, unless the upstream's result says it.
    pub server_info: Arc<Raw>,
    /// Leads to the next page; `None` on the last.
    pub next_cursor: Option<String>,
    /// What is left of the list's freshness.
    pub ttl: Duration,
    /// Whether anyone may be served it.
    pub public: bool,
    /// How it was come by.
    pub status: CacheStatus,
    /// Servers whose part is missing, in configured order.
    pub missing: Vec<Missing>,
}

/// What a page is taken from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// One server's list.
    One(Arc<Catalogue>),
    /// All servers' lists.
    All(Arc<Merged>),
}

impl Source {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(catalogue) => catalogue.items().len(),
            Self::All(merged) => merged.len(),
        }
    }

    fn items_for(&self, version: Version) -> &Items {
        match self {
            Self::One(catalogue) => catalogue.items_for(version),
            Self::All(merged) => merged.items_for(version),
        }
    }

    /// Unknown members of the upstream's list result, as one JSON object.
    fn extras(&self) -> &[u8] {
        match self {
            Self::One(catalogue) => catalogue.extras(),
            Self::All(_) => b"{}",
        }
    }
}

/// A server whose part is missing from a merged list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// Its name.
    pub server: String,
    /// Why, in a few words.
    pub reason: String,
}

/// A list result in three parts, so that the items need not be copied.
#[derive(Debug, Clone)]
pub struct ListResult {
    /// Up to the items, with the bracket that opens their array.
    pub head: Vec<u8>,
    /// The items, joined by commas.
    pub items: Bytes,
    /// The rest, beginning with the bracket that closes the array.
    pub tail: Vec<u8>,
}

impl ListResult {
    /// The parts in one.
    #[must_use]
    pub fn concat(&self) -> Vec<u8> {
        [&*self.head, &*self.items, &*self.tail].concat()
    }
}

/// Where a page begins in a list, and what its cursors are bound to.
pub(super) struct Place<'a> {
    pub(super) kind: ListKind,
    /// `None`: the merged list.
    pub(super) server: Option<&'a ServerId>,
    pub(super) principal: &'a Principal,
    pub(super) sealer: &'a Sealer,
    /// Identifies the content of the list that is paged through.
    pub(super) generation: u64,
}

impl Place<'_> {
    /// The run of at most `size` items that `cursor` leads to in a list of
    /// `length`, and the cursor of what follows. Without a cursor, or with an
    /// empty one, it is the first.
    pub(super) fn run(
        &self,
        cursor: Option<&str>,
        size: usize,
        length: usize,
    ) -> Result<(Range<usize>, Option<String>), BadCursor> {
        let offset = self.offset(cursor)?;
        if offset > length {
            return Err(BadCursor);
        }
        let end = offset.saturating_add(size).min(length);
        let next = (end < length).then(|| {
            let cursor = Cursor {
                kind: self.kind,
                server: self.server.cloned(),
                offset: end as u64,
                generation: self.generation,
            };
            cursor.seal(self.sealer, self.principal)
        });
        Ok((offset..end, next))
    }

    fn offset(&self, cursor: Option<&str>) -> Result<usize, BadCursor> {
        let Some(text) = cursor.filter(|text| !text.is_empty()) else {
            return Ok(0);
        };
        let cursor = Cursor::open(text, self.kind, self.server, self.sealer, self.principal)?;
        if cursor.generation != self.generation {
            return Err(BadCursor);
        }
        usize::try_from(cursor.offset).map_err(|_| BadCursor)
    }
}

/// How a list was come by and how long it may be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    pub(super) ttl: Duration,
    pub(super) public: bool,
    pub(super) status: CacheStatus,
}

impl ListPage {
    pub(super) fn new(
        kind: ListKind,
        source: Source,
        range: Range<usize>,
        keeping: Keeping,
        server_info: Arc<Raw>,
    ) -> Self {
        Self {
            kind,
            source,
            range,
            server_info,
            next_cursor: None,
            ttl: keeping.ttl,
            public: keeping.public,
            status: keeping.status,
            missing: Vec::new(),
        }
    }

    /// How many items are on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The items as a client of `version` is to see them, joined by commas.
    #[must_use]
    pub fn items(&self, version: Version) -> Bytes {
        self.source.items_for(version).run(self.range.clone())
    }

    /// The items as a JSON array; costs nothing when the page is the whole list.
    #[must_use]
    pub fn array(&self, version: Version) -> Bytes {
        let items = self.source.items_for(version);
        if self.range == (0..items.len()) {
            return items.array().clone();
        }
        [b"[", &*items.run(self.range.clone()), b"]"]
            .concat()
            .into()
    }

    /// The whole response to a modern client's request, in pieces: the items
    /// are those of the cache and are not copied.
    #[must_use]
    pub fn modern_response(&self, id: &RequestId) -> [Bytes; 3] {
        let version = Version::LATEST_MODERN;
        let id = id.as_raw().get().as_bytes();
        let mut head = Vec::with_capacity(96 + id.len());
        head.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
        head.extend_from_slice(id);
        head.extend_from_slice(br#","result":"#);
        self.write_head(&mut head, version.era());
        let mut tail = Vec::with_capacity(256);
        self.write_tail(&mut tail, version.era());
        tail.push(b'}');
        [head.into(), self.items(version), tail.into()]
    }

    /// The list result for a client of `version`.
    #[must_use]
    pub fn result(&self, version: Version) -> ListResult {
        let mut head = Vec::with_capacity(64);
        self.write_head(&mut head, version.era());
        let mut tail = Vec::with_capacity(256);
        self.write_tail(&mut tail, version.era());
        ListResult {
            head,
            items: self.items(version),
            tail,
        }
    }

    fn write_head(&self, out: &mut Vec<u8>, era: Era) {
        out.push(b'{');
        if era == Era::Modern {
            out.extend_from_slice(br#""resultType":"complete","#);
        }
        json::write_str(out, self.kind.items_key());
        out.extend_from_slice(b":[");
    }

    fn write_tail(&self, out: &mut Vec<u8>, era: Era) {
        out.push(b']');
        if let Some(cursor) = &self.next_cursor {
            out.extend_from_slice(br#","nextCursor":"#);
            json::write_str(out, cursor);
        }
        if era == Era::Modern {
            let ttl = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
            out.extend_from_slice(br#","ttlMs":"#);
            // Writing to a Vec cannot fail.
            write!(out, "{ttl}").ok();
            out.extend_from_slice(br#","cacheScope":""#);
            out.extend_from_slice(scope_name(self.public).as_bytes());
            out.push(b'"');
        }
        self.write_extras(out, era == Era::Modern);
        out.push(b'}');
    }

    /// The unknown members, and `_meta` with what is added to it.
    fn write_extras(&self, out: &mut Vec<u8>, modern: bool) {
        let extras: Option<&Raw> = match self.source.extras() {
            b"{}" => None,
            bytes => serde_json::from_slice(bytes).ok(),
        };
        let extras = extras
            .and_then(|extras| RawObject::parse(extras).ok())
            .unwrap_or_default();
        let mut meta = extras.get_object("_meta").unwrap_or_default();
        if !modern {
            meta.retain(|key, _| !key.starts_with(SPECIFICATION_PREFIX));
        } else if !meta.contains(SERVER_INFO) {
            meta.set(SERVER_INFO, &*self.server_info);
        }
        if !self.missing.is_empty() {
            meta.set(MISSING, json::raw(&self.missing));
        }
        for (name, value) in extras.iter().filter(|(name, _)| *name != "_meta") {
            write_member(out, name, |out| {
                out.extend_from_slice(value.get().as_bytes());
            });
        }
        if !meta.is_empty() {
            write_member(out, "_meta", |out| meta.write(out));
        }
    }
}

fn write_member(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    out.push(b',');
    json::write_str(out, name);
    out.push(b':');
    value(out);
}
