//! Tests of parameter headers.

use proptest::prelude::*;

use super::{super::json::tests::value, *};

fn read(schema: &str) -> Result<ParamHeaders, InvalidAnnotation> {
    ParamHeaders::from_schema(&value(schema))
}

fn tool() -> ParamHeaders {
    read(
        r#"{"type":"object","properties":{
            "site":{"type":"string","x-mcp-header":"Site"},
            "limits":{"type":"object","properties":{"max":{"type":"integer","x-mcp-header":"Max"}}},
            "dry":{"type":"boolean","x-mcp-header":"Dry-Run"},
            "x-mcp-header":{"type":"string"},
            "plain":{"type":"string","default":{"x-mcp-header":1}}}}"#,
    )
    .expect("valid")
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, text) in list {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).expect("name"),
            HeaderValue::from_str(text).expect("value"),
        );
    }
    map
}

fn check(list: &[(&str, &str)], arguments: &str) -> Result<(), RpcError> {
    tool().check(&headers(list), Some(&value(arguments)))
}

#[test]
fn schemas_without_annotations_need_no_headers() {
    for schema in [
        r#"{"type":"object"}"#,
        "true",
        r#"{"properties":{"x-mcp-header":{"type":"string"}}}"#,
        r#"{"properties":{"a":{"enum":[{"x-mcp-header":"x"}],"const":{"x-mcp-header":"y"}}}}"#,
    ] {
        assert!(read(schema).expect(schema).is_empty(), "{schema}");
    }
}

#[test]
fn misplaced_and_malformed_annotations_are_invalid() {
    let property =
        |property: &str| format!(r#"{{"type":"object","properties":{{"a":{property}}}}}"#);
    for schema in [
        r#"{"type":"string","x-mcp-header":"A"}"#.to_owned(),
        property(r#"{"type":"string","x-mcp-header":""}"#),
        property(r#"{"type":"string","x-mcp-header":5}"#),
        property(r#"{"type":"string","x-mcp-header":"a b"}"#),
        property(r#"{"type":"string","x-mcp-header":"a:b"}"#),
        property(r#"{"type":"string","x-mcp-header":"größe"}"#),
        property("{\"type\":\"string\",\"x-mcp-header\":\"a\\r\\nb\"}"),
        property(r#"{"type":"number","x-mcp-header":"A"}"#),
        property(r#"{"type":"object","x-mcp-header":"A"}"#),
        property(r#"{"type":["string"],"x-mcp-header":"A"}"#),
        property(r#"{"x-mcp-header":"A"}"#),
        property(r#"{"\u0078-mcp-header":"A"}"#),
        property(r#"{"type":"array","items":{"type":"string","x-mcp-header":"A"}}"#),
        property(r#"{"oneOf":[{"type":"string","x-mcp-header":"A"}]}"#),
        property(r#"{"anyOf":[{"properties":{"b":{"type":"string","x-mcp-header":"A"}}}]}"#),
        property(r#"{"allOf":[{"type":"string","x-mcp-header":"A"}]}"#),
        property(r#"{"not":{"type":"string","x-mcp-header":"A"}}"#),
        property(r#"{"if":{"type":"string","x-mcp-header":"A"}}"#),
        property(r#"{"then":{"type":"string","x-mcp-header":"A"}}"#),
        property(r#"{"else":{"type":"string","x-mcp-header":"A"}}"#),
        r##"{"properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"type":"string","x-mcp-header":"A"}}}"##.to_owned(),
        r#"{"additionalProperties":{"type":"string","x-mcp-header":"A"}}"#.to_owned(),
        r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#.to_owned(),
        format!(
            r#"{{"properties":{{{}}}}}"#,
            (0..65).map(|n| format!(r#""p{n}":{{"type":"string","x-mcp-header":"P{n}"}}"#)).collect::<Vec<_>>().join(",")
        ),
        format!("{}{}{}", r#"{"properties":{"a":"#.repeat(70), r#"{"type":"string","x-mcp-header":"A"}"#, "}}".repeat(70)),
    ] {
        let error = read(&schema).expect_err(&schema);
        assert!(error.to_string().starts_with("invalid x-mcp-header: at "), "{error}");
    }
}

#[test]
fn headers_that_repeat_the_arguments_pass() {
    let all = [
        ("Mcp-Param-Site", "berlin"),
        ("mcp-param-max", "42"),
        ("MCP-PARAM-DRY-RUN", "true"),
    ];
    check(&all, r#"{"site":"berlin","limits":{"max":42},"dry":true}"#).expect("agrees");
    let encoded = [("mcp-param-site", "=?base64?TcO8bmNoZW4=?=")];
    check(
        &encoded,
        r#"{"site":"M\u00fcnchen","limits":{"max":null},"dry":null}"#,
    )
    .expect("agrees");
    check(&[], "{}").expect("nothing to repeat");
    check(&[], r#"{"limits":5,"site":null,"other":1}"#).expect("nothing to repeat");
    check(&[("mcp-param-else", "x")], "{}").expect("unknown headers do not count");
    tool().check(&HeaderMap::new(), None).expect("no arguments");
    // Not a string at all: no header can repeat it, the schema's check will tell.
    check(&[], r#"{"site":{"a":1}}"#).expect("not our business");
}

#[test]
fn integers_are_compared_as_numbers() {
    for (header, argument) in [
        ("42", "42.0"),
        ("42.0", "42"),
        ("4.2e1", "42"),
        ("-1", "-1.0"),
        ("9007199254740993", "9007199254740993"),
    ] {
        let arguments = format!(r#"{{"limits":{{"max":{argument}}}}}"#);
        check(&[("mcp-param-max", header)], &arguments).expect(header);
    }
    for (header, argument) in [
        ("42", "43"),
        ("9007199254740993", "9007199254740992"),
        ("0x2a", "42"),
        ("", "0"),
        ("inf", "1"),
        (" 4 2", "42"),
    ] {
        let arguments = format!(r#"{{"limits":{{"max":{argument}}}}}"#);
        check(&[("mcp-param-max", header)], &arguments).expect_err(header);
    }
}

#[test]
fn disagreeing_headers_are_refused() {
    for (list, arguments) in [
        (vec![], r#"{"site":"berlin"}"#),
        (vec![("mcp-param-site", "paris")], r#"{"site":"berlin"}"#),
        (vec![("mcp-param-site", "Berlin")], r#"{"site":"berlin"}"#),
        (vec![("mcp-param-site", "berlin")], "{}"),
        (vec![("mcp-param-site", "null")], r#"{"site":null}"#),
        (
            vec![("mcp-param-site", "berlin"), ("mcp-param-site", "berlin")],
            r#"{"site":"berlin"}"#,
        ),
        (
            vec![("mcp-param-site", "=?base64?YmVybGlu=?=")],
            r#"{"site":"berlin"}"#,
        ),
        (vec![("mcp-param-dry-run", "True")], r#"{"dry":true}"#),
        (vec![("mcp-param-site", "{}")], r#"{"site":{}}"#),
        (vec![("mcp-param-site", "a")], r#"{"site":"a","site":"b"}"#),
    ] {
        let error = check(&list, arguments).expect_err(arguments);
        assert_eq!(error.code, -32020, "{arguments}");
    }
    let error = check(&[], r#"{"limits":{"max":7}}"#).expect_err("missing");
    assert!(
        error.message.contains("limits.max") && error.message.contains("Mcp-Param-max"),
        "{error}"
    );
}

#[test]
fn outgoing_headers_are_made_from_the_arguments() {
    let made = |arguments: &str| -> Vec<(String, String)> {
        tool()
            .headers_for(Some(&value(arguments)))
            .into_iter()
            .map(|(name, text)| (name.to_string(), text.to_str().expect("ASCII").to_owned()))
            .collect()
    };
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(
        made(r#"{"dry":false,"limits":{"max":1e2},"site":" x"}"#),
        [
            pair("mcp-param-site", "=?base64?IHg=?="),
            pair("mcp-param-max", "100"),
            pair("mcp-param-dry-run", "false")
        ]
    );
    assert_eq!(
        made(r#"{"site":"","limits":{"max":null},"dry":[]}"#),
        [pair("mcp-param-site", "")]
    );
    assert!(tool().headers_for(None).is_empty());
}

#[test]
fn unknown_param_headers_are_passed_on() {
    let map = headers(&[
        ("mcp-param-site", "a"),
        ("mcp-param-x", "b"),
        ("mcp-name", "c"),
        ("mcp-param-x", "d"),
    ]);
    let tool = tool();
    let unknown: Vec<_> = tool
        .unknown(&map)
        .map(|(_, value)| value.to_str().expect("ASCII"))
        .collect();
    assert_eq!(unknown, ["b", "d"]);
}

proptest! {
    #[test]
    fn own_headers_always_agree(site in any::<Option<String>>(), max in any::<Option<i64>>(), dry in any::<Option<bool>>()) {
        let arguments = json::raw(&serde_json::json!({"site": site, "limits": {"max": max}, "dry": dry}));
        let tool = tool();
        let map: HeaderMap = tool.headers_for(Some(&arguments)).into_iter().collect();
        prop_assert_eq!(
            map.len(),
            usize::from(site.is_some()) + usize::from(max.is_some()) + usize::from(dry.is_some())
        );
        tool.check(&map, Some(&arguments)).expect("own headers");
    }

    #[test]
    fn any_schema_is_read_calmly(schema in super::super::json::tests::any_json(), label in "[a-z ]{0,3}") {
        read(&schema).ok();
        let annotated = format!(r#"{{"properties":{{"a":{{"type":"string","x-mcp-header":"{label}","allOf":[{schema}]}}}}}}"#);
        if let Ok(tool) = read(&annotated) {
            prop_assert!(!tool.is_empty() && !label.is_empty());
        }
    }
}
