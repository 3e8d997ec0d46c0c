//! Sending one request: over modern HTTP, or on a session.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::Incoming as Body;
use tokio::time::Instant;

use super::{
    Exchange, Outgoing, Shared, UpstreamError,
    client::{Media, Target, collect, failure},
    exchange::{Logs, Parts, Source, one_line},
    incoming::{Incoming, read_answer},
    link::is_session_loss,
    peer::Peer,
    resume::{EventStream, OnEnd, Origin},
    router::{Interest, Owner},
    session::{Lease, can_be_asked},
};
use crate::mcp::{
    Raw,
    capabilities::ClientCapabilities,
    envelope::{self, OutgoingMeta, TraceContext},
    error::{
        HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, UNSUPPORTED_VERSION,
    },
    header,
    json::RawObject,
    message::{self, Answer, RequestId},
    method,
    version::{Era, Version},
};

/// What is added to the parameters of a modern request, usually.
const ENVELOPE: usize = 512;

/// Why a request did not start.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is nothing more to try here.
    Error(UpstreamError),
    /// The session is unknown at the other side; the request did not run. If
    /// a new session changes nothing, this is the answer.
    SessionLost(Option<Answer>),
    /// The replica seems to speak another version than assumed; the request
    /// did not run. If it does speak that version, this is the outcome.
    Doubted(Box<Result<Answer, UpstreamError>>),
}

impl Failure {
    /// The error, for callers who do not try again.
    pub(super) fn into_error(self) -> UpstreamError {
        match self {
            Self::Error(error) => error,
            Self::SessionLost(_) => UpstreamError::SessionLost,
            Self::Doubted(outcome) => match *outcome {
                Err(error) => error,
                Ok(answer) => UpstreamError::Refused {
                    status: None,
                    answer,
                },
            },
        }
    }
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self::Error(error)
    }
}

/// What the beginning of a response told.
pub(super) enum Begun {
    /// The answer, and what came before it.
    Answered(VecDeque<Incoming>, Answer),
    /// An event stream that will bring the answer.
    Streaming(Response<Body>),
}

/// Sends a request to a modern HTTP replica.
pub(super) async fn over_modern_http(
    peer: &Peer,
    shared: &Arc<Shared>,
    target: &Target,
    version: Version,
    request: &Outgoing<'_>,
    deadline: Instant,
) -> Result<Exchange, Failure> {
    let id = shared.next_id();
    let params = members(request);
    let name = method::name_param(request.method).and_then(|name| params.get_str(name));
    let name = name.map(Cow::into_owned);
    let body = modern_body(shared, version, &id, request, params);
    let headers = || {
        let mut headers = HeaderMap::with_capacity(12);
        header::standard_headers(&mut headers, version, request.method, name.as_deref());
        for (name, value) in &request.headers {
            headers.insert(name, value.clone());
        }
        trace_headers(&mut headers, &request.trace);
        headers
    };
    let mut exchange = Exchange::new(Parts {
        shared: Arc::clone(shared),
        server: peer.server.clone(),
        version,
        id,
        token: request.progress_token.clone(),
        logs: Logs::All,
        deadline: Some(deadline),
        lease: None,
        changes: peer.changes.clone(),
    });
    let response = shared.http.post(target, headers, body, deadline).await?;
    let limit = shared.settings.max_message_bytes;
    match begin_modern(response, exchange.id(), limit, deadline).await? {
        Begun::Answered(before, answer) => exchange.set_answer(before, answer),
        Begun::Streaming(response) => {
            let origin = Origin {
                http: shared.http.clone(),
                target: target.clone(),
                headers: HeaderMap::new(),
                max_message_bytes: limit,
            };
            let stream = EventStream::new(response.into_body(), origin, OnEnd::Fail);
            exchange.set_source(Source::Post(Box::new(stream), None));
        }
    }
    Ok(exchange)
}

/// Sends a request on a session.
pub(super) async fn on_session(
    peer: &Peer,
    shared: &Arc<Shared>,
    lease: Lease,
    request: &Outgoing<'_>,
    deadline: Instant,
) -> Result<Exchange, Failure> {
    let session = Arc::clone(&lease.session);
    let id = shared.next_id();
    let version = session.terms.version;
    let of_pool = session.terms.owner == Owner::Pool;
    let modern = version.era() == Era::Modern;
    let body = if modern {
        modern_body(shared, version, &id, request, members(request))
    } else {
        legacy_body(&id, request)
    };
    let logs = match request.log_level {
        _ if modern || !of_pool => Logs::All,
        Some(level) => Logs::From(level),
        None => Logs::Nothing,
    };
    let interest = Interest {
        questions: can_be_asked(&session.terms.capabilities)
            && (!of_pool || method::allows_input_required(request.method)),
        logs: !matches!(logs, Logs::Nothing),
    };
    let mut exchange = Exchange::new(Parts {
        shared: Arc::clone(shared),
        server: peer.server.clone(),
        version,
        id: id.clone(),
        token: request.progress_token.clone(),
        logs,
        deadline: Some(deadline),
        lease: Some(lease),
        changes: peer.changes.clone(),
    });
    let Some(origin) = session.link.origin(shared) else {
        let registration = session.link.router.register(&id, interest)?;
        exchange.set_source(Source::Shared(registration));
        exchange.set_running(true);
        let sent = session.link.send(shared, one_line(body), deadline).await;
        if let Err(error) = sent {
            exchange.set_running(false);
            return Err(Failure::Error(match error {
                // What a stream's server refuses with a status did not run.
                UpstreamError::Http { status, .. } if status == StatusCode::NOT_FOUND => {
                    return Err(Failure::SessionLost(None));
                }
                other => other,
            }));
        }
        return Ok(exchange);
    };
    let wants_more = interest.questions || interest.logs || request.progress_token.is_some();
    let side = match wants_more && session.link.reads_standalone() {
        true => session.link.router.register(&id, interest).ok(),
        false => None,
    };
    let headers = || {
        let mut headers = origin.headers.clone();
        trace_headers(&mut headers, &request.trace);
        headers
    };
    exchange.set_running(true);
    let response = match shared
        .http
        .post(&origin.target, headers, body, deadline)
        .await
    {
        Ok(response) => response,
        Err(error) => {
            exchange.set_running(matches!(error, UpstreamError::TimedOut { .. }));
            return Err(error.into());
        }
    };
    let limit = origin.max_message_bytes;
    let begun = begin_legacy(response, &id, session.link.has_id(), limit, deadline).await;
    match begun {
        Ok(Begun::Answered(before, answer)) => exchange.set_answer(before, answer),
        Ok(Begun::Streaming(response)) => {
            let stream = EventStream::new(response.into_body(), origin, OnEnd::Resume);
            exchange.set_source(Source::Post(Box::new(stream), side));
        }
        Err(failure) => {
            let timed_out = matches!(&failure, Failure::Error(UpstreamError::TimedOut { .. }));
            exchange.set_running(timed_out);
            return Err(failure);
        }
    }
    Ok(exchange)
}

/// A request of our own on a session; nothing but its answer counts.
pub(super) async fn simple_request(
    peer: &Peer,
    shared: &Arc<Shared>,
    lease: Lease,
    method: &str,
    params: &Raw,
    deadline: Instant,
) -> Result<Answer, Failure> {
    let request = Outgoing {
        method,
        params: Some(params),
        capabilities: &ClientCapabilities::none(),
        log_level: None,
        progress_token: None,
        trace: TraceContext::default(),
        headers: Vec::new(),
    };
    let exchange = on_session(peer, shared, lease, &request, deadline).await?;
    Ok(exchange.answer_only().await?)
}

/// Reads the beginning of a modern replica's response.
async fn begin_modern(
    response: Response<Body>,
    id: &RequestId,
    limit: usize,
    deadline: Instant,
) -> Result<Begun, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(begin(response, id, limit, deadline).await?);
    }
    let (error, body) = failure(response, deadline).await;
    let answer = rpc_error(status, body.as_ref(), id);
    // -32600 and the range of implementations is how legacy servers refuse what they do not know.
    let legacy_words = |code| code == INVALID_REQUEST || (-32019..=-32000).contains(&code);
    let doubted = match answer.as_ref().map(Answer::error_code) {
        Some(Some(HEADER_MISMATCH | UNSUPPORTED_VERSION)) => {
            let answer = answer.unwrap_or_else(|| Answer::Error(crate::mcp::json::raw(&())));
            let status = Some(status);
            let refused = UpstreamError::Refused { status, answer };
            return Err(Failure::Doubted(Box::new(Err(refused))));
        }
        Some(Some(code)) => status.is_client_error() && legacy_words(code),
        Some(None) => false,
        None => matches!(status.as_u16(), 400 | 404 | 405 | 406 | 415 | 422),
    };
    let outcome = answer.ok_or(error);
    if doubted {
        return Err(Failure::Doubted(Box::new(outcome)));
    }
    Ok(Begun::Answered(VecDeque::new(), outcome?))
}

/// Reads the beginning of a legacy replica's response.
async fn begin_legacy(
    response: Response<Body>,
    id: &RequestId,
    has_session: bool,
    limit: usize,
    deadline: Instant,
) -> Result<Begun, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(begin(response, id, limit, deadline).await?);
    }
    let (error, body) = failure(response, deadline).await;
    let answer = rpc_error(status, body.as_ref(), id);
    let code = answer.as_ref().and_then(Answer::error_code);
    if let Some(HEADER_MISMATCH | UNSUPPORTED_VERSION) = code
        && let Some(answer) = answer
    {
        let status = Some(status);
        let refused = UpstreamError::Refused { status, answer };
        return Err(Failure::Doubted(Box::new(Err(refused))));
    }
    if has_session && is_session_loss(status, &error, body.as_ref(), Some(id)) {
        let said = answer.filter(|_| code == Some(METHOD_NOT_FOUND));
        return Err(Failure::SessionLost(said));
    }
    // How a modern server says that the envelope is missing; legacy ones
    // answer bad parameters with 200.
    if status == StatusCode::BAD_REQUEST
        && code == Some(INVALID_PARAMS)
        && let Some(answer) = answer
    {
        return Err(Failure::Doubted(Box::new(Ok(answer))));
    }
    match answer {
        Some(answer) => Ok(Begun::Answered(VecDeque::new(), answer)),
        None => Err(Failure::Error(error)),
    }
}

/// Reads the beginning of a successful response.
pub(super) async fn begin(
    response: Response<Body>,
    id: &RequestId,
    limit: usize,
    deadline: Instant,
) -> Result<Begun, UpstreamError> {
    match Media::of(response.headers()) {
        Media::EventStream => Ok(Begun::Streaming(response)),
        Media::Json => {
            let body = collect(response.into_body(), limit, deadline).await?;
            let mut before = VecDeque::new();
            let answer = read_answer(&body, id, &mut before)?;
            Ok(Begun::Answered(before, answer))
        }
        Media::Other => Err(UpstreamError::Malformed(format!(
            "status {} without JSON or an event stream",
            response.status()
        ))),
    }
}

/// The JSON-RPC error in an error body. 401 and 403 are about our credentials
/// whatever their body says.
pub(super) fn rpc_error(
    status: StatusCode,
    body: Option<&Bytes>,
    id: &RequestId,
) -> Option<Answer> {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return None;
    }
    read_answer(body?, id, &mut VecDeque::new())
        .ok()
        .filter(Answer::is_error)
}

fn modern_body(
    shared: &Shared,
    version: Version,
    id: &RequestId,
    request: &Outgoing<'_>,
    params: RawObject<'_>,
) -> Bytes {
    let meta = OutgoingMeta {
        version,
        capabilities: request.capabilities,
        client_info: &shared.settings.client_info,
        log_level: request.log_level,
        progress_token: request.progress_token.as_ref().map(|_| id),
        trace: &request.trace,
    };
    let length = request.params.map_or(0, |params| params.get().len());
    let mut body = Vec::with_capacity(length + ENVELOPE);
    message::write_request_with(&mut body, id, request.method, |body| {
        envelope::write_modern_params(body, params, &meta);
    });
    body.into()
}

fn legacy_body(id: &RequestId, request: &Outgoing<'_>) -> Bytes {
    let token = request.progress_token.as_ref().map(|_| id);
    let params = envelope::with_legacy_meta(request.params, token, &request.trace);
    body(id, request.method, params.as_deref())
}

/// The bytes of a request.
pub(super) fn body(id: &RequestId, method: &str, params: Option<&Raw>) -> Bytes {
    let length = params.map_or(0, |params| params.get().len());
    let mut body = Vec::with_capacity(length + method.len() + 80);
    message::write_request(&mut body, id, method, params);
    body.into()
}

fn members<'r>(request: &Outgoing<'r>) -> RawObject<'r> {
    let params = request
        .params
        .and_then(|params| RawObject::parse(params).ok());
    params.unwrap_or_default()
}

fn trace_headers(headers: &mut HeaderMap, trace: &TraceContext) {
    let pairs = [
        ("traceparent", &trace.traceparent),
        ("tracestate", &trace.tracestate),
    ];
    for (name, value) in pairs {
        if let Some(value) = value
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
}
