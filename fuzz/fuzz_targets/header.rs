//! Header values from peers, and the tokens that come back from clients.

#![no_main]

use std::hint::black_box;

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mcp_fleet_fuzz::{
    ids::{Principal, ServerId},
    mcp::{
        cursor::Cursor,
        envelope::TraceContext,
        header::{self, check_standard_headers, decode_value, encode_value},
        method::ListKind,
        name,
        seal::{Purpose, Sealer},
        version::Version,
    },
};

fuzz_target!(|input: &[u8]| {
    if let Ok(value) = HeaderValue::from_bytes(input) {
        let mut headers = HeaderMap::new();
        for name in [header::METHOD, header::NAME, header::PROTOCOL_VERSION] {
            headers.insert(name, value.clone());
        }
        headers.insert("traceparent", value.clone());
        headers.insert("tracestate", value.clone());
        black_box(TraceContext::from_headers(&headers));
        if let Ok(text) = decode_value(&value) {
            assert_eq!(decode_value(&encode_value(&text)).as_deref(), Ok(&*text));
            headers.insert(header::METHOD, HeaderValue::from_static("tools/call"));
            headers.insert(
                header::PROTOCOL_VERSION,
                HeaderValue::from_static("2026-07-28"),
            );
            check_standard_headers(&headers, "2026-07-28", "tools/call", Some(&text))
                .expect("the header repeats what it says");
        }
        check_standard_headers(&headers, "2026-07-28", "tools/call", Some("x")).ok();
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let encoded = encode_value(text);
    assert!(
        encoded
            .as_bytes()
            .iter()
            .all(|byte| (0x20..=0x7e).contains(byte))
    );
    assert_eq!(decode_value(&encoded).as_deref(), Ok(text));
    let mut own = HeaderMap::new();
    header::standard_headers(
        &mut own,
        Version::LATEST_MODERN,
        "resources/read",
        Some(text),
    );
    check_standard_headers(&own, "2026-07-28", "resources/read", Some(text)).expect("own headers");

    let server = ServerId::try_from("demo").expect("a name");
    let exposed = name::exposed(&server, text);
    assert!(exposed.len() <= name::MAX_NAME && name::matches(&exposed, &server, text));
    black_box(name::split(text));
    black_box(Version::parse(text));

    let sealer = Sealer::new(&[7; 32]);
    let nobody = Principal::ANONYMOUS;
    assert!(Cursor::open(text, ListKind::Tools, None, &sealer, &nobody).is_err());
    assert!(sealer.open(Purpose::Session, &nobody, text).is_err());
});
