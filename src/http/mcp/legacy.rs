//! Requests of 2025-11-25 and earlier: a handshake, then a session.

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, stream as streams};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    Incoming, fail,
    modern::{cursor, trace},
    refuse, route, stream,
};
use crate::{
    fleet::{Change, News},
    gateway::Gateway,
    http::{error, record::Record},
    ids::ServerId,
    lists::{Caller, Target},
    mcp::{
        Raw,
        envelope::{self, LogLevel, TraceContext},
        error::RpcError,
        json::{self, RawObject},
        message::{
            self, Answer, Message, MessageError, Notification, Request, RequestId,
            Response as Reply,
        },
        method::{self, ListKind},
        shape,
        version::{self, Version},
    },
    rates::Limited,
    relay::{
        Call, RelayError,
        legacy::{self, Item},
    },
    servers::Server,
    session::{MERGED, Session},
    telemetry::{
        metrics::{Era, Outcome},
        traces,
    },
    upstream::ClientSession,
};

mod handshake;
mod remembered;
mod respond;

pub(crate) use handshake::{delete, end_session, hello, initialize, initialize_result, session};
use remembered::{keeps_subscriptions, set_level, subscribe, unsubscribe};
use respond::respond;

/// What a request's stream carries: messages, then the response.
pub(crate) enum Out {
    /// The server paused the call for this long.
    Paused { retry: Duration },
    /// A notification or a question of the server.
    Message { id: Option<String>, message: Bytes },
    /// The response to the request.
    Response {
        id: Option<String>,
        message: Bytes,
        /// When to come again, where there was no room for the request.
        retry_after: Option<Duration>,
    },
    /// The same, because the session has ended.
    Gone { message: Bytes },
}

type Outs = Pin<Box<dyn Stream<Item = Out> + Send>>;

/// A request at work: what comes of it, and how its stream can be made resumable early.
pub(crate) struct Work {
    pub(crate) outs: Outs,
    pub(crate) opened: Option<Arc<crate::relay::event_log::EventLog>>,
    /// It was turned away: the status of a response that has nothing else.
    limited: Option<Limited>,
}

fn servers(incoming: &Incoming) -> Vec<Arc<Server>> {
    match &incoming.target {
        Target::One(server) => vec![Arc::clone(server)],
        Target::All => incoming.gateway.servers.all().to_vec(),
    }
}

pub(crate) fn endpoint(target: &Target) -> &str {
    match target {
        Target::One(server) => server.id.as_str(),
        Target::All => MERGED,
    }
}

/// A message in a session.
pub(crate) async fn message(incoming: &Incoming, message: Message<'_>) -> Response<Body> {
    let id = match &message {
        Message::Request(request) => Some(&request.id),
        Message::Notification(_) | Message::Response(_) => None,
    };
    let session = match session(incoming, id).await {
        Ok(session) => session,
        Err(refusal) => return refusal,
    };
    match message {
        Message::Request(request) => {
            let work = work(incoming, &session, &request).await;
            if let Some(limited) = &work.limited {
                return fail(&request.id, &error::rate_failure(limited));
            }
            respond(incoming, &session, vec![work], false).await
        }
        Message::Notification(notification) => {
            notified(incoming, &session, &notification).await;
            stream::empty(StatusCode::ACCEPTED)
        }
        Message::Response(reply) => answered(incoming, &session, &reply).await,
    }
}

/// A batch, which only 2025-03-26 knows.
pub(crate) async fn batch(
    incoming: &Incoming,
    messages: Vec<Result<Message<'_>, MessageError>>,
) -> Response<Body> {
    let session = match session(incoming, None).await {
        Ok(session) => session,
        Err(refusal) => return refusal,
    };
    if session.version != Version::V2025_03_26 {
        let message = format!(
            "{} knows no batches: send each message by itself",
            session.version.as_str()
        );
        return refuse(
            StatusCode::BAD_REQUEST,
            None,
            &RpcError::invalid_request(message),
        );
    }
    let mut works = Vec::new();
    for message in messages {
        match message {
            Ok(Message::Request(request)) => works.push(work(incoming, &session, &request).await),
            Ok(Message::Notification(notification)) => {
                notified(incoming, &session, &notification).await
            }
            Ok(Message::Response(reply)) => {
                let response = answered(incoming, &session, &reply).await;
                if !response.status().is_success() {
                    return response;
                }
            }
            Err(error) => works.push(local(message::error_bytes(
                error.id.as_ref(),
                &error.to_rpc(),
            ))),
        }
    }
    if works.is_empty() {
        return stream::empty(StatusCode::ACCEPTED);
    }
    respond(incoming, &session, works, true).await
}

/// A notification from the client.
pub(crate) async fn notified(
    incoming: &Incoming,
    session: &Arc<Session>,
    notification: &Notification<'_>,
) {
    let gateway = &incoming.gateway;
    match &*notification.method {
        method::CANCELLED => {
            let params = notification
                .params
                .and_then(|params| RawObject::parse(params).ok());
            let Some(request) =
                params.and_then(|params| Some(params.get("requestId")?.get().to_owned()))
            else {
                return;
            };
            // The call may run on any node.
            if !gateway.relay.cancel(&session.key, &request) {
                let session = session.key.to_string();
                gateway
                    .fleet
                    .tell(News::Cancelled { session, request })
                    .await;
            }
        }
        method::INITIALIZED => {}
        method => {
            let bytes = notification.params.map_or(0, |params| params.get().len());
            for server in servers(incoming) {
                let Some(place) = gateway.relay.room.place(bytes) else {
                    tracing::debug!(server = %server.id, method, "no room for a notification");
                    return;
                };
                let (gateway, session) = (Arc::clone(gateway), upstream_session(incoming, session));
                let params = notification.params.map(Raw::to_owned);
                let method = method.to_owned();
                gateway.clone().tasks.spawn_brief(async move {
                    let _place = place;
                    gateway
                        .relay
                        .notify(&server, &session, &method, params.as_deref())
                        .await;
                });
            }
        }
    }
}

/// The client's answer to a question, which any node may have asked.
pub(crate) async fn answered(
    incoming: &Incoming,
    session: &Arc<Session>,
    reply: &Reply<'_>,
) -> Response<Body> {
    let Some(id) = &reply.id else {
        let error = RpcError::invalid_request("a response needs the id of its request");
        return refuse(StatusCode::BAD_REQUEST, None, &error);
    };
    match incoming
        .gateway
        .relay
        .deliver_answer(session, id, reply.answer.to_answer())
        .await
    {
        Ok(()) => stream::empty(StatusCode::ACCEPTED),
        Err(error) => {
            tracing::warn!(%error, "an answer cannot reach the node that asked");
            let error = RpcError::internal(
                "the node that asked cannot be reached now: send the answer again",
            );
            let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, None, &error);
            error::set_retry_after(response.headers_mut(), Some(error::SOON));
            response
        }
    }
}

/// The upstream's view of a client session.
pub(crate) fn upstream_session(incoming: &Incoming, session: &Session) -> ClientSession {
    ClientSession {
        key: Arc::clone(&session.key),
        capabilities: session.capabilities.clone(),
        client_info: session.client_info.clone(),
        version: session.version,
        ttl: incoming.gateway.config.limits.session_max_age,
    }
}

fn local(message: Bytes) -> Work {
    Work {
        outs: Box::pin(streams::iter([Out::Response {
            id: None,
            message,
            retry_after: None,
        }])),
        opened: None,
        limited: None,
    }
}

fn turned_away(id: &RequestId, limited: Limited) -> Work {
    let error = error::rate_error(&limited);
    Work {
        limited: Some(limited),
        ..local(message::error_bytes(Some(id), &error))
    }
}

/// Starts the work on a request.
pub(crate) async fn work(
    incoming: &Incoming,
    session: &Arc<Session>,
    request: &Request<'_>,
) -> Work {
    let trace = trace(incoming, request);
    let record = Record::begin(incoming, request, Era::Legacy, &trace);
    let span = record.span();
    work_on(incoming, session, request, &trace, record)
        .instrument(span)
        .await
}

async fn work_on(
    incoming: &Incoming,
    session: &Arc<Session>,
    request: &Request<'_>,
    trace: &TraceContext,
    mut record: Record,
) -> Work {
    match answer_here(incoming, session, request).await {
        Some(answer) => {
            record.answered(&answer);
            local(message::response_bytes(&request.id, &answer))
        }
        None => match call(incoming, session, request, trace).await {
            Ok(call) => {
                record.server(&call.server.id);
                let admitted = incoming
                    .admit(&call.server, &call.method, call.params.as_deref())
                    .await;
                if let Err(limited) = admitted {
                    record.end(Outcome::Shed);
                    return turned_away(&request.id, limited);
                }
                carry(incoming, session, &request.id, call, record)
            }
            Err(error) => {
                record.end(Outcome::Refused);
                local(message::error_bytes(Some(&request.id), &error))
            }
        },
    }
}

/// What the gateway answers itself; `None`: the server has to be asked.
async fn answer_here(
    incoming: &Incoming,
    session: &Arc<Session>,
    request: &Request<'_>,
) -> Option<Answer> {
    let refused = |error: RpcError| Answer::error(&error);
    let answer = match &*request.method {
        method::PING => Ok(empty_result()),
        method::LOGGING_SET_LEVEL => set_level(incoming, session, request.params)
            .await
            .map_err(refused),
        method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE
            if keeps_subscriptions(incoming, session).await =>
        {
            return None;
        }
        method::RESOURCES_SUBSCRIBE => subscribe(incoming, session, request).await.map_err(refused),
        method::RESOURCES_UNSUBSCRIBE => unsubscribe(incoming, session, request.params)
            .await
            .map_err(refused),
        method if method::is_modern_only(method) => {
            Err(refused(RpcError::method_not_found(method)))
        }
        method => match method::list_kind(method) {
            Some(kind) => list(incoming, session, kind, request).await,
            None => return None,
        },
    };
    Some(answer.map_or_else(|refused| refused, Answer::Result))
}

fn empty_result() -> Box<Raw> {
    RawObject::new().to_raw()
}

fn caller(incoming: &Incoming, session: &Session) -> Caller {
    Caller {
        principal: incoming.principal,
        capabilities: session.capabilities.clone(),
    }
}

fn list_deadline(incoming: &Incoming) -> Instant {
    Instant::now() + incoming.gateway.config.cache.list_deadline
}

async fn list(
    incoming: &Incoming,
    session: &Session,
    kind: ListKind,
    request: &Request<'_>,
) -> Result<Box<Raw>, Answer> {
    let gateway = &incoming.gateway;
    gateway.watch(&incoming.target);
    let cursor = cursor(request).map_err(|error| Answer::error(&error))?;
    let caller = caller(incoming, session);
    let deadline = list_deadline(incoming);
    let page = gateway
        .lists
        .page(&incoming.target, kind, &caller, cursor.as_deref(), deadline)
        .await;
    let page = page.map_err(|failed| {
        let answer = error::list_failure(&failed, version::Era::Legacy).answer;
        shaped(answer, kind.method(), session.version)
    })?;
    let result = page.result(session.version).concat();
    Ok(json::raw_from_bytes(result))
}

/// An error in the shape of this client's version.
fn shaped(answer: Answer, method: &str, version: Version) -> Answer {
    match answer {
        Answer::Error(error) => {
            Answer::Error(shape::error_for_legacy(method, &error, version).into_owned())
        }
        Answer::Result(_) => answer,
    }
}

/// A request for the server.
async fn call(
    incoming: &Incoming,
    session: &Arc<Session>,
    request: &Request<'_>,
    trace: &TraceContext,
) -> Result<Call, RpcError> {
    let gateway = &incoming.gateway;
    let caller = caller(incoming, session);
    let deadline = list_deadline(incoming);
    let method = &*request.method;
    let routed = route::route(
        gateway,
        &incoming.target,
        &caller,
        method,
        request.params,
        deadline,
    )
    .await?;
    let (headers, repeatable) = match method {
        method::TOOLS_CALL => of_tool(incoming, request, &routed, &caller, deadline).await,
        _ => (Vec::new(), false),
    };
    Ok(Call {
        repeatable,
        server: routed.server,
        method: method.to_owned(),
        params: routed.params,
        principal: incoming.principal,
        capabilities: session.capabilities.clone(),
        // A legacy client that sets no level gets what the server sends.
        log_level: Some(session.log_level().unwrap_or(LogLevel::Debug)),
        progress_token: envelope::progress_token(request.known),
        trace: traces::outgoing(trace),
        headers,
        session: Some(upstream_session(incoming, session)),
    })
}

/// The headers a modern server wants, which a legacy client knows nothing of,
/// and whether the call may be sent again.
async fn of_tool(
    incoming: &Incoming,
    request: &Request<'_>,
    routed: &route::Routed,
    caller: &Caller,
    deadline: Instant,
) -> (Vec<(http::HeaderName, HeaderValue)>, bool) {
    let name = routed.name(request).unwrap_or_default();
    let arguments = request.known.get("arguments");
    let tool = incoming
        .gateway
        .lists
        .tool(&routed.server, caller, &name, deadline)
        .await;
    match tool {
        Some(tool) => {
            let headers = tool.param_headers.headers_for(arguments);
            (headers, tool.is_repeatable(&routed.server))
        }
        None => (Vec::new(), false),
    }
}

fn carry(
    incoming: &Incoming,
    session: &Arc<Session>,
    id: &RequestId,
    call: Call,
    record: Record,
) -> Work {
    let (gateway, server) = (Arc::clone(&incoming.gateway), call.server.id.clone());
    let flow = legacy::begin(&incoming.gateway.relay, session, id, call);
    let log = Arc::clone(flow.log());
    let (id, session) = (id.clone(), Arc::clone(session));
    let outs = streams::unfold((flow, Some(record)), move |(mut flow, mut record)| {
        let (id, gateway, server) = (id.clone(), Arc::clone(&gateway), server.clone());
        let session = Arc::clone(&session);
        async move {
            let Some(item) = flow.next().await else {
                // Told once; a call that the client cancelled has no answer.
                let is_over = record.take().is_some() && flow.session_has_ended();
                return is_over.then(|| (over(&id), (flow, record)));
            };
            let out = match item {
                Item::Message { id, message } => {
                    note_change(&gateway, &server, &message).await;
                    Out::Message { id, message }
                }
                Item::Paused { retry } => Out::Paused { retry },
                Item::Done {
                    id: event,
                    answer,
                    failure,
                } => {
                    if let Some(record) = record.take() {
                        record.answered(&answer);
                    }
                    let has_ended = failure.as_ref().is_some_and(RelayError::is_end_of_session);
                    // Whoever has read part of the stream is told on it.
                    if has_ended && event.is_none() {
                        let out = gone(&gateway, &session, &id).await;
                        return Some((out, (flow, record)));
                    }
                    Out::Response {
                        id: event,
                        message: message::response_bytes(&id, &answer),
                        retry_after: failure.and_then(|failure| {
                            error::relay_failure(&failure, version::Era::Legacy).retry_after
                        }),
                    }
                }
            };
            Some((out, (flow, record)))
        }
    });
    Work {
        outs: Box::pin(outs),
        opened: Some(log),
        limited: None,
    }
}

/// The server's side of a session has ended: so does the session, unless it
/// is one with other servers too.
async fn gone(gateway: &Gateway, session: &Session, id: &RequestId) -> Out {
    if &*session.endpoint == MERGED {
        let error = RpcError::internal(
            "the server has lost this session with the node that ran it: its next call begins anew",
        );
        let message = message::error_bytes(Some(id), &error);
        return Out::Response {
            id: None,
            message,
            retry_after: None,
        };
    }
    gateway.sessions.end(session).await;
    over(id)
}

/// The session has ended while the call ran.
fn over(id: &RequestId) -> Out {
    Out::Gone {
        message: message::error_bytes(Some(id), &handshake::ended()),
    }
}

/// A change that a server tells a session directly makes entries out of date
/// before the client hears of it: it will list anew at once.
pub(crate) async fn note_change(gateway: &Gateway, server: &ServerId, message: &[u8]) {
    let Ok(Message::Notification(notification)) = message::parse_message(message) else {
        return;
    };
    let change = match &*notification.method {
        method::TOOLS_CHANGED => Change::Tools,
        method::PROMPTS_CHANGED => Change::Prompts,
        method::RESOURCES_CHANGED => Change::Resources,
        _ => return,
    };
    gateway.lists.invalidate(server, &change).await;
}
