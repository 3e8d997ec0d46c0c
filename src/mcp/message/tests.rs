//! Tests of reading and writing messages.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{
    super::json::tests::{any_json, value},
    *,
};

const LIMITS: ParseLimits = ParseLimits {
    max_depth: 64,
    max_batch: 3,
};

fn parse(text: &str) -> Result<Message<'_>, MessageError> {
    match parse_body(text.as_bytes(), &LIMITS)? {
        Body::Single(message) => Ok(message),
        Body::Batch(_) => panic!("a batch"),
    }
}

fn refusal(text: &str) -> MessageError {
    parse(text).expect_err(text)
}

#[test]
fn requests_notifications_and_responses_are_told_apart() {
    let Message::Request(request) =
        parse(r#" {"method":"tools\/call","params":{"a": 1.0},"id":7,"jsonrpc":"2.0","x":[]} "#)
            .expect("request")
    else {
        panic!("not a request");
    };
    assert_eq!(request.id.to_string(), "7");
    assert_eq!(request.method, "tools/call");
    assert_eq!(request.params.expect("params").get(), r#"{"a": 1.0}"#);

    let text = "\n{\"jsonrpc\":\"2.0\", \"method\":\"ping\",\"params\":null}\n";
    let Message::Notification(notification) = parse(text).expect("notification") else {
        panic!("not a notification");
    };
    assert!(notification.params.is_none());
    assert_eq!(notification.raw, text.trim());

    for (text, id) in [
        (
            r#"{"jsonrpc":"2.0","id":"s-1","result":null}"#,
            Some("\"s-1\""),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#,
            Some("1"),
        ),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#, None),
        (r#"{"jsonrpc":"2.0","error":{"code":1}}"#, None),
    ] {
        let Message::Response(response) = parse(text).expect(text) else {
            panic!("not a response");
        };
        assert_eq!(response.id.map(|id| id.to_string()).as_deref(), id);
        assert_eq!(
            response.answer.to_answer().is_error(),
            text.contains("code")
        );
    }
}

#[test]
fn what_is_not_json_is_a_parse_error() {
    for text in [
        "",
        " ",
        "{",
        "nope",
        "{\"jsonrpc\":}",
        "[1,",
        "{} x",
        "\"open",
        "[}",
    ] {
        let error = refusal(text);
        assert_eq!(
            (error.kind, error.code()),
            (MessageErrorKind::NotJson, -32700),
            "{text}"
        );
        assert_eq!(error.id, None);
    }
    let error = parse_message(b"{\"method\":\"\xff\"}").expect_err("not UTF-8");
    assert_eq!(error.kind, MessageErrorKind::NotJson);
}

#[test]
fn what_is_not_a_message_is_an_invalid_request_and_keeps_its_id() {
    for (text, id) in [
        ("1", None),
        ("\"x\"", None),
        ("null", None),
        ("{}", None),
        (r#"{"jsonrpc":"2.0","id":1}"#, Some("1")),
        (r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#, Some("1")),
        (r#"{"jsonrpc":2.0,"id":1,"method":"a"}"#, Some("1")),
        (r#"{"id":"q","method":"a"}"#, Some("\"q\"")),
        (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#, Some("1")),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":"x"}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            Some("1"),
        ),
        (r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1e3,"method":"a"}"#, None),
        (r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#, None),
        (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, None),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"a"}"#, None),
        (r#"{"jsonrpc":"2.0","id":"\ud800","method":"a"}"#, None),
    ] {
        let error = refusal(text);
        assert_eq!(
            (error.kind, error.code()),
            (MessageErrorKind::NotAMessage, -32600),
            "{text}"
        );
        assert_eq!(error.id.map(|id| id.to_string()).as_deref(), id, "{text}");
    }
}

#[test]
fn repeated_members_are_refused() {
    for (text, id) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"a","\u006dethod":"b"}"#,
            Some("1"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{},"params":{}}"#,
            Some("1"),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#, None),
        (r#"{"jsonrpc":"2.0","id":null,"id":2,"method":"a"}"#, None),
        (
            r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":2,"method":"a"}"#,
            Some("2"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":1,"result":2}"#,
            Some("1"),
        ),
    ] {
        let error = refusal(text);
        assert_eq!(error.code(), -32600, "{text}");
        assert!(error.message.contains("more than once"), "{text}: {error}");
        assert_eq!(error.id.map(|id| id.to_string()).as_deref(), id, "{text}");
    }
    parse(r#"{"jsonrpc":"2.0","id":1,"method":"a","x":1,"x":2}"#)
        .expect("unknown members may repeat");
}

#[test]
fn limits_hold() {
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":{}{}}}}}"#,
        "[".repeat(63),
        "]".repeat(63)
    );
    assert_eq!(refusal(&deep).kind, MessageErrorKind::TooDeep);
    let id = "9".repeat(MAX_ID_LEN + 1);
    let error = refusal(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"a"}}"#));
    assert!(error.message.contains("longer"), "{error}");
    for (batch, kind) in [
        ("[]", MessageErrorKind::EmptyBatch),
        ("[1,2,3,4]", MessageErrorKind::BatchTooLong),
    ] {
        let error = parse_body(batch.as_bytes(), &LIMITS).expect_err(batch);
        assert_eq!((error.kind, error.code()), (kind, -32600));
    }
}

#[test]
fn a_batch_reports_bad_messages_in_their_places() {
    let text = r#" [{"jsonrpc":"2.0","id":1,"method":"a"}, 5, [{"jsonrpc":"2.0","method":"b"}]] "#;
    let Body::Batch(items) = parse_body(text.as_bytes(), &LIMITS).expect("batch") else {
        panic!("not a batch");
    };
    assert_eq!(items.len(), 3);
    assert_eq!(items[0].as_ref().expect("request").method(), Some("a"));
    for item in &items[1..] {
        assert_eq!(
            item.as_ref().expect_err("bad").kind,
            MessageErrorKind::NotAMessage
        );
    }
    assert!(
        parse_message(b"[]").is_err(),
        "outside a body a batch is no message"
    );
}

#[test]
fn ids_are_compared_as_json_values() {
    let id = |text: &str| RequestId::parse(&value(text)).expect(text);
    assert_eq!(id("\"a/b\""), id("\"a\\/b\""));
    assert_eq!(id("1"), id("1.0"));
    assert_ne!(id("1"), id("\"1\""));
    assert_ne!(id("\"a\""), id("\"A\""));
    assert_ne!(id("9007199254740992"), id("9007199254740993"));
    assert_eq!(id("\"a\\\"b\""), id("\"a\\u0022b\""));
    assert_eq!(id("5").as_number(), Some(5));
    assert_eq!(id("\"5\"").as_number(), None);
    assert_eq!(RequestId::new_number(7), id("7"));
    assert_eq!(RequestId::new_string("é\"x"), id("\"\\u00e9\\\"x\""));
    let set: HashSet<_> = ["\"a/b\"", "\"a\\/b\"", "1", "1.00", "\"1\""]
        .map(id)
        .into();
    assert_eq!(set.len(), 3);
}

#[test]
fn messages_are_written_as_they_are_read() {
    let mut out = Vec::new();
    let id = RequestId::new_string("a\"b");
    write_request(&mut out, &id, "tools/call", Some(&value(r#"{"x": 1.0}"#)));
    assert_eq!(
        out,
        br#"{"jsonrpc":"2.0","id":"a\"b","method":"tools/call","params":{"x": 1.0}}"#
    );
    out.clear();
    write_notification(&mut out, "we\"ird", None);
    assert_eq!(out, br#"{"jsonrpc":"2.0","method":"we\"ird"}"#);
    let result = Answer::Result(value("{\"n\":1e2}"));
    assert_eq!(
        response_bytes(&RequestId::new_number(3), &result),
        &br#"{"jsonrpc":"2.0","id":3,"result":{"n":1e2}}"#[..]
    );
    let error = RpcError::invalid_request("no");
    assert_eq!(
        error_bytes(None, &error),
        &br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}"#[..]
    );
    assert_eq!(Answer::error(&error).error_code(), Some(-32600));
    assert_eq!(result.error_code(), None);
}

fn any_id() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        Just("123456789012345678901234567890".to_owned()),
        "[ -~]{0,20}".prop_map(|text| serde_json::to_string(&text).expect("text")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("text")),
    ]
}

proptest! {
    #[test]
    fn nothing_a_peer_sends_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        parse_body(&bytes, &LIMITS).ok();
        parse_message(&bytes).ok();
    }

    #[test]
    fn any_json_is_a_message_or_refused(json in any_json()) {
        if let Err(error) = parse_message(json.as_bytes()) {
            prop_assert_eq!(error.code(), -32600);
        }
    }

    #[test]
    fn requests_keep_id_and_params_byte_for_byte(
        id in any_id(),
        method in any::<String>(),
        params in proptest::option::of(any_json().prop_filter("an object", |json| json.starts_with('{'))),
    ) {
        let raw_params = params.as_deref().map(value);
        let id = RequestId::parse(&value(&id)).expect("id");
        let mut out = Vec::new();
        write_request(&mut out, &id, &method, raw_params.as_deref());
        let Message::Request(request) = parse_message(&out).expect("own request") else {
            panic!("not a request");
        };
        prop_assert_eq!(&request.id, &id);
        prop_assert_eq!(request.id.to_string(), id.to_string());
        prop_assert_eq!(&*request.method, &*method);
        prop_assert_eq!(request.params.map(Raw::get), params.as_deref());
    }

    #[test]
    fn answers_keep_their_bytes(id in any_id(), result in any_json(), fails in any::<bool>()) {
        let id = RequestId::parse(&value(&id)).expect("id");
        let raw = value(&result);
        prop_assume!(!fails || result != "null");
        let answer = if fails { Answer::Error(raw) } else { Answer::Result(raw) };
        let bytes = response_bytes(&id, &answer);
        let Message::Response(response) = parse_message(&bytes).expect("own response") else {
            panic!("not a response");
        };
        prop_assert_eq!(response.id, Some(id));
        match response.answer {
            AnswerRef::Result(raw) => prop_assert!(!fails && raw.get() == result),
            AnswerRef::Error(raw) => prop_assert!(fails && raw.get() == result),
        }
    }
}
