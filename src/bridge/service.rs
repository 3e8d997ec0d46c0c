//! The HTTP side: which request means what. Streamable HTTP of every era; the
//! server's own words pass through.

mod calls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{
    backend::Backend,
    door::Door,
    nodes::{Node, Nodes},
    not_taken::{NotTaken, Reason},
    outbox::Outbox,
    presence::{Presence, Present},
    reply::{self, Body},
    session::Session,
    splice::{Kind, Parts},
    token::TokenError,
    worker::NotSent,
};
use crate::mcp::{error::RpcError, header, json, message::RequestId, method};

/// When to try again what finds no place.
const SOON: Duration = Duration::from_secs(1);
/// What a message costs beside its bytes.
const OVERHEAD: usize = 256;

/// How long a server may take to say that it speaks the modern era. Nodes wait
/// a little longer.
const PROBE: Duration = Duration::from_secs(3);

const HEALTH: &str = "/healthz";
const ENDPOINT: &str = "/mcp";

/// Whether the server speaks the modern era.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Unknown = 0,
    Modern = 1,
    Legacy = 2,
}

/// The bridge, as HTTP sees it.
#[derive(Debug)]
pub struct Service {
    door: Door,
    nodes: Nodes,
    backend: Backend,
    presence: Arc<Presence>,
    max_message: usize,
    probe: Duration,
    era: AtomicU8,
    draining: AtomicBool,
    /// Requests in flight that are waited for when the bridge stops.
    running: TaskTracker,
}

/// A node's stream for messages of no call.
struct Listening {
    session: Arc<Session>,
    outbox: Arc<Outbox>,
    _visit: Visit,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.session.unlisten(&self.outbox);
    }
}

/// A node that is being answered.
struct Visit {
    node: Arc<Node>,
    _place: OwnedSemaphorePermit,
    _present: Present,
}

/// A message that was read, and who sent it.
struct Received {
    message: Bytes,
    room: Option<OwnedSemaphorePermit>,
    visit: Visit,
}

impl Service {
    /// Serves `backend` to whoever `door` lets in.
    #[must_use]
    pub fn new(
        door: Door,
        nodes: Nodes,
        backend: Backend,
        presence: Arc<Presence>,
        max_message: usize,
    ) -> Self {
        Self {
            door,
            nodes,
            backend,
            presence,
            max_message,
            probe: PROBE,
            era: AtomicU8::new(Era::Unknown as u8),
            draining: AtomicBool::new(false),
            running: TaskTracker::new(),
        }
    }

    /// The same, with less patience for servers that do not say which era they
    /// speak.
    #[must_use]
    pub fn patient_for(mut self, probe: Duration) -> Self {
        self.probe = PROBE.min(probe);
        self
    }

    /// The processes and sessions.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Takes no further request, and waits for those in flight.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.backend.end_streams();
        self.running.close();
        self.running.wait().await;
    }

    /// Answers a request to the program.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let path = request.uri().path();
        if path == HEALTH {
            return match *request.method() {
                Method::GET | Method::HEAD => reply::text(StatusCode::OK, "ok\n"),
                _ => reply::not_allowed("GET"),
            };
        }
        let is_endpoint = path == ENDPOINT;
        match self.sender(request.headers()) {
            Ok(name) if is_endpoint => self.answer_node(&name, request).await,
            Ok(_) => reply::text(StatusCode::NOT_FOUND, "not found\n"),
            Err(_) => reply::unauthorized(),
        }
    }

    /// The node that sends a request with these headers.
    ///
    /// # Errors
    /// When it does not prove to be one.
    pub fn sender(&self, headers: &HeaderMap) -> Result<Arc<str>, TokenError> {
        self.door
            .node_of(headers, wall_clock())
            .inspect_err(|error| debug!(%error, "a request without a valid token"))
    }

    /// Answers a request of a node that is known.
    pub async fn answer_node<B>(&self, name: &Arc<str>, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let present = self.presence.enter();
        let node = self.nodes.named(name);
        let Some(place) = node.begin() else {
            return later(Reason::Busy, SOON, "too many requests of this node");
        };
        let visit = Visit {
            node,
            _place: place,
            _present: present,
        };
        match *request.method() {
            Method::POST => self.post(request, visit).await,
            Method::GET if self.is_draining() => stopping(),
            Method::GET => self.get(request.headers(), visit),
            Method::DELETE => self.delete(request.headers()),
            _ => reply::not_allowed("POST, GET, DELETE"),
        }
    }

    async fn post<B>(&self, request: Request<B>, visit: Visit) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        let limit = self.max_message;
        let length = parts.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > limit) {
            return too_large(limit);
        }
        // Room is made before the message is read: that is what bounds memory.
        let expected = length.unwrap_or(limit) + OVERHEAD;
        let room = visit.node.room(expected).await;
        let message = match read(body, limit, length.unwrap_or(0)).await {
            Ok(message) => message,
            Err(response) => return response,
        };
        let received = Received {
            message: one_line(message),
            room,
            visit,
        };
        self.receive(&parts.headers, received).await
    }

    async fn receive(&self, headers: &HeaderMap, received: Received) -> Response<Body> {
        let message = received.message.clone();
        let (parts, kind) = match Parts::read(&message) {
            Ok(read) => read,
            Err(error) => {
                let error = RpcError::invalid_request(error.to_string());
                return reply::refused(StatusCode::BAD_REQUEST, None, &error);
            }
        };
        // What is in flight may still be answered, told and cancelled.
        if self.is_draining() && matches!(kind, Kind::Request(..)) {
            return stopping();
        }
        if parts.is_modern() {
            return match kind {
                Kind::Request(id, method) if method == method::DISCOVER => {
                    self.discover(&id, received).await
                }
                Kind::Request(id, method) => self.call(&parts, id, method, None, received).await,
                Kind::Notification(_) => reply::accepted(),
                Kind::Answer(_) => bad_request(None, "responses need a session"),
            };
        }
        if let Kind::Request(id, method) = &kind
            && method == method::INITIALIZE
        {
            return self.initialize(&parts, id, received).await;
        }
        let id = match &kind {
            Kind::Request(id, _) => Some(id.clone()),
            Kind::Notification(_) | Kind::Answer(_) => None,
        };
        let Some(session) = headers.get(header::SESSION_ID) else {
            return bad_request(id.as_ref(), "the Mcp-Session-Id header is required");
        };
        let Some(session) = self.session(session) else {
            return no_session(id.as_ref());
        };
        match kind {
            Kind::Request(id, method) => {
                self.session_request(&parts, id, method, &session, received)
                    .await
            }
            Kind::Notification(method) => {
                self.notification(&parts, &method, &session, received);
                reply::accepted()
            }
            Kind::Answer(id) => {
                self.client_answer(&parts, id.as_ref(), &session, received);
                reply::accepted()
            }
        }
    }

    fn session(&self, id: &HeaderValue) -> Option<Arc<Session>> {
        self.backend.session(id.to_str().ok()?)
    }

    fn notification(
        &self,
        parts: &Parts<'_>,
        method: &str,
        session: &Arc<Session>,
        received: Received,
    ) {
        match method {
            // The bridge has told the server itself.
            method::INITIALIZED => {}
            method::CANCELLED => {
                let id = parts.param("requestId");
                let id = id.and_then(|id| RequestId::parse(id).ok());
                let Some((worker, number)) = id.and_then(|id| session.call(&id)) else {
                    return;
                };
                let told = worker.table().cancel(number, &received.message, parts);
                if let Some(rope) = told {
                    worker.tell_own(rope);
                }
            }
            _ => {
                if let Some(worker) = &session.worker {
                    let rope = received.message.clone().into();
                    worker.tell(rope, &received.visit.node, received.room);
                }
            }
        }
    }

    fn client_answer(
        &self,
        parts: &Parts<'_>,
        id: Option<&RequestId>,
        session: &Arc<Session>,
        received: Received,
    ) {
        let number = id.and_then(RequestId::as_number);
        let asked = number.and_then(|number| Some((number, session.take_question(number)?)));
        let Some((number, worker)) = asked else {
            debug!("an answer to what was not asked");
            return;
        };
        let message = &received.message;
        let rope = worker.table().answer(number, session, message, parts);
        if let Some(rope) = rope {
            worker.tell(rope, &received.visit.node, received.room);
        }
    }

    /// A session's stream for messages of no call.
    fn get(&self, headers: &HeaderMap, visit: Visit) -> Response<Body> {
        let Some(id) = headers.get(header::SESSION_ID) else {
            return reply::not_allowed("POST");
        };
        let Some(session) = self.session(id) else {
            return no_session(None);
        };
        if session.worker.is_none() {
            return reply::not_allowed("POST, DELETE");
        }
        let outbox = Outbox::new(&visit.node);
        session.listen(&outbox);
        let listening = Listening {
            session,
            outbox: Arc::clone(&outbox),
            _visit: visit,
        };
        reply::events(outbox, None, listening)
    }

    fn delete(&self, headers: &HeaderMap) -> Response<Body> {
        let Some(id) = headers.get(header::SESSION_ID) else {
            return reply::not_allowed("POST");
        };
        let is_closed = id.to_str().is_ok_and(|id| self.backend.close(id));
        match is_closed {
            true => {
                let mut response = reply::accepted();
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            false => no_session(None),
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn era(&self) -> Era {
        match self.era.load(Ordering::Acquire) {
            1 => Era::Modern,
            2 => Era::Legacy,
            _ => Era::Unknown,
        }
    }

    fn set_era(&self, era: Era) {
        self.era.store(era as u8, Ordering::Release);
    }
}

/// Reads a body of at most `limit` bytes.
async fn read<B>(mut body: B, limit: usize, expected: usize) -> Result<Bytes, Response<Body>>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            // Nobody is there to be answered.
            return Err(bad_request(None, "the body ended early"));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(expected.max(first.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The message without line breaks, which the server's input forbids.
fn one_line(message: Bytes) -> Bytes {
    match json::single_line(&message) {
        std::borrow::Cow::Borrowed(_) => message,
        std::borrow::Cow::Owned(line) => line.into(),
    }
}

fn bad_request(id: Option<&RequestId>, why: &str) -> Response<Body> {
    let error = RpcError::invalid_request(why);
    reply::refused(StatusCode::BAD_REQUEST, id, &error)
}

fn no_session(id: Option<&RequestId>) -> Response<Body> {
    let error = RpcError::invalid_request("no such session: it has ended; initialize again");
    reply::refused(StatusCode::NOT_FOUND, id, &error)
}

fn stopping() -> Response<Body> {
    later(Reason::Stopping, SOON, "the bridge is stopping")
}

fn too_large(limit: usize) -> Response<Body> {
    let error = RpcError::invalid_request(format!("the message is larger than {limit} bytes"));
    reply::refused(StatusCode::PAYLOAD_TOO_LARGE, None, &error)
}

fn not_sent(why: &NotSent) -> Response<Body> {
    let (reason, after) = match why {
        NotSent::Down { again, .. } => (Reason::Down, *again),
        NotSent::TooMany => (Reason::Busy, SOON),
        NotSent::Stopping => (Reason::Stopping, SOON),
    };
    later(reason, after, &why.to_string())
}

fn later(reason: Reason, after: Duration, why: &str) -> Response<Body> {
    reply::later(NotTaken { reason, after }, why)
}

#[expect(
    clippy::disallowed_methods,
    reason = "tokens name the wall clock's time; a bridge has no store to ask"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
