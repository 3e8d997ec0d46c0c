//! One connection: HTTP/1.1, HTTP/2 with prior knowledge, or what TLS agrees on.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, response::IntoResponse};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use super::ListenerSettings;
use crate::{http::error::RestError, lifecycle::Tasks};

/// Smallest read buffer hyper accepts.
const MIN_BUFFER: usize = 8 * 1024;

/// Header lines that hyper takes by itself. Told another number, it clears
/// and moves the places for them with every request.
const HYPER_HEADERS: usize = 100;

/// How often an HTTP/2 peer that says nothing is asked whether it is alive,
/// and how long it may take to answer.
const HTTP2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// How long a connection without any request stays open after that: the first
/// may be on its way.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// The address a request came from; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What turns bytes into requests, within the bounds of `settings`.
pub(super) fn server(settings: &ListenerSettings, tasks: Tasks) -> auto::Builder<Streams> {
    // The exact limit is checked on the parsed head, where the answer can name
    // it; hyper's own limits stop what is far beyond.
    let buffer = settings.max_header_bytes.saturating_mul(2).max(MIN_BUFFER);
    let (ping, pong) = HTTP2_PING;
    let mut builder = auto::Builder::new(Streams(tasks));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(buffer);
    if settings.max_headers != HYPER_HEADERS {
        builder.http1().max_headers(settings.max_headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(buffer).unwrap_or(u32::MAX))
        .max_concurrent_streams(settings.max_http2_streams)
        .keep_alive_interval(ping)
        .keep_alive_timeout(pong);
    builder
}

/// Runs the requests of HTTP/2 connections as tasks of the node.
#[derive(Clone)]
pub(super) struct Streams(pub(super) Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn_brief(stream);
    }
}

/// What requests are handed to.
pub trait App:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S> App for S where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// What is known of a connection while requests come. Its own, so that no
/// counter is shared with the other connections.
struct Talk {
    has_begun: AtomicBool,
    draining: Arc<AtomicBool>,
}

/// What a connection is served with.
pub(super) struct Visit<S> {
    pub(super) peer: SocketAddr,
    pub(super) app: S,
    pub(super) server: Arc<auto::Builder<Streams>>,
    pub(super) settings: ListenerSettings,
    /// Whether the connection ends with its next answer.
    pub(super) draining: Arc<AtomicBool>,
    /// Ends it when it is idle.
    pub(super) closing: CancellationToken,
}

/// Serves `stream` until either side ends it.
pub(super) async fn serve<S>(stream: TcpStream, tls: Option<TlsAcceptor>, visit: Visit<S>)
where
    S: App,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::trace!(%error, "a connection is already gone");
        return;
    }
    let deadline = Instant::now() + visit.settings.header_timeout;
    if !has_words(&stream, &visit.closing, deadline).await {
        return;
    }
    let Some(tls) = tls else {
        return speak_http(stream, visit, deadline).await;
    };
    match timeout_at(deadline, tls.accept(stream)).await {
        // Twice as large as a plain one: only connections that need it pay.
        Ok(Ok(stream)) => Box::pin(speak_http(stream, visit, deadline)).await,
        Ok(Err(error)) => tracing::debug!(%error, peer = %visit.peer, "no TLS"),
        Err(_) => tracing::debug!(peer = %visit.peer, "TLS took too long"),
    }
}

async fn speak_http<S, I>(stream: I, visit: Visit<S>, deadline: Instant)
where
    S: App,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Visit {
        peer,
        app,
        server,
        settings,
        draining,
        closing,
    } = visit;
    let talk = Arc::new(Talk {
        has_begun: AtomicBool::new(false),
        draining,
    });
    let heard = Arc::clone(&talk);
    let service = service_fn(move |request: Request<Incoming>| {
        heard.has_begun.store(true, Ordering::Relaxed);
        answer(app.clone(), request, peer, settings, Arc::clone(&heard))
    });
    let serving = server.serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let (mut is_closing, mut is_timed) = (false, false);
    let ended = loop {
        tokio::select! {
            // What has come is read first: shut down before that, hyper would
            // close the connection without an answer.
            biased;
            ended = &mut serving => break ended,
            () = closing.cancelled(), if !is_closing => {
                is_closing = true;
                serving.as_mut().graceful_shutdown();
            }
            // Until the protocol version is known hyper's own timer does not run.
            () = tokio::time::sleep_until(deadline), if !is_timed => {
                is_timed = true;
                if !talk.has_begun.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        // Broken and impolite clients are daily business.
        tracing::debug!(error, %peer, "connection ended");
    }
}

/// Waits for the first bytes; `false` when none came, in time or while there
/// was time. Who has just connected is about to send a request, and is not
/// turned away because the node stops at that moment.
async fn has_words(stream: &TcpStream, closing: &CancellationToken, deadline: Instant) -> bool {
    let mut first = [0];
    let closed = async {
        closing.cancelled().await;
        sleep(FIRST_WORD).await;
    };
    tokio::select! {
        biased;
        // Not `readable`, which may be mistaken.
        peeked = stream.peek(&mut first) => peeked.is_ok_and(|bytes| bytes > 0),
        () = closed => false,
        () = tokio::time::sleep_until(deadline) => false,
    }
}

async fn answer<S>(
    app: S,
    request: Request<Incoming>,
    peer: SocketAddr,
    settings: ListenerSettings,
    talk: Arc<Talk>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    if header_bytes(request.headers()) > settings.max_header_bytes {
        return Ok(too_large(settings.max_header_bytes));
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    let has_version_1 = request.version() <= Version::HTTP_11;
    let mut response = app.oneshot(request).await?;
    if has_version_1 && talk.draining.load(Ordering::Relaxed) {
        // hyper closes the connection after an answer that says so.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response)
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

fn too_large(limit: usize) -> Response<Body> {
    RestError::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "headers_too_large",
        format!("the request's headers are larger than {limit} bytes (limits.headers)"),
    )
    .into_response()
}
