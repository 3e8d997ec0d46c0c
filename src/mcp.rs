//! The protocol: messages, versions, headers, names, tokens. No sockets, no clock.
//!
//! Bytes that need no change are kept as they came: values are borrowed raw
//! JSON ([`Raw`]), objects are edited member by member.

/// A JSON value exactly as it was written.
pub type Raw = serde_json::value::RawValue;
