//! What a POST is answered with: JSON when responses are all there is, else a stream.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream as streams};
use http::{HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use tokio::time::Instant;

use super::{
    super::{Incoming, refuse, stream},
    Out, Work,
};
use crate::{
    mcp::{sse, version::Version},
    session::Session,
};

/// Answers a request, or all requests of a batch: as JSON when responses are
/// all there is, as a stream when something precedes them or they take long.
pub(super) async fn respond(
    incoming: &Incoming,
    session: &Session,
    works: Vec<Work>,
    is_batch: bool,
) -> Response<Body> {
    let gateway = &incoming.gateway;
    let keep_alive = gateway.config.node.keep_alive;
    let log = works.iter().find_map(|work| work.opened.clone());
    let can_pause = session.version >= Version::V2025_11_25 && !is_batch && log.is_some();
    let mut outs = streams::select_all(works.into_iter().map(|work| work.outs));
    let mut responses = Vec::new();
    let wants_json = !prefers_stream(&incoming.headers);
    let give_up = Instant::now() + keep_alive;
    let first = loop {
        match tokio::time::timeout_at(give_up, outs.next()).await {
            Ok(Some(Out::Response {
                message,
                retry_after,
                ..
            })) => responses.push((message, retry_after)),
            Ok(Some(Out::Gone { message })) if !is_batch => {
                return stream::json(StatusCode::NOT_FOUND, message);
            }
            Ok(Some(Out::Gone { message })) => responses.push((message, None)),
            Ok(Some(Out::Paused { .. })) if !can_pause => {}
            Ok(Some(other)) => break Some(other),
            Ok(None) if wants_json => return json_responses(&responses, is_batch),
            Ok(None) | Err(_) => break None,
        }
    };
    let held = match gateway.stream_place() {
        Ok(held) => held,
        Err(error) => return refuse(StatusCode::SERVICE_UNAVAILABLE, None, &error),
    };
    let priming = match (session.version >= Version::V2025_11_25, log) {
        (true, Some(log)) => log.open().await.map(|id| sse::event(Some(&id), None, b"")),
        _ => None,
    };
    let so_far = responses
        .into_iter()
        .map(|(message, retry_after)| Out::Response {
            id: None,
            message,
            retry_after,
        })
        .chain(first);
    let outs = streams::iter(so_far).chain(outs);
    let frames = streams::unfold(Some(Box::pin(outs)), move |outs| async move {
        let mut outs = outs?;
        loop {
            match outs.next().await? {
                Out::Message { id, message } | Out::Response { id, message, .. } => {
                    return Some((sse::event(id.as_deref(), None, &message), Some(outs)));
                }
                Out::Gone { message } => {
                    return Some((sse::event(None, None, &message), Some(outs)));
                }
                // The client hangs up as well and comes back for the rest.
                Out::Paused { retry } if can_pause => {
                    let ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
                    return Some((sse::retry(ms), None));
                }
                Out::Paused { .. } => {}
            }
        }
    });
    stream::event_stream(
        Box::pin(streams::iter(priming).chain(frames)),
        keep_alive,
        held,
    )
}

/// Whether the client names event streams before JSON.
fn prefers_stream(headers: &http::HeaderMap) -> bool {
    let accept = headers
        .get(http::header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.trim_start().starts_with("text/event-stream"))
}

/// Nothing came for a request that was cancelled: no response is sent.
fn json_responses(responses: &[(Bytes, Option<Duration>)], is_batch: bool) -> Response<Body> {
    match (is_batch, responses) {
        (_, []) => stream::empty(StatusCode::ACCEPTED),
        (false, [(response, None), ..]) => stream::json(StatusCode::OK, response.clone()),
        (false, [(response, Some(after)), ..]) => {
            let mut turned_away = stream::json(StatusCode::SERVICE_UNAVAILABLE, response.clone());
            let after = HeaderValue::from(after.as_secs().max(1));
            turned_away.headers_mut().insert(RETRY_AFTER, after);
            turned_away
        }
        (true, responses) => {
            let mut body = vec![b'['];
            for (index, (response, _)) in responses.iter().enumerate() {
                if index > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(response);
            }
            body.push(b']');
            stream::json(StatusCode::OK, body)
        }
    }
}
