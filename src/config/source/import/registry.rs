//! `server.json` of the official MCP registry: its remote endpoints. Packages
//! have to be run by somebody first.

use super::valid_name;
use crate::config::{
    section::Findings,
    tree::{Entry, Located, Place, Table, Value},
};

/// The one server such a file describes.
pub(super) fn server(root: &Table, place: &Place, findings: &mut Findings) -> Table {
    let mut servers = Table::default();
    let name = match root.get("name").map(|name| (&name.value, &name.place)) {
        // `io.github.someone/weather` is known as `weather`.
        Some((Value::Text(name), place)) => {
            let last = name.rsplit('/').next().unwrap_or(name);
            valid_name(last, place, findings)
        }
        _ => {
            findings.error(place, "name", "is missing");
            None
        }
    };
    let Some(remote) = best_remote(root) else {
        let message = "has no `remotes` that can be dialled. Its packages run in containers, which \
                       needs deployments; until then start it yourself and configure \
                       `servers.NAME.command` or `servers.NAME.url`";
        findings.error(place, "remotes", message);
        return servers;
    };
    if let Some(key) = name
        && let Some(table) = reach(remote, findings)
    {
        let place = place.clone();
        let value = Located {
            value: Value::Table(table),
            place: place.clone(),
        };
        servers.0.push(Entry { key, place, value });
    }
    servers
}

/// Remotes are alternatives: streamable HTTP is better than HTTP+SSE.
fn best_remote(root: &Table) -> Option<&Table> {
    let Some(Value::List(remotes)) = root.get("remotes").map(|remotes| &remotes.value) else {
        return None;
    };
    let of_type = |wanted: &str| {
        remotes.iter().find_map(|remote| match &remote.value {
            Value::Table(table) if text(table, "type") == Some(wanted) => Some(table),
            _ => None,
        })
    };
    of_type("streamable-http").or_else(|| of_type("sse"))
}

fn text<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    match table.get(key).map(|located| &located.value) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn reach(remote: &Table, findings: &mut Findings) -> Option<Table> {
    let url = remote.get("url")?;
    let mut server = Table::default();
    server.set("url", filled(url, remote, findings));
    let mut headers = Table::default();
    if let Some(Value::List(wanted)) = remote.get("headers").map(|headers| &headers.value) {
        for header in wanted {
            add_header(&mut headers, header, findings);
        }
    }
    if !headers.0.is_empty() {
        let place = url.place.clone();
        let value = Value::Table(headers);
        server.set("headers", Located { value, place });
    }
    Some(server)
}

fn add_header(headers: &mut Table, header: &Located, findings: &mut Findings) {
    let Value::Table(table) = &header.value else {
        return;
    };
    let Some(name) = text(table, "name") else {
        return;
    };
    match table.get("value").or_else(|| table.get("default")) {
        Some(value) => headers.set(name, filled(value, table, findings)),
        None => {
            let is_required =
                table.get("isRequired").map(|required| &required.value) == Some(&Value::Bool(true));
            if is_required {
                let message = format!(
                    "the server wants the header {name}, whose value only you know; configure it \
                     as `servers.NAME.url` with `headers`, or write its `value` here"
                );
                findings.error(&header.place, "remotes.headers", message);
            }
        }
    }
}

/// The text with `{variables}` replaced by the defaults the file gives them.
fn filled(template: &Located, around: &Table, findings: &mut Findings) -> Located {
    let Value::Text(text) = &template.value else {
        return template.clone();
    };
    let mut filled = text.clone();
    if let Some(Value::Table(variables)) = around.get("variables").map(|located| &located.value) {
        for variable in &variables.0 {
            if let Value::Table(about) = &variable.value.value
                && let Some(value) = self::text(about, "value").or(self::text(about, "default"))
            {
                filled = filled.replace(&format!("{{{}}}", variable.key), value);
            }
        }
    }
    if let Some(open) = filled.find('{')
        && filled[open..].contains('}')
    {
        let message = "has a variable without a default; write its value here";
        findings.error(&template.place, "remotes", message);
    }
    Located::text(filled, template.place.clone())
}
