//! Tests of the standard headers.

use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8]) -> Result<String, BadHeaderValue> {
    let value = HeaderValue::from_bytes(bytes).expect("header value");
    decode_value(&value).map(Cow::into_owned)
}

#[test]
fn values_are_sent_as_they_are_when_they_can_be() {
    for plain in [
        "stock_lookup",
        "",
        "a b",
        "doc://a/1?x=%20",
        "=?base64?",
        "=?BASE64?Y2Fmw6k=?=",
        "x=?base64?AA==?=",
    ] {
        assert_eq!(encode_value(plain), plain);
        assert_eq!(decode(plain.as_bytes()).as_deref(), Ok(plain));
    }
    for (text, encoded) in [
        ("café", "=?base64?Y2Fmw6k=?="),
        (" a", "=?base64?IGE=?="),
        ("a\t", "=?base64?YQk=?="),
        ("a\r\nb", "=?base64?YQ0KYg==?="),
        ("a\tb", "=?base64?YQli?="),
        (
            "=?base64?Y2Fmw6k=?=",
            "=?base64?PT9iYXNlNjQ/WTJGbXc2az0/PQ==?=",
        ),
        // Start and end share a question mark: no sentinel, but too like one to be sent.
        ("=?base64?=", "=?base64?PT9iYXNlNjQ/PQ==?="),
    ] {
        assert_eq!(encode_value(text), encoded);
        assert_eq!(decode(encoded.as_bytes()).as_deref(), Ok(text));
    }
}

#[test]
fn incomplete_sentinels_stand_for_themselves() {
    for literal in [
        "=?base64?Y2Fmw6k=",
        "=?Base64?Y2Fmw6k=?=",
        "=?base64?=",
        "=?base64Y2Fmw6k=?=",
        "?=",
        "=?base64?",
    ] {
        assert_eq!(decode(literal.as_bytes()).as_deref(), Ok(literal));
    }
}

#[test]
fn broken_values_are_refused() {
    for broken in [
        "=?base64?Y2Fmw6k?=",
        "=?base64?Y2Fm!w6k=?=",
        "=?base64?Y2Fmw6k==?=",
        "=?base64?a?=",
        "=?base64?Y2F_?=",
    ] {
        assert_eq!(
            decode(broken.as_bytes()),
            Err(BadHeaderValue::NotBase64),
            "{broken}"
        );
    }
    assert_eq!(decode(b"=?base64?/w==?="), Err(BadHeaderValue::NotUtf8));
    assert_eq!(
        decode("caf\u{e9}".as_bytes()),
        Err(BadHeaderValue::NotAscii)
    );
    assert_eq!(decode(b"=?base64??=").as_deref(), Ok(""));
    assert_eq!(decode(b"\t a ").as_deref(), Ok("a"));
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter()
        .map(|&(name, value)| {
            let name: HeaderName = name.parse().expect("name");
            (name, HeaderValue::from_str(value).expect("value"))
        })
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
}

const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

fn check_call(list: &[(&'static str, &str)]) -> Result<(), RpcError> {
    check_standard_headers(&headers(list), "2026-07-28", "tools/call", Some("café"))
}

#[test]
fn agreeing_headers_pass() {
    let method = ("Mcp-Method", "tools/call");
    check_call(&[VERSION, method, ("MCP-NAME", "=?base64?Y2Fmw6k=?=")]).expect("agrees");
    let spaced = [
        ("MCP-Protocol-Version", " 2026-07-28\t"),
        ("mcp-method", " tools/call"),
        ("mcp-name", "=?base64?Y2Fmw6k=?= "),
    ];
    check_call(&spaced).expect("white space does not count");
    let list = headers(&[VERSION, ("mcp-method", "tools/list")]);
    check_standard_headers(&list, "2026-07-28", "tools/list", None).expect("no name needed");
    let call = headers(&[VERSION, method]);
    check_standard_headers(&call, "2026-07-28", "tools/call", None).expect("params come later");
    let empty = headers(&[VERSION, method, ("mcp-name", "")]);
    check_standard_headers(&empty, "2026-07-28", "tools/call", Some("")).expect("an empty name");
}

#[test]
fn missing_different_repeated_and_malformed_headers_are_refused() {
    let method = ("mcp-method", "tools/call");
    let name = ("mcp-name", "=?base64?Y2Fmw6k=?=");
    for (list, about) in [
        (vec![method, name], "MCP-Protocol-Version"),
        (
            vec![("mcp-protocol-version", "2025-11-25"), method, name],
            "MCP-Protocol-Version",
        ),
        (vec![VERSION, VERSION, method, name], "MCP-Protocol-Version"),
        (vec![VERSION, name], "Mcp-Method"),
        (
            vec![VERSION, ("mcp-method", "Tools/Call"), name],
            "Mcp-Method",
        ),
        (vec![VERSION, ("mcp-method", ""), name], "Mcp-Method"),
        (vec![VERSION, method, method, name], "Mcp-Method"),
        (vec![VERSION, method], "Mcp-Name"),
        (vec![VERSION, method, ("mcp-name", "")], "Mcp-Name"),
        (vec![VERSION, method, ("mcp-name", "cafe")], "Mcp-Name"),
        (
            vec![VERSION, method, ("mcp-name", "=?base64?Y2Fmw6k?=")],
            "Mcp-Name",
        ),
        (
            vec![VERSION, method, ("mcp-name", "=?BASE64?Y2Fmw6k=?=")],
            "Mcp-Name",
        ),
        (vec![VERSION, method, name, name], "Mcp-Name"),
    ] {
        let error = check_call(&list).expect_err(about);
        assert_eq!(error.code, -32020);
        assert!(error.message.contains(about), "{error}");
    }
    let named = headers(&[VERSION, method, name]);
    let error = check_standard_headers(&named, "2026-07-28", "tools/call", None).expect_err("none");
    assert_eq!(error.code, -32020);
}

#[test]
fn raw_utf8_is_refused() {
    let mut map = headers(&[VERSION, ("mcp-method", "tools/call")]);
    map.insert(
        NAME,
        HeaderValue::from_bytes("café".as_bytes()).expect("value"),
    );
    let error = check_standard_headers(&map, "2026-07-28", "tools/call", Some("café"))
        .expect_err("not ASCII");
    assert!(error.message.contains("base64"), "{error}");
    assert!(single(&map, &NAME).is_err());
    assert_eq!(single(&map, &METHOD).expect("single"), Some("tools/call"));
    assert_eq!(single(&map, &SESSION_ID).expect("none"), None);
}

proptest! {
    #[test]
    fn every_text_reads_back(text in any::<String>()) {
        let value = encode_value(&text);
        prop_assert!(value.as_bytes().iter().all(|byte| (0x20..=0x7e).contains(byte)));
        prop_assert_eq!(decode_value(&value), Ok(text.into()));
    }

    #[test]
    fn texts_like_sentinels_read_back(text in "(=\\?)?(base64|BASE64)?\\??[A-Za-z0-9+/=]{0,8}(\\?=)?") {
        prop_assert_eq!(decode(encode_value(&text).as_bytes()), Ok(text));
    }

    #[test]
    fn own_headers_agree_with_the_body(method in "[a-z/]{1,20}", name in any::<String>()) {
        for method in [&*method, "tools/call", "resources/read"] {
            let name = name_param(method).map(|_| &*name);
            let mut map = HeaderMap::new();
            standard_headers(&mut map, Version::LATEST_MODERN, method, name);
            check_standard_headers(&map, "2026-07-28", method, name).expect("own headers");
            let other = name.map(|name| format!("{name}x"));
            if other.is_some() {
                prop_assert!(check_standard_headers(&map, "2026-07-28", method, other.as_deref()).is_err());
            }
        }
    }

    #[test]
    fn any_header_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(value) = HeaderValue::from_bytes(&bytes)
            && let Ok(text) = decode_value(&value)
        {
            let again = encode_value(&text);
            prop_assert_eq!(decode_value(&again), Ok(text));
        }
    }
}
