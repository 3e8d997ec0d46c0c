//! HTTP+SSE, the transport of 2024-11-05: one stream for everything a server
//! says, and a second address for what the client says.
//!
//! The stream is opened before anything is negotiated, so the address handed
//! out names only the stream. What `initialize` opens is an ordinary session,
//! recorded under the stream's name; messages may be posted to any node, and
//! what they cause is sent to the node that holds the stream.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Query, Request as HttpRequest, State},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream as streams};
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    body, caller,
    error::{self, Absent, RpcFailure},
    mcp::{
        Incoming, accepts, legacy,
        legacy::{Out, Work},
        refusal, refuse, standalone, stream,
    },
};
use crate::{
    gateway::Gateway,
    ids::hex,
    lifecycle::Tasks,
    lists::Target,
    mcp::{
        error::RpcError,
        message::{self, Answer, Body as Parsed, Message, ParseLimits, Request},
        method, sse,
    },
    rates::Client,
    relay::{Delivery, Letter, Mailbox},
    session::Session,
    store::{RecordKey, StoreError},
};

/// Events a slow client may be behind.
const BACKLOG: usize = 256;

/// `GET /sse`
pub(crate) async fn open_merged(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
) -> Response<Body> {
    open(gateway, Target::All, "/sse/message", headers).await
}

/// `GET /sse/{server}`
pub(crate) async fn open_server(
    State(gateway): State<Arc<Gateway>>,
    Path(server): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    match gateway.servers.get(&server) {
        Some(found) => {
            open(
                gateway,
                Target::One(found),
                &format!("/sse/{server}/message"),
                headers,
            )
            .await
        }
        None => Absent::of(&gateway, &server).response(),
    }
}

async fn open(
    gateway: Arc<Gateway>,
    target: Target,
    path: &str,
    headers: HeaderMap,
) -> Response<Body> {
    if !accepts(&headers, "text/event-stream") {
        return stream::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let held = match gateway.stream_place() {
        Ok(held) => held,
        Err(error) => return refuse(StatusCode::SERVICE_UNAVAILABLE, None, &error),
    };
    let name = hex(&rand::random::<[u8; 16]>());
    let mailbox = gateway.relay.mailboxes.open(address(&name)).await;
    let first = sse::event(
        None,
        Some("endpoint"),
        format!("{path}?sessionId={name}").as_bytes(),
    );
    let keep_alive = gateway.config.node.keep_alive;
    let incoming = Incoming {
        principal: caller::principal(&headers),
        // Nothing is asked of a server on behalf of a stream.
        client: Client::UNKNOWN,
        gateway,
        target,
        headers,
    };
    let messages =
        messages(incoming, mailbox).map(|message| sse::event(None, Some("message"), &message));
    stream::event_stream(
        Box::pin(streams::iter([first]).chain(messages)),
        keep_alive,
        held,
    )
}

fn address(stream: &str) -> Arc<str> {
    format!("sse-{stream}").into()
}

/// Everything that goes out on the stream. When the client leaves, its session ends.
fn messages(incoming: Incoming, mailbox: Mailbox) -> impl Stream<Item = Bytes> + Send {
    let (sender, received) = mpsc::channel(BACKLOG);
    let tasks: Tasks = incoming.gateway.tasks.clone();
    tasks.clone().spawn_brief(async move {
        let mut holder = Holder {
            incoming,
            mailbox,
            session: None,
        };
        tokio::select! {
            () = tasks.stopping().cancelled() => {}
            () = sender.closed() => {}
            () = holder.run(&sender) => {}
        }
        if let Some(session) = &holder.session {
            legacy::end_session(&holder.incoming, session).await;
        }
    });
    streams::unfold(received, |mut received| async {
        let message = received.recv().await?;
        Some((message, received))
    })
}

/// Keeps one stream.
struct Holder {
    incoming: Incoming,
    mailbox: Mailbox,
    session: Option<Arc<Session>>,
}

impl Holder {
    async fn run(&mut self, messages: &mpsc::Sender<Bytes>) {
        let mut unsolicited: std::pin::Pin<Box<dyn Stream<Item = standalone::Event> + Send>> =
            Box::pin(streams::pending());
        loop {
            let message = tokio::select! {
                letter = self.mailbox.next() => match letter {
                    Letter::Message(message) => message,
                    Letter::Opened(id) => {
                        if let Some(session) = self.find(&id).await {
                            let (events, _opened) =
                                standalone::live(self.incoming.clone(), Arc::clone(&session));
                            unsolicited = Box::pin(events.chain(streams::pending()));
                            self.session = Some(session);
                        }
                        continue;
                    }
                    _not_for_streams => continue,
                },
                Some(event) = unsolicited.next() => event.message,
            };
            // The priming event of newer versions has no message.
            if !message.is_empty() && messages.send(message).await.is_err() {
                return;
            }
        }
    }

    async fn find(&self, id: &str) -> Option<Arc<Session>> {
        find(&self.incoming, id).await
    }
}

async fn find(incoming: &Incoming, id: &str) -> Option<Arc<Session>> {
    let endpoint = legacy::endpoint(&incoming.target);
    incoming
        .gateway
        .sessions
        .find(id, endpoint, &incoming.principal)
        .await
}

/// The query of the message address.
#[derive(Debug, Deserialize)]
pub(crate) struct Posted {
    #[serde(rename = "sessionId")]
    session_id: String,
}

/// `POST /sse/message`
pub(crate) async fn post_merged(
    State(gateway): State<Arc<Gateway>>,
    Query(posted): Query<Posted>,
    request: HttpRequest,
) -> Response<Body> {
    post(gateway, Target::All, posted, request).await
}

/// `POST /sse/{server}/message`
pub(crate) async fn post_server(
    State(gateway): State<Arc<Gateway>>,
    Path(server): Path<String>,
    Query(posted): Query<Posted>,
    request: HttpRequest,
) -> Response<Body> {
    match gateway.servers.get(&server) {
        Some(found) => post(gateway, Target::One(found), posted, request).await,
        None => Absent::of(&gateway, &server).response(),
    }
}

async fn post(
    gateway: Arc<Gateway>,
    target: Target,
    posted: Posted,
    request: HttpRequest,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let limits = &gateway.config.limits;
    let body = match body::read(body, limits.body, limits.body_timeout).await {
        Ok(body) => body,
        Err(failed) => {
            let error = RpcError::invalid_request(failed.to_string());
            return refuse(error::body_status(&failed), None, &error);
        }
    };
    let parsed = ParseLimits {
        max_depth: limits.nesting,
        max_batch: limits.batch,
    };
    let incoming = Incoming {
        principal: caller::principal(&parts.headers),
        client: caller::client(&gateway, &parts),
        gateway,
        target,
        headers: parts.headers,
    };
    match message::parse_body(&body, &parsed) {
        Ok(Parsed::Single(message)) => said(&incoming, &posted.session_id, message).await,
        Ok(Parsed::Batch(_)) => {
            let error =
                RpcError::invalid_request("HTTP+SSE knows no batches: send each message by itself");
            refuse(StatusCode::BAD_REQUEST, None, &error)
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, error.id.as_ref(), &error.to_rpc()),
    }
}

/// A message of the client: accepted at once, answered on the stream.
async fn said(incoming: &Incoming, name: &str, message: Message<'_>) -> Response<Body> {
    if let Message::Request(request) = &message
        && request.method == method::INITIALIZE
    {
        return initialize(incoming, name, request).await;
    }
    let Some(session) = session(incoming, name).await else {
        let error = RpcError::invalid_request(
            "this session is unknown or has ended: connect to the stream anew",
        );
        return refuse(StatusCode::NOT_FOUND, None, &error);
    };
    match message {
        Message::Request(request) => {
            let work = legacy::work(incoming, &session, &request).await;
            forward(incoming, name, work);
            stream::empty(StatusCode::ACCEPTED)
        }
        Message::Notification(notification) => {
            legacy::notified(incoming, &session, &notification).await;
            stream::empty(StatusCode::ACCEPTED)
        }
        Message::Response(reply) => legacy::answered(incoming, &session, &reply).await,
    }
}

async fn session(incoming: &Incoming, name: &str) -> Option<Arc<Session>> {
    let record = RecordKey::Stream(name.into());
    let id = match incoming.gateway.store.get(&record).await {
        Ok(id) => String::from_utf8(id?.to_vec()).ok()?,
        Err(error) => {
            tracing::warn!(%error, "an HTTP+SSE session cannot be looked up");
            return None;
        }
    };
    find(incoming, &id).await
}

async fn initialize(incoming: &Incoming, name: &str, request: &Request<'_>) -> Response<Body> {
    let gateway = &incoming.gateway;
    let answer = match opened(incoming, name, request).await {
        Ok(answer) => answer,
        Err(failure) => failure.answer,
    };
    let letter = Letter::Message(message::response_bytes(&request.id, &answer));
    match gateway.relay.mailboxes.send(&address(name), letter).await {
        Ok(Delivery::Delivered) => stream::empty(StatusCode::ACCEPTED),
        Ok(Delivery::NobodyThere) => {
            let error = RpcError::invalid_request("this stream is gone: connect to it anew");
            refuse(StatusCode::NOT_FOUND, None, &error)
        }
        Err(error) => {
            tracing::warn!(%error, "the node that holds an HTTP+SSE stream cannot be reached");
            let error = RpcError::internal("the node that holds the stream cannot be reached now");
            refuse(StatusCode::SERVICE_UNAVAILABLE, None, &error)
        }
    }
}

async fn opened(
    incoming: &Incoming,
    name: &str,
    request: &Request<'_>,
) -> Result<Answer, RpcFailure> {
    let gateway = &incoming.gateway;
    let hello = legacy::hello(incoming, request.params)
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, &error))?;
    let result = legacy::initialize_result(incoming, &hello).await?;
    let failed = |message: &str| {
        refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            &RpcError::internal(message),
        )
    };
    let (id, _) = gateway
        .sessions
        .open(hello, incoming.principal)
        .ok_or_else(|| failed("the session could not be opened"))?;
    let cannot_be_opened = |error: StoreError| {
        tracing::warn!(%error, "an HTTP+SSE session could not be opened");
        failed("sessions of this transport cannot be opened now: use Streamable HTTP")
    };
    // The client names the stream: nothing is kept for one that is not there.
    let letter = Letter::Opened(id.clone());
    let told = gateway.relay.mailboxes.send(&address(name), letter).await;
    if told.map_err(cannot_be_opened)? == Delivery::NobodyThere {
        return Err(failed("this stream is gone: connect to it anew"));
    }
    let record = RecordKey::Stream(name.into());
    let ttl = Some(gateway.config.limits.session_max_age);
    let put = gateway.store.put(&record, Bytes::from(id), ttl).await;
    put.map_err(cannot_be_opened)?;
    Ok(Answer::Result(result))
}

/// Sends what a request causes to the node that holds the stream.
fn forward(incoming: &Incoming, name: &str, work: Work) {
    let (gateway, address) = (Arc::clone(&incoming.gateway), address(name));
    let mut outs = work.outs;
    gateway.clone().tasks.spawn_brief(async move {
        while let Some(out) = outs.next().await {
            let (Out::Message { message, .. }
            | Out::Response { message, .. }
            | Out::Gone { message }) = out
            else {
                continue;
            };
            if let Err(error) = gateway
                .relay
                .mailboxes
                .send(&address, Letter::Message(message))
                .await
            {
                tracing::warn!(%error, "a message did not reach the node that holds the stream");
            }
        }
    });
}
