//! Errors of one era in the words of another.

use std::borrow::Cow;

use crate::mcp::{
    Raw,
    capabilities::InputKind,
    error::{
        HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, MISSING_CAPABILITY, RESOURCE_NOT_FOUND,
        RpcError, UNSUPPORTED_VERSION, URL_ELICITATION_REQUIRED,
    },
    json::{self, RawObject},
    method,
    version::Version,
};

/// An upstream's error for a modern client. A `-32042` that could not be turned
/// into questions becomes the capability that the client lacks.
#[must_use]
pub fn error_for_modern(error: &Raw) -> Cow<'_, Raw> {
    let Some(read) = RpcError::parse(error) else {
        return Cow::Owned(unreadable());
    };
    match read.code {
        RESOURCE_NOT_FOUND => Cow::Owned(with_code(error, INVALID_PARAMS)),
        URL_ELICITATION_REQUIRED => {
            let required = InputKind::ElicitUrl.required();
            Cow::Owned(RpcError::missing_capability(&required).to_raw())
        }
        HEADER_MISMATCH | UNSUPPORTED_VERSION => Cow::Owned(about_our_request()),
        _ => Cow::Borrowed(error),
    }
}

/// An upstream's error, in answer to `method`, for a legacy client.
#[must_use]
pub fn error_for_legacy<'a>(method: &str, error: &'a Raw, version: Version) -> Cow<'a, Raw> {
    let Some(read) = RpcError::parse(error) else {
        return Cow::Owned(unreadable());
    };
    match read.code {
        INVALID_PARAMS if method == method::RESOURCES_READ && names_resource(&read) => {
            Cow::Owned(with_code(error, RESOURCE_NOT_FOUND))
        }
        URL_ELICITATION_REQUIRED if version < Version::V2025_11_25 => {
            Cow::Owned(with_code(error, INVALID_REQUEST))
        }
        MISSING_CAPABILITY => Cow::Owned(with_code(error, INVALID_REQUEST)),
        HEADER_MISMATCH | UNSUPPORTED_VERSION => Cow::Owned(about_our_request()),
        _ => Cow::Borrowed(error),
    }
}

/// Whether the error is about the resource that its data names.
fn names_resource(error: &RpcError) -> bool {
    let data = error.data.as_deref();
    data.is_some_and(|data| json::member_str(data, "uri").is_some())
}

/// The same error under another code.
fn with_code(error: &Raw, code: i64) -> Box<Raw> {
    let mut object = RawObject::parse(error).unwrap_or_default();
    object.set("code", json::raw(&code));
    object.to_raw()
}

/// The upstream refused how we put the request; the client cannot mend that.
fn about_our_request() -> Box<Raw> {
    RpcError::internal("The server does not accept how the gateway put the request").to_raw()
}

fn unreadable() -> Box<Raw> {
    RpcError::internal("The server answered with an error that is not a JSON-RPC error").to_raw()
}
