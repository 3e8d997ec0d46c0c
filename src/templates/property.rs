//! One setting of a template: what it takes, and where its value goes.
//!
//! A setting is a property of the template's `config_schema`, a JSON Schema
//! whose properties carry a few keys of their own: `env_mapping`,
//! `env_separator`, `volume_mount`, `command_arg`, `sensitive`.

use serde_json::Value;

use super::volumes;
use crate::{
    config::{section::Findings, tree::Place},
    secrets::sounds_secret,
};

/// A setting of a template.
#[derive(Debug, Clone)]
pub struct Property {
    /// Its key.
    pub name: String,
    /// The key in words.
    pub title: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The types its schema names; empty: any.
    pub types: Vec<String>,
    /// The types of a list's items.
    pub item_types: Vec<String>,
    /// The values it is limited to.
    pub choices: Vec<Value>,
    /// What counts when nothing is given.
    pub default: Option<Value>,
    /// Whether it has to be given.
    pub required: bool,
    /// Whether its value must never be shown.
    pub sensitive: bool,
    /// The variable that carries it.
    pub env: Option<String>,
    /// What stands between the items of a list in one text.
    pub separator: Option<String>,
    /// Whether it names files of the engine's machine.
    pub mount: Option<MountRule>,
    /// Whether it becomes an argument.
    pub argument: Option<ArgumentRule>,
}

/// How a setting's value becomes a mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountRule {
    /// Where it appears in the container; `/mnt` and its own path when absent.
    pub target: Option<String>,
    /// Whether the server may only read it.
    pub read_only: bool,
}

/// How a setting's value becomes arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentRule {
    /// As it is; a text is split at its separator, else at blanks.
    Plain,
    /// After this word, or within it at `{}`. A boolean is the word itself.
    Flag(String),
}

impl Property {
    /// Reads a property of a `config_schema`. Says what is wrong with the keys
    /// that are not JSON Schema's own.
    pub(super) fn read(
        name: &str,
        schema: &Value,
        required: bool,
        place: &Place,
        findings: &mut Findings,
    ) -> Self {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut reader = Reader {
            path: format!("config_schema.properties.{name}"),
            schema,
            place,
            findings,
        };
        let env = reader.variable();
        let types = types(schema);
        let property = Self {
            name: name.to_owned(),
            title: text("title"),
            description: text("description"),
            item_types: schema.get("items").map(self::types).unwrap_or_default(),
            choices: choices(schema),
            default: schema.get("default").cloned().filter(|v| !v.is_null()),
            required,
            sensitive: is_sensitive(name, env.as_deref(), &types, schema),
            separator: reader.separator(),
            mount: reader.mount(),
            argument: reader.argument(),
            env,
            types,
        };
        if property.env.is_none() && property.mount.is_none() && property.argument.is_none() {
            reader.warn("has no effect: give it `env_mapping`, `command_arg` or `volume_mount`");
        }
        property
    }

    /// What stands between items in one text.
    pub(super) fn joint(&self) -> &str {
        match &self.separator {
            Some(separator) => separator,
            // Paths in a text are separated by blanks in this format.
            None if self.mount.is_some() && !self.is_list() => " ",
            None => ",",
        }
    }

    /// Whether its value is a list.
    pub(super) fn is_list(&self) -> bool {
        self.types.iter().any(|kind| kind == "array")
    }

    /// What it takes, in words.
    #[must_use]
    pub fn expected(&self) -> String {
        if !self.choices.is_empty() {
            let choices: Vec<_> = self.choices.iter().map(shown).collect();
            return format!("one of {}", choices.join(", "));
        }
        let words: Vec<_> = self.types.iter().map(|kind| in_words(kind)).collect();
        if words.is_empty() {
            "a value".to_owned()
        } else {
            words.join(" or ")
        }
    }
}

/// A value as people write it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

fn in_words(kind: &str) -> &str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "an object",
        "null" => "null",
        other => other,
    }
}

fn types(schema: &Value) -> Vec<String> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.clone()],
        Some(Value::Array(kinds)) => {
            let kinds = kinds.iter().filter_map(Value::as_str);
            kinds.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn choices(schema: &Value) -> Vec<Value> {
    match schema.get("enum") {
        Some(Value::Array(choices)) => choices.clone(),
        _ => schema.get("const").cloned().into_iter().collect(),
    }
}

/// What the template says, else what the name sounds like: showing a secret
/// is worse than hiding what is none. Numbers and switches are none.
fn is_sensitive(name: &str, env: Option<&str>, types: &[String], schema: &Value) -> bool {
    if let Some(said) = schema.get("sensitive").and_then(Value::as_bool) {
        return said;
    }
    let says_so = schema.get("format").and_then(Value::as_str) == Some("password")
        || schema.get("writeOnly") == Some(&Value::Bool(true));
    let is_text = types.is_empty() || types.iter().any(|kind| kind == "string");
    says_so
        || (is_text && (sounds_secret(name) || env.is_some_and(sounds_secret)))
        || holds_secret(schema)
}

/// Whether a part of an object or list is one.
fn holds_secret(schema: &Value) -> bool {
    let parts = schema.get("properties").and_then(Value::as_object);
    let mut parts = parts.into_iter().flatten();
    parts.any(|(name, part)| is_sensitive(name, None, &types(part), part))
        || schema
            .get("items")
            .is_some_and(|items| is_sensitive("", None, &types(items), items))
}

struct Reader<'a> {
    path: String,
    schema: &'a Value,
    place: &'a Place,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn fail(&mut self, key: &str, message: &str) {
        let path = format!("{}.{key}", self.path);
        self.findings.error(self.place, path, message);
    }

    fn warn(&mut self, message: &str) {
        self.findings.warn(self.place, self.path.clone(), message);
    }

    fn variable(&mut self) -> Option<String> {
        match self.schema.get("env_mapping")? {
            Value::Null => None,
            Value::String(name) if is_variable(name) => Some(name.clone()),
            _ => {
                let message = "expected the name of a variable: letters, digits and `_`";
                self.fail("env_mapping", message);
                None
            }
        }
    }

    fn separator(&mut self) -> Option<String> {
        match self.schema.get("env_separator")? {
            Value::Null => None,
            Value::String(separator) if !separator.is_empty() => Some(separator.clone()),
            _ => {
                self.fail("env_separator", "expected a text such as \",\"");
                None
            }
        }
    }

    fn mount(&mut self) -> Option<MountRule> {
        let expected = "expected true, a path in the container such as \"/data\", or {\"target\": \
                        \"/data\", \"read_only\": true}";
        let rule = match self.schema.get("volume_mount")? {
            Value::Null | Value::Bool(false) => return None,
            Value::Bool(true) => MountRule::default(),
            Value::String(target) => MountRule {
                target: Some(target.clone()),
                read_only: false,
            },
            Value::Object(rule) => MountRule {
                target: rule
                    .get("target")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                read_only: rule.get("read_only") == Some(&Value::Bool(true)),
            },
            _ => {
                self.fail("volume_mount", expected);
                return None;
            }
        };
        if let Some(Err(why)) = rule.target.as_deref().map(volumes::checked_target) {
            self.fail("volume_mount", &why);
            return None;
        }
        Some(rule)
    }

    fn argument(&mut self) -> Option<ArgumentRule> {
        match self.schema.get("command_arg")? {
            Value::Null | Value::Bool(false) => None,
            Value::Bool(true) => Some(ArgumentRule::Plain),
            Value::String(flag) if !flag.trim().is_empty() => {
                Some(ArgumentRule::Flag(flag.clone()))
            }
            _ => {
                self.fail(
                    "command_arg",
                    "expected true or a flag such as \"--verbose\"",
                );
                None
            }
        }
    }
}

/// Whether a text can be the name of a variable.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}
