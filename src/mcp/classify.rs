//! Which era an inbound message belongs to: a pure function of the body, the
//! version header and whether a session header is there.

use std::borrow::Cow;

use super::{
    envelope,
    error::RpcError,
    json::Unreadable,
    message::{Body, Message, MessageError, Notification, Request, RequestId},
    method,
    version::{self, Era, Version},
};

/// What a body is.
#[derive(Debug, Clone)]
pub enum Classified<'a> {
    /// A modern request. Its envelope names `version`, which may be one that is not served.
    Modern {
        /// The request.
        request: Request<'a>,
        /// What its envelope names.
        version: Cow<'a, str>,
    },
    /// A modern notification: accepted with 202.
    ModernNotification(Notification<'a>),
    /// A notification of nobody's era: 202, nothing else.
    Dropped,
    /// `initialize`: the legacy handshake.
    Initialize(Request<'a>),
    /// Any other legacy message.
    Legacy {
        /// The message.
        message: Message<'a>,
        /// Where its version comes from.
        version: LegacyVersion,
    },
    /// A batch that a 2025-03-26 session may send; the caller checks that its session is one.
    LegacyBatch {
        /// In their order, unreadable ones in their places.
        messages: Vec<Result<Message<'a>, MessageError>>,
        /// Where the version comes from.
        version: LegacyVersion,
    },
    /// 400 with this error.
    Refused {
        /// The request's id, when it has one.
        id: Option<RequestId>,
        /// Why.
        error: RpcError,
    },
}

/// Where the version of a legacy message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyVersion {
    /// There is a session, whose version counts; the header names this one.
    OfSession {
        /// The header's version, if there is a header.
        header: Option<Version>,
    },
    /// No session: the header's version.
    OfHeader(Version),
    /// No session, no header: [`Version::ASSUMED`].
    Assumed,
}

/// Says what `body` is. `version_header` is the value of `MCP-Protocol-Version`.
#[must_use]
pub fn classify<'a>(
    body: Body<'a>,
    version_header: Option<&str>,
    has_session: bool,
) -> Classified<'a> {
    match body {
        Body::Single(message) => classify_one(message, version_header, has_session),
        Body::Batch(messages) => classify_batch(messages, version_header, has_session),
    }
}

fn classify_one<'a>(
    message: Message<'a>,
    version_header: Option<&str>,
    has_session: bool,
) -> Classified<'a> {
    let envelope_version = match envelope_version(&message) {
        Ok(version) => version,
        Err(error) => return malformed(&message, error),
    };
    match envelope_version {
        Some(version) if !is_legacy(&version) => return modern(message, version),
        None if version_header.is_some_and(version::names_modern) => {
            let error = RpcError::invalid_params(format!(
                "params._meta[\"{}\"] is required in a request of the version that \
                 MCP-Protocol-Version names",
                envelope::PROTOCOL_VERSION
            ));
            return malformed(&message, error);
        }
        Some(_) | None => {}
    }
    let message = match message {
        Message::Request(request) if request.method == method::INITIALIZE => {
            return Classified::Initialize(request);
        }
        other => other,
    };
    if let Some(version) = envelope_version.filter(|_| !has_session) {
        return refused(&message, RpcError::unsupported_version(&version));
    }
    match legacy_version(version_header, has_session) {
        Ok(version) => Classified::Legacy { message, version },
        Err(error) => refused(&message, error),
    }
}

fn classify_batch<'a>(
    messages: Vec<Result<Message<'a>, MessageError>>,
    version_header: Option<&str>,
    has_session: bool,
) -> Classified<'a> {
    let refuse = |why: &str| Classified::Refused {
        id: None,
        error: RpcError::invalid_request(why),
    };
    let fits_header =
        version_header.is_none_or(|version| Version::parse(version) == Some(Version::V2025_03_26));
    if !fits_header {
        return refuse(
            "only protocol version 2025-03-26 has batches; send one message per request",
        );
    }
    let is_initialize = |message: &Message<'_>| message.method() == Some(method::INITIALIZE);
    let is_modern = |message: &Message<'_>| !matches!(envelope_version(message), Ok(None));
    if messages.iter().flatten().any(is_initialize) {
        return refuse("initialize cannot be part of a batch");
    }
    if messages.iter().flatten().any(is_modern) {
        return refuse("a batch cannot carry messages of a version without batches");
    }
    match legacy_version(version_header, has_session) {
        Ok(version) => Classified::LegacyBatch { messages, version },
        Err(error) => Classified::Refused { id: None, error },
    }
}

/// The version that the message's envelope names. An error when it cannot be
/// read for certain.
fn envelope_version<'a>(message: &Message<'a>) -> Result<Option<Cow<'a, str>>, RpcError> {
    let params = message.known();
    if let Some(name) = params.repeated() {
        let error = Unreadable::Repeated(name.to_owned());
        return Err(RpcError::invalid_request(format!("params: {error}")));
    }
    envelope::protocol_version(&params)
}

/// An envelope that names anything else is a modern one, served or not.
fn is_legacy(version: &str) -> bool {
    Version::parse(version).is_some_and(|version| version.era() == Era::Legacy)
}

fn modern<'a>(message: Message<'a>, version: Cow<'a, str>) -> Classified<'a> {
    match message {
        Message::Request(request) => Classified::Modern { request, version },
        Message::Notification(notification) => Classified::ModernNotification(notification),
        // Unreachable, as a response has no parameters and thereby no envelope.
        Message::Response(_) => Classified::Dropped,
    }
}

/// A modern message that lacks what the era requires. There is nobody to tell
/// about a notification, and nobody waits for a response.
fn malformed<'a>(message: &Message<'_>, error: RpcError) -> Classified<'a> {
    match message {
        Message::Request(_) => refused(message, error),
        Message::Notification(_) => Classified::Dropped,
        Message::Response(_) => refused(
            message,
            RpcError::invalid_request("responses are posted only within a legacy session"),
        ),
    }
}

fn refused<'a>(message: &Message<'_>, error: RpcError) -> Classified<'a> {
    let id = match message {
        Message::Request(request) => Some(request.id.clone()),
        // An answer to an answer would be taken for another one.
        Message::Notification(_) | Message::Response(_) => None,
    };
    Classified::Refused { id, error }
}

/// The version of a legacy request, also of one without a body (GET, DELETE;
/// those of the modern era, see [`version::names_modern`], are answered 405).
///
/// # Errors
/// `-32022` when the header names a version that is not a legacy one.
pub fn legacy_version(
    version_header: Option<&str>,
    has_session: bool,
) -> Result<LegacyVersion, RpcError> {
    let header = version_header
        .map(|header| {
            Version::parse(header)
                .filter(|version| version.era() == Era::Legacy)
                .ok_or_else(|| RpcError::unsupported_version(header))
        })
        .transpose()?;
    Ok(match (has_session, header) {
        (true, header) => LegacyVersion::OfSession { header },
        (false, Some(version)) => LegacyVersion::OfHeader(version),
        (false, None) => LegacyVersion::Assumed,
    })
}

#[cfg(test)]
mod tests;
