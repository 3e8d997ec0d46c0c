//! Content blocks, the messages that hold them, and tools.

use std::borrow::Cow;

use crate::mcp::{
    Raw,
    json::{self, RawObject},
    version::{Era, Version},
};

/// A content block for a client of that version. Audio came with 2025-03-26
/// and links with 2025-06-18; older clients fail to parse the whole message.
#[must_use]
pub fn content_for(version: Version, block: &Raw) -> Cow<'_, Raw> {
    if version >= Version::V2025_06_18 {
        return Cow::Borrowed(block);
    }
    let Ok(object) = RawObject::parse(block) else {
        return Cow::Borrowed(block);
    };
    match object.get_str("type").as_deref() {
        Some("audio") if version < Version::V2025_03_26 => Cow::Owned(embedded_audio(&object)),
        Some("resource_link") => Cow::Owned(link_as_text(&object)),
        _ => Cow::Borrowed(block),
    }
}

/// A block of text.
pub(super) fn text_block(text: &str) -> Box<Raw> {
    let mut block = RawObject::new();
    block.set("type", json::raw_str("text"));
    block.set("text", json::raw_str(text));
    block.to_raw()
}

/// Embedded resources have existed from the beginning and lose nothing.
fn embedded_audio(audio: &RawObject<'_>) -> Box<Raw> {
    let Some(data) = audio
        .get("data")
        .filter(|data| json::as_str(data).is_some())
    else {
        return text_block("[audio]");
    };
    let mut resource = RawObject::new();
    resource.set("uri", json::raw_str("audio:embedded"));
    if let Some(kind) = audio.get("mimeType") {
        resource.set("mimeType", kind);
    }
    resource.set("blob", data);
    let mut block = RawObject::new();
    block.set("type", json::raw_str("resource"));
    block.set("resource", resource.to_raw());
    if let Some(annotations) = audio.get("annotations") {
        block.set("annotations", annotations);
    }
    block.to_raw()
}

fn link_as_text(link: &RawObject<'_>) -> Box<Raw> {
    let uri = link.get_str("uri").unwrap_or_default();
    let text = match link.get_str("title").or_else(|| link.get_str("name")) {
        Some(name) if !name.is_empty() => format!("{name}: {uri}"),
        Some(_) | None => uri.into_owned(),
    };
    let mut block = RawObject::new();
    block.set("type", json::raw_str("text"));
    block.set("text", json::raw_str(&text));
    if let Some(annotations) = link.get("annotations") {
        block.set("annotations", annotations);
    }
    block.to_raw()
}

/// A message of a prompt or of a sampling request.
pub(super) fn message_for(version: Version, message: &Raw) -> Cow<'_, Raw> {
    let Some(content) = json::member(message, "content") else {
        return Cow::Borrowed(message);
    };
    let Cow::Owned(content) = content_for(version, content) else {
        return Cow::Borrowed(message);
    };
    let mut object = RawObject::parse(message).unwrap_or_default();
    object.set("content", content);
    Cow::Owned(object.to_raw())
}

/// An item of `tools/list` for a client of that version. `taskSupport` means
/// something in 2025-11-25 only; output schemas of other roots than `object`
/// came with 2026-07-28.
#[must_use]
pub fn tool_for(version: Version, tool: &Raw) -> Cow<'_, Raw> {
    let Ok([execution, output]) = json::members(tool, ["execution", "outputSchema"]) else {
        return Cow::Borrowed(tool);
    };
    let execution = execution
        .filter(|_| version != Version::V2025_11_25)
        .and_then(|execution| RawObject::parse(execution).ok())
        .filter(|execution| execution.contains("taskSupport"));
    let drops_output = version.era() == Era::Legacy
        && output.is_some_and(|schema| {
            json::member_str(schema, "type").is_none_or(|root| root != "object")
        });
    if execution.is_none() && !drops_output {
        return Cow::Borrowed(tool);
    }
    let mut object = RawObject::parse(tool).unwrap_or_default();
    if let Some(mut execution) = execution {
        execution.remove("taskSupport");
        if execution.is_empty() {
            object.remove("execution");
        } else {
            object.set("execution", execution.to_raw());
        }
    }
    if drops_output {
        object.remove("outputSchema");
    }
    Cow::Owned(object.to_raw())
}
