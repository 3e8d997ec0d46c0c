//! JSON-RPC errors: the codes of the protocol and how each is written.
//!
//! Which HTTP status carries an error is decided where HTTP is spoken.

use serde::Serialize;

use super::{Raw, json, json::RawObject, version};

/// The body is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The body is not a message of this protocol.
pub const INVALID_REQUEST: i64 = -32600;
/// No such method here.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// Parameters are missing, malformed or name something unknown.
pub const INVALID_PARAMS: i64 = -32602;
/// Something failed that the caller cannot mend.
pub const INTERNAL_ERROR: i64 = -32603;
/// Modern: a header is missing, malformed or differs from the body.
pub const HEADER_MISMATCH: i64 = -32020;
/// Modern: the request needs a capability the client has not declared.
pub const MISSING_CAPABILITY: i64 = -32021;
/// Modern: the version is not served.
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// Legacy only: no such resource.
pub const RESOURCE_NOT_FOUND: i64 = -32002;
/// 2025-11-25 only: a URL has to be visited first.
pub const URL_ELICITATION_REQUIRED: i64 = -32042;

/// The client has to wait. A code of our own, outside of what JSON-RPC and the
/// protocol keep for themselves.
pub const RATE_LIMITED: i64 = -31_429;

/// An error as it is put into a response.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RpcError {
    /// One of the codes above, or an upstream's own.
    pub code: i64,
    /// For people; names the cure where there is one.
    pub message: String,
    /// What programs need to react.
    pub data: Option<Box<Raw>>,
}

impl RpcError {
    /// An error without data.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// The same error with `data`.
    #[must_use]
    pub fn with_data<T: Serialize + ?Sized>(self, data: &T) -> Self {
        Self {
            data: Some(json::raw(data)),
            ..self
        }
    }

    /// The body is not JSON.
    #[must_use]
    pub fn parse_error(message: impl Into<String>) -> Self {
        Self::new(PARSE_ERROR, message)
    }

    /// The body is not a message of this protocol.
    #[must_use]
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    /// There is no such method, or not for this caller.
    #[must_use]
    pub fn method_not_found(method: &str) -> Self {
        Self::new(METHOD_NOT_FOUND, format!("Method not found: {method}"))
    }

    /// Parameters are missing, malformed or name something unknown.
    #[must_use]
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    /// Something failed that the caller cannot mend.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(INTERNAL_ERROR, message)
    }

    /// A header is missing, malformed or differs from the body.
    #[must_use]
    pub fn header_mismatch(message: impl Into<String>) -> Self {
        Self::new(HEADER_MISMATCH, message)
    }

    /// The request needs `required`, a `ClientCapabilities` object.
    #[must_use]
    pub fn missing_capability(required: &Raw) -> Self {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Data<'a> {
            required_capabilities: &'a Raw,
        }
        Self::new(
            MISSING_CAPABILITY,
            "The request needs a client capability that it does not declare",
        )
        .with_data(&Data {
            required_capabilities: required,
        })
    }

    /// The version is not served; the data names those that are.
    #[must_use]
    pub fn unsupported_version(requested: &str) -> Self {
        #[derive(Serialize)]
        struct Data<'a> {
            supported: &'a [&'a str],
            requested: &'a str,
        }
        Self::new(UNSUPPORTED_VERSION, "Unsupported protocol version").with_data(&Data {
            supported: version::supported(),
            requested,
        })
    }

    /// No such resource, as legacy clients know it.
    #[must_use]
    pub fn resource_not_found_legacy(uri: &str) -> Self {
        Self::new(RESOURCE_NOT_FOUND, "Resource not found").with_data(&ResourceUri { uri })
    }

    /// No such resource, as modern clients know it.
    #[must_use]
    pub fn resource_not_found_modern(uri: &str) -> Self {
        Self::new(INVALID_PARAMS, "Resource not found").with_data(&ResourceUri { uri })
    }

    /// Reads an `error` member; `None` when it has no integer code.
    #[must_use]
    pub fn parse(error: &Raw) -> Option<Self> {
        let object = RawObject::parse(error).ok()?;
        Some(Self {
            code: serde_json::from_str(object.get("code")?.get()).ok()?,
            message: object
                .get_str("message")
                .map_or_else(String::new, |message| message.into_owned()),
            data: object.get("data").map(ToOwned::to_owned),
        })
    }

    /// The `error` member of a response.
    #[must_use]
    pub fn to_raw(&self) -> Box<Raw> {
        let mut object = RawObject::new();
        object.set("code", json::raw(&self.code));
        object.set("message", json::raw_str(&self.message));
        if let Some(data) = &self.data {
            object.set("data", &**data);
        }
        object.to_raw()
    }
}

#[derive(Serialize)]
struct ResourceUri<'a> {
    uri: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_written_as_the_protocol_has_them() {
        let error = RpcError::unsupported_version("2027-01-01");
        assert_eq!(
            error.to_raw().get(),
            r#"{"code":-32022,"message":"Unsupported protocol version","data":{"supported":["2026-07-28","2025-11-25","2025-06-18","2025-03-26","2024-11-05"],"requested":"2027-01-01"}}"#
        );
        let required = json::raw(&serde_json::json!({"elicitation": {}}));
        let error = RpcError::missing_capability(&required);
        assert!(
            error
                .to_raw()
                .get()
                .contains(r#""data":{"requiredCapabilities":{"elicitation":{}}}"#)
        );
        let error = RpcError::resource_not_found_modern("doc://a\"b");
        assert_eq!(error.code, INVALID_PARAMS);
        assert!(error.to_raw().get().contains(r#"{"uri":"doc://a\"b"}"#));
    }

    #[test]
    fn errors_read_back() {
        let error = RpcError::resource_not_found_legacy("x:y");
        let again = RpcError::parse(&error.to_raw()).expect("own error");
        assert_eq!(again.code, -32002);
        assert_eq!(again.message, error.message);
        assert_eq!(again.data.expect("data").get(), r#"{"uri":"x:y"}"#);
        assert!(RpcError::parse(&json::raw_str("boom")).is_none());
        assert!(RpcError::parse(&json::raw(&serde_json::json!({"code": "x"}))).is_none());
    }
}
