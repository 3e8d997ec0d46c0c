//! Lays the sources over each other: flags over environment over file.
//!
//! What comes out is one tree; the defaults are in the sections.

use std::{path::Path, sync::Arc};

use super::{
    Overrides, Sources,
    section::Findings,
    tree::{Located, Place, Table, Value},
};

mod environment;
mod import;
mod json;
mod toml;
mod yaml;

/// The keys that say how a server is reached: who gives one of them in a
/// higher source does not want the others of a lower one.
const WAYS_TO_REACH: [&str; 3] = ["url", "replicas", "command"];

/// A text with the name it has in messages.
#[derive(Debug)]
struct Document<'a> {
    path: Arc<str>,
    text: &'a str,
}

impl Document<'_> {
    /// The place of a byte offset; columns count characters.
    fn place(&self, offset: usize) -> Place {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            path: Arc::clone(&self.path),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Everything that was written.
#[derive(Debug)]
pub(super) struct Gathered {
    /// As one tree.
    pub(super) tree: Table,
    /// Servers that came from `--mcp-json`.
    pub(super) imported: Vec<String>,
}

/// Reads all sources.
pub(super) fn gather(sources: &Sources, findings: &mut Findings) -> Gathered {
    let mut tree = match &sources.file {
        Some(path) => file(path, findings),
        None => Table::default(),
    };
    environment::lay_over(&mut tree, &sources.environment);
    flags(&mut tree, &sources.flags);
    let imported = flagged_servers(&mut tree, sources, findings);
    Gathered { tree, imported }
}

/// A configuration file in the language that its name's ending says.
fn file(path: &Path, findings: &mut Findings) -> Table {
    let Some(text) = read(path, findings) else {
        return Table::default();
    };
    let document = Document {
        path: path.display().to_string().into(),
        text: &text,
    };
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("toml") => toml::parse(&document, findings),
        Some("yaml" | "yml") => yaml::parse(&document, findings),
        Some("json") => json::parse(&document, findings),
        _ => {
            let message = "expected a file whose name ends in .toml, .yaml, .yml or .json";
            findings.error(&document.place(0), "", message);
            None
        }
    }
    .unwrap_or_default()
}

/// TOML text that is in no file.
pub(super) fn toml_text(text: &str, findings: &mut Findings) -> Table {
    let path = "configuration".into();
    toml::parse(&Document { path, text }, findings).unwrap_or_default()
}

/// JSON text that came in a request.
pub(super) fn requested_json(text: &str, findings: &mut Findings) -> Option<Table> {
    let path = "request".into();
    json::parse(&Document { path, text }, findings).map(Table::requested)
}

/// The JSON text of a file that is no configuration, such as a template.
pub(crate) fn json_document(path: &str, text: &str, findings: &mut Findings) -> Option<Table> {
    let path = path.into();
    json::parse(&Document { path, text }, findings)
}

/// JSON as people edit it, without comments and trailing commas.
pub(crate) fn without_comments(text: &str) -> String {
    import::without_comments(text)
}

fn read(path: &Path, findings: &mut Findings) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            let place = Place::File {
                path: path.display().to_string().into(),
                line: 1,
                column: 1,
            };
            findings.error(&place, "", format!("cannot read the file: {error}"));
            None
        }
    }
}

fn flags(tree: &mut Table, flags: &Overrides) {
    for (section, key, text, flag) in [
        ("node", "listen", &flags.listen, "--listen"),
        ("redis", "url", &flags.redis, "--redis"),
    ] {
        if let Some(text) = text {
            let place = Place::Flag(flag.into());
            let table = tree.table_at(section, &place);
            table.take(&format!("{key}_file"));
            table.set(key, Located::text(text, place));
        }
    }
}

/// Servers of the command line, over those of the same name; answers which were imported.
fn flagged_servers(tree: &mut Table, sources: &Sources, findings: &mut Findings) -> Vec<String> {
    let mut flagged = Table::default();
    for path in &sources.flags.mcp_json {
        if let Some(text) = read(path, findings) {
            let document = Document {
                path: path.display().to_string().into(),
                text: &text,
            };
            let servers = import::servers(&document, &sources.environment, findings);
            add_distinct(&mut flagged, servers, findings);
        }
    }
    let imported = flagged.0.iter().map(|entry| entry.key.clone()).collect();
    for text in &sources.flags.servers {
        if let Some(server) = server_flag(text, findings) {
            add_distinct(&mut flagged, server, findings);
        }
    }
    for entry in flagged.0 {
        let configured = tree.table_at("servers", &entry.place);
        if configured.take(&entry.key).is_some() {
            let message = "replaces the server of that name in the configuration";
            findings.warn(&entry.place, format!("servers.{}", entry.key), message);
        }
        configured.0.push(entry);
    }
    imported
}

fn add_distinct(servers: &mut Table, more: Table, findings: &mut Findings) {
    for entry in more.0 {
        match servers.get(&entry.key) {
            Some(first) => {
                let message = format!(
                    "a second server of that name; the first is at {}",
                    first.place
                );
                findings.error(&entry.place, format!("servers.{}", entry.key), message);
            }
            None => servers.0.push(entry),
        }
    }
}

/// `NAME=URL`
fn server_flag(text: &str, findings: &mut Findings) -> Option<Table> {
    let place = Place::Flag("--server".into());
    let Some((name, url)) = text
        .split_once('=')
        .filter(|(name, _)| !name.contains("://"))
    else {
        let message = format!("expected NAME=URL, found {text:?}");
        findings.error(&place, "", message);
        return None;
    };
    let mut server = Table::default();
    server.set("url", Located::text(url.trim(), place.clone()));
    let mut table = Table::default();
    let value = Value::Table(server);
    table.set(name.trim(), Located { value, place });
    Some(table)
}

#[cfg(test)]
mod tests;
