//! What a replica says, message by message, whatever channel it came on.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use tokio::time::Instant;

use super::{
    UpstreamError,
    client::{self, next_chunk},
};
use crate::mcp::{
    Raw,
    json::RawObject,
    message::{self, Answer, Message, ParseLimits, RequestId},
    method,
    sse::{SseEvent, SseParser},
};

/// Bounds for arrays, which 2025-03-26 allows in answers.
const LIMITS: ParseLimits = ParseLimits {
    max_depth: 256,
    max_batch: 1000,
};

/// One message from a replica.
#[derive(Debug, Clone)]
pub(super) enum Incoming {
    Answer {
        /// Absent or null in some errors.
        id: Option<RequestId>,
        answer: Answer,
    },
    Notification(Notice),
    Request {
        id: RequestId,
        method: String,
        params: Option<Box<Raw>>,
    },
    /// No message: the server paused the stream of a call for this long.
    Paused(Duration),
}

/// A notification: what routing needs of it, and the whole.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    pub(super) method: String,
    pub(super) params: Option<Box<Raw>>,
    pub(super) whole: Bytes,
}

impl Notice {
    /// The progress token, for `notifications/progress`.
    pub(super) fn progress_token(&self) -> Option<RequestId> {
        if self.method != method::PROGRESS {
            return None;
        }
        let params = RawObject::parse(self.params.as_deref()?).ok()?;
        RequestId::parse(params.get("progressToken")?).ok()
    }

    /// A text member of the parameters.
    pub(super) fn text_param(&self, name: &str) -> Option<String> {
        let params = RawObject::parse(self.params.as_deref()?).ok()?;
        Some(params.get_str(name)?.into_owned())
    }

    /// The whole message with other parameters.
    pub(super) fn with_params(&self, params: &Raw) -> Bytes {
        let whole = std::str::from_utf8(&self.whole).unwrap_or_default();
        let edited = Raw::parse(whole)
            .ok()
            .and_then(|raw| RawObject::parse(raw).ok())
            .map(|mut message| {
                message.set("params", params);
                let mut bytes = Vec::with_capacity(whole.len() + 32);
                message.write(&mut bytes);
                Bytes::from(bytes)
            });
        edited.unwrap_or_else(|| self.whole.clone())
    }
}

/// Reads a message, or an array of them, and appends what it is.
pub(super) fn read(bytes: &Bytes, into: &mut VecDeque<Incoming>) -> Result<(), UpstreamError> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        match message::parse_body(bytes, &LIMITS).map_err(UpstreamError::malformed)? {
            message::Body::Single(one) => into.push_back(own(one, bytes)),
            message::Body::Batch(all) => {
                for one in all {
                    into.push_back(own(one.map_err(UpstreamError::malformed)?, bytes));
                }
            }
        }
        return Ok(());
    }
    let one = message::parse_message(bytes).map_err(UpstreamError::malformed)?;
    into.push_back(own(one, bytes));
    Ok(())
}

fn own(message: Message<'_>, bytes: &Bytes) -> Incoming {
    match message {
        Message::Response(response) => Incoming::Answer {
            answer: response.answer.to_answer(),
            id: response.id,
        },
        Message::Notification(notice) => Incoming::Notification(Notice {
            method: notice.method.into_owned(),
            params: notice.params.map(ToOwned::to_owned),
            whole: bytes.slice_ref(notice.raw.as_bytes()),
        }),
        Message::Request(request) => Incoming::Request {
            id: request.id,
            method: request.method.into_owned(),
            params: request.params.map(ToOwned::to_owned),
        },
    }
}

/// The answer to request `id` in a JSON body; other messages come before it.
pub(super) fn read_answer(
    body: &Bytes,
    id: &RequestId,
    others: &mut VecDeque<Incoming>,
) -> Result<Answer, UpstreamError> {
    let mut messages = VecDeque::with_capacity(1);
    read(body, &mut messages)?;
    let mut found = None;
    for message in messages {
        match message {
            Incoming::Answer { id: theirs, answer } if answers(theirs.as_ref(), id, &answer) => {
                found = Some(answer);
            }
            Incoming::Answer { .. } => {}
            other => others.push_back(other),
        }
    }
    found.ok_or_else(|| UpstreamError::Malformed("the body has no answer to the request".into()))
}

/// Whether a response answers our request: its id says so, or it is an error
/// without id, which in our own response body can only be about our request.
pub(super) fn answers(theirs: Option<&RequestId>, ours: &RequestId, answer: &Answer) -> bool {
    match theirs {
        Some(theirs) => theirs == ours,
        None => answer.is_error(),
    }
}

/// Reads the events of a body. Cancel safe.
#[derive(Debug)]
pub(super) struct EventReader {
    body: Option<Body>,
    parser: SseParser,
    ready: VecDeque<SseEvent>,
}

impl EventReader {
    pub(super) fn new(body: Body, limit: usize) -> Self {
        Self {
            body: Some(body),
            parser: SseParser::new(limit),
            ready: VecDeque::new(),
        }
    }

    /// The next event, `None` at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<SseEvent>, UpstreamError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(body) = &mut self.body else {
                return Ok(None);
            };
            match next_chunk(body, None).await {
                Ok(Some(chunk)) => {
                    let events = self
                        .parser
                        .push(&chunk)
                        .map_err(|error| UpstreamError::TooLarge { limit: error.limit })?;
                    self.ready.extend(events);
                }
                Ok(None) => {
                    self.body = None;
                }
                Err(error) => {
                    self.body = None;
                    return Err(error);
                }
            }
        }
    }

    /// After the answer nothing follows but the end of the body: reads it, so
    /// that the connection goes back to its pool instead of being closed.
    /// Gives what has to be awaited when the end is not there yet.
    pub(super) fn finish(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let mut body = self.body.take()?;
        // Usually the end came with the answer's bytes.
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let frame = std::pin::pin!(body.frame());
        if let std::task::Poll::Ready(None | Some(Err(_))) = frame.poll(&mut context) {
            return None;
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        Some(client::discard(body, deadline))
    }
}

/// The cause of an end that nobody explained.
pub(super) fn ended() -> UpstreamError {
    UpstreamError::Closed {
        before_headers: false,
        cause: None,
    }
}

/// A cause made of text.
pub(super) fn cause(text: impl Into<String>) -> super::Cause {
    Arc::new(std::io::Error::other(text.into()))
}
