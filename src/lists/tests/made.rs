//! What is made of catalogues: pages, results, merged lists, lookups by name.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::super::{
    Catalogue, Document, ListPage, Listing, Missing,
    catalogue::Draft,
    listing::Stored,
    merged::{Merger, PARTIAL_TTL, Part, Parts},
    page::{Keeping, Place, Source},
};
use crate::{
    cache::{CacheStatus, Cacheable as _, Scope, Served},
    ids::{Principal, ServerId},
    mcp::{
        Raw,
        capabilities::ServerCapabilities,
        json::{self, RawObject},
        message::RequestId,
        method::ListKind,
        seal::Sealer,
        version::Version,
    },
};

fn raw(text: &str) -> Box<Raw> {
    Raw::from_string(text.to_owned()).expect("valid JSON")
}

fn id(name: &str) -> ServerId {
    ServerId::try_from(name).expect("a good name")
}

/// A catalogue as it comes out of the cache, and its payload.
fn stored(server: &str, kind: ListKind, items: &[&str], extras: &str) -> (Arc<Catalogue>, Bytes) {
    let items: Vec<_> = items.iter().map(|item| raw(item)).collect();
    let extras = raw(extras);
    let draft = Draft {
        server: &id(server),
        kind,
        upstream: Version::V2026_07_28,
        items: items.iter().map(|item| &**item).collect(),
        extras: RawObject::parse(&extras).expect("an object"),
    };
    let payload = draft
        .encode(|wire| Stored::Catalogue(wire).encode())
        .expect("small")
        .expect("encodes");
    match Listing::decode(&payload).expect("decodes") {
        Listing::Catalogue(catalogue) => (catalogue, payload),
        Listing::Document(_) | Listing::Read(_) => panic!("another kind of listing"),
    }
}

fn catalogue(server: &str, kind: ListKind, items: &[&str]) -> Arc<Catalogue> {
    stored(server, kind, items, "{}").0
}

fn document() -> Arc<Document> {
    Arc::new(Document {
        version: Version::V2026_07_28,
        supported: Vec::new(),
        capabilities: ServerCapabilities::none(),
        server_info: None,
        instructions: None,
        raw: raw("{}"),
    })
}

fn part(catalogue: &Arc<Catalogue>, scope: Scope, remaining: Duration, digest: u64) -> Part {
    Part {
        catalogue: Arc::clone(catalogue),
        document: document(),
        served: Served {
            value: Arc::new(Listing::Catalogue(Arc::clone(catalogue))),
            status: CacheStatus::Hit,
            remaining,
            age: Duration::ZERO,
            scope,
            generation: 7,
            digest,
        },
    }
}

fn parts(catalogues: &[&Arc<Catalogue>]) -> Parts {
    let present = catalogues
        .iter()
        .zip(1..)
        .map(|(catalogue, digest)| part(catalogue, Scope::Public, Duration::from_secs(60), digest));
    Parts {
        present: present.collect(),
        missing: Vec::new(),
    }
}

const KEEPING: Keeping = Keeping {
    ttl: Duration::from_millis(1500),
    public: true,
    status: CacheStatus::Hit,
};

fn page(extras: &str) -> ListPage {
    let items = [r#"{"name":"a"}"#, r#"{"name":"b"}"#];
    let (catalogue, _) = stored("demo", ListKind::Prompts, &items, extras);
    let info = Arc::from(raw(r#"{"name":"s"}"#));
    ListPage::new(
        ListKind::Prompts,
        Source::One(catalogue),
        0..2,
        KEEPING,
        info,
    )
}

fn text(page: &ListPage, version: Version) -> String {
    String::from_utf8(page.result(version).concat()).expect("text")
}

// --- catalogues

#[test]
fn items_survive_the_store_byte_for_byte() {
    let odd = [
        "{\"name\":\"a\",\"n\":1.0e2,\"big\":123456789012345678901234567890}",
        "{ \"z\" : 1, \"name\" : \"fami\u{200d}ly \u{a0}\u{1f468}\u{200d}\u{1f469}\", \"a\" : 2 }",
        "{\"name\":\"\\u0061b\",\"$schema\":\"x\",\"$defs\":{}}",
        "17",
    ];
    let (catalogue, payload) = stored("demo", ListKind::Prompts, &odd, r#"{"x":1.50}"#);
    let kept: Vec<_> = catalogue.items().iter().collect();
    assert_eq!(kept, odd.map(str::as_bytes));
    assert_eq!(catalogue.extras(), r#"{"x":1.50}"#);
    assert!(catalogue.contains("a") && catalogue.contains("ab"));
    assert_eq!(catalogue.upstream(), Version::V2026_07_28);
    // The items are part of the payload, not a copy of it.
    let within = payload.as_ptr_range();
    assert!(within.contains(&catalogue.items().array().as_ptr()));
}

#[test]
fn another_format_is_a_miss_not_a_panic() {
    for bytes in [&b""[..], b"\x00", b"garbage", &[0x81, 0xa1, b'x', 0x90]] {
        assert!(Listing::decode(&Bytes::copy_from_slice(bytes)).is_err());
    }
    let (_, payload) = stored("demo", ListKind::Tools, &[r#"{"name":"a"}"#], "{}");
    for cut in 0..payload.len() {
        assert!(Listing::decode(&payload.slice(..cut)).is_err(), "{cut}");
    }
}

#[test]
fn a_tool_is_understood_once() {
    let plain = r#"{"name":"plain","inputSchema":{"type":"object"}}"#;
    let hinted = r#"{"name":"hinted","inputSchema":{"type":"object","properties":{"site":{"type":"string","x-mcp-header":"Site"}}},"annotations":{"readOnlyHint":true,"idempotentHint":"yes"}}"#;
    let tools = catalogue("demo", ListKind::Tools, &[plain, hinted]);
    let tool = tools.tools().get("hinted").expect("listed");
    assert!(tool.annotations.read_only && !tool.annotations.idempotent);
    assert!(!tool.param_headers.is_empty());
    let headers = tool
        .param_headers
        .headers_for(Some(&raw(r#"{"site":"berlin"}"#)));
    assert_eq!(headers.len(), 1);
    assert!(
        tools
            .tools()
            .get("plain")
            .expect("listed")
            .param_headers
            .is_empty()
    );
    assert!(Arc::ptr_eq(
        &tool,
        &tools.tools().get("hinted").expect("listed")
    ));
    assert!(tools.tools().get("other").is_none());
}

// --- pages

#[test]
fn modern_clients_are_told_how_long_to_keep_a_list() {
    assert_eq!(
        text(&page("{}"), Version::V2026_07_28),
        r#"{"resultType":"complete","prompts":[{"name":"a"},{"name":"b"}],"ttlMs":1500,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}"#
    );
    let response = page("{}")
        .modern_response(&RequestId::new_string("r-1"))
        .concat();
    let start: &[u8] = br#"{"jsonrpc":"2.0","id":"r-1","result":{"resultType":"complete","#;
    assert!(response.starts_with(start) && response.ends_with(b"}}}}"));
    serde_json::from_slice::<&Raw>(&response).expect("valid JSON");
}

#[test]
fn legacy_clients_see_nothing_of_the_modern_era() {
    let extras = r#"{"x":1.50,"_meta":{"io.modelcontextprotocol/serverInfo":{},"own":2}}"#;
    assert_eq!(
        text(&page(extras), Version::V2025_11_25),
        r#"{"prompts":[{"name":"a"},{"name":"b"}],"x":1.50,"_meta":{"own":2}}"#
    );
    assert_eq!(
        text(&page("{}"), Version::V2024_11_05),
        r#"{"prompts":[{"name":"a"},{"name":"b"}]}"#
    );
}

#[test]
fn the_name_a_server_gives_itself_is_kept() {
    let extras = r#"{"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"own"}}}"#;
    let result = text(&page(extras), Version::V2026_07_28);
    assert!(result.contains(r#""name":"own""#) && !result.contains(r#""name":"s""#));
}

#[test]
fn missing_servers_are_named_with_a_reason() {
    let mut page = page("{}");
    page.missing.push(Missing {
        server: "slow".into(),
        reason: "no answer in time".into(),
    });
    assert!(text(&page, Version::V2025_06_18).ends_with(
        r#""_meta":{"mcp-fleet/missing":[{"server":"slow","reason":"no answer in time"}]}}"#
    ));
}

#[test]
fn a_whole_list_is_served_without_a_copy() {
    let whole = page("{}");
    let array = whole.array(Version::V2025_11_25);
    let again = whole.array(Version::V2025_11_25);
    assert_eq!(array.as_ptr(), again.as_ptr());
    let second = ListPage {
        range: 1..2,
        ..whole
    };
    assert_eq!(second.array(Version::V2025_11_25), r#"[{"name":"b"}]"#);
    assert_eq!((second.len(), second.is_empty()), (1, false));
}

struct Paging {
    sealer: Sealer,
    server: Option<ServerId>,
    principal: Principal,
    generation: u64,
}

impl Paging {
    fn place(&self) -> Place<'_> {
        Place {
            kind: ListKind::Tools,
            server: self.server.as_ref(),
            principal: &self.principal,
            sealer: &self.sealer,
            generation: self.generation,
        }
    }
}

#[test]
fn cursors_lead_through_a_list_on_any_node() {
    let node = |generation| Paging {
        sealer: Sealer::new(&[7; 32]),
        server: Some(id("demo")),
        principal: Principal::ANONYMOUS,
        generation,
    };
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        // Each page is served by another node with the same secret and list.
        let paging = node(99);
        let run = paging.place().run(cursor.as_deref(), 2, 5);
        let (range, next) = run.expect("own cursor");
        seen.push(range);
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, [0..2, 2..4, 4..5]);
}

#[test]
fn cursors_of_others_are_refused() {
    let own = Paging {
        sealer: Sealer::new(&[7; 32]),
        server: Some(id("demo")),
        principal: Principal::ANONYMOUS,
        generation: 1,
    };
    let (_, cursor) = own.place().run(None, 2, 5).expect("first page");
    let cursor = cursor.expect("more pages");
    let run = |paging: &Paging, cursor: &str| paging.place().run(Some(cursor), 2, 5);
    assert!(run(&own, &cursor).is_ok());
    // An empty cursor is the beginning; garbage is not.
    assert_eq!(run(&own, "").expect("first page").0, 0..2);
    assert!(run(&own, "garbage").is_err());
    let copy = || Paging {
        sealer: own.sealer.clone(),
        server: own.server.clone(),
        ..own
    };
    let later = Paging {
        generation: 2,
        ..copy()
    };
    let merged = Paging {
        server: None,
        ..copy()
    };
    let other = Paging {
        principal: Principal::from_credential(b"somebody"),
        ..copy()
    };
    let elsewhere = Paging {
        sealer: Sealer::new(&[8; 32]),
        ..copy()
    };
    for foreign in [later, merged, other, elsewhere] {
        assert!(run(&foreign, &cursor).is_err());
    }
    // The list has become shorter than the position.
    assert!(own.place().run(Some(&cursor), 2, 1).is_err());
}

// --- merged lists

#[test]
fn merged_tools_carry_their_servers_name_in_configured_order() {
    let b = catalogue(
        "b",
        ListKind::Tools,
        &[r#"{"name":"x","n":1.0}"#, r#"{"name":"a"}"#],
    );
    let a = catalogue(
        "a",
        ListKind::Tools,
        &[r#"{"name":"x"}"#, r#"{"no":"name"}"#],
    );
    let merged = Merger::new().merge(ListKind::Tools, &parts(&[&b, &a]));
    assert_eq!(
        merged.items_for(Version::V2026_07_28).array(),
        r#"[{"name":"b__x","n":1.0},{"name":"b__a"},{"name":"a__x"}]"#
    );
    assert_eq!(merged.len(), 3);
}

#[test]
fn the_first_server_of_a_uri_keeps_it() {
    let first = [r#"{"uri":"x:1","name":"first"}"#, r#"{"uri":"x:2"}"#];
    let second = [r#"{"uri":"x:3"}"#, r#"{"uri":"x:1","name":"second"}"#];
    let first = catalogue("one", ListKind::Resources, &first);
    let second = catalogue("two", ListKind::Resources, &second);
    let merged = Merger::new().merge(ListKind::Resources, &parts(&[&first, &second]));
    assert_eq!(
        merged.items_for(Version::V2025_11_25).array(),
        r#"[{"uri":"x:1","name":"first"},{"uri":"x:2"},{"uri":"x:3"}]"#
    );
}

#[test]
fn merging_the_same_parts_again_costs_nothing() {
    let a = catalogue("a", ListKind::Tools, &[r#"{"name":"x"}"#]);
    let b = catalogue("b", ListKind::Tools, &[r#"{"name":"x"}"#]);
    let merger = Merger::new();
    let once = merger.merge(ListKind::Tools, &parts(&[&a, &b]));
    assert!(Arc::ptr_eq(
        &once,
        &merger.merge(ListKind::Tools, &parts(&[&a, &b]))
    ));
    let newer = catalogue("b", ListKind::Tools, &[r#"{"name":"y"}"#]);
    let changed = merger.merge(ListKind::Tools, &parts(&[&a, &newer]));
    assert_eq!(
        changed.items_for(Version::V2026_07_28).array(),
        r#"[{"name":"a__x"},{"name":"b__y"}]"#
    );
}

#[test]
fn generations_of_merged_lists_follow_content_not_nodes() {
    let a = catalogue("a", ListKind::Tools, &[r#"{"name":"x"}"#]);
    let b = catalogue("b", ListKind::Tools, &[r#"{"name":"x"}"#]);
    let of = |catalogues: &[&Arc<Catalogue>]| parts(catalogues).generation();
    let again = catalogue("a", ListKind::Tools, &[r#"{"name":"x"}"#]);
    assert_eq!(of(&[&a, &b]), of(&[&again, &b]));
    assert_ne!(of(&[&a, &b]), of(&[&b, &a]));
    assert_ne!(of(&[&a, &b]), of(&[&a]));
    let mut changed = parts(&[&a, &b]);
    changed.present[1].served.digest = 77;
    assert_ne!(of(&[&a, &b]), changed.generation());
}

#[test]
fn the_whole_is_kept_as_its_shortest_and_most_private_part() {
    let a = catalogue("a", ListKind::Tools, &[]);
    let seconds = Duration::from_secs;
    let mut both = Parts {
        present: vec![
            part(&a, Scope::Public, seconds(60), 1),
            part(&a, Scope::Public, seconds(20), 2),
        ],
        missing: Vec::new(),
    };
    let keeping = both.keeping();
    assert_eq!((keeping.ttl, keeping.public), (seconds(20), true));
    both.present[0].served.status = CacheStatus::Miss;
    both.present[1].served.status = CacheStatus::Stale;
    assert_eq!(both.keeping().status, CacheStatus::Miss);
    both.present[0].served.scope = Scope::Fleet;
    assert!(!both.keeping().public);
    both.missing.push(Missing {
        server: "c".into(),
        reason: "gone".into(),
    });
    assert_eq!(both.keeping().ttl, PARTIAL_TTL);
    assert_eq!(Parts::default().keeping().ttl, PARTIAL_TTL);
}

#[test]
fn a_shortened_name_leads_back_to_its_tool() {
    let long = format!("a.{}", "long".repeat(30));
    let item = json::raw(&serde_json::json!({ "name": long }));
    let tools = catalogue("demo", ListKind::Tools, &[item.get(), r#"{"name":"echo"}"#]);
    let names: Vec<_> = tools.merged_names().map(|name| name.into_owned()).collect();
    assert!(names.iter().all(|name| name.len() <= 64), "{names:?}");
    assert_eq!(tools.original_name(&names[0]), Some(&*long));
    assert_eq!(tools.original_name("demo__echo"), Some("echo"));
    assert_eq!(tools.original_name("demo__other"), None);
}
