//! Accepts connections and serves HTTP/1.1 and HTTP/2 (with prior knowledge, or
//! as TLS agrees) on them, within bounds, until the node stops; then lets requests in flight
//! finish.
//!
//! Not for routing or for what requests mean: it hands each to a tower service.

use std::{
    convert::Infallible,
    future::Future,
    io,
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
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt as _};

use crate::{
    http::error::RestError,
    lifecycle::Tasks,
    telemetry::metrics::{Gauge, Metrics},
};

/// Smallest read buffer hyper accepts.
const MIN_BUFFER: usize = 8 * 1024;

/// Header lines that hyper takes by itself. Told another number, it clears
/// and moves the places for them with every request.
const HYPER_HEADERS: usize = 100;

/// How often an HTTP/2 peer that says nothing is asked whether it is alive,
/// and how long it may take to answer.
const HTTP2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// How long idle connections stay open when the node stops, unless half the
/// drain time is shorter: closed at once, they would meet requests that are on
/// their way, and a load balancer must not repeat a call that it has sent. By
/// then it has asked whether the node is ready.
const LINGER: Duration = Duration::from_secs(2);

/// How long a connection without any request stays open after that: the first
/// may be on its way.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// What one connection may cost.
#[derive(Debug, Clone, Copy)]
pub struct ListenerSettings {
    /// Connections held at once; more wait in the operating system's queue.
    pub max_connections: usize,
    /// Bytes of all header names and values of a request; more is 431.
    pub max_header_bytes: usize,
    /// Header lines of a request; more is 431.
    pub max_headers: usize,
    /// How long a client may take to send a request's head. A connection that
    /// is idle for that long is closed.
    pub header_timeout: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub max_http2_streams: u32,
    /// How long requests in flight may take when the node stops.
    pub drain: Duration,
}

/// The address a request came from; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Binds `address`, ready to accept.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `app` on `listener` until the node stops. Then every HTTP/1.1
/// connection ends with the answer it is told next, those that stay idle are
/// closed after [`LINGER`], and the others are waited for, all of it for at most
/// [`ListenerSettings::drain`]. Meanwhile it still accepts: load balancers have
/// to be told that the node drains, and what they send before they know is served.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: S,
    settings: ListenerSettings,
    tasks: Tasks,
    metrics: Arc<Metrics>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let stopping = tasks.stopping().clone();
    let mut door = Door {
        server: Arc::new(server(&settings, tasks)),
        tls,
        app,
        settings,
        metrics,
        draining: Arc::default(),
        connections: JoinSet::new(),
    };
    let begun = Group::default();
    tokio::select! {
        () = stopping.cancelled() => {}
        () = door.admit(&listener, &begun) => {}
    }
    door.draining.store(true, Ordering::Relaxed);
    let end = Instant::now() + settings.drain;
    let late = Group::default();
    tokio::select! {
        () = begun.shutdown(LINGER.min(settings.drain / 2)) => {}
        () = tokio::time::sleep_until(end) => {}
        () = door.admit(&listener, &late) => {}
    }
    let connections = door.close(listener, &late);
    // Dropping the set afterwards ends connections that did not finish.
    if tokio::time::timeout_at(end, late.shutdown(Duration::ZERO))
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "connections were cut at the end of the drain time"
        );
    }
}

/// Connections that are shut down together.
#[derive(Default)]
struct Group {
    closing: CancellationToken,
    open: TaskTracker,
}

impl Group {
    /// Lets connections end by themselves for `linger`, then closes idle ones,
    /// lets requests in work finish, and waits for that.
    async fn shutdown(&self, linger: Duration) {
        self.open.close();
        if timeout(linger, self.open.wait()).await.is_err() {
            self.closing.cancel();
            self.open.wait().await;
        }
    }
}

/// Where connections come in, and those that did.
struct Door<S> {
    tls: Option<TlsAcceptor>,
    app: S,
    settings: ListenerSettings,
    server: Arc<auto::Builder<Streams>>,
    metrics: Arc<Metrics>,
    /// Whether connections end with their next answer.
    draining: Arc<AtomicBool>,
    connections: JoinSet<()>,
}

impl<S> Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    /// Accepts and serves until dropped.
    async fn admit(&mut self, listener: &TcpListener, group: &Group) {
        loop {
            let has_room = self.connections.len() < self.settings.max_connections;
            let (stream, peer) = tokio::select! {
                Some(_) = self.connections.join_next(), if !self.connections.is_empty() => continue,
                accepted = accept(listener), if has_room => accepted,
            };
            self.serve(stream, peer, group);
        }
    }

    /// Admits whoever is in the operating system's queue, which would be reset
    /// with it, and closes.
    fn close(mut self, listener: TcpListener, group: &Group) -> JoinSet<()> {
        // The runtime may not have heard of them yet: the system is asked.
        if let Ok(listener) = listener.into_std() {
            while self.connections.len() < self.settings.max_connections
                && let Ok((stream, peer)) = listener.accept()
            {
                let stream = stream.set_nonblocking(true).map(|()| stream);
                if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                    self.serve(stream, peer, group);
                }
            }
        }
        self.connections
    }

    fn serve(&mut self, stream: TcpStream, peer: SocketAddr, group: &Group) {
        let counted = self.metrics.count(Gauge::Connections);
        let serving = connection(
            stream,
            self.tls.clone(),
            Visit {
                peer,
                app: self.app.clone(),
                server: Arc::clone(&self.server),
                settings: self.settings,
                draining: Arc::clone(&self.draining),
                // One of its own: waiting for it is no business of the other connections.
                closing: group.closing.child_token(),
            },
        );
        let open = group.open.token();
        self.connections.spawn(async move {
            serving.await;
            drop((counted, open));
        });
    }
}

/// The next connection. Errors of one connection are skipped; when the process
/// is out of descriptors it waits instead of spinning.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn server(settings: &ListenerSettings, tasks: Tasks) -> auto::Builder<Streams> {
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
struct Streams(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn_brief(stream);
    }
}

/// What is known of a connection while requests come. Its own, so that no
/// counter is shared with the other connections.
struct Talk {
    has_begun: AtomicBool,
    draining: Arc<AtomicBool>,
}

/// What a connection is served with.
struct Visit<S> {
    peer: SocketAddr,
    app: S,
    server: Arc<auto::Builder<Streams>>,
    settings: ListenerSettings,
    draining: Arc<AtomicBool>,
    closing: CancellationToken,
}

async fn connection<S>(stream: TcpStream, tls: Option<TlsAcceptor>, visit: Visit<S>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
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
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
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

#[cfg(test)]
mod tests;
