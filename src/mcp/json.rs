//! Reading and editing JSON without touching the bytes that need no change.
//!
//! Values stay as they were written: number precision, key order, escapes and
//! characters survive. Only the white space between the members of an edited
//! object is lost. Not a document model: nobody here looks deeper than one level.

mod canonical;
mod lookup;
mod object;
mod scan;

use std::borrow::Cow;

use serde::{Serialize, de::IgnoredAny};

use super::Raw;

pub use canonical::canonical;
pub use lookup::{Unreadable, member, member_str, members};
pub use object::{IntoRaw, RawObject};
pub(crate) use scan::{Cursor, Malformed, name_of};

/// A value was expected to be a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub struct NotAnObject;

/// A value was expected to be a JSON array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON array")]
pub struct NotAnArray;

/// The content of a string that is written without escapes.
fn plain_str(raw: &Raw) -> Option<&str> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    memchr::memchr(b'\\', inner.as_bytes())
        .is_none()
        .then_some(inner)
}

/// The value as text, if it is a string.
#[must_use]
pub fn as_str(raw: &Raw) -> Option<Cow<'_, str>> {
    if let Some(plain) = plain_str(raw) {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str::<String>(raw.get())
        .ok()
        .map(Cow::Owned)
}

/// Whether the value is an object.
#[must_use]
pub fn is_object(raw: &Raw) -> bool {
    raw.get().starts_with('{')
}

/// Whether the value is an array.
#[must_use]
pub fn is_array(raw: &Raw) -> bool {
    raw.get().starts_with('[')
}

/// Whether the value is `null`.
#[must_use]
pub fn is_null(raw: &Raw) -> bool {
    raw.get() == "null"
}

/// One of our own values as JSON.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "our types have string keys and no failing serialisers"
)]
pub fn raw<T: Serialize + ?Sized>(value: &T) -> Box<Raw> {
    let text = serde_json::to_string(value).expect("our own types can be written as JSON");
    Raw::trusted_string(text)
}

/// A JSON string.
#[must_use]
pub fn raw_str(text: &str) -> Box<Raw> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_str(&mut out, text);
    raw_from_bytes(out)
}

/// JSON that this module has just put together from valid parts.
#[expect(
    clippy::expect_used,
    reason = "callers concatenate valid JSON with the punctuation between it"
)]
pub(crate) fn raw_from_bytes(json: Vec<u8>) -> Box<Raw> {
    let text = String::from_utf8(json).expect("valid parts make valid JSON");
    debug_assert!(value(&text).is_ok(), "valid parts make valid JSON");
    Raw::trusted_string(text)
}

/// The value that `text` is, without white space around it.
///
/// # Errors
/// When it is not JSON, or more than one value.
pub(super) fn value(text: &str) -> Result<&str, serde_json::Error> {
    let mut cursor = Cursor::new(text);
    match cursor
        .value()
        .and_then(|value| cursor.end().map(|()| value))
    {
        Ok(value) => Ok(value.get()),
        Err(_) => Err(not_json(text)),
    }
}

/// What is wrong with a text that is not JSON, in words with a place.
pub(super) fn not_json(text: &str) -> serde_json::Error {
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(error) => error,
        Ok(_) => serde::de::Error::custom("not a JSON text"),
    }
}

/// Appends `text` as a JSON string.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: &u8| *byte >= b' ' && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    // Writing text to a Vec cannot fail.
    serde_json::to_writer(out, text).ok();
}

/// The items of an array, borrowed.
///
/// # Errors
/// When `raw` is another kind of value.
pub fn elements(raw: &Raw) -> Result<Vec<&Raw>, NotAnArray> {
    let mut items = Vec::new();
    let walked = Cursor::new(raw.get()).array(|cursor| {
        items.push(cursor.value()?);
        Ok(())
    });
    walked.map(|()| items).map_err(|_| NotAnArray)
}

/// An array of `items`, each as it is.
#[must_use]
pub fn array<'r>(items: impl IntoIterator<Item = &'r Raw>) -> Box<Raw> {
    let mut out = vec![b'['];
    for item in items {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(item.get().as_bytes());
    }
    out.push(b']');
    raw_from_bytes(out)
}

/// Up to `max` items of an array; `Ok(None)` when there are more.
pub(super) fn elements_within(
    json: &str,
    max: usize,
) -> Result<Option<Vec<&Raw>>, serde_json::Error> {
    let mut items = Vec::new();
    let mut fits = true;
    let mut cursor = Cursor::new(json);
    let walked = cursor.array(|cursor| {
        let item = cursor.value()?;
        if items.len() < max {
            items.push(item);
        } else {
            fits = false;
        }
        Ok(())
    });
    match walked.and_then(|()| cursor.end()) {
        Ok(()) => Ok(fits.then_some(items)),
        Err(_) => Err(not_json(json)),
    }
}

/// Whether arrays and objects are nested at most `max` deep. One pass, no
/// allocation; the bytes need not be valid JSON.
#[must_use]
pub fn depth_within(bytes: &[u8], max: u32) -> bool {
    let mut depth = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at += string_len(&bytes[at..]),
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Bytes up to and including the quote that ends a string.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        at = (at + 1).min(bytes.len());
    }
    bytes.len()
}

/// The same JSON without line breaks, which a line-based transport forbids.
/// Inside strings they can only stand escaped, so all others are white space.
#[must_use]
pub fn single_line(json: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\n', b'\r', json).is_none() {
        return Cow::Borrowed(json);
    }
    let without_breaks = json.iter().map(|&byte| match byte {
        b'\n' | b'\r' => b' ',
        other => other,
    });
    Cow::Owned(without_breaks.collect())
}

#[cfg(test)]
pub(crate) mod tests;
