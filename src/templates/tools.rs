//! The tools a template says its server has. Files of this format may list
//! parameters one by one instead of a schema.

use serde_json::{Map, Value as Json, json};

use crate::{
    config::{section::Section, tree::Value as Node, values::Problem},
    mcp::{Raw, json as raw_json},
};

/// Reads `tools`; each becomes what `tools/list` would say of it.
pub(super) fn read(root: &mut Section<'_>, raw: Option<&Raw>) -> Vec<Box<Raw>> {
    let Some(located) = root.take("tools") else {
        return Vec::new();
    };
    let Node::List(places) = &located.value else {
        let problem = Problem::new("expected a list of tools");
        root.report("tools", &located, problem);
        return Vec::new();
    };
    let items: Vec<&Raw> = raw
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let mut tools = Vec::with_capacity(items.len());
    for (item, place) in items.into_iter().zip(places) {
        match tool(item) {
            Ok(tool) => tools.push(tool),
            Err(message) => root.findings.error(&place.place, "tools", message),
        }
    }
    tools
}

fn tool(item: &Raw) -> Result<Box<Raw>, String> {
    let value: Json = serde_json::from_str(item.get()).map_err(|error| error.to_string())?;
    let Json::Object(mut tool) = value else {
        return match value {
            // Only its name.
            Json::String(name) => Ok(raw_json::raw(&described(&name, Map::new(), &[]))),
            _ => Err("expected a tool: an object with its `name`".to_owned()),
        };
    };
    let Some(name) = tool.get("name").and_then(Json::as_str).map(str::to_owned) else {
        return Err("has no `name`".to_owned());
    };
    if tool.get("inputSchema").is_some_and(Json::is_object) {
        // As it is, to the byte.
        return Ok(item.to_owned());
    }
    for key in ["input_schema", "parameters"] {
        match tool.remove(key) {
            Some(Json::Array(parameters)) => {
                return Ok(raw_json::raw(&described(&name, tool, &parameters)));
            }
            Some(schema @ Json::Object(_)) => {
                tool.insert("inputSchema".to_owned(), schema);
                return Ok(raw_json::raw(&Json::Object(tool)));
            }
            _ => {}
        }
    }
    Ok(raw_json::raw(&described(&name, tool, &[])))
}

/// A tool whose parameters are listed one by one.
fn described(name: &str, mut tool: Map<String, Json>, parameters: &[Json]) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for parameter in parameters {
        let Some(parameter_name) = parameter.get("name").and_then(Json::as_str) else {
            continue;
        };
        if parameter.get("required") == Some(&Json::Bool(true)) {
            required.push(Json::from(parameter_name));
        }
        let mut schema = parameter.as_object().cloned().unwrap_or_default();
        schema.remove("name");
        schema.remove("required");
        properties.insert(parameter_name.to_owned(), Json::Object(schema));
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = Json::Array(required);
    }
    tool.insert("name".to_owned(), name.into());
    tool.insert("inputSchema".to_owned(), schema);
    tool.remove("example");
    Json::Object(tool)
}
