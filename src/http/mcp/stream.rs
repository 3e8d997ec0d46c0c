//! Event streams toward clients: framing, keep-alive, and the choice between
//! one JSON body and a stream.

use std::{pin::Pin, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Response, StatusCode, header};

use crate::{mcp::sse, telemetry::metrics::Counted};

/// Frames on their way to a client.
pub(crate) type Frames = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// An event stream that sends a comment whenever nothing else was sent for
/// `keep_alive`. `held` is dropped with the stream: permits and counts.
pub(crate) fn event_stream(frames: Frames, keep_alive: Duration, held: Held) -> Response<Body> {
    let frames = stream::unfold((frames, held), move |(mut frames, held)| async move {
        // The stream keeps its own state, so giving up waiting loses nothing.
        match tokio::time::timeout(keep_alive, frames.next()).await {
            Ok(Some(frame)) => Some((frame, (frames, held))),
            Ok(None) => None,
            Err(_elapsed) => Some((sse::comment("keep-alive"), (frames, held))),
        }
    });
    let mut response = Response::new(Body::from_stream(
        frames.map(Ok::<_, std::convert::Infallible>),
    ));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    // Proxies that buffer would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// What is given back when a stream ends.
#[derive(Debug)]
pub(crate) struct Held {
    /// The stream's place among those the node may have open.
    pub(crate) _permit: tokio::sync::OwnedSemaphorePermit,
    /// Its share of the gauge.
    pub(crate) _counted: Counted,
}

/// One JSON body.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// 405: this method needs a session.
pub(crate) fn not_offered() -> Response<Body> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}
