//! Stdio servers of this node's own configuration: the bridge's service in this
//! process, dialled like a replica elsewhere but through memory.
//!
//! The bridge keeps the processes alive, gives each session its own and knows
//! whose messages are whose; nothing of that is done again here.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    ffi::OsString,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use http::{Request, Uri};
use hyper::{body::Incoming, rt, server::conn::http1, service::service_fn};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::{
    io::{DuplexStream, duplex},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, info_span};

use super::Shared;
use crate::{
    bridge::{
        backend::{self, Backend},
        door::Door,
        nodes::{self, Nodes},
        presence::Presence,
        service::Service,
        worker::{Host, Starts},
    },
    lifecycle::Tasks,
    secrets::{self, Secrets},
    servers::{Replica, StdioCommand},
    stdio::process::Program,
    telemetry::metrics::Gauge,
};

/// The scheme of addresses in this process.
const SCHEME: &str = "stdio";
/// Bytes on their way between the two ends of a connection.
const PIPE: usize = 64 * 1024;
/// Requests of one node at once.
const CALLS: usize = 4096;
/// As whom this node's own requests are counted; no token names a node so.
const OURSELVES: &str = "";

/// Variables a child inherits; everything else could be a secret of ours.
const INHERITED: [&str; 10] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "TZ", "TMPDIR",
];

/// The environment every child starts with.
pub(super) fn minimal_environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os()
        .filter(|(name, _)| INHERITED.iter().any(|known| name == known))
        .collect()
}

/// A stdio server that this node runs. Its processes end with it.
#[derive(Debug)]
pub(super) struct Local {
    number: u64,
    service: Arc<Service>,
}

impl Local {
    /// Makes a server ready; a process is started when it is needed.
    pub(super) fn start(
        shared: &Arc<Shared>,
        replica: &Replica,
        command: &StdioCommand,
    ) -> Arc<Self> {
        let settings = &shared.settings;
        let span = info_span!(parent: None, "stdio", server = %replica.server);
        let metrics = Arc::clone(&shared.metrics);
        let host = Host {
            program: program(shared, command),
            // This process has children of other kinds.
            reaper: None,
            tasks: shared.children.clone(),
            max_line: settings.max_message_bytes,
            stderr: Box::new(|line| {
                let line = String::from_utf8_lossy(line);
                debug!(line = line.trim_end(), "stderr");
            }),
            secrets: secrets(command),
            count: Some(Box::new(move || metrics.count(Gauge::Processes))),
            span: span.clone(),
            stop: CancellationToken::new(),
            hurry: shared.killing.clone(),
            numbers: Arc::new(AtomicU64::new(1)),
            starts: Starts::default(),
            restarts: AtomicU64::new(0),
        };
        let bounds = backend::Bounds {
            processes: command.max_processes.get(),
            sessions: settings.dedicated_sessions,
            idle: settings.process_idle,
        };
        let nodes = nodes::Bounds {
            calls: CALLS,
            input: settings.max_message_bytes.saturating_mul(2).max(4 << 20),
            output: settings.max_message_bytes.saturating_mul(4).max(16 << 20),
        };
        let audience = shared.audience(&replica.server);
        let backend = span.in_scope(|| Backend::new(command.mode, Arc::new(host), bounds));
        let service = Service::new(
            Door::of_signer(settings.signer.clone(), &audience),
            Nodes::new(nodes),
            backend,
            Presence::new(),
            settings.max_message_bytes,
        );
        let service = Arc::new(service.patient_for(settings.probe_timeout.mul_f64(0.75)));
        let number = shared.locals.add(&service);
        Arc::new(Self { number, service })
    }

    /// Where this process dials it.
    pub(super) fn uri(&self) -> Uri {
        let uri = Uri::builder()
            .scheme(SCHEME)
            .authority(self.number.to_string())
            .path_and_query("/mcp")
            .build();
        // A word, a number and a path.
        uri.unwrap_or_default()
    }

    /// What answers for it.
    pub(super) fn service(&self) -> &Arc<Service> {
        &self.service
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.service.backend().stop();
    }
}

fn program(shared: &Shared, command: &StdioCommand) -> Program {
    let mut environment = shared.environment.clone();
    let own = command.env.iter();
    environment.extend(own.map(|(name, value)| (name.into(), value.into())));
    Program {
        argv: command.argv.iter().map(OsString::from).collect(),
        environment,
        directory: command.directory.as_ref().map(Into::into),
    }
}

/// What a command is given that must not be shown. Nobody says which of its
/// variables are secrets.
fn secrets(command: &StdioCommand) -> Secrets {
    let words = command.argv.iter().map(String::as_str);
    let words = secrets::in_words(words).into_iter().flatten();
    Secrets::new(command.env.values().map(String::as_str).chain(words))
}

/// Whether an address is one in this process.
pub(super) fn is_local(uri: &Uri) -> bool {
    uri.scheme_str() == Some(SCHEME)
}

/// The stdio servers of this process, for whoever dials them. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Locals(Arc<Known>);

#[derive(Debug)]
struct Known {
    services: Mutex<HashMap<u64, Weak<Service>>>,
    next: AtomicU64,
    tasks: Tasks,
    /// Cancelled when connections have to end.
    closing: CancellationToken,
}

impl Locals {
    pub(super) fn new(tasks: Tasks, closing: CancellationToken) -> Self {
        Self(Arc::new(Known {
            services: Mutex::default(),
            next: AtomicU64::new(1),
            tasks,
            closing,
        }))
    }

    fn services(&self) -> MutexGuard<'_, HashMap<u64, Weak<Service>>> {
        // Single inserts and removes.
        let services = self.0.services.lock();
        services.unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, service: &Arc<Service>) -> u64 {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut services = self.services();
        services.retain(|_, service| service.strong_count() > 0);
        services.insert(number, Arc::downgrade(service));
        number
    }

    /// Connects to a server of this process.
    pub(super) fn connect(&self, uri: &Uri) -> io::Result<DuplexStream> {
        let number = uri.host().and_then(|host| host.parse::<u64>().ok());
        let service = number.and_then(|number| self.services().get(&number)?.upgrade());
        let service = service.ok_or(io::ErrorKind::NotFound)?;
        if self.0.closing.is_cancelled() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let (ours, theirs) = duplex(PIPE);
        let closing = self.0.closing.clone();
        // The connection outlives the request it is made for.
        Span::none().in_scope(|| {
            self.0.tasks.spawn_brief(async move {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = serve(service, theirs) => {}
                }
            });
        });
        Ok(ours)
    }
}

async fn serve(service: Arc<Service>, stream: DuplexStream) {
    let ourselves: Arc<str> = OURSELVES.into();
    let answer = service_fn(move |request: Request<Incoming>| {
        let (service, ourselves) = (Arc::clone(&service), Arc::clone(&ourselves));
        async move { Ok::<_, Infallible>(service.answer_node(&ourselves, request).await) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = serving.await {
        debug!(%error, "a connection to a process of ours ended");
    }
}

/// A connection to a replica: of the network, or in this process.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the larger one, which is read and written all the time"
)]
pub(super) enum Stream {
    /// Of the network.
    Network(MaybeHttpsStream<TokioIo<TcpStream>>),
    /// In this process.
    Memory(TokioIo<DuplexStream>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Network(stream) => stream.connected(),
            Self::Memory(_) => Connected::new(),
        }
    }
}

impl rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl rt::Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_flush(cx),
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Network(stream) => stream.is_write_vectored(),
            Self::Memory(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Network(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }
}
