//! YAML as a tree.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::Document;
use crate::config::{
    section::Findings,
    tree::{Entry, Located, Place, Table, Value},
};

/// The whole document. An empty one is an empty table.
pub(super) fn parse(document: &Document<'_>, findings: &mut Findings) -> Option<Table> {
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if document.text.lines().all(is_blank) {
        return Some(Table::default());
    }
    let root: Spanned<Node> = match serde_saphyr::from_str(document.text) {
        Ok(root) => root,
        Err(error) => {
            let place = error
                .location()
                .map_or_else(|| document.place(0), |location| place(document, &location));
            findings.error(&place, "", first_line(&error.without_snippet().to_string()));
            return None;
        }
    };
    let located = locate(document, root);
    match located.value {
        Value::Table(table) => Some(table),
        _ => {
            let message = format!("expected a mapping, found {}", located.shown());
            findings.error(&located.place, "", message);
            None
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A YAML value of any kind.
enum Node {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Node>>),
    Table(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or_else(|_| Node::Text(value.to_string()), Node::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = map.next_entry()? {
            table.push(entry);
        }
        Ok(Node::Table(table))
    }
}

fn place(document: &Document<'_>, location: &serde_saphyr::Location) -> Place {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX).max(1);
    Place::File {
        path: document.path.clone(),
        line: number(location.line()),
        column: number(location.column()),
    }
}

fn locate(document: &Document<'_>, node: Spanned<Node>) -> Located {
    let place = place(document, &node.referenced);
    let value = match node.value {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(value),
        Node::Integer(value) => Value::Integer(value),
        Node::Float(value) => Value::Float(value),
        Node::Text(text) => Value::Text(text),
        Node::List(items) => Value::List(
            items
                .into_iter()
                .map(|item| locate(document, item))
                .collect(),
        ),
        Node::Table(entries) => Value::Table(Table(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    place: self::place(document, &key.referenced),
                    key: key.value,
                    value: locate(document, value),
                })
                .collect(),
        )),
    };
    Located { value, place }
}
