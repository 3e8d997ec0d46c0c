//! Tests of multi round-trip requests.

use proptest::prelude::*;

use super::{
    super::json::tests::{any_json, value},
    *,
};

fn parse(result: &str) -> Result<Option<InputRequired>, MalformedInputRequired> {
    InputRequired::parse(&value(result))
}

#[test]
fn results_that_ask_are_read_and_written() {
    let result = r#"{"resultType":"input_required","inputRequests":{"b":{"method":"elicitation/create","params":{"message":"x","n":1.0}},"a":{"method":"roots/list"}},"requestState":"v1.\u006b3"}"#;
    let asked = parse(result).expect("readable").expect("asks");
    let keys: Vec<_> = asked
        .questions
        .iter()
        .map(|question| &*question.key)
        .collect();
    assert_eq!(keys, ["b", "a"]);
    assert_eq!(
        asked.questions[0].params.as_ref().expect("params").get(),
        r#"{"message":"x","n":1.0}"#
    );
    assert_eq!(asked.to_raw().get(), result);
    let shed = parse(r#"{"resultType":"input_required","requestState":"s"}"#);
    assert!(shed.expect("readable").expect("asks").questions.is_empty());
}

#[test]
fn other_results_do_not_ask() {
    for result in [
        "{}",
        r#"{"resultType":"complete","inputRequests":{}}"#,
        "null",
        "[]",
        r#"{"resultType":5}"#,
    ] {
        assert!(parse(result).expect("fine").is_none(), "{result}");
    }
}

#[test]
fn malformed_results_are_noticed() {
    for rest in [
        "",
        r#","inputRequests":{}"#,
        r#","inputRequests":[]"#,
        r#","inputRequests":null,"requestState":null"#,
        r#","requestState":5"#,
        r#","inputRequests":{"a":{}}"#,
        r#","inputRequests":{"a":{"method":1}}"#,
        r#","inputRequests":{"a":{"method":"x","params":[]}}"#,
        r#","inputRequests":{"a":{"method":"x"},"a":{"method":"y"}}"#,
        r#","requestState":"a","requestState":"b""#,
    ] {
        let result = format!(r#"{{"resultType":"input_required"{rest}}}"#);
        assert!(parse(&result).is_err(), "{result}");
    }
    let twice = r#"{"resultType":"complete","resultType":"input_required","requestState":"a"}"#;
    assert!(parse(twice).is_err());
}

#[test]
fn questions_and_answers_are_bounded() {
    let asked = |count: usize| {
        let list: Vec<_> = (0..count)
            .map(|at| format!(r#""k{at}":{{"method":"x"}}"#))
            .collect();
        let list = list.join(",");
        let result = format!(r#"{{"resultType":"input_required","inputRequests":{{{list}}}}}"#);
        let retry = value(&format!(r#"{{"inputResponses":{{{list}}}}}"#));
        (
            parse(&result).is_ok(),
            Retry::from_params(Some(&retry)).is_ok(),
        )
    };
    assert_eq!(asked(MAX_QUESTIONS), (true, true));
    assert_eq!(asked(MAX_QUESTIONS + 1), (false, false));
}

#[test]
fn url_errors_become_questions() {
    let error = r#"{"code":-32042,"message":"x","data":{"elicitations":[{"elicitationId":"e1","url":"https://x","message":"m"},{"mode":"url","url":"https://y"}]}}"#;
    let asked = InputRequired::from_url_error(&value(error)).expect("questions");
    assert_eq!(
        asked.to_raw().get(),
        r#"{"resultType":"input_required","inputRequests":{"url-1":{"method":"elicitation/create","params":{"elicitationId":"e1","url":"https://x","message":"m","mode":"url"}},"url-2":{"method":"elicitation/create","params":{"mode":"url","url":"https://y"}}}}"#
    );
    for other in [
        r#"{"code":-32602,"message":"x","data":{"elicitations":[{"url":"https://x"}]}}"#,
        r#"{"code":-32042,"message":"x"}"#,
        r#"{"code":-32042,"message":"x","data":{"elicitations":[]}}"#,
        r#"{"code":-32042,"message":"x","data":{"elicitations":[{}]}}"#,
    ] {
        assert!(
            InputRequired::from_url_error(&value(other)).is_none(),
            "{other}"
        );
    }
}

#[test]
fn retries_are_read() {
    let params = value(
        r#"{"name":"x","inputResponses":{"a":{"action":"accept"}},"requestState":"s\u0031"}"#,
    );
    let retry = Retry::from_params(Some(&params))
        .expect("readable")
        .expect("a retry");
    assert_eq!(retry.state.as_deref(), Some("s1"));
    assert_eq!(
        retry.response("a").expect("answer").get(),
        r#"{"action":"accept"}"#
    );
    assert!(retry.response("b").is_none());
    assert_eq!(
        without_retry(Some(&params)).expect("params").get(),
        r#"{"name":"x"}"#
    );
    assert!(Retry::from_params(None).expect("none").is_none());
    assert!(
        Retry::from_params(Some(&value(r#"{"requestState":null}"#)))
            .expect("none")
            .is_none()
    );
    for bad in [
        r#"{"inputResponses":[]}"#,
        r#"{"requestState":1}"#,
        r#"{"inputResponses":{"a":1,"a":2}}"#,
    ] {
        assert_eq!(
            Retry::from_params(Some(&value(bad))).expect_err(bad).code,
            -32602
        );
    }
}

#[test]
fn a_retry_without_state_has_none() {
    let params = value(r#"{"name":"x","requestState":"old","inputResponses":{}}"#);
    assert_eq!(with_retry(Some(&params), [], None).get(), r#"{"name":"x"}"#);
    let (answer, state) = (value(r#"{"roots":[]}"#), value(r#""\u0061""#));
    assert_eq!(
        with_retry(None, [("r", &*answer)], Some(&state)).get(),
        r#"{"inputResponses":{"r":{"roots":[]}},"requestState":"\u0061"}"#
    );
}

#[test]
fn the_digest_sees_what_matters() {
    let digest = |method, params: &str| params_digest(method, Some(&value(params)));
    let first = digest(
        "tools/call",
        r#"{"name":"x","arguments":{"a":1,"b":2},"_meta":{"v":1}}"#,
    );
    assert_eq!(
        first,
        digest(
            "tools/call",
            r#"{"requestState":"s","arguments":{"b":2, "a":1},"name":"\u0078"}"#
        )
    );
    assert_ne!(
        first,
        digest("prompts/get", r#"{"name":"x","arguments":{"a":1,"b":2}}"#)
    );
    assert_ne!(
        first,
        digest("tools/call", r#"{"name":"x","arguments":{"a":1,"b":3}}"#)
    );
    assert_eq!(params_digest("x", None), digest("x", "{}"));
}

proptest! {
    #[test]
    fn a_retry_keeps_the_rest_and_its_digest(arguments in any_json(), answer in any_json(), state in any::<String>()) {
        let params = value(&format!(r#"{{"name":"t","arguments":{arguments}}}"#));
        let (answer, raw_state) = (value(&answer), json::raw_str(&state));
        let retry = with_retry(Some(&params), [("k", &*answer)], Some(&raw_state));
        let read = Retry::from_params(Some(&retry)).expect("readable").expect("a retry");
        prop_assert_eq!(read.state, Some(state));
        prop_assert_eq!(read.responses[0].1.get(), answer.get());
        prop_assert_eq!(json::member(&retry, "arguments").map(Raw::get), Some(&*arguments));
        prop_assert_eq!(params_digest("m", Some(&retry)), params_digest("m", Some(&params)));
        let stripped = without_retry(Some(&retry)).expect("params");
        prop_assert_eq!(params_digest("m", Some(&stripped)), params_digest("m", Some(&params)));
    }
}
