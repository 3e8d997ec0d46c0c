//! Questions of servers on their way to clients of another era.

use std::borrow::Cow;

use crate::mcp::{
    Raw,
    json::{self, RawObject},
    method,
    version::Version,
};

use super::{content::message_for, finish, map_items, remove_modern_meta};

/// The parameters of a server's question for a modern client (an entry of
/// `inputRequests`): without what belongs to a JSON-RPC request of its own.
#[must_use]
pub fn question_for_modern<'a>(method: &str, params: &'a Raw) -> Cow<'a, Raw> {
    let Ok(mut object) = RawObject::parse(params) else {
        return Cow::Borrowed(params);
    };
    let mut changed = object.remove("task").is_some();
    if method == method::ELICITATION_CREATE {
        changed |= object.remove("elicitationId").is_some();
    }
    if let Some(mut meta) = object.get_object("_meta")
        && meta.remove("progressToken").is_some()
    {
        let left = (!meta.is_empty()).then(|| meta.to_raw());
        match left {
            Some(left) => object.set("_meta", left),
            None => drop(object.remove("_meta")),
        }
        changed = true;
    }
    finish(params, &object, changed)
}

/// The parameters of a server's question for a legacy client. URL questions
/// get `elicitation_id` unless they have one.
#[must_use]
pub fn question_for_legacy<'a>(
    method: &str,
    params: &'a Raw,
    version: Version,
    elicitation_id: &str,
) -> Cow<'a, Raw> {
    let Ok(mut object) = RawObject::parse(params) else {
        return Cow::Borrowed(params);
    };
    let mut changed = remove_modern_meta(&mut object);
    match method {
        method::ELICITATION_CREATE => {
            let is_url = object.get_str("mode").as_deref() == Some("url");
            if is_url && !object.contains("elicitationId") {
                object.set("elicitationId", json::raw_str(elicitation_id));
                changed = true;
            }
        }
        method::SAMPLING_CREATE => {
            changed |= map_items(&mut object, "messages", |message| {
                message_for(version, message)
            });
        }
        _ => {}
    }
    finish(params, &object, changed)
}
