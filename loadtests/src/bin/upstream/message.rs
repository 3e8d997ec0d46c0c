//! The little JSON-RPC an answer needs: raw parts in, raw parts out.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// The members of an object as they were written.
pub(crate) type Members<'a> = HashMap<&'a str, &'a RawValue>;

/// A request, or a notification when it has no id.
pub(crate) struct Message<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) method: &'a str,
    pub(crate) params: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> serde_json::Result<Self> {
        let members: Members<'a> = serde_json::from_slice(body)?;
        let method = members.get("method").map_or("null", |raw| raw.get());
        Ok(Self {
            id: members.get("id").map(|raw| raw.get()),
            method: serde_json::from_str(method)?,
            params: members.get("params").copied(),
        })
    }

    /// The members of `params`.
    pub(crate) fn members(&self) -> serde_json::Result<Members<'a>> {
        self.params.map_or(Ok(Members::new()), of)
    }
}

pub(crate) fn of(raw: &RawValue) -> serde_json::Result<Members<'_>> {
    serde_json::from_str(raw.get())
}

/// A response with the members of its result given as text, in parts.
pub(crate) fn result(id: &str, members: &[&str]) -> Vec<u8> {
    let length: usize = members.iter().map(|part| part.len()).sum();
    let mut answer = Vec::with_capacity(length + id.len() + 40);
    answer.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    answer.extend_from_slice(id.as_bytes());
    answer.extend_from_slice(br#","result":{"#);
    for part in members {
        answer.extend_from_slice(part.as_bytes());
    }
    answer.extend_from_slice(b"}}");
    answer
}

pub(crate) fn error(id: &str, code: i32, message: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
        .into_bytes()
}
