//! Which era an inbound message belongs to: a pure function of the body, the
//! version header and whether a session header is there.

use std::borrow::Cow;

use super::{
    error::RpcError,
    message::{Body, Message, MessageError, Notification, Request, RequestId},
    version::Version,
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
    let _ = (body, version_header, has_session);
    todo!()
}

/// The version of a legacy request without a body (GET, DELETE).
///
/// # Errors
/// `-32022` when the header names a version that is not a legacy one.
pub fn legacy_version(
    version_header: Option<&str>,
    has_session: bool,
) -> Result<LegacyVersion, RpcError> {
    let _ = (version_header, has_session);
    todo!()
}
