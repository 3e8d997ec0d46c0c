//! Reads `template.json`. Compatible with the files there are: keys that mean
//! nothing here are left alone, and every finding names file, line and cure.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    isolation,
    property::{Property, is_variable},
    spec::{Mount, Value},
    template::{Origin, Template, TextDigest, ToolDiscovery},
    tools, transport, volumes,
};
use crate::{
    config::{
        Finding, json_document,
        section::{Findings, Section},
        tree::{Located, Place, Value as Node},
        values::{self, Problem},
    },
    ids::ServerId,
    mcp::Raw,
    secrets::{looks_secret, sounds_secret},
};

/// Keys of existing files that describe and do nothing.
const DESCRIPTIVE: [&str; 22] = [
    "$schema",
    "author",
    "backend",
    "capabilities",
    "category",
    "changelog",
    "documentation",
    "examples",
    "has_image",
    "health_check",
    "homepage",
    "icon",
    "internal",
    "license",
    "origin",
    "repository",
    "requirements",
    "response_formatter",
    "source",
    "tags",
    "tool_endpoint",
    "vendor",
];

/// What jsonschema and the tools are read from, beside the tree with places.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(default)]
    config_schema: Option<Json>,
    #[serde(default, borrow)]
    tools: Option<&'a Raw>,
}

/// Reads one template.
///
/// # Errors
/// With every finding at once.
pub(super) fn read(
    name: &ServerId,
    origin: Origin,
    path: &str,
    text: &str,
) -> Result<Template, Vec<Finding>> {
    let mut findings = Findings::default();
    let template = json_document(path, text, &mut findings).and_then(|table| {
        fields(
            name,
            origin,
            path,
            text,
            Section::root(table, &mut findings),
        )
    });
    findings.tolerate_unknown();
    let (errors, warnings) = findings.in_order();
    match template {
        Some(template) if errors.is_empty() => Ok(Template {
            warnings,
            ..template
        }),
        Some(_) | None => Err(errors),
    }
}

fn fields(
    name: &ServerId,
    origin: Origin,
    path: &str,
    text: &str,
    mut root: Section<'_>,
) -> Option<Template> {
    let top = Place::File {
        path: path.into(),
        line: 1,
        column: 1,
    };
    let parts: Parts<'_> = match serde_json::from_str(text) {
        Ok(parts) => parts,
        Err(error) => {
            root.findings.error(&top, "", error.to_string());
            return None;
        }
    };
    for key in DESCRIPTIVE {
        root.know(key);
    }
    let transport = transport::read(&mut root);
    let (properties, validator) = settings(&mut root, &top, parts.config_schema);
    let image = image(&mut root, &top);
    let template = Template {
        name: name.clone(),
        title: root
            .optional("name", values::some_text)
            .unwrap_or_else(|| name.to_string()),
        description: root
            .optional("description", values::text)
            .unwrap_or_default(),
        version: root.optional("version", values::some_text),
        image: image.unwrap_or_default(),
        transport: transport.default,
        supported: transport.supported,
        entrypoint: words(&mut root, "entrypoint"),
        command: words(&mut root, "command"),
        env: variables(&mut root),
        volumes: mounts(&mut root),
        tools: tools::read(&mut root, parts.tools),
        tool_discovery: discovery(&mut root),
        endpoint: root.optional("endpoint", endpoint),
        isolation: isolation::read(root.section("isolation")),
        timeout: root.optional("timeout", isolation::timeout),
        properties,
        origin,
        warnings: Vec::new(),
        digest: TextDigest::of(text),
        validator: validator?,
    };
    root.finish();
    Some(template)
}

/// The image with its tag or digest.
fn image(root: &mut Section<'_>, top: &Place) -> Option<String> {
    let tag = root.optional("docker_tag", values::some_text);
    let Some(located) = root.take("docker_image") else {
        let message = "is missing: name the image to run, such as \"mcp/time\"";
        root.findings.error(top, "docker_image", message);
        return None;
    };
    let image = match values::some_text(&located) {
        Ok(image) if image.contains(char::is_whitespace) => {
            let problem = Problem::new(format!("expected the name of an image, found {image:?}"));
            root.report("docker_image", &located, problem);
            return None;
        }
        Ok(image) => image,
        Err(problem) => {
            root.report("docker_image", &located, problem);
            return None;
        }
    };
    let last = image.rsplit('/').next().unwrap_or(&image);
    if last.contains(':') || image.contains('@') {
        if tag.is_some() {
            let message = "has no effect: `docker_image` names a version already";
            let place = root.place_of("docker_tag");
            let place = place.unwrap_or_else(|| top.clone());
            root.findings.warn(&place, "docker_tag", message);
        }
        return Some(image);
    }
    let tag = tag.unwrap_or_else(|| "latest".to_owned());
    Some(match tag.starts_with("sha256:") {
        true => format!("{image}@{tag}"),
        false => format!("{image}:{tag}"),
    })
}

/// A command line; an empty one is none.
fn words(root: &mut Section<'_>, key: &str) -> Option<Vec<String>> {
    let words = root.optional(key, |located| match &located.value {
        Node::Text(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Node::List(_) => items(located),
        other => Err(Problem::new(format!(
            "expected a list of texts, found {}",
            values::kind(other)
        ))),
    });
    words.filter(|words: &Vec<String>| !words.is_empty())
}

/// Texts, empty ones among them.
fn items(located: &Located) -> Result<Vec<String>, Problem> {
    let Node::List(items) = &located.value else {
        return Ok(Vec::new());
    };
    let item = |item: &Located| {
        scalar(item).ok_or_else(|| Problem {
            place: Some(item.place.clone()),
            message: format!("expected a text, found {}", values::kind(&item.value)),
        })
    };
    items.iter().map(item).collect()
}

/// A text, number or boolean as text.
fn scalar(located: &Located) -> Option<String> {
    match &located.value {
        Node::Text(text) => Some(text.clone()),
        Node::Bool(value) => Some(value.to_string()),
        Node::Integer(value) => Some(value.to_string()),
        Node::Float(value) => Some(value.to_string()),
        Node::Null | Node::List(_) | Node::Table(_) => None,
    }
}

fn variables(root: &mut Section<'_>) -> BTreeMap<String, Value> {
    let mut variables = BTreeMap::new();
    let Some(located) = root.take("env_vars") else {
        return variables;
    };
    let Node::Table(table) = &located.value else {
        let found = values::kind(&located.value);
        let problem = Problem::new(format!("expected an object of texts, found {found}"));
        root.report("env_vars", &located, problem);
        return variables;
    };
    for entry in &table.0 {
        let key = format!("env_vars.{}", entry.key);
        match scalar(&entry.value) {
            Some(value) if is_variable(&entry.key) => {
                let is_secret = sounds_secret(&entry.key) || looks_secret(&value);
                let sensitive = is_secret && !value.is_empty();
                variables.insert(entry.key.clone(), Value { value, sensitive });
            }
            Some(_) => {
                let message = "cannot be a variable: use letters, digits and `_`";
                root.findings.error(&entry.place, key, message);
            }
            None => {
                let found = values::kind(&entry.value.value);
                let message = format!("expected a text, found {found}");
                root.findings.error(&entry.value.place, key, message);
            }
        }
    }
    variables
}

/// `{"SOURCE": "TARGET[:ro]"}` or `["SOURCE:TARGET[:ro]"]`.
fn mounts(root: &mut Section<'_>) -> Vec<Mount> {
    let Some(located) = root.take("volumes") else {
        return Vec::new();
    };
    let mut mounts = Vec::new();
    let mut add = |root: &mut Section<'_>, place: &Place, text: Option<String>| {
        let parsed = text
            .ok_or_else(|| "expected \"SOURCE:TARGET\" or \"SOURCE:TARGET:ro\"".to_owned())
            .and_then(|text| volumes::parse(&text));
        match parsed {
            Ok((source, Some(target), read_only)) => mounts.push(Mount {
                source,
                target,
                read_only,
            }),
            Ok((_, None, _)) => {
                let message = "does not say where it appears in the container: SOURCE:TARGET";
                root.findings.error(place, "volumes", message);
            }
            Err(message) => root.findings.error(place, "volumes", message),
        }
    };
    match &located.value {
        Node::List(items) => {
            for item in items {
                add(root, &item.place, scalar(item));
            }
        }
        Node::Table(table) => {
            for entry in &table.0 {
                let text = match &entry.value.value {
                    Node::Table(about) => {
                        let word = |key| about.get(key).and_then(scalar);
                        let mode = word("mode").map(|mode| format!(":{mode}"));
                        word("bind").map(|bind| bind + &mode.unwrap_or_default())
                    }
                    _ => scalar(&entry.value),
                };
                let text = text.map(|target| format!("{}:{target}", entry.key));
                add(root, &entry.place, text);
            }
        }
        other => {
            let found = values::kind(other);
            let message = format!("expected an object of sources and targets, found {found}");
            root.report("volumes", &located, Problem::new(message));
        }
    }
    mounts
}

fn discovery(root: &mut Section<'_>) -> ToolDiscovery {
    let words = [
        ("static", ToolDiscovery::Static),
        ("dynamic", ToolDiscovery::Dynamic),
        ("hybrid", ToolDiscovery::Dynamic),
    ];
    root.read("tool_discovery", ToolDiscovery::default(), |located| {
        values::choice(&words)(located)
    })
}

fn endpoint(located: &Located) -> Result<http::Uri, Problem> {
    let text = values::some_text(located)?;
    let uri: Option<http::Uri> = text.parse().ok();
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
        .filter(|_| !text.contains('@'))
        .ok_or_else(|| {
            Problem::new(format!(
                "expected the address of an MCP endpoint, beginning with http:// or https://, found {text:?}"
            ))
        })
}

/// The settings and the compiled schema; `None` when it cannot be compiled.
fn settings(
    root: &mut Section<'_>,
    top: &Place,
    schema: Option<Json>,
) -> (Vec<Property>, Option<Validator>) {
    let located = root.take("config_schema");
    let place = located.as_ref().map_or(top, |located| &located.place);
    let mut schema = schema.unwrap_or_else(|| Json::Object(serde_json::Map::new()));
    if !schema.is_object() {
        let message = "expected a JSON Schema: an object with `properties`";
        root.findings.error(place, "config_schema", message);
        return (Vec::new(), None);
    }
    lift_required(&mut schema);
    let properties = properties(root, located.as_ref(), &schema);
    let compiled = jsonschema::options()
        .offline()
        .build(&schema)
        .map_err(|error| {
            let at = error.instance_path().to_string();
            let within = match at.as_str() {
                "" => "config_schema".to_owned(),
                at => format!("config_schema{}", at.replace('/', ".")),
            };
            let message = match at.ends_with("/type") {
                true => TYPES.to_owned(),
                false => format!("is not a JSON Schema that can be used: {}", error.masked()),
            };
            let place = place_at(located.as_ref(), &at).unwrap_or_else(|| place.clone());
            root.findings.error(&place, within, message);
        });
    (properties, compiled.ok())
}

const TYPES: &str =
    "expected \"string\", \"integer\", \"number\", \"boolean\", \"array\" or \"object\"";

/// Some files say `"required": true` within a property, as old drafts did.
fn lift_required(schema: &mut Json) {
    let mut lifted = Vec::new();
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        for (name, property) in properties {
            if let Some(object) = property.as_object_mut()
                && let Some(Json::Bool(required)) = object.get("required")
            {
                if *required {
                    lifted.push(Json::String(name.clone()));
                }
                object.remove("required");
            }
        }
    }
    let Some(object) = schema.as_object_mut().filter(|_| !lifted.is_empty()) else {
        return;
    };
    let required = object
        .entry("required")
        .or_insert_with(|| Json::Array(Vec::new()));
    if let Some(required) = required.as_array_mut() {
        lifted.retain(|name| !required.contains(name));
        required.append(&mut lifted);
    }
}

/// The settings, in the order they were written.
fn properties(root: &mut Section<'_>, located: Option<&Located>, schema: &Json) -> Vec<Property> {
    let Some(Node::Table(table)) = located.map(|located| &located.value) else {
        return Vec::new();
    };
    let Some(Node::Table(written)) = table.get("properties").map(|found| &found.value) else {
        return Vec::new();
    };
    let required: Vec<&str> = match schema.get("required") {
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    for name in &required {
        if !written.0.iter().any(|entry| entry.key == *name)
            && let Some(located) = table.get("required")
        {
            let message = format!("names {name:?}, which is not among the properties");
            root.findings
                .warn(&located.place, "config_schema.required", message);
        }
    }
    let mut properties = Vec::with_capacity(written.0.len());
    for entry in &written.0 {
        let Some(property) = schema
            .get("properties")
            .and_then(|properties| properties.get(&entry.key))
        else {
            continue;
        };
        let is_required = required.contains(&entry.key.as_str());
        properties.push(Property::read(
            &entry.key,
            property,
            is_required,
            &entry.place,
            root.findings,
        ));
    }
    properties
}

/// The place of a JSON pointer into the schema.
fn place_at(located: Option<&Located>, pointer: &str) -> Option<Place> {
    let mut located = located?;
    for step in pointer.split('/').skip(1) {
        let below = match &located.value {
            Node::Table(table) => table.get(step),
            Node::List(items) => step.parse().ok().and_then(|at: usize| items.get(at)),
            _ => None,
        };
        match below {
            Some(below) => located = below,
            None => break,
        }
    }
    Some(located.place.clone())
}

#[cfg(test)]
mod tests;
