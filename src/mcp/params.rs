//! The parameters of a request, read in one walk together with the message.
//!
//! Whatever looks at a request on its way (its era, its route, the headers
//! that repeat parts of it, the trace) asks for one of a few members. They are
//! noted while the body is checked, and nobody reads it again for them.

use std::borrow::Cow;

use super::{
    Raw, envelope,
    json::{self, Cursor, Malformed},
};

/// Members that routing, caching or resuming depends on. Nobody may repeat
/// them: the upstream could read the other copy.
const NAMES: [&str; 8] = [
    "_meta",
    "arguments",
    "cursor",
    "inputResponses",
    "name",
    "requestState",
    "taskId",
    "uri",
];

/// Members of `_meta` that mean something to a gateway.
const META_NAMES: [&str; 7] = [
    envelope::PROTOCOL_VERSION,
    envelope::CLIENT_CAPABILITIES,
    envelope::CLIENT_INFO,
    envelope::LOG_LEVEL,
    "progressToken",
    "traceparent",
    "tracestate",
];

/// What is known of a request's parameters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Params<'a> {
    values: [Option<&'a Raw>; NAMES.len()],
    repeated: Option<&'static str>,
    meta: Meta<'a>,
}

/// What is known of `_meta`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meta<'a> {
    values: [Option<&'a Raw>; META_NAMES.len()],
    /// A bit for each name that is repeated.
    repeated: u8,
}

impl<'a> Params<'a> {
    /// The value of a member of that name. Only for the names this type knows.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Raw> {
        let at = NAMES.iter().position(|known| *known == name);
        debug_assert!(at.is_some(), "{name} is not looked for");
        self.values[at?]
    }

    /// The same, if it is a string.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).and_then(json::as_str)
    }

    /// A member that must not be repeated and is.
    #[must_use]
    pub fn repeated(&self) -> Option<&'static str> {
        self.repeated
    }

    /// Whether `_meta` has members that this type knows.
    pub(super) fn meta(&self) -> &Meta<'a> {
        &self.meta
    }

    /// Walks over the parameters, which have to be an object.
    pub(super) fn walk(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let mut params = Self::default();
        cursor.object(|cursor, written| {
            let name = json::name_of(written)?;
            let Some(at) = NAMES.iter().position(|known| *known == name) else {
                return cursor.skip();
            };
            let value = if NAMES[at] == "_meta" && cursor.is_at_object() {
                let (value, meta) = cursor.span(Meta::walk)?;
                params.meta = meta;
                value
            } else {
                cursor.value()?
            };
            if params.values[at].replace(value).is_some() {
                params.repeated = Some(NAMES[at]);
                if at == 0 {
                    // Of two, neither is believed.
                    params.meta = Meta::default();
                }
            }
            Ok(())
        })?;
        Ok(params)
    }
}

impl<'a> From<Option<&'a Raw>> for Params<'a> {
    /// Reads parameters by themselves; of what is no object nothing is known.
    fn from(params: Option<&'a Raw>) -> Self {
        params
            .and_then(|params| Self::walk(&mut Cursor::new(params.get())).ok())
            .unwrap_or_default()
    }
}

impl<'a> From<&Self> for Params<'a> {
    fn from(params: &Self) -> Self {
        *params
    }
}

impl<'a> Meta<'a> {
    fn walk(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let mut meta = Self::default();
        cursor.object(|cursor, written| {
            let name = json::name_of(written)?;
            let Some(at) = META_NAMES.iter().position(|known| *known == name) else {
                return cursor.skip();
            };
            if meta.values[at].replace(cursor.value()?).is_some() {
                meta.repeated |= 1 << at;
            }
            Ok(())
        })?;
        Ok(meta)
    }

    /// Some values.
    ///
    /// # Errors
    /// The first of `names` that is repeated.
    pub(super) fn all<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<[Option<&'a Raw>; N], &'static str> {
        let mut found = [None; N];
        for (slot, name) in found.iter_mut().zip(names) {
            let Some(at) = META_NAMES.iter().position(|known| *known == name) else {
                continue;
            };
            if self.repeated & 1 << at != 0 {
                return Err(name);
            }
            *slot = self.values[at];
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::json::tests::value;

    #[test]
    fn members_and_those_of_meta_are_found_in_one_walk() {
        let raw = value(
            r#"{"name":"echo","x":{"name":1},"_meta":{"progressToken":7,"own":[1]},"arguments":{"uri":"u"}}"#,
        );
        let params = Params::from(Some(&*raw));
        assert_eq!(params.get_str("name").as_deref(), Some("echo"));
        assert_eq!(
            params.get("arguments").map(Raw::get),
            Some(r#"{"uri":"u"}"#)
        );
        assert_eq!(params.get("uri").map(Raw::get), None);
        let [token] = params.meta().all(["progressToken"]).expect("not repeated");
        assert_eq!(token.map(Raw::get), Some("7"));
        assert_eq!(params.repeated(), None);
    }

    #[test]
    fn repeats_are_noticed_however_they_are_written() {
        let raw =
            value(r#"{"name":"a","n\u0061me":"b","_meta":{"traceparent":1,"traceparent":2}}"#);
        let params = Params::from(Some(&*raw));
        assert_eq!(params.repeated(), Some("name"));
        assert_eq!(params.meta().all(["traceparent"]), Err("traceparent"));
        let raw = value(r#"{"_meta":{"progressToken":1},"_meta":{"progressToken":2}}"#);
        let params = Params::from(Some(&*raw));
        assert_eq!(params.repeated(), Some("_meta"));
        assert_eq!(params.meta().all(["progressToken"]), Ok([None]));
    }
}
