//! Tests of capabilities.

use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::*;
use crate::mcp::{
    json::{self, tests::value},
    method::ListKind,
    version::Version,
};

fn client(json: &str) -> ClientCapabilities {
    ClientCapabilities::parse(&value(json)).expect("capabilities")
}

fn server(json: &str) -> ServerCapabilities {
    ServerCapabilities::parse(&value(json)).expect("capabilities")
}

const KINDS: [InputKind; 5] = [
    InputKind::Roots,
    InputKind::Sampling { tools: false },
    InputKind::Sampling { tools: true },
    InputKind::ElicitForm,
    InputKind::ElicitUrl,
];

#[test]
fn other_extensions_are_another_list() {
    let one = client(r#"{"extensions":{"a b":{}}}"#);
    let two = client(r#"{"extensions":{"b":{},"a":{}}}"#);
    assert_ne!(one.extension_list(), two.extension_list());
    let same = client(r#"{"extensions":{"a":{},"b":{"x":1}}}"#);
    assert_eq!(two.extension_list(), same.extension_list());
}

#[test]
fn long_capabilities_are_cut_to_the_questions_they_allow() {
    for declared in [
        r#"{"roots":{"listChanged":true},"sampling":{"tools":{}},"elicitation":{},"tasks":{}}"#,
        r#"{"sampling":{"context":{}},"elicitation":{"url":{}},"experimental":{"x":[1,2,3]}}"#,
        r#"{"elicitation":{"form":{},"url":{}},"extensions":{"a":{}}}"#,
        r#"{"extensions":{"a":{}},"experimental":{"x":1}}"#,
    ] {
        let long = client(declared);
        let short = client(long.questions_only().get());
        assert_eq!(
            KINDS.map(|kind| short.allows(kind)),
            KINDS.map(|kind| long.allows(kind)),
            "{declared}"
        );
        assert!(short.as_raw().get().len() < 120, "{declared}");
    }
}

#[test]
fn questions_are_allowed_as_declared() {
    for (json, allowed) in [
        ("{}", [false, false, false, false, false]),
        (r#"{"roots":{}}"#, [true, false, false, false, false]),
        (r#"{"roots":null}"#, [false, false, false, false, false]),
        (r#"{"sampling":{}}"#, [false, true, false, false, false]),
        (
            r#"{"sampling":{"tools":{}}}"#,
            [false, true, true, false, false],
        ),
        (r#"{"elicitation":{}}"#, [false, false, false, true, false]),
        (
            r#"{"elicitation":{"form":{}}}"#,
            [false, false, false, true, false],
        ),
        (
            r#"{"elicitation":{"url":{}}}"#,
            [false, false, false, false, true],
        ),
        (
            r#"{"elicitation":{"form":{},"url":{}}}"#,
            [false, false, false, true, true],
        ),
        (
            r#"{"elicitation":{"form":{},"url":null}}"#,
            [false, false, false, true, false],
        ),
    ] {
        let client = client(json);
        assert_eq!(KINDS.map(|kind| client.allows(kind)), allowed, "{json}");
        assert_eq!(client.allows_any(), allowed.contains(&true), "{json}");
        assert_eq!(client.as_raw().get(), json);
    }
    assert!(!ClientCapabilities::none().allows_any());
    assert!(!client("{}").allows(InputKind::Other));
    assert!(client(r#"{"extensions":{"a/b":{}}}"#).allows(InputKind::Other));
    for bad in ["[]", "null", "true", r#"{"roots":{},"roots":{}}"#] {
        assert!(ClientCapabilities::parse(&value(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_declared_kind_is_what_its_question_requires() {
    for kind in KINDS {
        let required = ClientCapabilities::parse(&kind.required()).expect("object");
        assert!(required.allows(kind), "{kind:?}");
    }
    assert_eq!(InputKind::Other.required().get(), "{}");
}

#[test]
fn questions_are_told_apart() {
    let kind = |method, params: &str| InputKind::of(method, Some(&value(params)));
    assert_eq!(InputKind::of("roots/list", None), InputKind::Roots);
    assert_eq!(kind("elicitation/create", "{}"), InputKind::ElicitForm);
    assert_eq!(
        kind("elicitation/create", r#"{"mode":"form"}"#),
        InputKind::ElicitForm
    );
    assert_eq!(
        kind("elicitation/create", r#"{"mode":"url"}"#),
        InputKind::ElicitUrl
    );
    assert_eq!(kind("x/y", "{}"), InputKind::Other);
    let plain = r#"{"messages":[{"role":"user","content":{"type":"text","text":"x"}}]}"#;
    assert_eq!(
        kind("sampling/createMessage", plain),
        InputKind::Sampling { tools: false }
    );
    for tools in [
        r#"{"messages":[],"tools":[]}"#,
        r#"{"messages":[],"toolChoice":{}}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#,
        r#"{"messages":[{"role":"user","content":{"type":"tool_result"}}]}"#,
    ] {
        assert_eq!(
            kind("sampling/createMessage", tools),
            InputKind::Sampling { tools: true }
        );
    }
}

#[test]
fn legacy_upstreams_are_told_what_their_version_knows() {
    let all = client(
        r#"{"roots":{},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"experimental":{"x":1.0},"extensions":{"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{}}}"#,
    );
    let others = r#""experimental":{"x":1.0},"extensions":{"io.modelcontextprotocol/ui":{}}"#;
    for (version, told) in [
        (Version::V2024_11_05, r#""roots":{},"sampling":{}"#),
        (Version::V2025_03_26, r#""roots":{},"sampling":{}"#),
        (
            Version::V2025_06_18,
            r#""roots":{},"sampling":{},"elicitation":{}"#,
        ),
        (
            Version::V2025_11_25,
            r#""roots":{},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}}"#,
        ),
    ] {
        assert_eq!(
            all.for_legacy(version).get(),
            format!("{{{told},{others}}}"),
            "{version}"
        );
    }
    assert_eq!(all.for_modern().get(), all.as_raw().get());

    let url_only = client(r#"{"elicitation":{"url":{}}}"#);
    assert_eq!(url_only.for_legacy(Version::V2025_06_18).get(), "{}");
    let tasks_only = client(r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#);
    assert_eq!(tasks_only.for_legacy(Version::V2025_11_25).get(), "{}");
    assert!(tasks_only.has_extension(TASKS_EXTENSION));
}

#[test]
fn modern_upstreams_are_not_told_what_only_legacy_versions_have() {
    let legacy = client(r#"{"roots":{"listChanged":true},"tasks":{"list":{}},"sampling":{}}"#);
    assert_eq!(legacy.for_modern().get(), r#"{"roots":{},"sampling":{}}"#);
    assert_eq!(
        legacy.for_legacy(Version::V2025_11_25).get(),
        legacy.as_raw().get()
    );
    assert_eq!(
        legacy.for_legacy(Version::V2025_06_18).get(),
        r#"{"roots":{"listChanged":true},"sampling":{}}"#
    );
}

#[test]
fn fingerprints_are_short_and_tell_clients_apart() {
    assert_eq!(&**ClientCapabilities::none().fingerprint(), "-");
    assert_eq!(
        &**client(r#"{"extensions":{},"experimental":{}}"#).fingerprint(),
        "-"
    );
    assert_eq!(
        &**client(r#"{"elicitation":{"url":{}},"roots":{}}"#).fingerprint(),
        "ru"
    );
    let one = client(r#"{"extensions":{"a/b":{"x":1,"y":2},"c/d":{}},"roots":{}}"#);
    let same = client(r#"{ "roots": { }, "extensions":{"c\/d":{},"a/b":{"y":2, "x":1}} }"#);
    assert_eq!(one.fingerprint(), same.fingerprint());
    assert_eq!(one.fingerprint().len(), "r+0123456789abcdef".len());
    assert_eq!(one.extensions(), ["a/b", "c/d"]);
    for other in [
        r#"{"extensions":{"a/b":{"x":1,"y":2}},"roots":{}}"#,
        r#"{"extensions":{"a/b":{"x":1,"y":3},"c/d":{}},"roots":{}}"#,
        r#"{"extensions":{"a/b":{"x":1,"y":2},"c/d":{}}}"#,
    ] {
        assert_ne!(one.fingerprint(), client(other).fingerprint(), "{other}");
    }
}

#[test]
fn servers_have_what_they_declare() {
    let all = server(
        r#"{"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true,"listChanged":false},"logging":{},"completions":{},"x":1}"#,
    );
    assert!(all.has_tools() && all.has_prompts() && all.has_resources());
    assert!(all.has_logging() && all.has_completions() && all.has_subscribe());
    assert!(all.has_list_changed(ListKind::Tools));
    assert!(!all.has_list_changed(ListKind::Prompts));
    assert!(!all.has_list_changed(ListKind::ResourceTemplates));
    let none = server(r#"{"tools":null}"#);
    assert!(ListKind::ALL.into_iter().all(|kind| !none.has_list(kind)));
    assert!(ListKind::ALL.into_iter().all(|kind| all.has_list(kind)));
    assert!(ServerCapabilities::parse(&value("[]")).is_err());
}

#[test]
fn clients_are_told_of_tasks_only_as_their_version_has_them() {
    let both = server(
        r#"{"tools":{},"tasks":{"list":{}},"extensions":{"io.modelcontextprotocol/tasks":{},"v/x":{}}}"#,
    );
    assert_eq!(
        both.for_modern().get(),
        r#"{"tools":{},"extensions":{"io.modelcontextprotocol/tasks":{},"v/x":{}}}"#
    );
    assert_eq!(
        both.for_legacy(Version::V2025_11_25).get(),
        r#"{"tools":{},"tasks":{"list":{}},"extensions":{"v/x":{}}}"#
    );
    assert_eq!(
        both.for_legacy(Version::V2025_06_18).get(),
        r#"{"tools":{},"extensions":{"v/x":{}}}"#
    );
}

#[test]
fn merged_servers_offer_what_any_has() {
    let one = server(r#"{"tools":{},"resources":{"subscribe":true},"extensions":{"a/b":{}}}"#);
    let two = server(r#"{"tools":{"listChanged":true},"logging":{}}"#);
    let both = ServerCapabilities::union([&one, &two]);
    assert_eq!(
        both.as_raw().get(),
        r#"{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}}"#
    );
    assert_eq!(ServerCapabilities::union([]).as_raw().get(), "{}");
    assert!(!ServerCapabilities::none().has_tools());
}

proptest! {
    #[test]
    fn fingerprints_do_not_depend_on_writing(
        members in subsequence(vec![
            r#""roots":{}"#, r#""sampling":{"context":{},"tools":{}}"#, r#""elicitation":{"url":{},"form":{}}"#,
            r#""extensions":{"a":{},"b":{"p":1,"q":[]}}"#, r#""experimental":{"z":1}"#, r#""tasks":{"x":{}}"#,
        ], 0..=6).prop_shuffle(),
    ) {
        let written = client(&format!("{{{}}}", members.join(",")));
        let sorted = client(std::str::from_utf8(&json::canonical(written.as_raw())).expect("text"));
        prop_assert_eq!(written.fingerprint(), sorted.fingerprint());
        prop_assert!(written.fingerprint().len() <= 24);
    }

    #[test]
    fn a_union_has_what_its_parts_have(parts in vec(subsequence(vec![
        r#""tools":{"listChanged":true}"#, r#""prompts":{}"#, r#""resources":{"subscribe":true}"#,
        r#""completions":{}"#, r#""logging":{}"#,
    ], 0..=5), 0..4)) {
        let parts: Vec<_> = parts.iter().map(|part| server(&format!("{{{}}}", part.join(",")))).collect();
        let union = ServerCapabilities::union(&parts);
        let any = |has: fn(&ServerCapabilities) -> bool| parts.iter().any(has);
        prop_assert_eq!(union.has_tools(), any(ServerCapabilities::has_tools));
        prop_assert_eq!(union.has_prompts(), any(ServerCapabilities::has_prompts));
        prop_assert_eq!(union.has_resources(), any(ServerCapabilities::has_resources));
        prop_assert_eq!(union.has_subscribe(), any(ServerCapabilities::has_subscribe));
        prop_assert_eq!(union.has_completions(), any(ServerCapabilities::has_completions));
        prop_assert_eq!(union.has_logging(), any(ServerCapabilities::has_logging));
        let read = ServerCapabilities::parse(union.as_raw()).expect("own object");
        for kind in ListKind::ALL {
            prop_assert_eq!(union.has_list_changed(kind), read.has_list_changed(kind));
        }
    }
}
