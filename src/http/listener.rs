//! Accepts connections, within bounds, until the node stops; then lets requests
//! in flight finish.
//!
//! Not for routing or for what requests mean: it hands each to a tower service.

mod connection;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper_util::server::conn::auto;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use connection::{App, Peer};

use crate::{
    lifecycle::Tasks,
    telemetry::metrics::{Gauge, Metrics},
};

/// How long idle connections stay open when the node stops, unless half the
/// drain time is shorter: closed at once, they would meet requests that are on
/// their way, and a load balancer must not repeat a call that it has sent. By
/// then it has asked whether the node is ready.
const LINGER: Duration = Duration::from_secs(2);

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

/// Binds `address`, ready to accept.
///
/// # Errors
/// When the address is taken or not this machine's.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `app` on `listener` until the node stops. Then every HTTP/1.1
/// connection ends with its next answer, those that stay idle are closed after
/// two seconds (or half of [`ListenerSettings::drain`]), and the others are
/// waited for, all of it for at most `drain`. Meanwhile it still accepts: load
/// balancers have to be told that the node drains, and what they send before
/// they know is served.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: S,
    settings: ListenerSettings,
    tasks: Tasks,
    metrics: Arc<Metrics>,
) where
    S: App,
{
    let stopping = tasks.stopping().clone();
    let mut door = Door {
        server: Arc::new(connection::server(&settings, tasks)),
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
    server: Arc<auto::Builder<connection::Streams>>,
    metrics: Arc<Metrics>,
    /// Whether connections end with their next answer.
    draining: Arc<AtomicBool>,
    connections: JoinSet<()>,
}

impl<S> Door<S>
where
    S: App,
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
        let serving = connection::serve(
            stream,
            self.tls.clone(),
            connection::Visit {
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

#[cfg(test)]
mod tests;
