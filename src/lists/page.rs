//! One page of a list for a client, and the list result it becomes.

use std::{ops::Range, time::Duration};

use bytes::Bytes;

use super::{items::Items, read::scope_name};
use crate::{
    cache::CacheStatus,
    ids::{Principal, ServerId},
    mcp::{
        Raw,
        cursor::{BadCursor, Cursor},
        envelope::SERVER_INFO,
        json::{self, RawObject},
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
    pub(super) list: Items,
    pub(super) range: Range<usize>,
    /// Unknown members of the upstream's list result, as one JSON object.
    pub extras: Bytes,
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
    /// The position a client asks for. Without a cursor, or with an empty one,
    /// it is the first page.
    pub(super) fn offset(&self, cursor: Option<&str>) -> Result<usize, BadCursor> {
        let Some(text) = cursor.filter(|text| !text.is_empty()) else {
            return Ok(0);
        };
        let cursor = Cursor::open(text, self.kind, self.server, self.sealer, self.principal)?;
        if cursor.generation != self.generation {
            return Err(BadCursor);
        }
        usize::try_from(cursor.offset).map_err(|_| BadCursor)
    }

    /// The run of at most `size` items from `offset`, and the cursor of what follows.
    pub(super) fn run(
        &self,
        offset: usize,
        size: usize,
        length: usize,
    ) -> Result<(Range<usize>, Option<String>), BadCursor> {
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
}

/// How a list was come by and how long it may be kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    pub(super) ttl: Duration,
    pub(super) public: bool,
    pub(super) status: CacheStatus,
}

impl ListPage {
    pub(super) fn new(kind: ListKind, list: Items, range: Range<usize>, keeping: Keeping) -> Self {
        Self {
            kind,
            list,
            range,
            extras: Bytes::from_static(b"{}"),
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

    /// The items, joined by commas.
    #[must_use]
    pub fn items(&self) -> Bytes {
        self.list.run(self.range.clone())
    }

    /// The items as a JSON array; costs nothing when the page is the whole list.
    #[must_use]
    pub fn array(&self) -> Bytes {
        if self.range == (0..self.list.len()) {
            return self.list.array().clone();
        }
        [b"[", &*self.items(), b"]"].concat().into()
    }

    /// The list result for a client of `version`. `server_info` is named as
    /// the server to modern clients unless the upstream's result names one.
    #[must_use]
    pub fn result(&self, version: Version, server_info: Option<&Raw>) -> ListResult {
        let modern = version.era() == Era::Modern;
        let mut head = Vec::with_capacity(64);
        head.push(b'{');
        if modern {
            head.extend_from_slice(br#""resultType":"complete","#);
        }
        json::write_str(&mut head, self.kind.items_key());
        head.extend_from_slice(b":[");
        let mut tail = Vec::with_capacity(256);
        tail.push(b']');
        if let Some(cursor) = &self.next_cursor {
            tail.extend_from_slice(br#","nextCursor":"#);
            json::write_str(&mut tail, cursor);
        }
        if modern {
            let hints = format!(
                r#","ttlMs":{},"cacheScope":"{}""#,
                self.ttl.as_millis(),
                scope_name(self.public)
            );
            tail.extend_from_slice(hints.as_bytes());
        }
        self.write_extras(&mut tail, modern, server_info.filter(|_| modern));
        tail.push(b'}');
        ListResult {
            head,
            items: self.items(),
            tail,
        }
    }

    /// The unknown members, and `_meta` with what is added to it.
    fn write_extras(&self, out: &mut Vec<u8>, modern: bool, server_info: Option<&Raw>) {
        let extras: Option<&Raw> = match &*self.extras {
            b"{}" => None,
            bytes => serde_json::from_slice(bytes).ok(),
        };
        let extras = extras
            .and_then(|extras| RawObject::parse(extras).ok())
            .unwrap_or_default();
        let mut meta = extras.get_object("_meta").unwrap_or_default();
        if !modern {
            meta.retain(|key, _| !key.starts_with(SPECIFICATION_PREFIX));
        }
        if let Some(server_info) = server_info
            && !meta.contains(SERVER_INFO)
        {
            meta.set(SERVER_INFO, server_info);
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPING: Keeping = Keeping {
        ttl: Duration::from_millis(1500),
        public: true,
        status: CacheStatus::Hit,
    };

    fn page(extras: &'static str) -> ListPage {
        let list = Items::join(&[r#"{"name":"a"}"#, r#"{"name":"b"}"#]).expect("small");
        ListPage {
            extras: Bytes::from_static(extras.as_bytes()),
            ..ListPage::new(ListKind::Tools, list, 0..2, KEEPING)
        }
    }

    fn text(page: &ListPage, version: Version, server_info: Option<&str>) -> String {
        let info = server_info.map(|info| Raw::from_string(info.to_owned()).expect("JSON"));
        let result = page.result(version, info.as_deref());
        String::from_utf8(result.concat()).expect("text")
    }

    #[test]
    fn modern_clients_are_told_how_long_to_keep_it() {
        assert_eq!(
            text(&page("{}"), Version::V2026_07_28, Some(r#"{"name":"s"}"#)),
            r#"{"resultType":"complete","tools":[{"name":"a"},{"name":"b"}],"ttlMs":1500,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}"#
        );
    }

    #[test]
    fn legacy_clients_see_nothing_of_the_modern_era() {
        let extras = r#"{"x":1.50,"_meta":{"io.modelcontextprotocol/serverInfo":{},"own":2}}"#;
        assert_eq!(
            text(&page(extras), Version::V2025_11_25, Some("{}")),
            r#"{"tools":[{"name":"a"},{"name":"b"}],"x":1.50,"_meta":{"own":2}}"#
        );
        assert_eq!(
            text(&page("{}"), Version::V2024_11_05, None),
            r#"{"tools":[{"name":"a"},{"name":"b"}]}"#
        );
    }

    #[test]
    fn the_servers_own_name_is_kept() {
        let extras = r#"{"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"own"}}}"#;
        let result = text(&page(extras), Version::V2026_07_28, Some(r#"{"name":"s"}"#));
        assert!(result.contains(r#""name":"own""#) && !result.contains(r#""name":"s""#));
    }

    #[test]
    fn missing_servers_are_named_with_a_reason() {
        let mut page = page("{}");
        page.missing.push(Missing {
            server: "slow".into(),
            reason: "no answer in time".into(),
        });
        let result = text(&page, Version::V2025_06_18, None);
        assert!(result.contains(
            r#""_meta":{"mcp-fleet/missing":[{"server":"slow","reason":"no answer in time"}]}"#
        ));
    }

    #[test]
    fn the_whole_list_is_served_without_a_copy() {
        let whole = page("{}");
        assert_eq!(whole.array().as_ptr(), whole.list.array().as_ptr());
        let second = ListPage {
            range: 1..2,
            ..whole
        };
        assert_eq!(second.array(), r#"[{"name":"b"}]"#);
    }
}
