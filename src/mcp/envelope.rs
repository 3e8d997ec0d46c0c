//! `_meta`: the envelope of modern requests, progress tokens, trace context.
//!
//! Every function that writes replaces our keys and keeps every other byte.

use http::HeaderMap;

use super::{
    Raw, capabilities::ClientCapabilities, error::RpcError, message::RequestId, version::Version,
};

/// Names the protocol version of a modern request.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// What the client of a modern request can do.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Who the client of a modern request says it is.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// The least severe log message a modern request wants to see.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Who the server of a modern result says it is.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Which listen request a notification belongs to.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// Severity of a log message, least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Details for debugging.
    Debug,
    /// What happens.
    Info,
    /// What happens and is significant.
    Notice,
    /// Something to look at.
    Warning,
    /// Something failed.
    Error,
    /// A component failed.
    Critical,
    /// Act at once.
    Alert,
    /// Unusable.
    Emergency,
}

impl LogLevel {
    /// Every level, least severe first.
    pub const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// The level as messages have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    /// The level of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

/// What a modern request says about itself and its sender.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The version it is written in, perhaps one that is not served.
    pub protocol_version: String,
    /// What the client can do.
    pub capabilities: ClientCapabilities,
    /// Who the client says it is; for display only.
    pub client_info: Option<Box<Raw>>,
    /// The least severe log message it wants; `None`: none at all.
    pub log_level: Option<LogLevel>,
}

impl Envelope {
    /// Reads the envelope. `None` when `_meta` names no version.
    ///
    /// # Errors
    /// `-32602` when a required key is missing or a key has a wrong value.
    pub fn from_params(params: Option<&Raw>) -> Result<Option<Self>, RpcError> {
        let _ = params;
        todo!()
    }
}

/// The client's token for progress notifications: a string or an integer.
#[must_use]
pub fn progress_token(params: Option<&Raw>) -> Option<Box<Raw>> {
    let _ = params;
    todo!()
}

/// W3C trace context; only valid values are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace and parent span.
    pub traceparent: Option<String>,
    /// Vendors' additions; never without a traceparent.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Checks both values.
    #[must_use]
    pub fn new(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let _ = (traceparent, tracestate);
        todo!()
    }

    /// From HTTP headers, for requests whose `_meta` has none.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let _ = headers;
        todo!()
    }
}

/// From `params._meta`.
#[must_use]
pub fn trace_context(params: Option<&Raw>) -> TraceContext {
    let _ = params;
    todo!()
}

/// What a request to a modern upstream carries in `_meta`.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingMeta<'a> {
    /// The upstream's version.
    pub version: Version,
    /// The client's capabilities; written as [`ClientCapabilities::for_modern`].
    pub capabilities: &'a ClientCapabilities,
    /// Who we are.
    pub client_info: &'a Raw,
    /// The least severe log message wanted.
    pub log_level: Option<LogLevel>,
    /// Our token, not the client's.
    pub progress_token: Option<&'a RequestId>,
    /// Our span.
    pub trace: &'a TraceContext,
}

/// The parameters of a request to a modern upstream.
#[must_use]
pub fn with_modern_meta(params: Option<&Raw>, meta: &OutgoingMeta<'_>) -> Box<Raw> {
    let _ = (params, meta);
    todo!()
}

/// The parameters of a request to a legacy upstream.
#[must_use]
pub fn with_legacy_meta(
    params: Option<&Raw>,
    progress_token: Option<&RequestId>,
    trace: &TraceContext,
) -> Option<Box<Raw>> {
    let _ = (params, progress_token, trace);
    todo!()
}

/// The parameters of a progress notification with another token.
#[must_use]
pub fn with_progress_token(notification_params: &Raw, token: &Raw) -> Box<Raw> {
    let _ = (notification_params, token);
    todo!()
}

/// The parameters of a notification (or a result) on the listen stream `id`.
#[must_use]
pub fn with_subscription_id(params: Option<&Raw>, id: &RequestId) -> Box<Raw> {
    let _ = (params, id);
    todo!()
}
