//! Request ids.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::mcp::{Raw, json};

/// Longest request id, in bytes as written; ids are kept in maps and in the store.
pub const MAX_ID_LEN: usize = 1024;

/// A request id, a JSON string or integer, kept as written: `1` is not `"1"`.
/// Two spellings of the same string (escapes) are the same id.
#[derive(Clone)]
pub struct RequestId(Arc<Raw>);

impl RequestId {
    /// An id of our own.
    #[must_use]
    pub fn new_number(number: u64) -> Self {
        Self(json::raw(&number).into())
    }

    /// An id of our own.
    #[must_use]
    pub fn new_string(text: &str) -> Self {
        Self(json::raw_str(text).into())
    }

    /// Reads an id.
    ///
    /// # Errors
    /// When it is neither a string nor an integer, or longer than [`MAX_ID_LEN`].
    pub fn parse(raw: &Raw) -> Result<Self, BadRequestId> {
        let text = raw.get();
        if text.len() > MAX_ID_LEN {
            return Err(BadRequestId::TooLong);
        }
        let valid = match text.as_bytes()[0] {
            b'"' => json::as_str(raw).is_some(),
            b'-' | b'0'..=b'9' => is_integer(text),
            _ => false,
        };
        if valid {
            Ok(Self(raw.to_arc()))
        } else {
            Err(BadRequestId::WrongType)
        }
    }

    /// The id as JSON, as it was written.
    #[must_use]
    pub fn as_raw(&self) -> &Raw {
        &self.0
    }

    /// The id as a number, for ids made by [`Self::new_number`].
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        self.0.get().parse().ok()
    }

    /// What makes two ids the same: the text without escapes, in quotes, or the digits.
    fn key(&self) -> Cow<'_, str> {
        let text = self.0.get();
        if text.starts_with('"') {
            if memchr::memchr(b'\\', text.as_bytes()).is_none() {
                return Cow::Borrowed(text);
            }
            let decoded = json::as_str(&self.0).unwrap_or_default();
            return Cow::Owned(format!("\"{decoded}\""));
        }
        Cow::Borrowed(text.split_once('.').map_or(text, |(digits, _zeros)| digits))
    }
}

/// Digits, with at most a fraction of zeros.
fn is_integer(number: &str) -> bool {
    let (digits, fraction) = number.split_once('.').unwrap_or((number, "0"));
    !digits.contains(['e', 'E']) && fraction.bytes().all(|digit| digit == b'0')
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get() || self.key() == other.key()
    }
}

impl Eq for RequestId {}

impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

/// Why a value is not a [`RequestId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequestId {
    /// Null, a fraction, an object.
    #[error("id must be a string or an integer")]
    WrongType,
    /// Longer than [`MAX_ID_LEN`].
    #[error("id is longer than {MAX_ID_LEN} bytes")]
    TooLong,
}
