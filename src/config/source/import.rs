//! Servers from files that users have already: the `mcpServers` JSON of
//! desktop clients and editors, and `server.json` of the official registry.
//!
//! Both become the tables that `[servers.NAME]` would be, so that the same
//! checks apply and findings point into the imported file.

use super::{Document, add_distinct, json};
use crate::{
    config::{
        section::Findings,
        tree::{Entry, Located, Place, Table, Value},
    },
    ids::{MAX_SERVER_ID, ServerId},
};

mod comments;
mod registry;
mod variables;

pub(super) use self::comments::blank as without_comments;

/// What one file says about servers.
pub(super) fn servers(
    document: &Document<'_>,
    environment: &[(String, String)],
    findings: &mut Findings,
) -> Table {
    let plain = comments::blank(document.text);
    let document = Document {
        path: document.path.clone(),
        text: &plain,
    };
    let Some(mut root) = json::parse(&document, findings) else {
        return Table::default();
    };
    // The registry's API wraps the document.
    if let Some(Value::Table(inner)) = root.get("server").map(|server| server.value.clone()) {
        root = inner;
    }
    let entries = ["mcpServers", "servers", "context_servers"]
        .iter()
        .find_map(|key| root.get(key).cloned())
        // VS Code's settings.json has its servers one level deeper.
        .or_else(|| match root.get("mcp").map(|mcp| &mcp.value) {
            Some(Value::Table(mcp)) => mcp.get("servers").cloned(),
            _ => None,
        });
    match entries.map(|entries| (entries.value, entries.place)) {
        Some((Value::Table(entries), _)) => client_entries(entries, environment, findings),
        Some((_, place)) => {
            findings.error(&place, "", "expected an object with a server per name");
            Table::default()
        }
        None if root.get("remotes").is_some() || root.get("packages").is_some() => {
            registry::server(&root, &document.place(0), findings)
        }
        None => {
            let message = "expected `mcpServers` (or `servers`) as desktop clients write it, or the \
                           `remotes` of a registry's server.json";
            findings.error(&document.place(0), "", message);
            Table::default()
        }
    }
}

fn client_entries(
    entries: Table,
    environment: &[(String, String)],
    findings: &mut Findings,
) -> Table {
    let mut servers = Table::default();
    for mut entry in entries.0 {
        let Value::Table(table) = &mut entry.value.value else {
            let message = format!("expected an object, found {}", entry.value.shown());
            findings.error(&entry.value.place, entry.key.clone(), message);
            continue;
        };
        let is_on = |key| table.get(key).map(|located| &located.value) == Some(&Value::Bool(true));
        if is_on("disabled") {
            findings.warn(&entry.place, entry.key, "is disabled there and left out");
            continue;
        }
        variables::replace(&mut entry.value, environment, findings);
        if let Some(server) = client_entry(entry, findings) {
            let mut one = Table::default();
            one.0.push(server);
            add_distinct(&mut servers, one, findings);
        }
    }
    servers
}

/// Keys of clients that say nothing about how a server is reached.
const NOT_OURS: [&str; 11] = [
    "disabled",
    "enabled",
    "autoApprove",
    "alwaysAllow",
    "disabledTools",
    "enabledTools",
    "description",
    "timeout",
    "trust",
    "gallery",
    "version",
];

fn client_entry(entry: Entry, findings: &mut Findings) -> Option<Entry> {
    let Value::Table(mut from) = entry.value.value else {
        return None;
    };
    let mut server = Table::default();
    for (theirs, ours) in [
        ("url", "url"),
        ("serverUrl", "url"),
        ("httpUrl", "url"),
        ("headers", "headers"),
        ("requestInit", "requestInit"),
        ("env", "env"),
        ("cwd", "directory"),
    ] {
        if let Some(value) = from.take(theirs) {
            server.set(ours, value);
        }
    }
    if let Some(init) = server.take("requestInit")
        && let Value::Table(mut init) = init.value
        && let Some(headers) = init.take("headers")
    {
        server.set("headers", headers);
    }
    if let Some(command) = from.take("command") {
        server.set("command", command_line(command, from.take("args")));
    }
    // How it speaks is found out by asking; the word only helps people.
    from.take("type");
    from.take("transport");
    for left in from.0 {
        if !NOT_OURS.contains(&left.key.as_str()) {
            let key = format!("{}.{}", entry.key, left.key);
            findings.warn(&left.place, key, "is not understood and left out");
        }
    }
    let key = valid_name(&entry.key, &entry.place, findings)?;
    let place = entry.place.clone();
    Some(Entry {
        key,
        place: entry.place,
        value: Located {
            value: Value::Table(server),
            place,
        },
    })
}

fn command_line(command: Located, args: Option<Located>) -> Located {
    let place = command.place.clone();
    let mut argv = vec![command];
    match args.map(|args| (args.value, args.place)) {
        Some((Value::List(items), _)) => argv.extend(items),
        // Not a list: kept, so that reading the command reports it.
        Some((value, place)) => argv.push(Located { value, place }),
        None => {}
    }
    Located {
        value: Value::List(argv),
        place,
    }
}

/// The name itself when it is valid, else the nearest valid one with a warning.
fn valid_name(name: &str, place: &Place, findings: &mut Findings) -> Option<String> {
    let Err(refused) = ServerId::try_from(name) else {
        return Some(name.to_owned());
    };
    let valid = nearest_valid(name);
    if ServerId::try_from(valid.as_str()).is_err() {
        findings.error(place, name, refused.to_string());
        return None;
    }
    findings.warn(
        place,
        name,
        format!("is not a server name; it is called `{valid}` here"),
    );
    Some(valid)
}

fn nearest_valid(name: &str) -> String {
    let mut valid = String::new();
    for c in name.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => valid.push(c),
            '_' if !valid.ends_with(['_', '-']) => valid.push('_'),
            _ if !valid.ends_with(['_', '-']) => valid.push('-'),
            _ => {}
        }
    }
    let trimmed = valid.trim_matches(['_', '-']);
    let cut = &trimmed[..trimmed.len().min(MAX_SERVER_ID)];
    cut.trim_end_matches(['_', '-']).to_owned()
}

#[cfg(test)]
mod tests;
