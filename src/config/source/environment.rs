//! The environment: `MCP_FLEET__SECTION__KEY`, and the names that others gave
//! to things long ago. An empty variable counts as not set.

use std::sync::Arc;

use super::{Document, WAYS_TO_REACH, json, toml};
use crate::config::tree::{Located, Place, Table, Value};

const PREFIX: &str = "MCP_FLEET__";

/// Conventional names, weaker than ours.
const CONVENTIONAL: [(&str, &[&str]); 6] = [
    ("REDIS_URL", &["redis", "url"]),
    ("HEALTH_CHECK_INTERVAL", &["health", "interval"]),
    ("RUST_LOG", &["telemetry", "log"]),
    ("OTEL_SERVICE_NAME", &["telemetry", "service_name"]),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        &["telemetry", "otlp_endpoint"],
    ),
    ("OTEL_EXPORTER_OTLP_HEADERS", &["telemetry", "otlp_headers"]),
];

/// Lays variables over `tree`.
pub(super) fn lay_over(tree: &mut Table, environment: &[(String, String)]) {
    let is_set = |(_, value): &&(String, String)| !value.trim().is_empty();
    for (name, path) in CONVENTIONAL {
        let found = environment
            .iter()
            .filter(is_set)
            .find(|(key, _)| key == name);
        if let Some((_, value)) = found {
            let segments = path.iter().map(|segment| (*segment).to_owned()).collect();
            set(tree, segments, name, with_seconds(name, value));
        }
    }
    // By name, so that the outcome does not depend on the environment's order.
    let mut ours: Vec<_> = environment
        .iter()
        .filter(is_set)
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, name, value)))
        .collect();
    ours.sort();
    for (path, name, value) in ours {
        let segments = segments(tree, path);
        set(tree, segments, name, value.clone());
    }
}

/// `HEALTH_CHECK_INTERVAL` has always been a number of seconds.
fn with_seconds(name: &str, value: &str) -> String {
    let is_number = value.trim().bytes().all(|byte| byte.is_ascii_digit());
    if name == "HEALTH_CHECK_INTERVAL" && is_number {
        format!("{}s", value.trim())
    } else {
        value.to_owned()
    }
}

/// Keys as the file writes them. Names of servers are matched with those of
/// the file, since variables know neither lower case nor `-`.
fn segments(tree: &Table, path: &str) -> Vec<String> {
    let raw: Vec<&str> = path.split("__").collect();
    let is_server = raw[0].eq_ignore_ascii_case("servers");
    raw.iter()
        .enumerate()
        .map(|(depth, segment)| match depth {
            1 if is_server => server_name(tree, segment),
            3 if is_server && raw[2].eq_ignore_ascii_case("env") => (*segment).to_owned(),
            3 if is_server && raw[2].eq_ignore_ascii_case("headers") => {
                segment.to_lowercase().replace('_', "-")
            }
            _ => segment.to_lowercase(),
        })
        .collect()
}

fn server_name(tree: &Table, segment: &str) -> String {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let known = match tree.get("servers").map(|located| &located.value) {
        Some(Value::Table(servers)) => servers
            .0
            .iter()
            .find(|entry| plain(&entry.key) == plain(segment)),
        _ => None,
    };
    known.map_or_else(|| segment.to_lowercase(), |entry| entry.key.clone())
}

fn set(tree: &mut Table, segments: Vec<String>, variable: &str, value: String) {
    let place = Place::Variable(variable.into());
    let Some((key, sections)) = segments.split_last() else {
        return;
    };
    let mut table = tree;
    for section in sections {
        table = table.table_at(section, &place);
    }
    forget_alternatives(table, &segments, key);
    let value = structured(&value, &place).unwrap_or(Value::Text(value));
    table.set(key, Located { value, place });
}

/// A variable outranks the file also when the file says the same by another key.
fn forget_alternatives(table: &mut Table, segments: &[String], key: &str) {
    let base = key.strip_suffix("_file").unwrap_or(key);
    for other in [base.to_owned(), format!("{base}_file")] {
        let of_file = |located: &Located| !located.place.is_untyped();
        if other != key && table.get(&other).is_some_and(of_file) {
            table.take(&other);
        }
    }
    let is_way = segments.len() == 3 && segments[0] == "servers" && WAYS_TO_REACH.contains(&key);
    if is_way {
        for other in WAYS_TO_REACH {
            let of_file = |located: &Located| !located.place.is_untyped();
            if other != key && table.get(other).is_some_and(of_file) {
                table.take(other);
            }
        }
    }
}

/// Lists and tables, written as JSON or TOML.
fn structured(text: &str, place: &Place) -> Option<Value> {
    let trimmed = text.trim();
    if !trimmed.starts_with(['[', '{']) {
        return None;
    }
    let document = Document {
        path: Arc::from(""),
        text: trimmed,
    };
    let mut value = match json::value(&document) {
        Ok(located) => located.value,
        Err(_) => toml::value(trimmed)?,
    };
    replace(&mut value, place);
    Some(value)
}

/// Everything in it was written in the variable.
fn replace(value: &mut Value, place: &Place) {
    match value {
        Value::List(items) => {
            for item in items {
                item.place = place.clone();
                replace(&mut item.value, place);
            }
        }
        Value::Table(table) => {
            for entry in &mut table.0 {
                entry.place = place.clone();
                entry.value.place = place.clone();
                replace(&mut entry.value.value, place);
            }
        }
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
    }
}
