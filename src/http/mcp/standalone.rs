//! The standalone stream of a legacy session (`GET`): what a server says that
//! belongs to no request, and the events of broken streams again.
//!
//! A session may open several; the newest one on any node gets the messages,
//! so that each message goes out once. When it ends, the one before it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream as streams};
use http::{Response, StatusCode};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Incoming, accepts, legacy, refuse, route,
    stream::{self, Frames},
};
use crate::{
    changes,
    fleet::{Change, Heard, Listener, News},
    gateway::Gateway,
    http::error::{SOON, set_retry_after},
    lists::{Caller, Target},
    mcp::{error::RpcError, header as mcp_header, json, message, method, sse, version::Version},
    relay::{event_log::Replay, standalone::Standalone},
    session::Session,
    store::StoreError,
};

/// Events a slow client may be behind.
const BACKLOG: usize = 64;

/// `GET` on an MCP endpoint.
pub(crate) async fn get(incoming: Incoming) -> Response<Body> {
    if !accepts(&incoming.headers, "text/event-stream")
        || !incoming.headers.contains_key(&mcp_header::SESSION_ID)
    {
        return stream::not_offered();
    }
    let session = match legacy::session(&incoming, None).await {
        Ok(session) => session,
        Err(refusal) => return refusal,
    };
    let gateway = Arc::clone(&incoming.gateway);
    let held = match gateway.stream_place() {
        Ok(held) => held,
        Err(error) => return refuse(StatusCode::SERVICE_UNAVAILABLE, None, &error),
    };
    let frames = match replay(&incoming, &session).await {
        Ok(Some(replay)) if !Standalone::is_standalone(replay.stream()) => replayed(replay),
        Ok(Some(replay)) => {
            let missed = match replay.into_read().await {
                Ok(missed) => missed,
                Err(error) => return not_now(&error),
            };
            let missed = missed
                .into_iter()
                .map(|event| sse::event(Some(&event.id), None, &event.message));
            Box::pin(streams::iter(missed).chain(framed(incoming, session).await))
        }
        Ok(None) => framed(incoming, session).await,
        Err(refusal) => return refusal,
    };
    stream::event_stream(frames, gateway.config.node.keep_alive, held)
}

async fn replay(incoming: &Incoming, session: &Session) -> Result<Option<Replay>, Response<Body>> {
    let bad = |error: &RpcError| refuse(StatusCode::BAD_REQUEST, None, error);
    let last = mcp_header::single(&incoming.headers, &mcp_header::LAST_EVENT_ID)
        .map_err(|error| bad(&error))?;
    let Some(last) = last else { return Ok(None) };
    Replay::begin(&session.key, last, &incoming.gateway.store)
        .await
        .map_err(|error| not_now(&error))
}

fn not_now(error: &StoreError) -> Response<Body> {
    tracing::warn!(%error, "a stream cannot be resumed now");
    let error = RpcError::internal("streams cannot be resumed now: try again");
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, None, &error);
    set_retry_after(response.headers_mut(), Some(SOON));
    response
}

/// The rest of a request's stream.
fn replayed(replay: Replay) -> Frames {
    let events = streams::unfold(Some(replay), |replay| async {
        let mut replay = replay?;
        let event = replay.next().await?;
        let frame = sse::event(Some(&event.id), None, &event.message);
        Some((frame, if event.is_last { None } else { Some(replay) }))
    });
    Box::pin(events)
}

async fn framed(incoming: Incoming, session: Arc<Session>) -> Frames {
    let (events, opened) = live(incoming, session);
    // A client that sees its stream open counts on hearing what comes next, so
    // the server's stream is opened first; a slow server delays it a little.
    tokio::time::timeout(changes::CONFIRMATION, opened)
        .await
        .ok();
    Box::pin(events.map(|event| sse::event(event.id.as_deref(), None, &event.message)))
}

/// One event of the stream.
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) message: Bytes,
}

/// Messages as they come, and what ends when those of the server can.
pub(crate) fn live(
    incoming: Incoming,
    session: Arc<Session>,
) -> (impl Stream<Item = Event> + Send, oneshot::Receiver<()>) {
    let (sender, received) = mpsc::channel(BACKLOG);
    let (opening, opened) = oneshot::channel();
    let tasks = incoming.gateway.tasks.clone();
    let closed = sender.clone();
    tasks.clone().spawn_brief(async move {
        tokio::select! {
            () = tasks.stopping().cancelled() => {}
            () = closed.closed() => {}
            () = run(incoming, session, sender, opening) => {}
        }
    });
    let events = streams::unfold(received, |mut received| async {
        let event = received.recv().await?;
        Some((event, received))
    });
    (events, opened)
}

async fn run(
    incoming: Incoming,
    session: Arc<Session>,
    events: mpsc::Sender<Event>,
    opening: oneshot::Sender<()>,
) {
    let gateway = Arc::clone(&incoming.gateway);
    let mut news = gateway.fleet.listen();
    let mut standalone = Standalone::open(&gateway.relay, &session);
    let mut turn = Turn {
        gateway: Arc::clone(&gateway),
        session: Arc::clone(&session),
        stream: standalone.stream().to_owned(),
        newer: BTreeSet::new(),
    };
    turn.begin().await;
    if session.version >= Version::V2025_11_25
        && let Some(id) = standalone.open_log().await
    {
        events
            .send(Event {
                id: Some(id),
                message: Bytes::new(),
            })
            .await
            .ok();
    }
    gateway.watch(&incoming.target);
    attach(&mut standalone, &incoming, &session, Some(opening)).await;
    let mut watched = Watched::default();
    watched.follow(&incoming, &session).await;
    loop {
        let message = tokio::select! {
            message = standalone.next() => {
                if let Target::One(server) = &incoming.target {
                    legacy::note_change(&gateway, &server.id, &message).await;
                }
                message
            }
            heard = news.next() => {
                let Some(heard) = heard else { return };
                if is_revoked(&heard, &session) {
                    return;
                }
                // The node may have forgotten the session since it is held here,
                // or not have heard what became of it.
                let is_concerned = concerns(&heard, &session);
                if is_concerned && !gateway.sessions.reload(&session).await {
                    return;
                }
                turn.follow(&heard);
                if turn.is_over() {
                    standalone.fall_silent();
                    // What it did not listen to meanwhile may concern it.
                    if !turn.wait(&mut news).await || !gateway.sessions.reload(&session).await {
                        return;
                    }
                    attach(&mut standalone, &incoming, &session, None).await;
                    watched.follow(&incoming, &session).await;
                    continue;
                }
                if is_concerned {
                    watched.follow(&incoming, &session).await;
                }
                if standalone.hears_for_itself() {
                    continue;
                }
                match notification(&heard, &incoming.target, &session) {
                    Some(message) => message,
                    None => continue,
                }
            }
        };
        let id = standalone.log(&message).await;
        if events.send(Event { id, message }).await.is_err() {
            return;
        }
    }
}

/// Listens to the server on the session's behalf.
async fn attach(
    standalone: &mut Standalone,
    incoming: &Incoming,
    session: &Session,
    opening: Option<oneshot::Sender<()>>,
) {
    if let Target::One(server) = &incoming.target {
        let session = legacy::upstream_session(incoming, session);
        standalone.attach(server, session, opening).await;
    }
}

/// Which of a session's streams gets its messages. Dropped with its stream.
struct Turn {
    gateway: Arc<Gateway>,
    session: Arc<Session>,
    stream: String,
    /// Streams opened after this one that have not ended.
    newer: BTreeSet<String>,
}

impl Turn {
    async fn begin(&self) {
        let taken = News::StreamTaken {
            session: self.session.key.to_string(),
            stream: self.stream.clone(),
        };
        self.gateway.fleet.tell(taken).await;
    }

    fn follow(&mut self, heard: &Heard) {
        let Heard::News(news) = heard else { return };
        match &**news {
            News::StreamTaken { session, stream }
                if **session == *self.session.key && *stream != self.stream =>
            {
                self.newer.insert(stream.clone());
            }
            News::StreamEnded { stream, .. } => {
                self.newer.remove(stream);
            }
            _ => {}
        }
    }

    /// Whether a newer stream gets the messages.
    fn is_over(&self) -> bool {
        !self.newer.is_empty()
    }

    /// Waits until it is this stream's turn again; `false`: it never will be.
    async fn wait(&mut self, news: &mut Listener) -> bool {
        while self.is_over() {
            match news.next().await {
                Some(heard) if !is_revoked(&heard, &self.session) => self.follow(&heard),
                _ => return false,
            }
        }
        true
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let ended = News::StreamEnded {
            session: self.session.key.to_string(),
            stream: std::mem::take(&mut self.stream),
        };
        let gateway = Arc::clone(&self.gateway);
        let tasks = gateway.tasks.clone();
        tasks.spawn_brief(async move { gateway.fleet.tell(ended).await });
    }
}

fn is_revoked(heard: &Heard, session: &Session) -> bool {
    match heard {
        Heard::News(news) => {
            matches!(&**news, News::Revoked { session: key } if **key == *session.key)
        }
        Heard::Gap => false,
    }
}

fn concerns(heard: &Heard, session: &Session) -> bool {
    match heard {
        Heard::News(news) => {
            matches!(&**news, News::SessionChanged { session: key } if **key == *session.key)
        }
        Heard::Gap => true,
    }
}

/// What a change means for this session.
fn notification(heard: &Heard, target: &Target, session: &Session) -> Option<Bytes> {
    let Heard::News(news) = heard else {
        return None;
    };
    let News::Changed { server, change } = &**news else {
        return None;
    };
    if let Target::One(own) = target
        && own.id.as_str() != server
    {
        return None;
    }
    let mut message = Vec::new();
    match change {
        Change::Tools => message::write_notification(&mut message, method::TOOLS_CHANGED, None),
        Change::Prompts => message::write_notification(&mut message, method::PROMPTS_CHANGED, None),
        Change::Resources => {
            message::write_notification(&mut message, method::RESOURCES_CHANGED, None)
        }
        Change::Resource { uri } => {
            if !session.is_subscribed(uri) {
                return None;
            }
            let params = json::raw(&serde_json::json!({ "uri": uri }));
            message::write_notification(&mut message, method::RESOURCE_UPDATED, Some(&params));
        }
    }
    Some(message.into())
}

/// The resources this stream keeps watched.
#[derive(Default)]
struct Watched(BTreeMap<String, changes::Subscription>);

impl Watched {
    /// Watches what the session subscribed to and nothing else.
    async fn follow(&mut self, incoming: &Incoming, session: &Session) {
        let wanted = session.subscriptions();
        self.0.retain(|uri, _| wanted.contains(uri));
        let caller = Caller {
            principal: incoming.principal,
            capabilities: session.capabilities.clone(),
        };
        for uri in wanted {
            if self.0.contains_key(&uri) {
                continue;
            }
            let gateway = &incoming.gateway;
            let params = json::raw(&serde_json::json!({ "uri": uri }));
            let deadline = Instant::now() + gateway.config.cache.list_deadline;
            let method = method::RESOURCES_SUBSCRIBE;
            let routed = route::route(
                gateway,
                &incoming.target,
                &caller,
                method,
                Some(&params),
                deadline,
            )
            .await;
            if let Ok(routed) = routed {
                self.0
                    .insert(uri.clone(), gateway.changes.subscribe(&routed.server, &uri));
            }
        }
    }
}
