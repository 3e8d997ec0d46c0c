//! The pooled HTTP client: connections, requests with our headers, bodies.
//!
//! One client serves all replicas; it keeps idle connections per host and
//! speaks HTTP/1.1 or, where TLS negotiates it, HTTP/2. Nothing of a client's
//! request is copied here: headers are made anew, so that credentials and
//! cookies cannot reach an upstream.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
    },
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::time::{Instant, timeout, timeout_at};
use tower::Service;
use url::Url;

use super::{
    Settings, UpstreamError,
    local::{self, Locals, Stream},
};
use crate::{
    bridge::{
        not_taken::{NotTaken, Reason},
        signer::Signature,
    },
    engine::BRIDGE_PORT,
};

/// Longest piece of a non-JSON error body that is kept for people.
const ERROR_TEXT: usize = 300;
/// Error bodies beyond this are not read.
const ERROR_BODY: usize = 64 * 1024;

/// A bridge is on this machine's networks or not there: a container that comes
/// back has another address, and whoever dials the last one waits for nothing.
const NEAR: Duration = Duration::from_millis(500);

/// A machine that vanishes says nothing: after ten seconds of silence its kernel
/// is asked, and after three questions without an answer, 25 s in all, what
/// waits for it has failed. A server that takes long is not asked itself.
const SILENCE: Duration = Duration::from_secs(10);
const ASKED_AGAIN: Duration = Duration::from_secs(5);
const ASKED_TIMES: u32 = 3;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("mcp-fleet/", env!("CARGO_PKG_VERSION")));

/// Where requests to a replica go, what the operator has sent with each, and
/// how the node proves itself where that is a bridge.
#[derive(Clone)]
pub(super) struct Target {
    uri: Uri,
    headers: Arc<[(HeaderName, HeaderValue)]>,
    signature: Option<Arc<Signature>>,
    /// Where the server has redirected us to, e.g. from `/mcp` to `/mcp/`.
    moved: Arc<ArcSwapOption<Uri>>,
}

impl Target {
    pub(super) fn new(uri: Uri, headers: &[(HeaderName, HeaderValue)]) -> Self {
        Self {
            uri,
            headers: headers.into(),
            signature: None,
            moved: Arc::default(),
        }
    }

    /// The same target, a bridge that wants to see who asks.
    pub(super) fn signed(mut self, signature: Option<Signature>) -> Self {
        self.signature = signature.map(Arc::new);
        self
    }

    /// Another address of the same origin.
    pub(super) fn at(&self, uri: Uri) -> Self {
        Self {
            uri,
            headers: Arc::clone(&self.headers),
            signature: self.signature.clone(),
            moved: Arc::default(),
        }
    }

    /// Whether a bridge is there: one process behind many connections.
    pub(super) fn is_bridge(&self) -> bool {
        self.signature.is_some() || local::is_local(&self.uri)
    }

    /// A request that the bridge there did not give to its server. One in this
    /// process has no replica beside it: what it says is final.
    fn not_taken(&self, not_taken: NotTaken, why: String) -> UpstreamError {
        if !local::is_local(&self.uri) {
            return UpstreamError::NotTaken(not_taken, why.into());
        }
        match not_taken.reason {
            Reason::Busy => UpstreamError::Busy("the server has as many sessions as it may"),
            Reason::Stopping => UpstreamError::Busy("the server is being stopped"),
            Reason::Down => UpstreamError::SpawnFailed(why.into()),
        }
    }

    /// The address as configured.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    fn current(&self) -> Uri {
        match &*self.moved.load() {
            Some(moved) => Uri::clone(moved),
            None => self.uri.clone(),
        }
    }

    /// Follows a redirect; `false` when there is none that may be followed.
    fn follow(&self, response: &Response<Incoming>) -> bool {
        let keeps_the_method = matches!(
            response.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let to = response.headers().get(LOCATION);
        let to = to
            .and_then(|to| to.to_str().ok())
            .filter(|_| keeps_the_method);
        match to.and_then(|to| same_origin(&self.current(), to)) {
            Some(uri) => {
                self.moved.store(Some(Arc::new(uri)));
                true
            }
            None => false,
        }
    }
}

/// Resolves a reference of a server to itself; `None` when it names another
/// origin, which could be anything inside our network.
pub(super) fn same_origin(base: &Uri, reference: &str) -> Option<Uri> {
    let base = Url::parse(&base.to_string()).ok()?;
    let target = base.join(reference.trim()).ok()?;
    (target.origin() == base.origin()).then(|| target.as_str().parse().ok())?
}

impl fmt::Debug for Target {
    /// Without the headers: they may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.current())
    }
}

/// The client shared by all HTTP replicas of a node.
#[derive(Debug, Clone)]
pub(super) struct HttpClient {
    client: Client<Dial, Full<Bytes>>,
}

impl HttpClient {
    pub(super) fn new(settings: &Settings, locals: Locals) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_keepalive(Some(SILENCE));
        tcp.set_keepalive_interval(Some(ASKED_AGAIN));
        tcp.set_keepalive_retries(Some(ASKED_TIMES));
        let tls = HttpsConnectorBuilder::new()
            .with_tls_config((*settings.tls).clone())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let dial = Dial {
            inner: tls,
            locals,
            limit: settings.connect_timeout,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(settings.pool_idle)
            .pool_max_idle_per_host(settings.max_idle_per_host)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .build(dial);
        Self { client }
    }

    /// Sends a request and waits for the response's headers.
    ///
    /// Dropping the future closes the connection (HTTP/1.1) or resets the stream (HTTP/2).
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, UpstreamError> {
        match timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(from_client(error)),
            Err(_) => Err(UpstreamError::TimedOut { sent: true }),
        }
    }

    /// POSTs a message; `headers` makes those of the protocol version and
    /// session, again where the request has to be sent again.
    pub(super) async fn post(
        &self,
        target: &Target,
        headers: impl Fn() -> HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let new = || {
            let mut request = new_request(Method::POST, target, headers(), body.clone());
            request.headers_mut().insert(CONTENT_TYPE, JSON);
            request.headers_mut().insert(ACCEPT, BOTH);
            request
        };
        let response = self.send(new(), deadline).await?;
        if target.is_bridge()
            && response.status() == StatusCode::SERVICE_UNAVAILABLE
            && let Some(not_taken) = NotTaken::of(response.headers())
        {
            let body = collect(response.into_body(), ERROR_BODY, deadline).await;
            let why = readable(&body.unwrap_or_default());
            return Err(target.not_taken(not_taken, why));
        }
        if target.follow(&response) {
            return self.send(new(), deadline).await;
        }
        Ok(response)
    }

    /// GETs an event stream.
    pub(super) async fn get_stream(
        &self,
        target: &Target,
        headers: HeaderMap,
        deadline: Instant,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let new = || {
            let mut request = new_request(Method::GET, target, headers.clone(), Bytes::new());
            request.headers_mut().insert(ACCEPT, EVENT_STREAM);
            request
        };
        let response = self.send(new(), deadline).await?;
        if target.follow(&response) {
            return self.send(new(), deadline).await;
        }
        Ok(response)
    }

    /// DELETEs a session and reads the answer away.
    pub(super) async fn delete(
        &self,
        target: &Target,
        headers: HeaderMap,
        deadline: Instant,
    ) -> Result<StatusCode, UpstreamError> {
        let request = new_request(Method::DELETE, target, headers, Bytes::new());
        let response = self.send(request, deadline).await?;
        let status = response.status();
        discard(response.into_body(), deadline).await;
        Ok(status)
    }
}

fn new_request(
    method: Method,
    target: &Target,
    headers: HeaderMap,
    body: Bytes,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target.current();
    *request.headers_mut() = headers;
    request.headers_mut().insert(USER_AGENT, AGENT);
    for (name, value) in &*target.headers {
        // What the protocol says about this request stands.
        request.headers_mut().entry(name).or_insert(value.clone());
    }
    if let Some(signature) = &target.signature {
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, signature.header());
    }
    request
}

/// What a response's body is, by its `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    EventStream,
    Other,
}

impl Media {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
        let essence = value.split(|b| *b == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Self::Json
        } else if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Self::EventStream
        } else {
            Self::Other
        }
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn collect(
    mut body: Incoming,
    limit: usize,
    deadline: Instant,
) -> Result<Bytes, UpstreamError> {
    let mut first: Option<Bytes> = None;
    let mut more: Option<BytesMut> = None;
    let mut length = 0;
    while let Some(chunk) = next_chunk(&mut body, Some(deadline)).await? {
        length += chunk.len();
        if length > limit {
            return Err(UpstreamError::TooLarge { limit });
        }
        // Most answers are one chunk, which then needs no copy.
        match (&mut more, first.take()) {
            (Some(all), _) => all.extend_from_slice(&chunk),
            (None, Some(start)) => {
                let mut all = BytesMut::with_capacity((start.len() + chunk.len()) * 2);
                all.extend_from_slice(&start);
                all.extend_from_slice(&chunk);
                more = Some(all);
            }
            (None, None) => first = Some(chunk),
        }
    }
    Ok(match more {
        Some(all) => all.freeze(),
        None => first.unwrap_or_default(),
    })
}

/// The next data of a body, `None` at its end. Cancel safe.
pub(super) async fn next_chunk(
    body: &mut Incoming,
    deadline: Option<Instant>,
) -> Result<Option<Bytes>, UpstreamError> {
    loop {
        let frame = match deadline {
            Some(deadline) => timeout_at(deadline, body.frame())
                .await
                .map_err(|_| UpstreamError::TimedOut { sent: true })?,
            None => body.frame().await,
        };
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => {
                return Err(UpstreamError::Closed {
                    before_headers: false,
                    cause: Some(Arc::new(error)),
                });
            }
        }
    }
}

/// Reads what little is left of a body, so that its connection can be used again.
pub(super) async fn discard(mut body: Incoming, deadline: Instant) {
    let mut left = ERROR_BODY;
    while let Ok(Some(chunk)) = next_chunk(&mut body, Some(deadline)).await {
        let Some(rest) = left.checked_sub(chunk.len()) else {
            return;
        };
        left = rest;
    }
}

/// What an unsuccessful response says: its body when it is JSON, else an error.
pub(super) async fn failure(
    response: Response<Incoming>,
    deadline: Instant,
) -> (UpstreamError, Option<Bytes>) {
    let (parts, body) = response.into_parts();
    let body = collect(body, ERROR_BODY, deadline)
        .await
        .unwrap_or_default();
    let looks_like_json = body.trim_ascii_start().starts_with(b"{");
    let error = UpstreamError::Http {
        status: parts.status,
        text: readable(&body).into(),
        www_authenticate: parts.headers.get(WWW_AUTHENTICATE).cloned().map(Box::new),
        retry_after: parts.headers.get(RETRY_AFTER).cloned().map(Box::new),
    };
    (error, looks_like_json.then_some(body))
}

/// The first line of a text, without control characters.
fn readable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(ERROR_TEXT)]);
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).collect()
}

fn from_client(error: legacy::Error) -> UpstreamError {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    let mut never_sent = error.is_connect();
    while let Some(inner) = cause {
        if let Some(hyper) = inner.downcast_ref::<hyper::Error>() {
            // The pooled connection ended before it took the request.
            never_sent |= hyper.is_canceled();
        }
        cause = inner.source();
    }
    if never_sent {
        UpstreamError::ConnectFailed(Arc::new(error))
    } else {
        UpstreamError::Closed {
            before_headers: true,
            cause: Some(Arc::new(error)),
        }
    }
}

/// Dials with a limit on the whole way: name, TCP and TLS.
#[derive(Debug, Clone)]
struct Dial {
    inner: HttpsConnector<HttpConnector>,
    locals: Locals,
    limit: Duration,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if local::is_local(&uri) {
            let connected = self.locals.connect(&uri);
            let connected = connected.map(|stream| Stream::Memory(TokioIo::new(stream)));
            return Box::pin(std::future::ready(connected.map_err(Into::into)));
        }
        let limit = match uri.port_u16() {
            Some(BRIDGE_PORT) => self.limit.min(NEAR),
            Some(_) | None => self.limit,
        };
        let dialling = self.inner.call(uri);
        Box::pin(async move {
            match timeout(limit, dialling).await {
                Ok(connected) => connected.map(Stream::Network),
                Err(_) => Err(format!("no connection within {limit:?}").into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_read_without_parameters_and_case() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            Media::of(&headers)
        };
        assert_eq!(of("application/json"), Media::Json);
        assert_eq!(of("Application/JSON; charset=utf-8"), Media::Json);
        assert_eq!(of("text/event-stream;charset=utf-8"), Media::EventStream);
        assert_eq!(of("text/plain"), Media::Other);
        assert_eq!(Media::of(&HeaderMap::new()), Media::Other);
    }

    #[test]
    fn error_texts_are_one_short_clean_line() {
        assert_eq!(readable(b"  bad\x07 thing\nmore"), "bad thing");
        assert_eq!(readable(&[b'x'; 1000]).len(), ERROR_TEXT);
    }
}
