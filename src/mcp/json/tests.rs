//! Tests of editing objects, and the JSON that other tests are fed with.

use proptest::{collection::vec, prelude::*};

use super::*;

/// `text` as a raw value.
pub(crate) fn value(text: &str) -> Box<Raw> {
    Raw::from_string(text.to_owned()).expect("test data is JSON")
}

/// A JSON string as peers write it: plain, escaped, with joiners, long.
pub(crate) fn any_string() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z_/]{0,12}".prop_map(|text| format!("\"{text}\"")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("text")),
        Just(r#""\u00e9\/\ud83d\udc69\u200d\ud83d\udcbb""#.to_owned()),
        Just("\"👩‍👩‍👧\u{a0}\u{2028}\"".to_owned()),
    ]
}

/// Any JSON value, with white space between its tokens.
pub(crate) fn any_json() -> impl Strategy<Value = String> {
    let space = || prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("\r\n")];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just("12345678901234567890123456789".to_owned()),
        Just("0.1000".to_owned()),
        Just("-0".to_owned()),
        Just("1E400".to_owned()),
        any_string(),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            (vec((space(), inner.clone(), space()), 0..5)).prop_map(|items| {
                let items: Vec<_> = items.iter().map(|(a, v, b)| format!("{a}{v}{b}")).collect();
                format!("[{}]", items.join(","))
            }),
            (vec((space(), any_string(), space(), inner), 0..6)).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(a, name, b, v)| format!("{a}{name}{b}:{a}{v}{b}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

#[test]
fn members_keep_their_order_and_bytes() {
    let raw = value(r#"{ "b" : 1.0 , "a\u00e9" : {"x": [ 1 ]}, "n": 12345678901234567890 }"#);
    let mut object = RawObject::parse(&raw).expect("object");
    assert_eq!(object.get("aé").expect("value").get(), r#"{"x": [ 1 ]}"#);
    object.set("c", raw_str("d"));
    object.set("b", value("2"));
    assert_eq!(
        object.to_raw().get(),
        r#"{"b":2,"a\u00e9":{"x": [ 1 ]},"n":12345678901234567890,"c":"d"}"#
    );
    assert_eq!(
        object.remove("n").expect("value").get(),
        "12345678901234567890"
    );
    assert_eq!(object.len(), 3);
    assert!(object.remove("n").is_none());
}

#[test]
fn of_repeated_members_the_last_counts() {
    let raw = value(r#"{"a":1,"b":2,"a":3,"\u0061":4}"#);
    let mut object = RawObject::parse(&raw).expect("object");
    assert_eq!(object.get("a").expect("value").get(), "4");
    assert_eq!(object.repeated_name(), Some("a"));
    let mut other = object.clone();
    object.set("a", value("5"));
    assert_eq!(object.to_raw().get(), r#"{"a":5,"b":2}"#);
    assert_eq!(object.repeated_name(), None);
    assert_eq!(other.remove("a").expect("value").get(), "4");
    assert_eq!(other.to_raw().get(), r#"{"b":2}"#);
}

#[test]
fn repeated_names_are_found_among_many() {
    let mut text: Vec<_> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
    let raw = value(&format!("{{{}}}", text.join(",")));
    assert_eq!(
        RawObject::parse(&raw).expect("object").repeated_name(),
        None
    );
    text.push("\"k7\":0".to_owned());
    let raw = value(&format!("{{{}}}", text.join(",")));
    assert_eq!(
        RawObject::parse(&raw).expect("object").repeated_name(),
        Some("k7")
    );
}

#[test]
fn a_million_repeats_are_removed_in_one_pass() {
    let mut text = r#""a":1,"b":2,"#.repeat(500_000);
    text.pop();
    let raw = value(&format!("{{{text}}}"));
    let mut object = RawObject::parse(&raw).expect("object");
    assert_eq!(object.repeated_name(), Some("a"));
    object.remove("a");
    assert_eq!(object.len(), 500_000);
    object.set("b", value("3"));
    assert_eq!(object.to_raw().get(), r#"{"b":3}"#);
}

#[test]
fn only_objects_are_objects() {
    for other in ["[]", "null", "\"{}\"", "1", r#"{"\ud800":1}"#] {
        assert!(RawObject::parse(&value(other)).is_err(), "{other}");
    }
    assert!(RawObject::parse(&value("{}")).expect("object").is_empty());
    assert!(elements(&value("{}")).is_err());
}

#[test]
fn typed_access() {
    let raw = value(r#"{"s":"a\nb","o":{"x":1},"n":null}"#);
    let object = RawObject::parse(&raw).expect("object");
    assert_eq!(object.get_str("s").expect("text"), "a\nb");
    assert_eq!(object.get_str("o"), None);
    assert!(object.get_object("o").expect("object").contains("x"));
    assert!(object.get_object("s").is_none());
    assert!(is_null(object.get("n").expect("null")));
}

#[test]
fn single_members_are_looked_up() {
    let raw = value(r#"{"a":1,"x":{"b":0},"\u0062":[2],"x":0}"#);
    let [a, b, c] = members(&raw, ["a", "b", "c"]).expect("object");
    assert_eq!(a.expect("a").get(), "1");
    assert_eq!(b.expect("b").get(), "[2]");
    assert!(c.is_none());
    assert_eq!(
        members(&raw, ["a", "x"]).unwrap_err(),
        Unreadable::Repeated("x".to_owned())
    );
    assert_eq!(member(&raw, "x").map(Raw::get), None);
    assert_eq!(
        members(&value("[]"), ["a"]).unwrap_err(),
        Unreadable::NotAnObject
    );
    assert_eq!(member_str(&raw, "a"), None);
}

#[test]
fn nesting_is_counted_outside_strings() {
    assert!(depth_within(b"{\"a\":[1,{\"b\":[]}]}", 4));
    assert!(!depth_within(b"{\"a\":[1,{\"b\":[]}]}", 3));
    assert!(depth_within(br#"["[[[[[[", "\"[[[", "\\"]"#, 1));
    assert!(depth_within(b"[][][]]]]]][]", 1));
    assert!(depth_within(b"\"[[[", 0));
    assert!(depth_within(b"\"\\", 0));
    assert!(depth_within(b"", 0));
    assert!(!depth_within(&b"[".repeat(100_000), 64));
}

#[test]
fn bounded_arrays() {
    let items = |json, max| elements_within(json, max).map(|items| items.map(|items| items.len()));
    assert_eq!(items("[1, 2]", 2).expect("array"), Some(2));
    assert_eq!(items("[1, 2, 3]", 2).expect("array"), None);
    assert_eq!(items("[]", 2).expect("array"), Some(0));
    assert!(items("[1, 2, 3", 2).is_err());
    assert!(items("[1] 2", 2).is_err());
}

#[test]
fn canonical_form_ignores_order_space_and_escapes() {
    let a = value(r#"{"b": [ {"y":1, "x":"\u0041\/"} ], "a": 1.0}"#);
    let b = value(r#"{"a":1.0,"b":[{"x":"A/","y":1}]}"#);
    assert_eq!(canonical(&a), canonical(&b));
    assert_eq!(canonical(&a), br#"{"a":1.0,"b":[{"x":"A/","y":1}]}"#);
    assert_ne!(canonical(&value("1")), canonical(&value("1.0")));
    let deep = value(&format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)));
    assert_eq!(canonical(&deep), deep.get().as_bytes());
}

proptest! {
    #[test]
    fn an_untouched_object_is_written_with_the_same_members(json in any_json()) {
        let raw = value(&json);
        let Ok(object) = RawObject::parse(&raw) else {
            prop_assert!(!is_object(&raw));
            return Ok(());
        };
        let written = object.to_raw();
        let again = RawObject::parse(&written).expect("object");
        let members = |object: &RawObject<'_>| -> Vec<(String, String)> {
            object.iter().map(|(name, raw)| (name.to_owned(), raw.get().to_owned())).collect()
        };
        prop_assert_eq!(members(&object), members(&again));
        let twice = again.to_raw();
        prop_assert_eq!(twice.get(), written.get());
    }

    #[test]
    fn setting_changes_one_member_only(json in any_json(), name in any::<String>(), new in any_json()) {
        let raw = value(&json);
        let Ok(mut object) = RawObject::parse(&raw) else { return Ok(()) };
        let before: Vec<_> = object.iter()
            .filter(|(other, _)| *other != name)
            .map(|(other, raw)| (other.to_owned(), raw.get().to_owned()))
            .collect();
        object.set(name.clone(), value(&new));
        let written = object.to_raw();
        let mut again = RawObject::parse(&written).expect("object");
        let set = again.remove(&name).expect("set");
        prop_assert_eq!(set.get(), &*new);
        let after: Vec<_> = again.iter()
            .map(|(other, raw)| (other.to_owned(), raw.get().to_owned()))
            .collect();
        prop_assert_eq!(before, after);
    }

    #[test]
    fn canonical_json_is_a_fixed_point(json in any_json()) {
        let once = canonical(&value(&json));
        let text = String::from_utf8(once.clone()).expect("JSON");
        prop_assert_eq!(canonical(&value(&text)), once);
    }

    #[test]
    fn single_lines_mean_the_same(json in any_json()) {
        let line = single_line(json.as_bytes());
        prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let text = String::from_utf8(line.into_owned()).expect("text");
        prop_assert_eq!(canonical(&value(&text)), canonical(&value(&json)));
    }

    #[test]
    fn depth_agrees_with_counting(json in any_json()) {
        fn depth(raw: &Raw) -> u32 {
            let deepest = |inner: Vec<&Raw>| 1 + inner.into_iter().map(depth).max().unwrap_or(0);
            match (elements(raw), RawObject::parse(raw)) {
                (Ok(items), _) => deepest(items),
                (_, Ok(object)) => deepest(object.iter().map(|(_, value)| value).collect()),
                _ => 0,
            }
        }
        let depth = depth(&value(&json));
        prop_assert!(depth_within(json.as_bytes(), depth));
        prop_assert!(depth == 0 || !depth_within(json.as_bytes(), depth - 1));
    }

    #[test]
    fn depth_takes_any_bytes(bytes in vec(any::<u8>(), 0..200), max in 0u32..5) {
        prop_assert!(!depth_within(&bytes, max) || depth_within(&bytes, max + 1));
    }
}
