//! The protocol: messages, versions, headers, names, tokens. No sockets, no clock.
//!
//! Bytes that need no change are kept as they came: values are borrowed raw
//! JSON ([`Raw`]), objects are edited member by member ([`json::RawObject`]).
//!
//! A body becomes a [`message::Body`], [`classify`] says which era it belongs
//! to, [`envelope`] and [`header`] check what a modern request has to carry,
//! [`shape`] turns results and errors of one era into those of another and
//! [`mrtr`] carries questions that a server asks in mid-call. [`seal`] makes
//! the tokens that any node can open: [`cursor`]s, sessions, request states.

pub mod capabilities;
pub mod classify;
pub mod cursor;
pub mod envelope;
pub mod error;
pub mod header;
pub mod json;
pub mod message;
pub mod method;
pub mod mrtr;
pub mod name;
pub mod param_header;
pub mod params;
mod raw;
pub mod seal;
pub mod shape;
pub mod sse;
pub mod trace;
pub mod version;

pub use raw::Raw;
