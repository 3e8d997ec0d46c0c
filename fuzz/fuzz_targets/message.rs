//! Bodies as peers post them: whatever they are, they are read or refused, and
//! what is read survives being edited and written again.

#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use mcp_fleet_fuzz::mcp::{
    Raw,
    capabilities::{ClientCapabilities, InputKind},
    classify::{Classified, classify},
    envelope::{self, Envelope, OutgoingMeta, TraceContext},
    json::{self, RawObject},
    message::{self, AnswerRef, Body, Message, ParseLimits, Request, parse_body, parse_message},
    mrtr::{self, InputRequired, Retry},
    param_header::ParamHeaders,
    shape::{self, ModernResult},
    version::Version,
};

const LIMITS: ParseLimits = ParseLimits {
    max_depth: 64,
    max_batch: 16,
};

fuzz_target!(|input: &[u8]| {
    // The first byte chooses the surroundings, the rest is the body.
    let Some((&mode, body)) = input.split_first() else {
        return;
    };
    let has_session = mode & 1 == 1;
    let header =
        [None, Some("2026-07-28"), Some("2025-03-26"), Some("x")][usize::from(mode >> 1) % 4];
    if let Ok(body) = parse_body(body, &LIMITS) {
        if let Body::Single(message) = &body {
            read(message);
        }
        match classify(body, header, has_session) {
            Classified::Modern { version, .. } => {
                assert!(Version::parse(&version).is_none_or(|v| v >= Version::LATEST_MODERN))
            }
            Classified::LegacyBatch { messages, .. } => assert!(messages.len() <= LIMITS.max_batch),
            _ => {}
        }
    }
    // Also as a peer's event, where nesting is not limited.
    if let Ok(Message::Notification(notification)) = parse_message(body) {
        assert!(parse_message(notification.raw.as_bytes()).is_ok());
        let line = json::single_line(notification.raw.as_bytes());
        assert!(!line.contains(&b'\n') && parse_message(&line).is_ok());
    }
});

fn read(message: &Message<'_>) {
    match message {
        Message::Request(request) => read_request(request),
        Message::Notification(notification) => {
            if let Some(params) = notification.params {
                black_box(envelope::with_progress_token(params, params));
            }
        }
        Message::Response(response) => {
            let answer = response.answer.to_answer();
            let id = response
                .id
                .clone()
                .unwrap_or(message::RequestId::new_number(1));
            let bytes = message::response_bytes(&id, &answer);
            assert!(matches!(parse_message(&bytes), Ok(Message::Response(_))));
            match response.answer {
                AnswerRef::Result(raw) => read_result(raw),
                AnswerRef::Error(raw) => {
                    black_box(shape::error_for_modern(raw));
                    black_box(shape::error_for_legacy(
                        "resources/read",
                        raw,
                        Version::V2025_06_18,
                    ));
                    black_box(InputRequired::from_url_error(raw));
                }
            }
        }
    }
}

fn read_request(request: &Request<'_>) {
    let mut out = Vec::new();
    message::write_request(&mut out, &request.id, &request.method, request.params);
    let Ok(Message::Request(again)) = parse_message(&out) else {
        panic!("a request that was written does not read back");
    };
    assert_eq!(again.id, request.id);
    assert_eq!(again.method, request.method);
    assert_eq!(again.params.map(Raw::get), request.params.map(Raw::get));

    let Some(params) = request.params else { return };
    let object = RawObject::parse(params);
    if let Ok(object) = &object {
        let written = object.to_raw();
        let again = RawObject::parse(&written).expect("an object that was written");
        assert!(
            object
                .iter()
                .map(|(name, raw)| (name, raw.get()))
                .eq(again.iter().map(|(name, raw)| (name, raw.get())))
        );
        assert_eq!(
            object.repeated_name().is_some(),
            again.repeated_name().is_some()
        );
    }
    let canonical = json::canonical(params);
    assert!(serde_json::from_slice::<&Raw>(&canonical).is_ok());

    let capabilities = match Envelope::from_params(Some(params)) {
        Ok(Some(envelope)) => envelope.capabilities,
        Ok(None) | Err(_) => ClientCapabilities::none(),
    };
    black_box(capabilities.fingerprint());
    for version in Version::ALL {
        let told = capabilities.for_legacy(version);
        ClientCapabilities::parse(&told).expect("capabilities that were written");
    }
    black_box(InputKind::of(&request.method, Some(params)));
    black_box(envelope::progress_token(Some(params)));
    let trace = envelope::trace_context(Some(params));
    let info = json::raw_str("x");
    let meta = OutgoingMeta {
        version: Version::LATEST_MODERN,
        capabilities: &capabilities,
        client_info: &info,
        log_level: None,
        progress_token: Some(&request.id),
        trace: &trace,
    };
    let modern = envelope::with_modern_meta(Some(params), &meta);
    let version = envelope::protocol_version(Some(&modern));
    if object
        .as_ref()
        .is_ok_and(|object| object.repeated_name().is_none())
    {
        assert_eq!(
            version.expect("our envelope").as_deref(),
            Some("2026-07-28")
        );
    }
    black_box(envelope::with_legacy_meta(
        Some(&modern),
        None,
        &TraceContext::default(),
    ));
    if let Ok(Some(retry)) = Retry::from_params(Some(params)) {
        let answers = retry.responses.iter().map(|(key, raw)| (&**key, &**raw));
        black_box(mrtr::with_retry(Some(params), answers, None));
        black_box(mrtr::without_retry(Some(params)));
    }
    black_box(mrtr::params_digest(&request.method, Some(params)));
    if let Ok(tool) = ParamHeaders::from_schema(params) {
        let headers = tool.headers_for(Some(params)).into_iter().collect();
        tool.check(&headers, Some(params)).ok();
    }
}

fn read_result(result: &Raw) {
    let info = json::raw_str("x");
    for method in ["tools/call", "tools/list", "prompts/get", "server/discover"] {
        let context = ModernResult {
            method,
            cache: None,
            server_info: &info,
        };
        let modern = shape::result_for_modern(result, &context);
        for version in Version::ALL {
            black_box(shape::result_for_legacy(method, &modern, version));
        }
    }
    if let Ok(Some(asked)) = InputRequired::parse(result) {
        let written = asked.to_raw();
        let again = InputRequired::parse(&written)
            .expect("readable")
            .expect("asks");
        assert_eq!(again.questions.len(), asked.questions.len());
    }
}
