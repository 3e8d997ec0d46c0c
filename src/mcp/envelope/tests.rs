//! Tests of the envelope and the other keys of `_meta`.

use proptest::prelude::*;

use super::{
    super::json::tests::{any_json, value},
    *,
};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn envelope(meta: &str) -> Result<Option<Envelope>, RpcError> {
    Envelope::from_params(Some(&*value(&format!(r#"{{"_meta":{meta}}}"#))))
}

fn refusal(meta: &str) -> RpcError {
    envelope(meta).expect_err(meta)
}

#[test]
fn an_envelope_is_read_whole() {
    let read = envelope(
        r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
            "io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},
            "io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},
            "io.modelcontextprotocol/logLevel":"notice","other":1}"#,
    )
    .expect("valid")
    .expect("envelope");
    assert_eq!(read.protocol_version, "2026-07-28");
    assert_eq!(read.capabilities.as_raw().get(), r#"{"elicitation":{}}"#);
    assert_eq!(
        read.client_info.expect("info").get(),
        r#"{"name":"x","version":"1"}"#
    );
    assert_eq!(read.log_level, Some(LogLevel::Notice));
}

#[test]
fn client_info_and_log_level_are_optional() {
    let read = envelope(
        r#"{"io.modelcontextprotocol/protocolVersion":"1999","io.modelcontextprotocol/clientCapabilities":{}}"#,
    )
    .expect("valid")
    .expect("envelope");
    assert_eq!(read.protocol_version, "1999");
    assert!(read.client_info.is_none() && read.log_level.is_none());
}

#[test]
fn without_a_version_there_is_no_envelope() {
    assert!(Envelope::from_params(None).expect("none").is_none());
    for params in [
        "{}",
        r#"{"_meta":{}}"#,
        r#"{"_meta":5}"#,
        r#"{"_meta":{"progressToken":1}}"#,
    ] {
        let params = value(params);
        assert!(
            Envelope::from_params(Some(&*params))
                .expect("none")
                .is_none()
        );
        assert!(protocol_version(Some(&*params)).expect("none").is_none());
    }
    assert!(protocol_version(None).expect("none").is_none());
}

#[test]
fn wrong_envelopes_are_invalid_params() {
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let capable = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    for (meta, names) in [
        (format!("{{{version}}}"), CLIENT_CAPABILITIES),
        (
            format!("{{{version},\"{CLIENT_CAPABILITIES}\":null}}"),
            CLIENT_CAPABILITIES,
        ),
        (
            format!("{{{version},\"{CLIENT_CAPABILITIES}\":[]}}"),
            CLIENT_CAPABILITIES,
        ),
        (
            format!("{{\"{PROTOCOL_VERSION}\":5,{capable}}}"),
            PROTOCOL_VERSION,
        ),
        (
            format!("{{{version},{capable},\"{CLIENT_INFO}\":\"x\"}}"),
            CLIENT_INFO,
        ),
        (
            format!("{{{version},{capable},\"{LOG_LEVEL}\":\"loud\"}}"),
            LOG_LEVEL,
        ),
        (
            format!("{{{version},{capable},\"{LOG_LEVEL}\":7}}"),
            LOG_LEVEL,
        ),
    ] {
        let error = refusal(&meta);
        assert_eq!(error.code, -32602, "{meta}");
        assert!(error.message.contains(names), "{error}");
    }
    let error = refusal(&format!("{{{version},{version},{capable}}}"));
    assert_eq!(error.code, -32600);
}

#[test]
fn the_version_alone_can_be_read() {
    let read = |params: &str| {
        protocol_version(Some(&*value(params))).map(|version| version.map(Cow::into_owned))
    };
    let meta = |version: &str| format!(r#"{{"_meta":{{"{PROTOCOL_VERSION}":{version}}}}}"#);
    assert_eq!(
        read(&meta("\"2025-11-25\"")).expect("version").as_deref(),
        Some("2025-11-25")
    );
    assert_eq!(read(&meta("5")).expect_err("a number").code, -32602);
    assert_eq!(
        read(r#"{"_meta":{},"_meta":{}}"#)
            .expect_err("repeated")
            .code,
        -32600
    );
}

#[test]
fn log_levels_are_ordered_and_read_back() {
    assert!(LogLevel::ALL.is_sorted());
    for level in LogLevel::ALL {
        assert_eq!(LogLevel::parse(level.as_str()), Some(level));
    }
    assert_eq!(LogLevel::parse("Debug"), None);
}

#[test]
fn progress_tokens_are_strings_or_integers() {
    let token = |token: &str| {
        progress_token(Some(&*value(&format!(
            r#"{{"_meta":{{"progressToken":{token}}}}}"#
        ))))
        .map(|token| token.get().to_owned())
    };
    for good in ["1", "\"p-9\"", "\"\"", "90071992547409931"] {
        assert_eq!(token(good).as_deref(), Some(good));
    }
    for bad in ["null", "1.5", "{}", "true"] {
        assert_eq!(token(bad), None);
    }
    assert!(progress_token(None).is_none());
}

fn outgoing<'a>(
    capabilities: &'a ClientCapabilities,
    client_info: &'a Raw,
    token: Option<&'a RequestId>,
    trace: &'a TraceContext,
) -> OutgoingMeta<'a> {
    OutgoingMeta {
        version: Version::LATEST_MODERN,
        capabilities,
        client_info,
        log_level: None,
        progress_token: token,
        trace,
    }
}

#[test]
fn modern_upstreams_get_our_envelope_in_place_of_the_clients() {
    let params = value(
        r#"{"name":"x", "_meta":{"progressToken":"theirs","v/k":[1.0],"baggage":"b","io.modelcontextprotocol/logLevel":"debug","io.modelcontextprotocol/protocolVersion":"2025-11-25"},"arguments":{"a":1e2}}"#,
    );
    let (capabilities, info) = (ClientCapabilities::none(), value(r#"{"name":"gw"}"#));
    let trace = TraceContext::new(Some(TRACEPARENT), None);
    let token = RequestId::new_number(4);
    let mut meta = outgoing(&capabilities, &info, Some(&token), &trace);
    assert_eq!(
        with_modern_meta(Some(&params), &meta).get(),
        r#"{"name":"x","_meta":{"progressToken":4,"v/k":[1.0],"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"gw"},"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},"arguments":{"a":1e2}}"#
    );
    meta.log_level = Some(LogLevel::Error);
    meta.progress_token = None;
    let none = TraceContext::default();
    meta.trace = &none;
    assert_eq!(
        with_modern_meta(None, &meta).get(),
        r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"gw"},"io.modelcontextprotocol/logLevel":"error"}}"#
    );
}

#[test]
fn legacy_upstreams_get_no_envelope() {
    let params = value(
        r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{},"io.modelcontextprotocol/logLevel":"info","traceparent":"x","progressToken":1},"name":"x"}"#,
    );
    let none = TraceContext::default();
    let with = |params: Option<&Raw>, token: Option<&RequestId>| {
        with_legacy_meta(params, token, &none).map(|raw| raw.get().to_owned())
    };
    assert_eq!(
        with(Some(&params), None).as_deref(),
        Some(r#"{"name":"x"}"#)
    );
    let token = RequestId::new_string("t");
    assert_eq!(
        with(Some(&params), Some(&token)).as_deref(),
        Some(r#"{"_meta":{"progressToken":"t"},"name":"x"}"#)
    );
    let kept = r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"},"v":1}}"#;
    assert_eq!(with(Some(&value(kept)), None).as_deref(), Some(kept));
    assert_eq!(with(None, None), None);
    assert_eq!(with(Some(&value("{}")), None).as_deref(), Some("{}"));
    assert_eq!(
        with(None, Some(&token)).as_deref(),
        Some(r#"{"_meta":{"progressToken":"t"}}"#)
    );
}

#[test]
fn notifications_get_the_readers_token_and_subscription() {
    let progress = value(r#"{"progress":1.50,"progressToken":77,"message":"é\u00e9"}"#);
    assert_eq!(
        with_progress_token(&progress, &value("\"p-9\"")).get(),
        r#"{"progress":1.50,"progressToken":"p-9","message":"é\u00e9"}"#
    );
    let id = RequestId::new_string("7");
    assert_eq!(
        with_subscription_id(None, &id).get(),
        r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":"7"}}"#
    );
    let updated =
        value(r#"{"_meta":{"x":1,"io.modelcontextprotocol/subscriptionId":3},"uri":"a:b"}"#);
    assert_eq!(
        with_subscription_id(Some(&updated), &RequestId::new_number(7)).get(),
        r#"{"_meta":{"x":1,"io.modelcontextprotocol/subscriptionId":7},"uri":"a:b"}"#
    );
}

proptest! {
    #[test]
    fn foreign_bytes_survive_both_envelopes(arguments in any_json(), vendor in any_json()) {
        let params = value(&format!(r#"{{"arguments":{arguments},"_meta":{{"vendor/x":{vendor}}}}}"#));
        let (capabilities, info) = (ClientCapabilities::none(), value("{}"));
        let trace = TraceContext::default();
        let modern = with_modern_meta(Some(&params), &outgoing(&capabilities, &info, None, &trace));
        let legacy = with_legacy_meta(Some(&modern), None, &trace).expect("params");
        for written in [&modern, &legacy] {
            let object = RawObject::parse(written).expect("object");
            prop_assert_eq!(object.get("arguments").map(Raw::get), Some(&*arguments));
            let meta = object.get_object("_meta").expect("meta");
            prop_assert_eq!(meta.get("vendor/x").map(Raw::get), Some(&*vendor));
        }
        let read = Envelope::from_params(Some(&*modern)).expect("valid").expect("ours");
        prop_assert_eq!(read.protocol_version, "2026-07-28");
        prop_assert!(Envelope::from_params(Some(&*legacy)).expect("valid").is_none());
    }
}
