//! Results, errors and questions of one era in the shape of another.
//!
//! Only what the receiving era requires is added, and only what its clients
//! choke on is removed; harmless extras stay. Whatever needs no change is
//! borrowed.

mod content;
mod error;
mod question;

use std::borrow::Cow;

use super::{
    Raw,
    envelope::{self, SERVER_INFO},
    json::{self, RawObject},
    method,
    version::{Era, Version},
};

pub use content::{content_for, tool_for};
pub use error::{error_for_legacy, error_for_modern};
pub use question::{question_for_legacy, question_for_modern};

/// `resultType` of a result that asks for nothing more.
pub const COMPLETE: &str = "complete";

/// How long and by whom a result may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheHints {
    /// `ttlMs`
    pub ttl_ms: u64,
    /// `cacheScope` is `public`.
    pub public: bool,
}

/// What a result needs to become a modern one.
#[derive(Debug, Clone, Copy)]
pub struct ModernResult<'a> {
    /// The method it answers.
    pub method: &'a str,
    /// For cacheable methods without hints of their own; `None`: no time, private.
    pub cache: Option<CacheHints>,
    /// Who the server is, if the result does not say.
    pub server_info: &'a Raw,
}

/// `resultType`; a result without one is complete.
#[must_use]
pub fn result_type(result: &Raw) -> Cow<'_, str> {
    json::member_str(result, "resultType").unwrap_or(Cow::Borrowed(COMPLETE))
}

/// A result for a modern client: adds what the era requires and the result lacks.
#[must_use]
pub fn result_for_modern<'a>(result: &'a Raw, context: &ModernResult<'_>) -> Cow<'a, Raw> {
    // Something else than an object is no result in any era.
    let object = RawObject::parse(result).unwrap_or_default();
    members_for_modern(result, object, context)
}

/// The same for a result whose members are known.
pub(crate) fn members_for_modern<'a>(
    result: &'a Raw,
    mut object: RawObject<'a>,
    context: &ModernResult<'_>,
) -> Cow<'a, Raw> {
    let mut changed = !json::is_object(result);
    let mut require = |object: &mut RawObject<'a>, name: &'static str, value: Box<Raw>| {
        changed = true;
        object.set(name, value);
    };
    if object.get_str("resultType").is_none() {
        require(&mut object, "resultType", json::raw_str(COMPLETE));
    }
    let is_complete = object.get_str("resultType").as_deref() == Some(COMPLETE);
    if is_complete && method::is_cacheable(context.method) {
        let hints = context.cache.unwrap_or(CacheHints {
            ttl_ms: 0,
            public: false,
        });
        if !object.get("ttlMs").is_some_and(is_duration) {
            require(&mut object, "ttlMs", json::raw(&hints.ttl_ms));
        }
        if !object
            .get_str("cacheScope")
            .is_some_and(|scope| is_scope(&scope))
        {
            let scope = if hints.public { "public" } else { "private" };
            require(&mut object, "cacheScope", json::raw_str(scope));
        }
    }
    let mut meta = object.get_object("_meta").unwrap_or_default();
    if !meta.contains(SERVER_INFO) {
        meta.set(SERVER_INFO, context.server_info.to_owned());
        let meta = meta.to_raw();
        require(&mut object, "_meta", meta);
    }
    if context.method == method::TOOLS_LIST {
        changed |= map_items(&mut object, "tools", |tool| {
            tool_for(Version::LATEST_MODERN, tool)
        });
    }
    finish(result, &object, changed)
}

fn is_duration(ttl: &Raw) -> bool {
    ttl.get().parse::<u64>().is_ok()
}

fn is_scope(scope: &str) -> bool {
    matches!(scope, "public" | "private")
}

/// A result for a legacy client: removes what the era does not know and what
/// clients of that version cannot parse.
#[must_use]
pub fn result_for_legacy<'a>(method: &str, result: &'a Raw, version: Version) -> Cow<'a, Raw> {
    let Ok(mut object) = RawObject::parse(result) else {
        return Cow::Borrowed(result);
    };
    let mut changed = false;
    // Some clients parse empty results strictly: a stray member breaks `ping`.
    for name in ["resultType", "ttlMs", "cacheScope"] {
        changed |= object.remove(name).is_some();
    }
    changed |= remove_modern_meta(&mut object);
    changed |= match method {
        method::TOOLS_LIST => map_items(&mut object, "tools", |tool| tool_for(version, tool)),
        method::TOOLS_CALL => tool_result_for_legacy(&mut object, version),
        method::PROMPTS_GET => map_items(&mut object, "messages", |message| {
            content::message_for(version, message)
        }),
        _ => false,
    };
    finish(result, &object, changed)
}

/// Before 2026 structured content is an object, before 2025-06-18 nobody reads
/// it: then there has to be text that says the same.
fn tool_result_for_legacy(object: &mut RawObject<'_>, version: Version) -> bool {
    let mut changed = map_items(object, "content", |block| content_for(version, block));
    let Some(structured) = object.get("structuredContent").map(ToOwned::to_owned) else {
        return changed;
    };
    let is_object = json::is_object(&structured);
    if version.era() == Era::Legacy && !is_object {
        object.remove("structuredContent");
        changed = true;
    }
    let is_read = is_object && version >= Version::V2025_06_18;
    let has_content = object
        .get("content")
        .and_then(|content| json::elements(content).ok())
        .is_some_and(|blocks| !blocks.is_empty());
    if !is_read && !has_content {
        let block = content::text_block(structured.get());
        object.set("content", json::array([&*block]));
        changed = true;
    }
    changed
}

/// Removes the `_meta` keys that no legacy version has; whether there were any.
fn remove_modern_meta(object: &mut RawObject<'_>) -> bool {
    let Some(mut meta) = object.get_object("_meta") else {
        return false;
    };
    let before = meta.len();
    meta.retain(|key, _| !envelope::is_modern_only(key));
    if meta.len() == before {
        return false;
    }
    let left = (!meta.is_empty()).then(|| meta.to_raw());
    match left {
        Some(left) => object.set("_meta", left),
        None => drop(object.remove("_meta")),
    }
    true
}

/// Replaces the items of an array for which `map` answers with a new value;
/// whether there was one.
fn map_items<'r>(
    object: &mut RawObject<'_>,
    name: &'static str,
    map: impl Fn(&Raw) -> Cow<'_, Raw> + 'r,
) -> bool {
    let Some(items) = object.get(name).and_then(|raw| json::elements(raw).ok()) else {
        return false;
    };
    let items: Vec<_> = items.into_iter().map(&map).collect();
    if items.iter().all(|item| matches!(item, Cow::Borrowed(_))) {
        return false;
    }
    let items = json::array(items.iter().map(|item| &**item));
    object.set(name, items);
    true
}

fn finish<'a>(original: &'a Raw, object: &RawObject<'_>, changed: bool) -> Cow<'a, Raw> {
    if changed {
        Cow::Owned(object.to_raw())
    } else {
        Cow::Borrowed(original)
    }
}

#[cfg(test)]
mod tests;
