//! Templates from files that users have already: `server.json` of the official
//! registry, and entries of `mcpServers` files that run an image. Pure: what
//! comes out is the text of a `template.json`, and what was left out.
//!
//! Values of secrets are never copied. Remote servers need no template: they
//! are configured as they are (`--mcp-json`).

mod docker;
mod registry;

use serde_json::{Map, Value, json};

use super::{format, template::Origin};
use crate::{
    config::without_comments,
    ids::ServerId,
    secrets::{self, looks_secret, sounds_secret},
};

/// A template made from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The name of its directory.
    pub name: ServerId,
    /// The text of its `template.json`.
    pub text: String,
    /// What was left out or has to be looked at.
    pub notes: Vec<String>,
}

/// What one file came to.
#[derive(Debug, Default, PartialEq)]
pub struct Import {
    /// Its templates.
    pub templates: Vec<Imported>,
    /// Entries no template was made of, and why.
    pub skipped: Vec<String>,
}

/// A template on its way.
#[derive(Debug, Default)]
struct Draft {
    members: Map<String, Value>,
    /// Settings in their order: `serde_json` would sort them.
    properties: Vec<(String, Value)>,
    required: Vec<String>,
    env: Map<String, Value>,
    volumes: Vec<Value>,
    command: Vec<Value>,
    notes: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// When it is of no format that is known.
pub fn import(text: &str) -> Result<Import, String> {
    let plain = without_comments(text);
    let root: Value = serde_json::from_str(&plain).map_err(|error| error.to_string())?;
    // The registry's API wraps the document.
    let root = root
        .get("server")
        .filter(|server| server.is_object())
        .unwrap_or(&root);
    let entries = ["mcpServers", "servers", "context_servers"]
        .iter()
        .find_map(|key| root.get(key)?.as_object());
    if let Some(entries) = entries {
        return Ok(clients(entries));
    }
    if root.get("packages").is_none() && root.get("remotes").is_none() {
        return Err(
            "expected `mcpServers` as desktop clients write it, or a registry's server.json with \
             its `packages`"
                .to_owned(),
        );
    }
    let mut import = Import::default();
    let name = root.get("name").and_then(Value::as_str).unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or(name);
    let drafted = registry::draft(root);
    import.add(last, drafted);
    Ok(import)
}

fn clients(entries: &Map<String, Value>) -> Import {
    let mut import = Import::default();
    for (name, entry) in entries {
        import.add(name, docker::draft(name, entry));
    }
    import
}

impl Import {
    fn add(&mut self, name: &str, drafted: Result<Draft, String>) {
        let made = drafted.and_then(|draft| draft.finish(name));
        match made {
            Ok(template) => self.templates.push(template),
            Err(why) => self.skipped.push(format!("{name}: {why}")),
        }
    }
}

impl Draft {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.members.insert(key.to_owned(), value.into());
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a setting; one of its name is told apart by a number.
    fn property(&mut self, wanted: &str, schema: Value, required: bool) {
        let wanted = key_of(wanted);
        let taken = |name: &str| self.properties.iter().any(|(known, _)| known == name);
        let mut name = wanted.clone();
        let mut number = 2;
        while taken(&name) {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        if required {
            self.required.push(name.clone());
        }
        self.properties.push((name, schema));
    }

    /// A variable with the value it has in the file. A secret's is not copied.
    fn variable(&mut self, name: &str, value: Option<&str>) {
        let value = value.filter(|value| !value.is_empty() && !is_placeholder(value));
        if sounds_secret(name) || value.is_some_and(looks_secret) {
            self.secret(name, json!({"env_mapping": name}), value.is_some());
            return;
        }
        let mut schema = json!({"type": "string", "env_mapping": name});
        if let Some(value) = value {
            schema["default"] = value.into();
        }
        self.property(name, schema, value.is_none());
    }

    /// A secret that has to be given; `place` is where it goes.
    fn secret(&mut self, wanted: &str, mut place: Value, is_known: bool) {
        if is_known {
            self.not_copied(wanted);
        }
        place["type"] = "string".into();
        place["sensitive"] = true.into();
        self.property(wanted, place, true);
    }

    fn not_copied(&mut self, wanted: &str) {
        let key = key_of(wanted);
        self.note(format!(
            "the value of {wanted} was not copied: give it when deploying, as -c {key}=VALUE"
        ));
    }

    /// The words of a command line: up to the first secret as they are. From
    /// there on all are settings, to keep their order.
    fn words(&mut self, words: &[&str]) {
        let secrets = secrets::in_words(words.iter().copied());
        let mut before = "";
        for (word, secret) in words.iter().zip(secrets) {
            match secret {
                Some(secret) => self.secret_word(before, word, secret),
                None => self.word(word),
            }
            before = word;
        }
    }

    /// A word that is always the same.
    fn word(&mut self, word: &str) {
        if !self.has_arguments() {
            self.command.push(word.into());
            return;
        }
        let schema = json!({"type": "string", "default": word, "command_arg": "{}"});
        self.property("argument", schema, false);
    }

    /// A word that ends with a secret, after another.
    fn secret_word(&mut self, before: &str, word: &str, secret: &str) {
        let head = word.strip_suffix(secret).unwrap_or_default();
        let wanted = match head.trim_end_matches('=') {
            "" if before.starts_with('-') && !before.contains('=') => before,
            "" if word.contains("://") => "url",
            "" => "secret",
            head => head,
        };
        self.secret(wanted, json!({"command_arg": format!("{head}{{}}")}), true);
    }

    /// Whether a setting is a word of the command line.
    fn has_arguments(&self) -> bool {
        let mut schemas = self.properties.iter().map(|(_, schema)| schema);
        schemas.any(|schema| schema.get("command_arg").is_some())
    }

    fn finish(mut self, name: &str) -> Result<Imported, String> {
        let name = valid_name(name)?;
        if !self.env.is_empty() {
            let env = std::mem::take(&mut self.env);
            self.set("env_vars", env);
        }
        if !self.command.is_empty() {
            let command = std::mem::take(&mut self.command);
            self.set("command", command);
        }
        if !self.volumes.is_empty() {
            let volumes = std::mem::take(&mut self.volumes);
            self.set("volumes", volumes);
        }
        let text = self.text();
        let path = format!("{name}/template.json");
        format::read(&name, Origin::BuiltIn, &path, &text).map_err(|findings| {
            let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
            format!("cannot become a template: {}", findings.join("; "))
        })?;
        Ok(Imported {
            name,
            text,
            notes: self.notes,
        })
    }

    /// The file, members in the order people expect them.
    fn text(&self) -> String {
        const ORDER: [&str; 11] = [
            "name",
            "description",
            "version",
            "docker_image",
            "docker_tag",
            "transport",
            "endpoint",
            "entrypoint",
            "command",
            "env_vars",
            "volumes",
        ];
        let pretty = |value: &Value, indent: &str| {
            let text = serde_json::to_string_pretty(value).unwrap_or_default();
            text.replace('\n', &format!("\n{indent}"))
        };
        let mut lines: Vec<String> = ORDER
            .iter()
            .filter_map(|key| Some((*key, self.members.get(*key)?)))
            .map(|(key, value)| format!("  {}: {}", Value::from(key), pretty(value, "  ")))
            .collect();
        let properties = self.properties.iter();
        let properties: Vec<_> = properties
            .map(|(name, schema)| {
                let name = Value::from(name.as_str());
                format!("      {name}: {}", pretty(schema, "      "))
            })
            .collect();
        let properties = match properties.is_empty() {
            true => "{}".to_owned(),
            false => format!("{{\n{}\n    }}", properties.join(",\n")),
        };
        let required = Value::from(self.required.clone());
        lines.push(format!(
            "  \"config_schema\": {{\n    \"type\": \"object\",\n    \"additionalProperties\": \
             false,\n    \"required\": {required},\n    \"properties\": {properties}\n  }}"
        ));
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

/// The name of a directory and a server.
fn valid_name(name: &str) -> Result<ServerId, String> {
    let name: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let parts = name.split('-').filter(|part| !part.is_empty());
    let name: Vec<_> = parts.collect();
    let mut name = name.join("-");
    name.truncate(crate::ids::MAX_SERVER_ID);
    ServerId::try_from(name.trim_end_matches('-')).map_err(|error| error.to_string())
}

/// The key of a setting: `API_KEY` is `api_key`, `--db-path` is `db_path`.
fn key_of(name: &str) -> String {
    let key: String = name
        .trim_start_matches('-')
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    match key.trim_matches('_') {
        "" => "argument".to_owned(),
        key => key.to_owned(),
    }
}

/// What stands where a value has to be put in: `${TOKEN}`, `<your token>`.
fn is_placeholder(value: &str) -> bool {
    value.contains("${") || (value.starts_with('<') && value.ends_with('>'))
}

#[cfg(test)]
mod tests;
