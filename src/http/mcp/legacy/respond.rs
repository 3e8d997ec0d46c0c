//! What a POST is answered with: JSON when responses are all there is, else a
//! stream, as far as the node has a place for another one.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream as streams};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::{
    super::{Incoming, stream},
    Out, Work,
};
use crate::{
    gateway::Gateway,
    http::error::set_retry_after,
    mcp::{
        error::RpcError,
        message::{self, Answer, Message},
        sse,
        version::Version,
    },
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
    let mut give_up = Some(Instant::now() + keep_alive);
    let (first, held) = loop {
        let next = match give_up {
            Some(give_up) => tokio::time::timeout_at(give_up, outs.next()).await,
            None => Ok(outs.next().await),
        };
        let is_over = matches!(next, Ok(None));
        let first = match next {
            Ok(Some(Out::Response {
                message,
                retry_after,
                ..
            })) => {
                responses.push((message, retry_after));
                continue;
            }
            Ok(Some(Out::Gone { message })) if !is_batch => {
                return stream::json(StatusCode::NOT_FOUND, message);
            }
            Ok(Some(Out::Gone { message })) => {
                responses.push((message, None));
                continue;
            }
            Ok(Some(Out::Paused { .. })) if !can_pause => continue,
            Ok(Some(other)) => Some(other),
            Ok(None) if wants_json => return json_responses(&responses, is_batch),
            Ok(None) | Err(_) => None,
        };
        match gateway.stream_place() {
            Ok(held) => break (first, held),
            Err(_) if is_over => return json_responses(&responses, is_batch),
            // The calls run: their responses alone need no place.
            Err(error) => {
                give_up = None;
                if let Some(Out::Message { message, .. }) = first {
                    decline(gateway, session, &message, &error).await;
                }
            }
        }
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

/// Answers a question that the client cannot be asked.
async fn decline(gateway: &Gateway, session: &Session, message: &[u8], why: &RpcError) {
    let Ok(Message::Request(question)) = message::parse_message(message) else {
        return;
    };
    let relay = &gateway.relay;
    let declined = relay.deliver_answer(session, &question.id, Answer::error(why));
    if let Err(error) = declined.await {
        tracing::debug!(%error, "a question could not be declined");
    }
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
        (false, [(response, after), ..]) => {
            let mut turned_away = stream::json(StatusCode::SERVICE_UNAVAILABLE, response.clone());
            set_retry_after(turned_away.headers_mut(), *after);
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
