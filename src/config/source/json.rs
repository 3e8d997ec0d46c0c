//! JSON as a tree. Raw values are slices of the text, so their offsets are known.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::Document;
use crate::config::{
    section::Findings,
    tree::{Entry, Located, Place, Table, Value},
};

/// Deeper than anything that is configured.
const MAX_DEPTH: u32 = 64;

/// The whole document.
pub(super) fn parse(document: &Document<'_>, findings: &mut Findings) -> Option<Table> {
    let located = match value(document) {
        Ok(located) => located,
        Err((place, message)) => {
            findings.error(&place, "", message);
            return None;
        }
    };
    match located.value {
        Value::Table(table) => Some(table),
        _ => {
            let message = format!("expected an object, found {}", located.shown());
            findings.error(&located.place, "", message);
            None
        }
    }
}

/// Any JSON value.
pub(super) fn value(document: &Document<'_>) -> Result<Located, (Place, String)> {
    let raw: &RawValue = serde_json::from_str(document.text).map_err(|error| {
        let place = Place::File {
            path: document.path.clone(),
            line: error.line().max(1),
            column: error.column().max(1),
        };
        let text = error.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text);
        (place, message.to_owned())
    })?;
    located(document, raw, 0)
}

/// The members of an object in their order.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

fn place_of(document: &Document<'_>, raw: &RawValue) -> Place {
    let offset = raw.get().as_ptr().addr() - document.text.as_ptr().addr();
    document.place(offset)
}

fn located(
    document: &Document<'_>,
    raw: &RawValue,
    depth: u32,
) -> Result<Located, (Place, String)> {
    let place = place_of(document, raw);
    if depth > MAX_DEPTH {
        return Err((place, "nested too deeply".into()));
    }
    let bad = |error: serde_json::Error| (place.clone(), error.to_string());
    let value = match raw.get().as_bytes().first() {
        Some(b'{') => {
            let members: Members<'_> = serde_json::from_str(raw.get()).map_err(bad)?;
            Value::Table(table(document, &members, depth)?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(bad)?;
            let items = items
                .into_iter()
                .map(|item| located(document, item, depth + 1));
            Value::List(items.collect::<Result<_, _>>()?)
        }
        _ => scalar(serde_json::from_str(raw.get()).map_err(bad)?),
    };
    Ok(Located { value, place })
}

fn table(
    document: &Document<'_>,
    members: &Members<'_>,
    depth: u32,
) -> Result<Table, (Place, String)> {
    let mut table = Table::default();
    for (raw_key, raw_value) in &members.0 {
        let place = place_of(document, raw_key);
        let key: String = serde_json::from_str(raw_key.get())
            .map_err(|error| (place.clone(), error.to_string()))?;
        if table.get_mut(&key).is_some() {
            return Err((place, format!("duplicate key {key:?}")));
        }
        let value = located(document, raw_value, depth + 1)?;
        table.0.push(Entry { key, place, value });
    }
    Ok(table)
}

fn scalar(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, Some(float)) => Value::Float(float),
            (None, None) => Value::Text(number.to_string()),
        },
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Value::Null
        }
    }
}
