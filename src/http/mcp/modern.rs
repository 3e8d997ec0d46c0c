//! Requests of 2026-07-28 and later: stateless, everything in the envelope.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream as streams;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tracing::Instrument as _;

use super::{
    Incoming, about, fail, listen, refusal,
    route::{self, Routed},
    stream::{self, Held},
};
use crate::{
    cache::CacheStatus,
    http::{
        body::Pieces,
        error::{self, RpcFailure},
        record::Record,
        rest::CACHE_HEADER,
    },
    lists::{Caller, Read, Tool},
    mcp::{
        envelope,
        envelope::{Envelope, TraceContext},
        error::RpcError,
        header as mcp_header,
        json::{self, RawObject},
        message::{self, Answer, Request, RequestId},
        method::{self, ListKind},
        param_header::ParamHeaders,
        sse,
        version::{self, Version},
    },
    relay::{
        Call,
        modern::{Flow, Item},
    },
    telemetry::{
        metrics::{Era, Outcome},
        traces,
    },
};

/// Events a client that reads slowly may be behind.
const BACKLOG: usize = 8;

/// Answers a request. `version` is what its envelope names.
pub(crate) async fn answer(
    incoming: &Incoming,
    request: &Request<'_>,
    version: &str,
) -> Response<Body> {
    let trace = trace(incoming, request);
    let record = Record::begin(incoming, request, Era::Modern, &trace);
    let span = record.span();
    let served = serve(incoming, request, version, trace, record);
    match served.instrument(span).await {
        Ok(response) => response,
        Err(failure) => fail(&request.id, &failure),
    }
}

async fn serve(
    incoming: &Incoming,
    request: &Request<'_>,
    version: &str,
    trace: TraceContext,
    record: Record,
) -> Result<Response<Body>, RpcFailure> {
    let checked = check(incoming, request, version);
    let envelope = match checked {
        Ok(envelope) => envelope,
        Err(refusal) => {
            record.end(Outcome::Refused);
            return Err(refusal);
        }
    };
    let modern = Modern {
        incoming,
        request,
        envelope,
        trace,
    };
    let method = &*request.method;
    if let Some(kind) = method::list_kind(method) {
        return modern.list(kind, record).await;
    }
    match method {
        method::DISCOVER => modern.discover(record).await,
        method::LISTEN => listen::answer(incoming, request, record).await,
        _ => modern.relay(record).await,
    }
}

/// The checks every request has to pass, in the order of the brief.
fn check(
    incoming: &Incoming,
    request: &Request<'_>,
    version: &str,
) -> Result<Envelope, RpcFailure> {
    let bad = |error: RpcError| refusal(StatusCode::BAD_REQUEST, &error);
    let envelope = Envelope::from_params(request.known)
        .and_then(|envelope| {
            envelope.ok_or_else(|| RpcError::invalid_params("the envelope is missing"))
        })
        .map_err(bad)?;
    let name = method::name_param(&request.method).and_then(|param| request.known.get_str(param));
    mcp_header::check_standard_headers(
        &incoming.headers,
        version,
        &request.method,
        name.as_deref(),
    )
    .map_err(bad)?;
    if Version::parse(version).is_none_or(|version| version.era() == version::Era::Legacy) {
        return Err(bad(RpcError::unsupported_version(version)));
    }
    if method::is_removed_in_modern(&request.method) {
        return Err(refusal(
            StatusCode::NOT_FOUND,
            &RpcError::method_not_found(&request.method),
        ));
    }
    if method::name_param(&request.method).is_some() && name.is_none() {
        let param = method::name_param(&request.method).unwrap_or_default();
        return Err(bad(RpcError::invalid_params(format!(
            "params.{param} is missing or not a string"
        ))));
    }
    Ok(envelope)
}

/// One request that passed the checks.
struct Modern<'a> {
    incoming: &'a Incoming,
    request: &'a Request<'a>,
    envelope: Envelope,
    trace: TraceContext,
}

impl Modern<'_> {
    fn caller(&self) -> Caller {
        Caller {
            principal: self.incoming.principal,
            capabilities: self.envelope.capabilities.clone(),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.incoming.gateway.config.cache.list_deadline
    }

    async fn discover(&self, record: Record) -> Result<Response<Body>, RpcFailure> {
        let about = match about::about(self.incoming, &self.caller(), self.deadline()).await {
            Ok(about) => about,
            Err(failed) => {
                record.failed();
                return Err(error::list_failure(&failed, version::Era::Modern));
            }
        };
        let mut result = RawObject::new();
        result.set("resultType", json::raw_str("complete"));
        result.set("supportedVersions", json::raw(version::supported()));
        result.set("capabilities", about.capabilities.for_modern());
        if let Some(instructions) = about.instructions {
            result.set("instructions", instructions);
        }
        set_hints(&mut result, about.ttl, about.public);
        let mut meta = RawObject::new();
        meta.set(envelope::SERVER_INFO, about.server_info);
        result.set("_meta", meta.to_raw());
        record.end(Outcome::Ok);
        Ok(self.cached(&result, about.status))
    }

    async fn list(&self, kind: ListKind, record: Record) -> Result<Response<Body>, RpcFailure> {
        let incoming = self.incoming;
        incoming.gateway.watch(&incoming.target);
        let cursor = cursor(self.request).map_err(|error| refusal(StatusCode::OK, &error))?;
        let lists = &incoming.gateway.lists;
        let caller = self.caller();
        let page = lists
            .page(
                &incoming.target,
                kind,
                &caller,
                cursor.as_deref(),
                self.deadline(),
            )
            .await;
        let page = match page {
            Ok(page) => page,
            Err(failed) => {
                record.failed();
                return Err(error::list_failure(&failed, version::Era::Modern));
            }
        };
        let body = Pieces::of(page.modern_response(&self.request.id));
        record.end(Outcome::Ok);
        Ok(with_status(stream::json(StatusCode::OK, body), page.status))
    }

    fn cached(&self, result: &RawObject<'_>, status: CacheStatus) -> Response<Body> {
        let body = message::response_bytes(&self.request.id, &Answer::Result(result.to_raw()));
        with_status(stream::json(StatusCode::OK, body), status)
    }

    async fn relay(&self, mut record: Record) -> Result<Response<Body>, RpcFailure> {
        let incoming = self.incoming;
        let gateway = &incoming.gateway;
        let caller = self.caller();
        let method = &*self.request.method;
        let routed = route::route(
            gateway,
            &incoming.target,
            &caller,
            method,
            self.request.params,
            self.deadline(),
        )
        .await
        .map_err(|error| refusal(modern_status(error.code), &error))?;
        record.server(&routed.server.id);
        if let Err(limited) = incoming
            .admit(&routed.server, method, routed.params.as_deref())
            .await
        {
            record.end(Outcome::Shed);
            return Err(error::rate_failure(&limited));
        }
        let tool = self.tool(&routed, &caller).await;
        let headers = self.param_headers(tool.as_deref())?;
        if method == method::RESOURCES_READ
            && let Some(read) = self.read_cached(&routed, &caller).await
        {
            record.end(Outcome::Ok);
            let body = message::response_bytes(&self.request.id, &Answer::Result(read.result));
            return Ok(with_status(stream::json(StatusCode::OK, body), read.status));
        }
        self.check_known(&routed).await?;
        let call = Call {
            repeatable: tool.is_some_and(|tool| tool.is_repeatable(&routed.server)),
            server: routed.server,
            method: method.to_owned(),
            params: routed.params,
            principal: incoming.principal,
            capabilities: self.envelope.capabilities.clone(),
            log_level: self.envelope.log_level,
            progress_token: envelope::progress_token(self.request.known),
            trace: traces::outgoing(&self.trace),
            headers,
            session: None,
        };
        self.respond(Flow::begin(&gateway.relay, call), record)
            .await
    }

    /// Extensions pass through between modern peers only: a legacy server does
    /// not know this era's methods, nor would its answer be told apart.
    async fn check_known(&self, routed: &Routed) -> Result<(), RpcFailure> {
        const CORE: [&str; 4] = [
            method::TOOLS_CALL,
            method::PROMPTS_GET,
            method::RESOURCES_READ,
            method::COMPLETE,
        ];
        let method = &*self.request.method;
        if CORE.contains(&method) {
            return Ok(());
        }
        let relay = &self.incoming.gateway.relay;
        let described = relay.describe(&routed.server, self.deadline()).await;
        let described =
            described.map_err(|failed| error::relay_failure(&failed, version::Era::Modern))?;
        if described.version.era() == version::Era::Legacy {
            let error = RpcError::method_not_found(method);
            return Err(refusal(StatusCode::NOT_FOUND, &error));
        }
        Ok(())
    }

    /// A resource the cache may answer: nothing is asked and nobody listens.
    async fn read_cached(&self, routed: &Routed, caller: &Caller) -> Option<Read> {
        let gateway = &self.incoming.gateway;
        let deadline = Instant::now() + routed.server.timeout;
        let params = routed.params.as_deref()?;
        // What the cache cannot answer is asked like any other call, for its error too.
        gateway
            .lists
            .read(&routed.server, caller, params, deadline)
            .await
            .ok()
            .flatten()
    }

    /// The definition of the tool that is called.
    async fn tool(&self, routed: &Routed, caller: &Caller) -> Option<Arc<Tool>> {
        if self.request.method != method::TOOLS_CALL {
            return None;
        }
        let name = routed.name(self.request).unwrap_or_default();
        let lists = &self.incoming.gateway.lists;
        lists
            .tool(&routed.server, caller, &name, self.deadline())
            .await
    }

    /// Checks the headers that repeat arguments and makes those for the server.
    fn param_headers(
        &self,
        tool: Option<&Tool>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, RpcFailure> {
        if self.request.method != method::TOOLS_CALL {
            return Ok(Vec::new());
        }
        let headers = &self.incoming.headers;
        let Some(tool) = tool else {
            return Ok(unknown(&ParamHeaders::default(), headers).collect());
        };
        let arguments = self.request.known.get("arguments");
        tool.param_headers
            .check(headers, arguments)
            .map_err(|error| refusal(StatusCode::BAD_REQUEST, &error))?;
        let mut outgoing = tool.param_headers.headers_for(arguments);
        outgoing.extend(unknown(&tool.param_headers, headers));
        Ok(outgoing)
    }

    /// One JSON body when the answer comes first, a stream when something
    /// precedes it or it takes long.
    async fn respond(&self, mut flow: Flow, record: Record) -> Result<Response<Body>, RpcFailure> {
        let keep_alive = self.incoming.gateway.config.node.keep_alive;
        let first = match tokio::time::timeout(keep_alive, flow.next()).await {
            Ok(Ok(Item::Done(answer))) => return Ok(self.whole(&answer, record)),
            Ok(Ok(first)) => Some(first),
            Ok(Err(failed)) => {
                record.failed();
                return Err(error::relay_failure(&failed, version::Era::Modern));
            }
            Err(_elapsed) => None,
        };
        match self.incoming.gateway.stream_place() {
            Ok(held) => Ok(self.stream(first, flow, record, held)),
            Err(_) => self.without_stream(flow, record).await,
        }
    }

    /// The answer alone, for which this node needs no place among its streams.
    async fn without_stream(
        &self,
        mut flow: Flow,
        record: Record,
    ) -> Result<Response<Body>, RpcFailure> {
        loop {
            match flow.next().await {
                Ok(Item::Message(_)) => {}
                Ok(Item::Done(answer)) => return Ok(self.whole(&answer, record)),
                Err(failed) => {
                    record.failed();
                    return Err(error::relay_failure(&failed, version::Era::Modern));
                }
            }
        }
    }

    /// The answer as one JSON body.
    fn whole(&self, answer: &Answer, record: Record) -> Response<Body> {
        record.answered(answer);
        let status = match answer.error_code() {
            Some(code) => modern_status(code),
            None => StatusCode::OK,
        };
        stream::json(status, message::response_bytes(&self.request.id, answer))
    }

    /// The flow is carried by a task of its own: a client that does not read
    /// must not keep the call from ending.
    fn stream(
        &self,
        first: Option<Item>,
        flow: Flow,
        record: Record,
        held: Held,
    ) -> Response<Body> {
        let gateway = &self.incoming.gateway;
        let (frames, received) = mpsc::channel(BACKLOG);
        let (client, ending) = (frames.clone(), gateway.tasks.ending().clone());
        let sending = Sending {
            id: self.request.id.clone(),
            flow,
            frames,
        };
        gateway.tasks.spawn_brief(async move {
            tokio::select! {
                () = ending.cancelled() => {}
                // Dropping the flow cancels the call.
                () = client.closed() => {}
                () = sending.run(first, record) => {}
            }
        });
        let frames = streams::unfold(received, |mut received| async {
            let frame = received.recv().await?;
            Some((frame, received))
        });
        stream::event_stream(Box::pin(frames), gateway.config.node.keep_alive, held)
    }
}

/// What sends the items of a flow to a stream.
struct Sending {
    id: RequestId,
    flow: Flow,
    frames: mpsc::Sender<Bytes>,
}

impl Sending {
    async fn run(mut self, first: Option<Item>, record: Record) {
        let mut next = first.map(Ok);
        loop {
            let item = match next.take() {
                Some(first) => first,
                None => self.flow.next().await,
            };
            let answer = match item {
                Ok(Item::Message(message)) => {
                    if !self.send(&message).await {
                        return;
                    }
                    continue;
                }
                Ok(Item::Done(answer)) => {
                    record.answered(&answer);
                    answer
                }
                Err(failed) => {
                    record.failed();
                    error::relay_failure(&failed, version::Era::Modern).answer
                }
            };
            let response = message::response_bytes(&self.id, &answer);
            self.send(&response).await;
            return;
        }
    }

    /// `false` when the client has left or does not read.
    async fn send(&mut self, message: &[u8]) -> bool {
        let frame = sse::event(None, None, message);
        let sent = timeout_at(self.flow.gives_up(), self.frames.send(frame));
        matches!(sent.await, Ok(Ok(())))
    }
}

/// Headers of parameters that the tool does not know: forwarded untouched.
fn unknown<'h>(
    known: &'h ParamHeaders,
    headers: &'h HeaderMap,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'h {
    known
        .unknown(headers)
        .map(|(name, value)| (name.clone(), value.clone()))
}

fn modern_status(code: i64) -> StatusCode {
    error::rpc_status(version::Era::Modern, code)
}

fn with_status(mut response: Response<Body>, status: CacheStatus) -> Response<Body> {
    response
        .headers_mut()
        .insert(CACHE_HEADER, HeaderValue::from_static(status.as_str()));
    response
}

fn set_hints(result: &mut RawObject<'_>, ttl: std::time::Duration, public: bool) {
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    result.set("ttlMs", json::raw(&ttl_ms));
    result.set(
        "cacheScope",
        json::raw_str(if public { "public" } else { "private" }),
    );
}

/// The cursor of a list request; an empty one is the first page.
pub(crate) fn cursor(request: &Request<'_>) -> Result<Option<String>, RpcError> {
    match request.known.get("cursor") {
        None => Ok(None),
        Some(cursor) => match json::as_str(cursor) {
            Some(cursor) => Ok(Some(cursor.into_owned()).filter(|cursor| !cursor.is_empty())),
            None => Err(RpcError::invalid_params("cursor has to be a string")),
        },
    }
}

/// The client's trace: `_meta` first, then the header.
pub(crate) fn trace(incoming: &Incoming, request: &Request<'_>) -> TraceContext {
    let trace = envelope::trace_context(request.known);
    if trace.traceparent.is_some() {
        trace
    } else {
        TraceContext::from_headers(&incoming.headers)
    }
}
