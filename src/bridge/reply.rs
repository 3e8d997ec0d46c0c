//! What requests are answered with: statuses, JSON bodies, event streams.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use tokio::time::{Instant, Interval, interval_at};

use super::{
    nodes::Held,
    not_taken::{NOT_TAKEN, NotTaken},
    outbox::{Message, Outbox},
    splice::{Parts, Rope},
    token::SCHEME,
};
use crate::mcp::{
    error::{self, RpcError},
    message::{RequestId, error_bytes},
};

/// The body of an answer.
pub type Body = BoxBody<Bytes, Infallible>;

/// Pieces that bodies are sent in, so that what was sent is not held any more.
const PIECE: usize = 64 * 1024;
/// How often a stream without messages says that it lives.
const BEAT: Duration = Duration::from_secs(15);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A text for whoever looks.
#[must_use]
pub fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// 401, to whoever is no node of the fleet.
#[must_use]
pub fn unauthorized() -> Response<Body> {
    let mut response = text(StatusCode::UNAUTHORIZED, "unauthorized\n");
    let scheme = HeaderValue::from_static(SCHEME);
    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    response
}

/// 405.
#[must_use]
pub fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

/// 503: the server was not given the request, and may be later.
#[must_use]
pub fn later(not_taken: NotTaken, why: &str) -> Response<Body> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "");
    *response.body_mut() = Full::new(Bytes::from(format!("{why}\n"))).boxed();
    if let Some(value) = not_taken.header() {
        response.headers_mut().insert(NOT_TAKEN, value);
    }
    let seconds = not_taken.after.as_secs_f64().ceil().max(1.0);
    if let Ok(value) = HeaderValue::from_str(&format!("{seconds:.0}")) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// 410, to a node whose token is for what was here before.
#[must_use]
pub fn gone() -> Response<Body> {
    text(StatusCode::GONE, "that was in another life of this node\n")
}

/// 202, to what wants no answer.
#[must_use]
pub fn accepted() -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// An error of the bridge.
#[must_use]
pub fn refused(status: StatusCode, id: Option<&RequestId>, error: &RpcError) -> Response<Body> {
    json(status, error_bytes(id, error).into(), None)
}

/// An answer of the server, with the status that carries it in its era.
#[must_use]
pub fn answer(rope: Rope, held: Option<Held>, is_modern: bool) -> Response<Body> {
    let status = match is_modern {
        true => modern_status(&rope),
        false => StatusCode::OK,
    };
    json(status, rope, held)
}

/// A JSON body.
#[must_use]
pub fn json(status: StatusCode, rope: Rope, held: Option<Held>) -> Response<Body> {
    let length = rope.len();
    let body = match length <= PIECE {
        true => Full::new(rope.join()).boxed(),
        false => {
            let pieces = pieces(rope.into_pieces());
            let next = |(mut pieces, held): (VecDeque<Bytes>, Option<Held>)| async move {
                let piece = pieces.pop_front()?;
                Some((Ok(Frame::data(piece)), (pieces, held)))
            };
            StreamBody::new(Box::pin(stream::unfold((pieces, held), next))).boxed()
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

/// An event stream; `guard` is dropped with it.
pub fn events<G: Send + Sync + 'static>(
    outbox: Arc<Outbox>,
    first: Option<Message>,
    guard: G,
) -> Response<Body> {
    let state = Events {
        outbox,
        first,
        pieces: VecDeque::new(),
        held: None,
        beat: interval_at(Instant::now() + BEAT, BEAT),
        has_ended: false,
        _guard: guard,
    };
    let next = |mut events: Events<G>| async move {
        let piece = events.next().await?;
        Some((Ok(Frame::data(piece)), events))
    };
    let body = StreamBody::new(Box::pin(stream::unfold(state, next)));
    let mut response = Response::new(body.boxed());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENTS);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Events<G> {
    outbox: Arc<Outbox>,
    first: Option<Message>,
    pieces: VecDeque<Bytes>,
    held: Option<Held>,
    beat: Interval,
    has_ended: bool,
    _guard: G,
}

impl<G> Events<G> {
    /// The next bytes of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(piece);
            }
            self.held = None;
            if self.has_ended {
                return None;
            }
            let message = match self.first.take() {
                Some(first) => Some(first),
                None => tokio::select! {
                    biased;
                    message = self.outbox.next() => message,
                    _ = self.beat.tick() => return Some(Bytes::from_static(b":\n\n")),
                },
            };
            let message = message?;
            self.beat.reset();
            self.has_ended = message.is_last;
            self.held = message.held;
            self.pieces = event(message.rope);
        }
    }
}

/// One message as an event. It has no line breaks.
fn event(rope: Rope) -> VecDeque<Bytes> {
    let mut all = vec![Bytes::from_static(b"data: ")];
    all.extend(rope.into_pieces());
    all.push(Bytes::from_static(b"\n\n"));
    let length: usize = all.iter().map(Bytes::len).sum();
    if length <= PIECE {
        return VecDeque::from([Bytes::from(all.concat())]);
    }
    pieces(all)
}

fn pieces(all: Vec<Bytes>) -> VecDeque<Bytes> {
    let mut pieces = VecDeque::new();
    for mut bytes in all {
        while bytes.len() > PIECE {
            pieces.push_back(bytes.split_to(PIECE));
        }
        pieces.push_back(bytes);
    }
    pieces
}

/// Which status carries an answer of the modern era.
fn modern_status(rope: &Rope) -> StatusCode {
    // Answers of that size are no errors.
    if rope.len() > PIECE {
        return StatusCode::OK;
    }
    let bytes = rope.clone().join();
    let Ok((parts, _)) = Parts::read(&bytes) else {
        return StatusCode::OK;
    };
    match parts
        .error
        .and_then(RpcError::parse)
        .map(|error| error.code)
    {
        Some(error::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        Some(error::HEADER_MISMATCH | error::MISSING_CAPABILITY | error::UNSUPPORTED_VERSION) => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modern_errors_have_the_status_the_protocol_asks_for() {
        let status = |text: &str| modern_status(&text.as_bytes().to_vec().into());
        let error = |code| format!(r#"{{"id":1,"error":{{"code":{code},"message":"m"}}}}"#);
        assert_eq!(status(&error(-32601)), StatusCode::NOT_FOUND);
        for code in [-32020, -32021, -32022] {
            assert_eq!(status(&error(code)), StatusCode::BAD_REQUEST);
        }
        assert_eq!(status(&error(-32602)), StatusCode::OK);
        assert_eq!(status(r#"{"id":1,"result":{}}"#), StatusCode::OK);
    }

    #[test]
    fn large_events_are_sent_in_pieces() {
        let rope = Rope::from(vec![b'x'; 3 * PIECE + 5]);
        let pieces = event(rope);
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(all.len(), 3 * PIECE + 5 + 8);
        assert!(all.starts_with(b"data: xx") && all.ends_with(b"x\n\n"));
    }
}
