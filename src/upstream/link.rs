//! A way to and from one replica: where messages are sent, who gets what
//! arrives, whether it still works. What was agreed over it is a `session`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, UpstreamError,
    client::{Target, discard, failure},
    resume::Origin,
    router::Router,
};
use crate::{
    ids::ReplicaId,
    mcp::{Raw, error::RpcError, header, message::RequestId, version::Version},
};

/// How messages reach the replica.
#[derive(Debug)]
pub(super) enum Channel {
    /// Streamable HTTP: each message is a POST, answers come on its response.
    Http {
        target: Target,
        /// Version and session id.
        headers: HeaderMap,
    },
    /// HTTP+SSE: messages are POSTed, everything arrives on one event stream.
    Sse { messages: Target },
}

/// A way to and from one replica.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) replica: ReplicaId,
    pub(super) channel: Channel,
    pub(super) router: Arc<Router>,
    /// Cancelled when it ends; its readers watch this.
    pub(super) end: CancellationToken,
    lost: AtomicBool,
    /// Held while the standalone stream is being opened.
    pub(super) opening_standalone: tokio::sync::Mutex<()>,
    /// Whether the standalone stream is being read.
    pub(super) standalone: AtomicBool,
}

impl Link {
    pub(super) fn new(
        replica: ReplicaId,
        channel: Channel,
        router: Arc<Router>,
        end: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            replica,
            channel,
            router,
            end,
            lost: AtomicBool::new(false),
            opening_standalone: tokio::sync::Mutex::new(()),
            standalone: AtomicBool::new(false),
        })
    }

    /// Where its streams are opened; `None` for channels without.
    pub(super) fn origin(&self, shared: &Shared) -> Option<Origin> {
        match &self.channel {
            Channel::Http { target, headers } => Some(Origin {
                http: shared.http.clone(),
                target: target.clone(),
                headers: headers.clone(),
                max_message_bytes: shared.settings.max_message_bytes,
            }),
            Channel::Sse { .. } => None,
        }
    }

    /// Sends a message that is answered elsewhere, or not at all.
    pub(super) async fn send(
        &self,
        shared: &Shared,
        message: Bytes,
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        let (target, headers) = match &self.channel {
            Channel::Http { target, headers } => (target, headers.clone()),
            Channel::Sse { messages } => (messages, HeaderMap::new()),
        };
        let response = shared
            .http
            .post(target, || headers.clone(), message, deadline)
            .await?;
        if response.status().is_success() {
            discard(response.into_body(), deadline).await;
            return Ok(());
        }
        let status = response.status();
        let (error, body) = failure(response, deadline).await;
        if self.has_id() && is_session_loss(status, &error, body.as_ref(), None) {
            self.mark_lost();
            return Err(UpstreamError::SessionLost);
        }
        Err(error)
    }

    /// The session id, where the server gave one.
    pub(super) fn session_id(&self) -> Option<&HeaderValue> {
        match &self.channel {
            Channel::Http { headers, .. } => headers.get(header::SESSION_ID),
            Channel::Sse { .. } => None,
        }
    }

    /// Whether the server gave a session id.
    pub(super) fn has_id(&self) -> bool {
        self.session_id().is_some()
    }

    /// Whether many messages share a stream, so that a question names no call.
    pub(super) fn is_shared_stream(&self) -> bool {
        !matches!(self.channel, Channel::Http { .. })
    }

    /// No further call may use it: the other side does not know it any more.
    /// What is read besides calls ends; calls in flight may still be answered.
    /// `false` when that was known.
    pub(super) fn mark_lost(&self) -> bool {
        self.end.cancel();
        !self.lost.swap(true, Ordering::AcqRel)
    }

    /// Whether a new call may use it.
    pub(super) fn is_usable(&self) -> bool {
        !self.lost.load(Ordering::Acquire) && !self.end.is_cancelled()
    }

    /// Whether messages for its calls may come on the standalone stream.
    pub(super) fn reads_standalone(&self) -> bool {
        self.standalone.load(Ordering::Acquire)
    }
}

/// The headers of a legacy request.
pub(super) fn session_headers(version: Version, id: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    if let Some(id) = id {
        headers.insert(header::SESSION_ID, id.clone());
    }
    if version >= Version::V2025_06_18 {
        let version = HeaderValue::from_static(version.as_str());
        headers.insert(header::PROTOCOL_VERSION, version);
    }
    headers
}

/// Whether a refusal of a request with a session header means that the server
/// no longer knows the session. The protocol says 404; rmcp before 1.0 says a
/// bare 401, and several servers made with the TypeScript and Python SDKs say
/// 400 in words. Words in an error that carries the request's own id are the
/// server's answer to it: it may have done something, and is not asked again.
pub(super) fn is_session_loss(
    status: StatusCode,
    error: &UpstreamError,
    body: Option<&Bytes>,
    request: Option<&RequestId>,
) -> bool {
    let UpstreamError::Http {
        text,
        www_authenticate,
        ..
    } = error
    else {
        return false;
    };
    match status {
        StatusCode::NOT_FOUND => true,
        StatusCode::UNAUTHORIZED => www_authenticate.is_none(),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            let said = body.and_then(|body| serde_json::from_slice::<Said<'_>>(body).ok());
            let id = said
                .as_ref()
                .and_then(|said| RequestId::parse(said.id?).ok());
            if id.is_some() && id.as_ref() == request {
                return false;
            }
            let message = said.and_then(|said| RpcError::parse(said.error));
            let said = message.map_or_else(|| text.to_string(), |error| error.message);
            let said = said.to_ascii_lowercase();
            ["session", "not initialized", "expect initialize"]
                .iter()
                .any(|words| said.contains(words))
        }
        _ => false,
    }
}

/// What an error's body says.
#[derive(serde::Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    error: &'a Raw,
    #[serde(borrow, default)]
    id: Option<&'a Raw>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::json;

    fn refusal(status: u16, www_authenticate: bool, text: &str) -> (StatusCode, UpstreamError) {
        let status = StatusCode::from_u16(status).unwrap();
        let error = UpstreamError::Http {
            status,
            text: text.into(),
            www_authenticate: www_authenticate
                .then(|| Box::new(HeaderValue::from_static("Bearer"))),
            retry_after: None,
        };
        (status, error)
    }

    #[test]
    fn session_loss_is_recognised_in_all_its_spellings() {
        let cases = [
            (404, false, "", true),
            (401, false, "", true),
            (401, true, "", false),
            (403, false, "no such session", false),
            (
                400,
                false,
                "Bad Request: No valid session ID provided",
                true,
            ),
            (400, false, "Bad Request: Server not initialized", true),
            (
                422,
                false,
                "Unexpected message, expect initialize request",
                true,
            ),
            (
                400,
                false,
                "Bad Request: Unsupported protocol version",
                false,
            ),
            (500, false, "session store down", false),
        ];
        for (status, auth, text, lost) in cases {
            let (code, error) = refusal(status, auth, text);
            let is_lost = is_session_loss(code, &error, None, None);
            assert_eq!(is_lost, lost, "{status} {text}");
        }
        let (code, error) = refusal(400, false, "{..");
        let body = Bytes::from_static(
            br#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Session terminated"},"id":null}"#,
        );
        let id = |raw: &str| RequestId::parse(&json::raw(&raw)).unwrap();
        let own = id("17");
        assert!(is_session_loss(code, &error, Some(&body), Some(&own)));
        let answer = Bytes::from_static(
            br#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"checkout session not found"},"id":"17"}"#,
        );
        assert!(!is_session_loss(code, &error, Some(&answer), Some(&own)));
        // The Python SDK has one id for all that concerns no request.
        let server_error = id("server-error");
        assert!(is_session_loss(
            code,
            &error,
            Some(&answer),
            Some(&server_error)
        ));
    }

    #[test]
    fn the_version_header_is_sent_since_2025_06_18() {
        let id = HeaderValue::from_static("s");
        let old = session_headers(Version::V2025_03_26, Some(&id));
        assert_eq!(old.len(), 1);
        let new = session_headers(Version::V2025_06_18, Some(&id));
        assert_eq!(new[header::PROTOCOL_VERSION], "2025-06-18");
    }
}
