//! The standard headers of modern requests, and how values are written in them.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{error::RpcError, version::Version};

/// Names the protocol version.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Repeats `method`.
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// Repeats the name, URI or task id of the parameters.
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// Names the legacy session.
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// Where a legacy client lost its stream.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What the headers of parameters begin with.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// Why a header's value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeaderValue {
    /// It has bytes outside printable ASCII; such values are sent as Base64.
    #[error("characters outside printable ASCII have to be sent as =?base64?...?=")]
    NotAscii,
    /// The text between the markers is not padded standard Base64.
    #[error("broken Base64 in =?base64?...?=")]
    NotBase64,
    /// The encoded bytes are not UTF-8.
    #[error("the Base64 in =?base64?...?= is not UTF-8")]
    NotUtf8,
}

/// Writes any text as a header's value: as it is, or as `=?base64?...?=`.
#[must_use]
pub fn encode_value(text: &str) -> HeaderValue {
    let _ = text;
    todo!()
}

/// Reads a header's value that may be written as `=?base64?...?=`.
///
/// # Errors
/// When the value cannot be what [`encode_value`] writes.
pub fn decode_value(value: &HeaderValue) -> Result<String, BadHeaderValue> {
    let _ = value;
    todo!()
}

/// The value of a header that must not be repeated, without surrounding white space.
///
/// # Errors
/// `-32020` when there are several, or the value is not printable ASCII.
pub fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, RpcError> {
    let _ = (headers, name);
    todo!()
}

/// Whether the standard headers agree with the body of a modern request.
/// `name` is what the body has where [`name_param`](super::method::name_param) points.
///
/// # Errors
/// `-32020` when one is missing, repeated, malformed or different.
pub fn check_standard_headers(
    headers: &HeaderMap,
    version: &str,
    method: &str,
    name: Option<&str>,
) -> Result<(), RpcError> {
    let _ = (headers, version, method, name);
    todo!()
}

/// Sets the standard headers of a modern request.
pub fn standard_headers(out: &mut HeaderMap, version: Version, method: &str, name: Option<&str>) {
    let _ = (out, version, method, name);
    todo!()
}
