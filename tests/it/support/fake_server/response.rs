//! HTTP responses of fake servers.

use axum::body::Body;
use futures_util::{StreamExt as _, stream};
use http::Response;

use super::outbox::{Frame, Reader};

/// How events are written.
#[derive(Debug, Clone, Default)]
pub(super) struct Events {
    /// The stream's name, when its events have ids.
    pub(super) ids: Option<String>,
    /// `event:` of each.
    pub(super) event: Option<&'static str>,
    /// Text before the first event.
    pub(super) preface: String,
}

pub(super) fn json(status: u16, body: impl Into<String>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body.into()))
        .expect("a response")
}

pub(super) fn empty(status: u16) -> Response<Body> {
    Response::builder()
        .status(status)
        .body(Body::empty())
        .expect("a response")
}

/// `HTTP 503 body`
pub(super) fn verbatim(text: &str) -> Response<Body> {
    let mut parts = text.splitn(3, ' ').skip(1);
    let status = parts.next().and_then(|code| code.parse().ok());
    let body = parts.next().unwrap_or_default().to_owned();
    Response::builder()
        .status(status.unwrap_or(500))
        .body(Body::from(body))
        .expect("a response")
}

pub(super) fn stream(
    first: Option<(usize, Frame)>,
    reader: Reader,
    events: Events,
) -> Response<Body> {
    let preface = stream::iter((!events.preface.is_empty()).then(|| events.preface.clone()));
    let rest = stream::unfold(reader, |mut reader| async {
        let frame = reader.next().await?;
        Some((frame, reader))
    });
    let frames = stream::iter(first)
        .chain(rest)
        .filter_map(move |(at, frame)| std::future::ready(write(at, &frame, &events)));
    let body = preface.chain(frames).map(Ok::<_, std::convert::Infallible>);
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(body))
        .expect("a response")
}

fn write(at: usize, frame: &Frame, events: &Events) -> Option<String> {
    let data = match frame {
        Frame::Message(message) | Frame::Response(message) => message,
        Frame::Break(retry) => {
            return retry.map(|retry| format!("retry: {}\n\n", retry.as_millis()));
        }
        Frame::End => return None,
    };
    let mut text = String::new();
    if let Some(event) = events.event {
        text += &format!("event: {event}\n");
    }
    if let Some(name) = &events.ids {
        text += &format!("id: {name}-{at}\n");
    }
    for line in data.split('\n') {
        text += &format!("data: {line}\n");
    }
    Some(text + "\n")
}
