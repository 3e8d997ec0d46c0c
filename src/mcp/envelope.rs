//! `_meta`: the envelope of modern requests, progress tokens, trace context.
//!
//! Every function that writes replaces our keys and keeps every other byte.

use std::borrow::Cow;

use super::{
    Raw,
    capabilities::ClientCapabilities,
    error::RpcError,
    json::{self, RawObject, Unreadable},
    message::RequestId,
    params::Params,
    version::Version,
};

pub use super::trace::TraceContext;

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

    fn expected() -> String {
        format!("one of {}", Self::ALL.map(Self::as_str).join(", "))
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
    pub fn from_params<'a>(params: impl Into<Params<'a>>) -> Result<Option<Self>, RpcError> {
        let names = [
            PROTOCOL_VERSION,
            CLIENT_CAPABILITIES,
            CLIENT_INFO,
            LOG_LEVEL,
        ];
        let [version, capabilities, client_info, log_level] =
            params.into().meta().all(names).map_err(repeated)?;
        let Some(version) = version else {
            return Ok(None);
        };
        let missing =
            |what: &str| RpcError::invalid_params(format!("params._meta[\"{what}\"] is required"));
        let wrong = |name: &str, expected: &str| {
            RpcError::invalid_params(format!("params._meta[\"{name}\"] must be {expected}"))
        };
        let protocol_version = json::as_str(version)
            .ok_or_else(|| wrong(PROTOCOL_VERSION, "a string"))?
            .into_owned();
        let capabilities = capabilities.ok_or_else(|| missing(CLIENT_CAPABILITIES))?;
        let capabilities = ClientCapabilities::parse(capabilities)
            .map_err(|_| wrong(CLIENT_CAPABILITIES, "an object"))?;
        if client_info.is_some_and(|info| !json::is_object(info)) {
            return Err(wrong(CLIENT_INFO, "an object"));
        }
        let log_level = log_level
            .map(|level| {
                let known = json::as_str(level).and_then(|level| LogLevel::parse(&level));
                known.ok_or_else(|| wrong(LOG_LEVEL, &LogLevel::expected()))
            })
            .transpose()?;
        Ok(Some(Self {
            protocol_version,
            capabilities,
            client_info: client_info.map(ToOwned::to_owned),
            log_level,
        }))
    }
}

fn repeated(name: &str) -> RpcError {
    RpcError::invalid_request(Unreadable::Repeated(name.to_owned()).to_string())
}

/// The version that the envelope names, without looking at the rest of it.
///
/// # Errors
/// `-32602` when it is no string, `-32600` when `_meta` or the key is repeated.
pub fn protocol_version<'a>(
    params: impl Into<Params<'a>>,
) -> Result<Option<Cow<'a, str>>, RpcError> {
    let params = params.into();
    if params.repeated() == Some("_meta") {
        return Err(repeated("_meta"));
    }
    let [version] = params.meta().all([PROTOCOL_VERSION]).map_err(repeated)?;
    let Some(version) = version else {
        return Ok(None);
    };
    let version = json::as_str(version).ok_or_else(|| {
        RpcError::invalid_params(format!(
            "params._meta[\"{PROTOCOL_VERSION}\"] must be a string"
        ))
    })?;
    Ok(Some(version))
}

/// The client's token for progress notifications: a string or an integer.
#[must_use]
pub fn progress_token<'a>(params: impl Into<Params<'a>>) -> Option<Box<Raw>> {
    let [token] = params.into().meta().all(["progressToken"]).ok()?;
    let token = token?;
    RequestId::parse(token).ok().map(|_| token.to_owned())
}

/// The trace context in `params._meta`.
#[must_use]
pub fn trace_context<'a>(params: impl Into<Params<'a>>) -> TraceContext {
    let found = params.into().meta().all(["traceparent", "tracestate"]);
    let [parent, state] = found
        .unwrap_or_default()
        .map(|value| value.and_then(json::as_str));
    TraceContext::new(parent.as_deref(), state.as_deref())
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
pub fn with_modern_meta(params: Option<&Raw>, outgoing: &OutgoingMeta<'_>) -> Box<Raw> {
    let mut out = Vec::new();
    let params = params.and_then(|params| RawObject::parse(params).ok());
    write_modern_params(&mut out, params.unwrap_or_default(), outgoing);
    json::raw_from_bytes(out)
}

/// Appends the parameters of a request to a modern upstream.
pub(crate) fn write_modern_params(
    out: &mut Vec<u8>,
    mut params: RawObject<'_>,
    outgoing: &OutgoingMeta<'_>,
) {
    let mut meta = params.get_object("_meta").unwrap_or_default();
    meta.set(PROTOCOL_VERSION, json::raw_str(outgoing.version.as_str()));
    meta.set(CLIENT_CAPABILITIES, outgoing.capabilities.for_modern());
    meta.set(CLIENT_INFO, outgoing.client_info);
    let log_level = outgoing
        .log_level
        .map(|level| json::raw_str(level.as_str()));
    replace(&mut meta, LOG_LEVEL, log_level);
    set_token_and_trace(&mut meta, outgoing.progress_token, outgoing.trace);
    let meta = meta.to_raw();
    params.set("_meta", meta);
    params.write(out);
}

/// The parameters of a request to a legacy upstream.
#[must_use]
pub fn with_legacy_meta(
    params: Option<&Raw>,
    progress_token: Option<&RequestId>,
    trace: &TraceContext,
) -> Option<Box<Raw>> {
    let mut object = RawObject::parse(params.unwrap_or(Raw::null())).unwrap_or_default();
    let mut meta = object.get_object("_meta").unwrap_or_default();
    meta.retain(|name, _| !is_modern_only(name));
    set_token_and_trace(&mut meta, progress_token, trace);
    if meta.is_empty() {
        object.remove("_meta");
    } else {
        let meta = meta.to_raw();
        object.set("_meta", meta);
    }
    (params.is_some() || !object.is_empty()).then(|| object.to_raw())
}

/// `_meta` keys of requests and results that no legacy version has. Others
/// with the same prefix, such as `related-task`, do exist there.
pub(super) fn is_modern_only(key: &str) -> bool {
    matches!(
        key,
        PROTOCOL_VERSION
            | CLIENT_CAPABILITIES
            | CLIENT_INFO
            | LOG_LEVEL
            | SERVER_INFO
            | SUBSCRIPTION_ID
    )
}

/// Our token and our span in place of the client's. Baggage crosses a trust
/// boundary here and is dropped.
fn set_token_and_trace(
    meta: &mut RawObject<'_>,
    progress_token: Option<&RequestId>,
    trace: &TraceContext,
) {
    let token = progress_token.map(|token| token.as_raw().to_owned());
    replace(meta, "progressToken", token);
    let text = |value: &Option<String>| value.as_deref().map(json::raw_str);
    replace(meta, "traceparent", text(&trace.traceparent));
    replace(meta, "tracestate", text(&trace.tracestate));
    meta.remove("baggage");
}

fn replace(meta: &mut RawObject<'_>, name: &'static str, value: Option<Box<Raw>>) {
    match value {
        Some(value) => meta.set(name, value),
        None => drop(meta.remove(name)),
    }
}

/// The parameters of a progress notification with another token.
#[must_use]
pub fn with_progress_token(notification_params: &Raw, token: &Raw) -> Box<Raw> {
    let mut object = RawObject::parse(notification_params).unwrap_or_default();
    object.set("progressToken", token.to_owned());
    object.to_raw()
}

/// The parameters of a notification (or a result) on the listen stream `id`.
#[must_use]
pub fn with_subscription_id(params: Option<&Raw>, id: &RequestId) -> Box<Raw> {
    let mut object = RawObject::parse(params.unwrap_or(Raw::null())).unwrap_or_default();
    let mut meta = object.get_object("_meta").unwrap_or_default();
    meta.set(SUBSCRIPTION_ID, id.as_raw().to_owned());
    let meta = meta.to_raw();
    object.set("_meta", meta);
    object.to_raw()
}

#[cfg(test)]
mod tests;
