//! TOML as a tree.

use toml::de::{DeTable, DeValue};

use super::Document;
use crate::config::{
    section::Findings,
    tree::{Entry, Located, Table, Value},
};

/// The whole document; every syntax error is reported.
pub(super) fn parse(document: &Document<'_>, findings: &mut Findings) -> Option<Table> {
    let (table, errors) = DeTable::parse_recoverable(document.text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        let message = error.message().replace('\n', ", ");
        findings.error(&document.place(offset), "", message);
    }
    errors
        .is_empty()
        .then(|| table_of(document, table.into_inner()))
}

/// One value, as in `{ fresh = "1m" }`; `None` when it is not TOML.
pub(super) fn value(text: &str) -> Option<Value> {
    let path = "".into();
    let document = Document { path, text };
    let parsed = DeValue::parse(text).ok()?;
    Some(value_of(&document, parsed.into_inner()))
}

fn table_of(document: &Document<'_>, table: DeTable<'_>) -> Table {
    let mut entries: Vec<_> = table.into_iter().collect();
    // The parser sorts keys; the order of servers is the order they are written in.
    entries.sort_by_key(|(key, _)| key.span().start);
    Table(
        entries
            .into_iter()
            .map(|(key, value)| Entry {
                place: document.place(key.span().start),
                key: key.into_inner().into_owned(),
                value: Located {
                    place: document.place(value.span().start),
                    value: value_of(document, value.into_inner()),
                },
            })
            .collect(),
    )
}

fn value_of(document: &Document<'_>, value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Text(number.to_string()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or_else(|_| Value::Text(number.to_string()), Value::Float),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| Located {
                    place: document.place(item.span().start),
                    value: value_of(document, item.into_inner()),
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(table_of(document, table)),
    }
}
