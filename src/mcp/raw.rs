//! [`Raw`]: a JSON value as its sender wrote it.
//!
//! The same idea as `serde_json::value::RawValue`, with one difference that
//! the path of a call lives on: what was found to be JSON once can be cut out
//! of it, or put together from it, without being read again.

use std::{borrow::Borrow, fmt, sync::Arc};

use bytemuck::{TransparentWrapper, TransparentWrapperAlloc as _};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

/// One JSON value, as its sender wrote it, without white space around it.
#[derive(TransparentWrapper, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Raw(str);

impl Raw {
    /// `null`.
    #[must_use]
    pub fn null() -> &'static Self {
        Self::trusted("null")
    }

    /// The value as JSON.
    #[must_use]
    pub fn get(&self) -> &str {
        &self.0
    }

    /// Reads a text.
    ///
    /// # Errors
    /// When it is not one JSON value.
    pub fn parse(text: &str) -> Result<&Self, serde_json::Error> {
        super::json::value(text).map(Self::trusted)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// When it is not one JSON value.
    pub fn from_string(text: String) -> Result<Box<Self>, serde_json::Error> {
        let value = Self::parse(&text)?;
        if value.get().len() < text.len() {
            return Ok(value.to_owned());
        }
        Ok(Self::trusted_string(text))
    }

    /// What has been found to be one JSON value already.
    pub(super) fn trusted(text: &str) -> &Self {
        Self::wrap_ref(text)
    }

    /// What has just been put together from JSON values.
    pub(super) fn trusted_string(text: String) -> Box<Self> {
        Self::wrap_box(text.into_boxed_str())
    }

    /// A copy to be shared.
    pub(super) fn to_arc(&self) -> Arc<Self> {
        Self::wrap_arc(Arc::from(self.get()))
    }
}

impl ToOwned for Raw {
    type Owned = Box<Self>;

    fn to_owned(&self) -> Box<Self> {
        Self::wrap_box(Box::from(self.get()))
    }
}

impl Clone for Box<Raw> {
    fn clone(&self) -> Self {
        (**self).to_owned()
    }
}

impl Borrow<str> for Raw {
    fn borrow(&self) -> &str {
        self.get()
    }
}

impl From<Box<Raw>> for Bytes {
    fn from(raw: Box<Raw>) -> Self {
        Raw::peel_box(raw).into_boxed_bytes().into()
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: &RawValue =
            serde_json::from_str(self.get()).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for &'a Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value: &'de RawValue = Deserialize::deserialize(deserializer)?;
        Ok(Raw::trusted(value.get()))
    }
}

impl<'de> Deserialize<'de> for Box<Raw> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value: Box<RawValue> = Deserialize::deserialize(deserializer)?;
        Raw::from_string(Box::<str>::from(value).into_string()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cut_out_of_the_white_space_around_it() {
        let raw = Raw::from_string(" {\"a\": 1.0}\n".into()).expect("JSON");
        assert_eq!(raw.get(), "{\"a\": 1.0}");
        assert!(Raw::from_string("{} {}".into()).is_err());
        assert!(Raw::from_string(String::new()).is_err());
    }

    #[test]
    fn it_is_written_and_read_as_it_is() {
        let written = r#"{"in":{"z":1.00,"a":"\u0041"}}"#;
        #[derive(Serialize, Deserialize)]
        struct Around {
            r#in: Box<Raw>,
        }
        let read: Around = serde_json::from_str(written).expect("JSON");
        assert_eq!(read.r#in.get(), r#"{"z":1.00,"a":"\u0041"}"#);
        assert_eq!(serde_json::to_string(&read).expect("JSON"), written);
    }
}
