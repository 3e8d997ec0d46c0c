//! Results, errors and questions of one era in the shape of another.

use std::borrow::Cow;

use super::{Raw, version::Version};

/// How long and by whom a result may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheHints {
    /// `ttlMs`
    pub ttl_ms: u64,
    /// `cacheScope` is `public`.
    pub public: bool,
}

/// What a result needs to become a modern one.
#[derive(Debug, Clone, Copy)]
pub struct ModernResult<'a> {
    /// The method it answers.
    pub method: &'a str,
    /// For cacheable methods without hints of their own; `None`: no time, private.
    pub cache: Option<CacheHints>,
    /// Who the server is, if the result does not say.
    pub server_info: &'a Raw,
}

/// A result for a modern client: adds what the era requires and the result lacks.
#[must_use]
pub fn result_for_modern<'a>(result: &'a Raw, context: &ModernResult<'_>) -> Cow<'a, Raw> {
    let _ = context;
    Cow::Borrowed(result)
}

/// A result for a legacy client: removes what the era does not know and what
/// clients of that version cannot parse.
#[must_use]
pub fn result_for_legacy<'a>(method: &str, result: &'a Raw, version: Version) -> Cow<'a, Raw> {
    let _ = (method, version);
    Cow::Borrowed(result)
}

/// An item of `tools/list` for a client of that version.
#[must_use]
pub fn tool_for(version: Version, tool: &Raw) -> Cow<'_, Raw> {
    let _ = version;
    Cow::Borrowed(tool)
}

/// A content block for a client of that version.
#[must_use]
pub fn content_for(version: Version, block: &Raw) -> Cow<'_, Raw> {
    let _ = version;
    Cow::Borrowed(block)
}

/// An upstream's error for a modern client.
#[must_use]
pub fn error_for_modern(error: &Raw) -> Cow<'_, Raw> {
    Cow::Borrowed(error)
}

/// An upstream's error, in answer to `method`, for a legacy client.
#[must_use]
pub fn error_for_legacy<'a>(method: &str, error: &'a Raw, version: Version) -> Cow<'a, Raw> {
    let _ = (method, version);
    Cow::Borrowed(error)
}

/// The parameters of a server's question for a modern client (an entry of
/// `inputRequests`).
#[must_use]
pub fn question_for_modern<'a>(method: &str, params: &'a Raw) -> Cow<'a, Raw> {
    let _ = method;
    Cow::Borrowed(params)
}

/// The parameters of a server's question for a legacy client. URL questions
/// get `elicitation_id` unless they have one.
#[must_use]
pub fn question_for_legacy<'a>(
    method: &str,
    params: &'a Raw,
    version: Version,
    elicitation_id: &str,
) -> Cow<'a, Raw> {
    let _ = (method, version, elicitation_id);
    Cow::Borrowed(params)
}

/// `resultType`; a result without one is complete.
#[must_use]
pub fn result_type(result: &Raw) -> Cow<'_, str> {
    let _ = result;
    todo!()
}
