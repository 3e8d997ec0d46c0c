//! The tables of the protocol about what breaks old peers, row by row.

use proptest::{prelude::*, sample::select};

use super::{
    super::json::tests::{any_json, value},
    *,
};

const V24: Version = Version::V2024_11_05;
const V03: Version = Version::V2025_03_26;
const V06: Version = Version::V2025_06_18;
const V11: Version = Version::V2025_11_25;
const V26: Version = Version::V2026_07_28;

fn modern(method: &str, result: &str) -> String {
    let (result, info) = (value(result), value(r#"{"name":"up"}"#));
    let context = ModernResult {
        method,
        cache: None,
        server_info: &info,
    };
    result_for_modern(&result, &context).get().to_owned()
}

fn legacy(method: &str, result: &str, version: Version) -> String {
    result_for_legacy(method, &value(result), version)
        .get()
        .to_owned()
}

const INFO: &str = r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"up"}}"#;

#[test]
fn modern_results_get_what_they_lack() {
    assert_eq!(
        modern("tools/call", r#"{"content":[], "x": 1.0}"#),
        format!(r#"{{"content":[],"x":1.0,"resultType":"complete",{INFO}}}"#)
    );
    assert_eq!(
        modern("tools/list", r#"{"tools":[]}"#),
        format!(
            r#"{{"tools":[],"resultType":"complete","ttlMs":0,"cacheScope":"private",{INFO}}}"#
        )
    );
    assert_eq!(
        modern("resources/read", r#"{"contents":[],"_meta":{"v":1}}"#),
        r#"{"contents":[],"_meta":{"v":1,"io.modelcontextprotocol/serverInfo":{"name":"up"}},"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#
    );
    assert_eq!(
        modern("ping", "null"),
        format!(r#"{{"resultType":"complete",{INFO}}}"#)
    );
}

#[test]
fn modern_results_keep_what_they_have() {
    let info = value("{}");
    let context = |cache| ModernResult {
        method: "tools/list",
        cache,
        server_info: &info,
    };
    let full = value(
        r#"{ "tools":[{"name":"a"}],"ttlMs":5,"cacheScope":"public","resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"other"}}}"#,
    );
    let hints = Some(CacheHints {
        ttl_ms: 300_000,
        public: true,
    });
    assert!(matches!(
        result_for_modern(&full, &context(hints)),
        Cow::Borrowed(_)
    ));
    let bare = value(r#"{"tools":[],"ttlMs":-1,"cacheScope":"shared"}"#);
    let written = result_for_modern(&bare, &context(hints));
    let object = RawObject::parse(&written).expect("object");
    assert_eq!(object.get("ttlMs").expect("hint").get(), "300000");
    assert_eq!(object.get("cacheScope").expect("hint").get(), "\"public\"");
}

#[test]
fn results_that_ask_or_are_tasks_get_no_cache_hints() {
    for kind in ["input_required", "task"] {
        let result = format!(r#"{{"resultType":"{kind}","requestState":"s"}}"#);
        assert!(!modern("resources/read", &result).contains("ttlMs"));
        assert_eq!(result_type(&value(&result)), kind);
    }
    assert_eq!(result_type(&value("{}")), "complete");
    assert_eq!(result_type(&value("[]")), "complete");
}

#[test]
fn legacy_results_lose_what_their_era_does_not_know() {
    let result = r#"{"tools":[],"resultType":"complete","ttlMs":5,"cacheScope":"public","nextCursor":"c","_meta":{"io.modelcontextprotocol/serverInfo":{},"io.modelcontextprotocol/subscriptionId":1}}"#;
    for version in [V24, V03, V06, V11] {
        assert_eq!(
            legacy("tools/list", result, version),
            r#"{"tools":[],"nextCursor":"c"}"#
        );
    }
    let empty = r#"{"resultType":"complete"}"#;
    assert_eq!(legacy("ping", empty, V11), "{}");
    let meta = r#"{"_meta":{"io.modelcontextprotocol/related-task":{},"io.modelcontextprotocol/serverInfo":{},"v":1}}"#;
    assert_eq!(
        legacy("tools/call", meta, V11),
        r#"{"_meta":{"io.modelcontextprotocol/related-task":{},"v":1}}"#
    );
}

#[test]
fn legacy_results_without_modern_parts_are_untouched() {
    for (method, result) in [
        (
            "tools/call",
            r#"{ "content" : [ {"type":"text","text":"x"} ], "isError":false }"#,
        ),
        (
            "tools/call",
            r#"{"content":[],"structuredContent":{"a":1.0},"_meta":{"v":1}}"#,
        ),
        (
            "tools/list",
            r#"{"tools":[{"name":"a","outputSchema":{"type":"object"},"annotations":{},"title":"t","icons":[]}]}"#,
        ),
        (
            "prompts/get",
            r#"{"messages":[{"role":"user","content":{"type":"image","data":""}}]}"#,
        ),
        (
            "resources/read",
            r#"{"contents":[{"uri":"a:b","text":"x"}]}"#,
        ),
        ("x/y", "5"),
    ] {
        let raw = value(result);
        assert!(
            matches!(result_for_legacy(method, &raw, V06), Cow::Borrowed(_)),
            "{result}"
        );
    }
}

#[test]
fn audio_becomes_an_embedded_resource_before_2025_03_26() {
    let result = r#"{"content":[{"type":"audio","data":"UklGRg==","mimeType":"audio/wav","annotations":{"priority":1}},{"type":"text","text":"x"}]}"#;
    assert_eq!(
        legacy("tools/call", result, V24),
        r#"{"content":[{"type":"resource","resource":{"uri":"audio:embedded","mimeType":"audio/wav","blob":"UklGRg=="},"annotations":{"priority":1}},{"type":"text","text":"x"}]}"#
    );
    assert_eq!(legacy("tools/call", result, V03), result);
    let broken = r#"{"type":"audio"}"#;
    assert_eq!(
        content_for(V24, &value(broken)).get(),
        r#"{"type":"text","text":"[audio]"}"#
    );
}

#[test]
fn links_become_text_before_2025_06_18() {
    let result = r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"file:///a\u00e9","name":"a.pdf","mimeType":"application/pdf"}}]}"#;
    for version in [V24, V03] {
        assert_eq!(
            legacy("prompts/get", result, version),
            r#"{"messages":[{"role":"user","content":{"type":"text","text":"a.pdf: file:///aé"}}]}"#
        );
    }
    assert_eq!(legacy("prompts/get", result, V06), result);
    let nameless = r#"{"type":"resource_link","uri":"x:y"}"#;
    assert_eq!(
        content_for(V03, &value(nameless)).get(),
        r#"{"type":"text","text":"x:y"}"#
    );
}

#[test]
fn structured_content_is_an_object_before_2026_and_text_stays() {
    let listed =
        r#"{"content":[{"type":"text","text":"[1]"}],"structuredContent":[1],"isError":false}"#;
    for version in [V24, V03, V06, V11] {
        assert_eq!(
            legacy("tools/call", listed, version),
            r#"{"content":[{"type":"text","text":"[1]"}],"isError":false}"#
        );
    }
    let bare = r#"{"content":[],"structuredContent":[1, "é"]}"#;
    assert_eq!(
        legacy("tools/call", bare, V11),
        r#"{"content":[{"type":"text","text":"[1, \"é\"]"}]}"#
    );
    let object = r#"{"content":[],"structuredContent":{"a":1}}"#;
    assert_eq!(legacy("tools/call", object, V06), object);
    assert_eq!(
        legacy("tools/call", object, V03),
        r#"{"content":[{"type":"text","text":"{\"a\":1}"}],"structuredContent":{"a":1}}"#
    );
}

#[test]
fn output_schemas_have_an_object_root_before_2026() {
    for root in [
        r#"{"type":"array"}"#,
        r#"{"anyOf":[]}"#,
        "true",
        r#"{"type":["object"]}"#,
    ] {
        let tool = value(&format!(
            r#"{{"name":"a","outputSchema":{root},"inputSchema":{{}}}}"#
        ));
        for version in [V24, V03, V06, V11] {
            assert_eq!(
                tool_for(version, &tool).get(),
                r#"{"name":"a","inputSchema":{}}"#
            );
        }
        assert!(matches!(tool_for(V26, &tool), Cow::Borrowed(_)));
    }
}

#[test]
fn task_support_is_for_2025_11_25_only() {
    let list = r#"{"tools":[{"name":"a","execution":{"taskSupport":"optional"}},{"name":"b","execution":{"taskSupport":"required","v":1}},{"name":"c"}]}"#;
    let without = r#"{"tools":[{"name":"a"},{"name":"b","execution":{"v":1}},{"name":"c"}]}"#;
    for version in [V24, V03, V06] {
        assert_eq!(legacy("tools/list", list, version), without);
    }
    assert_eq!(legacy("tools/list", list, V11), list);
    assert!(modern("tools/list", list).starts_with(without.strip_suffix('}').expect("object")));
}

#[test]
fn errors_use_the_codes_of_the_receiving_era() {
    let error = |code: i64| {
        value(&format!(
            r#"{{"code":{code},"message":"m","data":{{"uri":"x:y"}},"v":1.0}}"#
        ))
    };
    let code = |raw: &Raw| {
        super::super::error::RpcError::parse(raw)
            .expect("an error")
            .code
    };
    for (from, to_modern, to_legacy) in [
        (-32002, -32602, -32002),
        (-32602, -32602, -32002),
        (-32042, -32021, -32042),
        (-32020, -32603, -32603),
        (-32022, -32603, -32603),
        (-32021, -32021, -32600),
        (-32601, -32601, -32601),
        (-32000, -32000, -32000),
        (1, 1, 1),
    ] {
        let error = error(from);
        assert_eq!(code(&error_for_modern(&error)), to_modern, "{from}");
        assert_eq!(
            code(&error_for_legacy("resources/read", &error, V11)),
            to_legacy,
            "{from}"
        );
    }
    assert_eq!(
        error_for_modern(&error(-32002)).get(),
        r#"{"code":-32602,"message":"m","data":{"uri":"x:y"},"v":1.0}"#
    );
    // Only the error of an unknown resource has a code of its own.
    assert_eq!(
        code(&error_for_legacy("tools/call", &error(-32602), V11)),
        -32602
    );
    let plain = value(r#"{"code":-32602,"message":"bad cursor"}"#);
    assert_eq!(
        code(&error_for_legacy("resources/read", &plain, V11)),
        -32602
    );
    assert_eq!(
        code(&error_for_legacy("tools/call", &error(-32042), V06)),
        -32600
    );
    for unreadable in ["\"boom\"", "{}", r#"{"code":"x"}"#, "[]"] {
        let error = value(unreadable);
        assert_eq!(code(&error_for_modern(&error)), -32603);
        assert_eq!(code(&error_for_legacy("x", &error, V11)), -32603);
    }
}

#[test]
fn questions_lose_what_their_hop_had() {
    let url = r#"{"mode":"url","elicitationId":"e","url":"https://x","_meta":{"progressToken":1},"task":{}}"#;
    let modern =
        |method, params: &str| question_for_modern(method, &value(params)).get().to_owned();
    assert_eq!(
        modern("elicitation/create", url),
        r#"{"mode":"url","url":"https://x"}"#
    );
    let kept = r#"{"message":"x", "_meta":{"v":1}}"#;
    assert_eq!(modern("elicitation/create", kept), kept);
    assert_eq!(
        modern(
            "x/y",
            r#"{"_meta":{"v":1,"progressToken":2},"elicitationId":1}"#
        ),
        r#"{"_meta":{"v":1},"elicitationId":1}"#
    );
}

#[test]
fn questions_get_what_their_hop_needs() {
    let legacy = |method, params: &str, version| {
        question_for_legacy(method, &value(params), version, "e-1")
            .get()
            .to_owned()
    };
    let url = r#"{"mode":"url","url":"https://x"}"#;
    assert_eq!(
        legacy("elicitation/create", url, V11),
        r#"{"mode":"url","url":"https://x","elicitationId":"e-1"}"#
    );
    let own = r#"{"mode":"url","url":"https://x","elicitationId":"own"}"#;
    assert_eq!(legacy("elicitation/create", own, V11), own);
    let form = r#"{"mode":"form","message":"x"}"#;
    assert_eq!(legacy("elicitation/create", form, V06), form);
    let sampling = r#"{"messages":[{"role":"user","content":{"type":"audio","data":"AA==","mimeType":"audio/wav"}}],"maxTokens":5}"#;
    assert!(legacy("sampling/createMessage", sampling, V24).contains("\"blob\":\"AA==\""));
    assert_eq!(legacy("sampling/createMessage", sampling, V03), sampling);
}

proptest! {
    #[test]
    fn foreign_members_survive_both_ways(
        method in select(vec!["tools/call", "tools/list", "prompts/get", "resources/read", "x/y"]),
        member in any_json(),
        version in select(&[V24, V03, V06, V11][..]),
    ) {
        let result = value(&format!(r#"{{"v":{member},"_meta":{{"vendor/k":{member}}}}}"#));
        let info = value("{}");
        let context = ModernResult { method, cache: None, server_info: &info };
        let modern = result_for_modern(&result, &context);
        for written in [&*modern, &*result_for_legacy(method, &modern, version)] {
            let object = RawObject::parse(written).expect("object");
            prop_assert_eq!(object.get("v").map(Raw::get), Some(&*member));
            let meta = object.get_object("_meta").expect("meta");
            prop_assert_eq!(meta.get("vendor/k").map(Raw::get), Some(&*member));
        }
        let back = result_for_legacy(method, &modern, version).get().to_owned();
        prop_assert_eq!(json::canonical(&value(&back)), json::canonical(&result));
    }

    #[test]
    fn any_result_is_shaped_calmly(
        method in select(vec!["tools/call", "tools/list", "prompts/get", "resources/read"]),
        list in any_json(),
        version in select(&Version::ALL[..]),
    ) {
        let result = value(&format!(r#"{{"content":{list},"tools":{list},"messages":{list},"structuredContent":{list}}}"#));
        let legacy = result_for_legacy(method, &result, version);
        let again = result_for_legacy(method, &legacy, version);
        prop_assert_eq!(again.get(), legacy.get());
        let list = value(&list);
        let is_settled = |once: Cow<'_, Raw>, twice: fn(Version, &Raw) -> Cow<'_, Raw>| {
            matches!(twice(version, &once), Cow::Borrowed(_))
        };
        prop_assert!(is_settled(tool_for(version, &list), tool_for));
        prop_assert!(is_settled(content_for(version, &list), content_for));
        prop_assert!(matches!(error_for_modern(&error_for_modern(&list)), Cow::Borrowed(_)));
    }

    #[test]
    fn shaping_twice_changes_nothing(method in select(vec!["tools/list", "tools/call", "server/discover"]), member in any_json()) {
        let result = value(&format!(r#"{{"v":{member},"resultType":{member},"ttlMs":{member},"_meta":{member}}}"#));
        let info = value("{}");
        let context = ModernResult { method, cache: None, server_info: &info };
        let once = result_for_modern(&result, &context);
        prop_assert!(matches!(result_for_modern(&once, &context), Cow::Borrowed(_)));
    }
}
