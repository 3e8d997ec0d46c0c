//! Texts from a command line as values of the type a setting has, and values
//! as the texts that variables and arguments are. Pure.

use serde_json::{Number, Value};

use super::property::Property;

/// The text as a value of one of the setting's types. An error says what is
/// expected, and nothing of the text.
pub(super) fn from_text(property: &Property, text: &str) -> Result<Value, String> {
    // A text that is one of the choices is meant as that choice.
    if let Some(choice) = property
        .choices
        .iter()
        .find(|choice| to_text(choice) == text)
    {
        return Ok(choice.clone());
    }
    let separator = property.separator.as_deref().unwrap_or(",");
    if property.types.is_empty() {
        return Ok(Value::String(text.to_owned()));
    }
    // Texts last: everything is one.
    let (strings, others): (Vec<_>, Vec<_>) =
        property.types.iter().partition(|kind| *kind == "string");
    let mut failure = None;
    for kind in others.iter().chain(&strings) {
        match one_type(kind, text, separator, &property.item_types) {
            Ok(value) => return Ok(value),
            Err(expected) => failure = failure.or(expected),
        }
    }
    Err(failure.unwrap_or_else(|| property.expected()))
}

/// `Err(Some(..))` says more than the type's name.
fn one_type(
    kind: &str,
    text: &str,
    separator: &str,
    item_types: &[String],
) -> Result<Value, Option<String>> {
    let trimmed = text.trim();
    match kind {
        "string" => Ok(Value::String(text.to_owned())),
        "boolean" => match trimmed.to_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Value::Bool(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Bool(false)),
            _ => Err(None),
        },
        "integer" => trimmed
            .parse::<i64>()
            .map(Value::from)
            .or_else(|_| trimmed.parse::<u64>().map(Value::from))
            .map_err(|_| None),
        "number" => number(trimmed).ok_or(None),
        "null" if trimmed == "null" => Ok(Value::Null),
        "array" if trimmed.starts_with('[') => match serde_json::from_str(trimmed) {
            Ok(value @ Value::Array(_)) => Ok(value),
            _ => Err(Some("a list as JSON, such as [\"one\", \"two\"]".into())),
        },
        "array" => list(trimmed, separator, item_types),
        "object" => match serde_json::from_str(trimmed) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(Some(
                "an object as JSON, such as {\"key\": \"value\"}".into(),
            )),
        },
        _ => Err(None),
    }
}

fn list(text: &str, separator: &str, item_types: &[String]) -> Result<Value, Option<String>> {
    let items = text.split(separator).map(str::trim);
    let items = items.filter(|item| !item.is_empty());
    let kind = item_types.first().map_or("string", String::as_str);
    let items = items.map(|item| one_type(kind, item, separator, &[]));
    let items: Result<Vec<_>, _> = items.collect();
    items.map(Value::Array).map_err(|_| {
        let of = match kind {
            "integer" => "whole numbers",
            "number" => "numbers",
            "boolean" => "true or false",
            _ => "values",
        };
        Some(format!("a list of {of} with {separator:?} between them"))
    })
}

fn number(text: &str) -> Option<Value> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    Number::from_f64(text.parse().ok()?).map(Value::Number)
}

/// A value that is no list as a text.
pub(super) fn to_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A value as one text, a list's items with `joint` between them.
pub(super) fn joined(value: &Value, joint: &str) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(to_text).collect();
            items.join(joint)
        }
        other => to_text(other),
    }
}

/// The parts of a value: a list's items, or a text split at `separator`, at
/// blanks without one.
pub(super) fn parts(value: &Value, separator: Option<&str>) -> Vec<String> {
    let split = |text: &str| -> Vec<String> {
        let owned = |part: &str| part.trim().to_owned();
        let parts: Vec<_> = match separator.filter(|separator| !separator.trim().is_empty()) {
            Some(separator) => text.split(separator).map(owned).collect(),
            None => text.split_whitespace().map(owned).collect(),
        };
        parts.into_iter().filter(|part| !part.is_empty()).collect()
    };
    match value {
        Value::Array(items) => items.iter().map(to_text).collect(),
        Value::String(text) => split(text),
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        config::{section::Findings, tree::Place},
        templates::property::Property,
    };

    fn property(schema: &Value) -> Property {
        let place = Place::Request;
        Property::read("key", schema, false, &place, &mut Findings::default())
    }

    fn coerced(schema: &Value, text: &str) -> Result<Value, String> {
        from_text(&property(schema), text)
    }

    #[test]
    fn texts_become_the_type_the_schema_names() {
        for (schema, text, value) in [
            (json!({"type": "integer"}), "5", json!(5)),
            (json!({"type": "integer"}), " -3 ", json!(-3)),
            (
                json!({"type": "integer"}),
                "18446744073709551615",
                json!(u64::MAX),
            ),
            (json!({"type": "number"}), "2.5", json!(2.5)),
            (json!({"type": "number"}), "2", json!(2)),
            (json!({"type": "boolean"}), "Yes", json!(true)),
            (json!({"type": "boolean"}), "0", json!(false)),
            (json!({"type": "string"}), "5", json!("5")),
            (json!({}), "5", json!("5")),
            (json!({"type": "array"}), "a, b,,c", json!(["a", "b", "c"])),
            (
                json!({"type": "array", "env_separator": ":"}),
                "/a:/b",
                json!(["/a", "/b"]),
            ),
            (json!({"type": "array"}), "[\"a,b\"]", json!(["a,b"])),
            (
                json!({"type": "array", "items": {"type": "integer"}}),
                "1,2",
                json!([1, 2]),
            ),
            (json!({"type": "object"}), "{\"a\":1}", json!({"a": 1})),
            (json!({"type": ["integer", "string"]}), "7", json!(7)),
            (json!({"type": ["string", "integer"]}), "x", json!("x")),
            (json!({"enum": [1, 2]}), "2", json!(2)),
        ] {
            assert_eq!(coerced(&schema, text), Ok(value), "{schema} {text}");
        }
    }

    #[test]
    fn what_does_not_fit_says_what_was_expected_and_nothing_of_the_text() {
        for (schema, text, expected) in [
            (json!({"type": "integer"}), "5.5", "a whole number"),
            (json!({"type": "boolean"}), "maybe", "true or false"),
            (json!({"type": "number"}), "NaN", "a number"),
            (json!({"type": "array"}), "[1", "a list as JSON"),
            (json!({"type": "object"}), "x=1", "an object as JSON"),
            (
                json!({"type": "array", "items": {"type": "integer"}}),
                "1,x",
                "a list of whole numbers with \",\" between them",
            ),
        ] {
            let told = coerced(&schema, text).expect_err("does not fit");
            assert!(
                told.starts_with(expected) && !told.contains(text),
                "{told:?}"
            );
        }
    }

    #[test]
    fn values_become_texts() {
        assert_eq!(joined(&json!(["a", 1, true]), ":"), "a:1:true");
        assert_eq!(joined(&json!(1.0), ","), "1.0");
        assert_eq!(parts(&json!("/a  /b"), None), ["/a", "/b"]);
        assert_eq!(parts(&json!("/a b,/c"), Some(",")), ["/a b", "/c"]);
        assert_eq!(parts(&json!(["/a b"]), None), ["/a b"]);
    }
}
