//! Names with values that may be secrets: a server's header lines, a command's
//! variables. A value is a text or `{ file = "..." }` and is never shown.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

use super::checked;
use crate::config::{
    section::Section,
    tree::{Located, Place, Table, Value},
    values::{self, Problem},
};

fn pairs(section: &mut Section<'_>, key: &str) -> Vec<(String, String, Place)> {
    let Some(located) = section.take(key) else {
        return Vec::new();
    };
    let Value::Table(Table(entries)) = located.value else {
        let path = section.path_of(key);
        let message = "expected a table of names and values";
        section.findings.error(&located.place, path, message);
        return Vec::new();
    };
    let mut pairs = Vec::with_capacity(entries.len());
    for entry in entries {
        let path = format!("{key}.{}", entry.key);
        if let Some(value) = checked(section, &path, &entry.value, pair_value) {
            pairs.push((entry.key, value, entry.value.place));
        }
    }
    if !pairs.is_empty() {
        let names: Vec<_> = pairs.iter().map(|(name, ..)| name.as_str()).collect();
        let shown = format!("{} [redacted]", names.join(", "));
        section.changed(key, shown, &located.place);
    }
    pairs
}

fn pair_value(located: &Located) -> Result<String, Problem> {
    match &located.value {
        Value::Table(table) => match (table.0.len(), table.get("file")) {
            (1, Some(file)) => values::file_content(file).map_err(|problem| Problem {
                place: problem.place.or_else(|| Some(file.place.clone())),
                ..problem
            }),
            _ => Err(Problem::new("expected a text or { file = \"...\" }")),
        },
        Value::Bool(value) => Ok(value.to_string()),
        Value::Integer(value) => Ok(value.to_string()),
        Value::Null | Value::Float(_) | Value::Text(_) | Value::List(_) => values::text(located),
    }
}

/// Variables of a command.
pub(super) fn environment(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, value, place) in pairs(section, "env") {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let path = section.path_of(&format!("env.{name}"));
            section
                .findings
                .error(&place, path, "cannot be an environment variable");
        }
        environment.insert(name, value);
    }
    environment
}

/// Header lines that the node writes itself.
const OWN_HEADERS: [&str; 12] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
];

/// Header lines for every request to a server.
pub(super) fn headers(section: &mut Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, value, place) in pairs(section, "headers") {
        let path = section.path_of(&format!("headers.{name}"));
        match (HeaderName::try_from(&name), HeaderValue::try_from(&value)) {
            (Ok(name), _) if OWN_HEADERS.contains(&name.as_str()) => {
                section
                    .findings
                    .error(&place, path, "is set by the node itself");
            }
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.push((name, value));
            }
            (Err(_), _) => section.findings.error(&place, path, "is not a header name"),
            (_, Err(_)) => {
                let message = "has a value that cannot stand in a header";
                section.findings.error(&place, path, message);
            }
        }
    }
    headers
}
