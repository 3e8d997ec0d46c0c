//! Tool parameters that are repeated in `Mcp-Param-*` headers, as the tool's
//! `inputSchema` says with `x-mcp-header`.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Raw, error::RpcError};

/// The annotated parameters of one tool.
#[derive(Debug, Clone, Default)]
pub struct ParamHeaders {
    params: Vec<Param>,
}

#[derive(Debug, Clone)]
struct Param;

/// Why a tool's annotations are invalid; such a tool is not offered over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid x-mcp-header: {why}")]
pub struct InvalidAnnotation {
    /// For people.
    pub why: String,
}

impl ParamHeaders {
    /// Reads the annotations of an `inputSchema`.
    ///
    /// # Errors
    /// When one stands where it may not stand, or has a wrong name or type.
    pub fn from_schema(schema: &Raw) -> Result<Self, InvalidAnnotation> {
        let _ = schema;
        todo!()
    }

    /// Whether no parameter is annotated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Whether the headers agree with the arguments of a call.
    ///
    /// # Errors
    /// `-32020` when one is missing, repeated, malformed or different.
    pub fn check(&self, headers: &HeaderMap, arguments: Option<&Raw>) -> Result<(), RpcError> {
        let _ = (headers, arguments);
        todo!()
    }

    /// The headers that go with these arguments.
    #[must_use]
    pub fn headers_for(&self, arguments: Option<&Raw>) -> Vec<(HeaderName, HeaderValue)> {
        let _ = arguments;
        todo!()
    }

    /// The `Mcp-Param-*` headers that the schema does not know; they are passed on.
    pub fn unknown<'h>(
        &'h self,
        headers: &'h HeaderMap,
    ) -> impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)> {
        headers.iter().filter(|_| todo!())
    }
}
