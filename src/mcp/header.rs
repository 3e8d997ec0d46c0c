//! The standard headers of modern requests, and how values are written in them.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{error::RpcError, method::name_param, version::Version};

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

const SENTINEL_START: &str = "=?base64?";
const SENTINEL_END: &str = "?=";

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
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = text.as_bytes();
    let looks_encoded = text.starts_with(SENTINEL_START) && text.ends_with(SENTINEL_END);
    let is_plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
        && !is_blank(bytes.first())
        && !is_blank(bytes.last())
        && !looks_encoded;
    let encoded = if is_plain {
        Cow::Borrowed(text)
    } else {
        let encoded = STANDARD.encode(text);
        Cow::Owned(format!("{SENTINEL_START}{encoded}{SENTINEL_END}"))
    };
    // Both forms are printable ASCII, which every header can hold.
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Reads a header's value that may be written as `=?base64?...?=`.
///
/// # Errors
/// When the value cannot be what [`encode_value`] writes.
pub fn decode_value(value: &HeaderValue) -> Result<Cow<'_, str>, BadHeaderValue> {
    let text = printable(value)?;
    let encoded = text
        .strip_prefix(SENTINEL_START)
        .and_then(|rest| rest.strip_suffix(SENTINEL_END));
    let Some(encoded) = encoded else {
        // An incomplete or differently written sentinel stands for itself.
        return Ok(text.into());
    };
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|_| BadHeaderValue::NotBase64)?;
    let text = String::from_utf8(bytes).map_err(|_| BadHeaderValue::NotUtf8)?;
    Ok(text.into())
}

/// The value without surrounding white space.
fn printable(value: &HeaderValue) -> Result<&str, BadHeaderValue> {
    let text = value.to_str().map_err(|_| BadHeaderValue::NotAscii)?;
    Ok(text.trim_matches([' ', '\t']))
}

/// The only value of a header that must not be repeated: readers of the first
/// and of the last copy would disagree.
fn only<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, RpcError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(RpcError::header_mismatch(format!(
            "the {} header is there more than once",
            display(name)
        )));
    }
    Ok(first)
}

/// The value of a header that must not be repeated, without surrounding white space.
///
/// # Errors
/// `-32020` when there are several, or the value is not printable ASCII.
pub fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, RpcError> {
    only(headers, name)?
        .map(|value| printable(value).map_err(|error| malformed(name, error)))
        .transpose()
}

/// The value of a header that must not be repeated, decoded.
///
/// # Errors
/// `-32020` when there are several, or the value is malformed.
pub fn single_decoded<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<Cow<'h, str>>, RpcError> {
    only(headers, name)?
        .map(|value| decode_value(value).map_err(|error| malformed(name, error)))
        .transpose()
}

fn malformed(name: &HeaderName, error: BadHeaderValue) -> RpcError {
    RpcError::header_mismatch(format!("malformed {} header: {error}", display(name)))
}

/// The name as the specification writes it.
pub(super) fn display(name: &HeaderName) -> Cow<'_, str> {
    match name.as_str() {
        "mcp-protocol-version" => "MCP-Protocol-Version".into(),
        "mcp-method" => "Mcp-Method".into(),
        "mcp-name" => "Mcp-Name".into(),
        "mcp-session-id" => "Mcp-Session-Id".into(),
        other => match other.strip_prefix(PARAM_PREFIX) {
            Some(param) => format!("Mcp-Param-{param}").into(),
            None => other.into(),
        },
    }
}

/// Whether the standard headers agree with the body of a modern request.
/// `name` is what the body has where [`name_param`] points.
///
/// # Errors
/// `-32020` when one is missing, repeated, malformed or different.
pub fn check_standard_headers(
    headers: &HeaderMap,
    version: &str,
    method: &str,
    name: Option<&str>,
) -> Result<(), RpcError> {
    let agree =
        |header: &HeaderName, found: Option<&str>, expected: &str, of: [&str; 2]| match found {
            Some(found) if found == expected => Ok(()),
            Some(_) => Err(RpcError::header_mismatch(format!(
                "{} does not match {}",
                display(header),
                of.concat()
            ))),
            None => Err(RpcError::header_mismatch(format!(
                "the {} header is missing; it has to repeat {}",
                display(header),
                of.concat()
            ))),
        };
    let in_meta = "params._meta[\"io.modelcontextprotocol/protocolVersion\"]";
    agree(
        &PROTOCOL_VERSION,
        single(headers, &PROTOCOL_VERSION)?,
        version,
        [in_meta, ""],
    )?;
    agree(&METHOD, single(headers, &METHOD)?, method, ["method", ""])?;
    let Some(param) = name_param(method) else {
        return Ok(());
    };
    let found = single_decoded(headers, &NAME)?;
    match (found, name) {
        // The missing parameter is the caller's next finding.
        (None, None) => Ok(()),
        (found, Some(name)) => agree(&NAME, found.as_deref(), name, ["params.", param]),
        (Some(_), None) => Err(RpcError::header_mismatch(format!(
            "there is an Mcp-Name header but no params.{param}"
        ))),
    }
}

/// Sets the standard headers of a modern request.
pub fn standard_headers(out: &mut HeaderMap, version: Version, method: &str, name: Option<&str>) {
    out.insert(PROTOCOL_VERSION, HeaderValue::from_static(version.as_str()));
    out.insert(METHOD, encode_value(method));
    match name {
        Some(name) => out.insert(NAME, encode_value(name)),
        None => out.remove(NAME),
    };
}

#[cfg(test)]
mod tests;
