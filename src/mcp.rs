//! The protocol: messages, versions, headers, names, tokens. No sockets, no clock.
//!
//! Bytes that need no change are kept as they came: values are borrowed raw
//! JSON ([`Raw`]), objects are edited member by member ([`json::RawObject`]).

/// A JSON value exactly as it was written.
pub type Raw = serde_json::value::RawValue;

pub mod capabilities;
pub mod cursor;
pub mod envelope;
pub mod error;
pub mod header;
pub mod json;
pub mod message;
pub mod method;
pub mod name;
pub mod param_header;
pub mod seal;
pub mod shape;
pub mod sse;
pub mod version;
