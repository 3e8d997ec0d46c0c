//! `call`: calls a tool and prints what it says.

use std::io::Read as _;

use crate::mcp::Raw;
use serde::Deserialize;

use super::{
    CallArgs, Failure,
    client::Node,
    output::{document, pretty},
    say,
    views::server_in_path,
};

pub(super) async fn call(args: CallArgs) -> Result<(), Failure> {
    let server = server_in_path(&args.server)?;
    let arguments = arguments(args.arguments.as_deref())?;
    let name = serde_json::to_string(&args.tool)
        .map_err(|error| Failure::Usage(format!("the tool's name: {error}")))?;
    // The arguments travel as they were written.
    let body = format!(r#"{{"name":{name},"arguments":{arguments}}}"#);
    let node = Node::at(&args.node.node)?;
    let path = format!("/mcp/{server}/tools/call");
    let raw = node.post(&path, body.into_bytes()).await?;
    let result: ToolResult = serde_json::from_str(raw.get()).unwrap_or_default();
    match document(args.node.output, &raw)? {
        Some(text) => say(&text),
        None => say(&result.text(&raw)),
    }
    if result.is_error {
        Err(Failure::Told)
    } else {
        Ok(())
    }
}

/// A JSON object, from the command line or standard input.
fn arguments(given: Option<&str>) -> Result<Box<Raw>, Failure> {
    let mut text = given.unwrap_or("{}").to_owned();
    if text == "-" {
        text.clear();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
    }
    let raw: Box<Raw> = serde_json::from_str(text.trim()).map_err(|error| {
        Failure::Usage(format!(
            "the arguments are not JSON ({error}): write them as '{{\"name\":\"value\"}}'"
        ))
    })?;
    if raw.get().starts_with('{') {
        Ok(raw)
    } else {
        Err(Failure::Usage(
            "the arguments of a tool are a JSON object, such as '{\"name\":\"value\"}'".into(),
        ))
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ToolResult {
    content: Vec<Content>,
    structured_content: Option<Box<Raw>>,
    is_error: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Content {
    r#type: String,
    text: Option<String>,
    mime_type: Option<String>,
    uri: Option<String>,
    resource: Option<Resource>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Resource {
    uri: String,
    text: Option<String>,
}

impl ToolResult {
    /// For people: texts as they are, the rest by kind.
    fn text(&self, raw: &Raw) -> String {
        let parts: Vec<_> = self.content.iter().map(Content::text).collect();
        match (parts.is_empty(), &self.structured_content) {
            (false, _) => parts.join("\n"),
            (true, Some(structured)) => pretty(structured.get()),
            // Not a tool's result, e.g. a question that only a client can answer.
            (true, None) => pretty(raw.get()),
        }
    }
}

impl Content {
    fn text(&self) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        if let Some(resource) = &self.resource {
            let by_name = || format!("[resource {}]", resource.uri);
            return resource.text.clone().unwrap_or_else(by_name);
        }
        let detail = self.uri.as_ref().or(self.mime_type.as_ref());
        match detail {
            Some(detail) => format!("[{} {detail}]", self.r#type),
            None => format!("[{}]", self.r#type),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        let raw: &Raw = serde_json::from_str(json).expect("JSON");
        let result: ToolResult = serde_json::from_str(json).expect("a result");
        result.text(raw)
    }

    #[test]
    fn content_is_shown_by_kind() {
        assert_eq!(
            shown(
                r#"{"content":[{"type":"text","text":"one"},{"type":"image","mimeType":"image/png","data":"AA"},
                   {"type":"resource_link","uri":"file:///x"},{"type":"resource","resource":{"uri":"u","text":"two"}}],
                   "structuredContent":{"a":1}}"#
            ),
            "one\n[image image/png]\n[resource_link file:///x]\ntwo"
        );
        assert_eq!(
            shown(r#"{"structuredContent":{"a":1}}"#),
            "{\n  \"a\": 1\n}"
        );
    }

    #[test]
    fn arguments_are_an_object() {
        assert_eq!(arguments(None).expect("none").get(), "{}");
        assert_eq!(
            arguments(Some(r#"{"a": 1.0}"#)).expect("good").get(),
            r#"{"a": 1.0}"#
        );
        for bad in ["[]", "x", "", "1"] {
            assert!(
                matches!(arguments(Some(bad)), Err(Failure::Usage(_))),
                "{bad}"
            );
        }
    }
}
