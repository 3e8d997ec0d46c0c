//! A bridge from its start to its end, as the first process of a container.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{self, Write as _, stderr},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use nix::sys::prctl;
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, info, warn};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::{
    args::{Args, PREFIX},
    backend::{self, Backend},
    door::Door,
    nodes::{self, Nodes},
    presence::Presence,
    service::Service,
    tap::Tap,
    worker::{Host, Starts},
};
use crate::{
    lifecycle::Tasks,
    stdio::{process::Program, reaper::Reaper},
};

/// Connections at once; more wait in the operating system's queue.
const CONNECTIONS: usize = 4096;
/// How long a new connection may be silent.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How long a connection may be without a request. Longer than nodes keep
/// theirs: a request must not meet a connection that is being closed.
const IDLE: Duration = Duration::from_secs(600);
/// How often an HTTP/2 peer that says nothing is asked whether it is alive.
const PING: Duration = Duration::from_secs(30);
/// Requests of one node at once.
const CALLS: usize = 512;
/// Sessions at once.
const SESSIONS: usize = 10_000;
/// Lines that wait for a slow reader of the log.
const LOG_LINES: usize = 4096;
/// How long connections may take to close.
const CLOSING: Duration = Duration::from_secs(1);
/// How long the server's processes may take to end, when told in every way.
const ENDING: Duration = Duration::from_secs(6);

/// Runs a bridge until it is told to stop, or no node needs it any more.
#[must_use]
pub fn run(args: Args, environment: BTreeMap<OsString, OsString>) -> ExitCode {
    // Nobody else in the container may read this process's memory, nor what
    // it was started with.
    let hidden = prctl::set_dumpable(false);
    let (log, _flushes) = start_log(args.verbose);
    if let Err(error) = hidden {
        warn!(%error, "this process can be looked into");
    }
    let program = Program {
        argv: args.command.clone(),
        environment: without_ours(environment),
        directory: None,
    };
    if let Some(code) = cannot_run(&program) {
        return code;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(serve(args, program, log)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(stderr(), "mcp-fleet-bridge: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn start_log(verbose: bool) -> (NonBlocking, WorkerGuard) {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_LINES)
        .thread_name("logs")
        .finish(stderr());
    let level = match verbose {
        true => tracing::Level::DEBUG,
        false => tracing::Level::INFO,
    };
    let to = writer.clone();
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_writer(move || to.clone())
        .init();
    (writer, guard)
}

/// What the server inherits.
fn without_ours(environment: BTreeMap<OsString, OsString>) -> BTreeMap<OsString, OsString> {
    let is_ours = |name: &OsStr| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
    environment
        .into_iter()
        .filter(|(name, _)| !is_ours(name))
        .collect()
}

/// The exit code that says why the command cannot be run, as shells have it.
fn cannot_run(program: &Program) -> Option<ExitCode> {
    let name = program.argv.first()?;
    let is_file = |path: &Path| path.metadata().is_ok_and(|found| found.is_file());
    let is_found = if name.as_encoded_bytes().contains(&b'/') {
        is_file(Path::new(name))
    } else {
        let path = program.environment.get(OsStr::new("PATH"));
        let path = path.cloned().unwrap_or_else(|| "/bin:/usr/bin".into());
        std::env::split_paths(&path).any(|directory| is_file(&directory.join(name)))
    };
    if is_found {
        return None;
    }
    let name = name.to_string_lossy();
    writeln!(stderr(), "mcp-fleet-bridge: {name}: command not found").ok();
    Some(ExitCode::from(127))
}

async fn serve(args: Args, program: Program, log: NonBlocking) -> io::Result<()> {
    let tasks = Tasks::new();
    let reaper = Reaper::adopt_orphans();
    let reaping = reaper.clone();
    let ending = tasks.ending().clone();
    tasks.spawn("reaper", async move {
        tokio::select! {
            () = ending.cancelled() => {}
            () = reaping.run() => {}
        }
    });
    let mut told_to_stop = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let address = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(address).await?;
    info!(address = %listener.local_addr()?, audience = args.audience, "listening");
    let hurry = CancellationToken::new();
    let tap = Tap::new(log);
    let secrets = args.secrets(&program.environment);
    let host = Arc::new(Host {
        program,
        reaper: Some(reaper),
        tasks: tasks.clone(),
        max_line: args.max_line,
        stderr: Box::new(move |line| tap.pass(line)),
        secrets,
        count: None,
        span: Span::none(),
        stop: CancellationToken::new(),
        hurry: hurry.clone(),
        starts: Starts::default(),
        numbers: Arc::new(AtomicU64::new(1)),
        restarts: AtomicU64::new(0),
    });
    let presence = Presence::new();
    let service = Arc::new(Service::new(
        Door::new(args.public_key, &args.audience),
        Nodes::new(node_bounds(args.max_line)),
        Backend::new(args.mode, host, process_bounds(&args)),
        Arc::clone(&presence),
        args.max_line,
    ));
    let closing = CancellationToken::new();
    let accepting = accept(
        listener,
        Arc::clone(&service),
        tasks.clone(),
        closing.clone(),
    );
    let stopping = tasks.stopping().clone();
    tasks.spawn("listener", async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = accepting => {}
        }
    });
    keep_tidy(&service, &tasks, args.session_idle);
    tokio::select! {
        _ = told_to_stop.recv() => info!("told to stop"),
        _ = interrupted.recv() => info!("interrupted"),
        () = presence.absent(args.idle_exit) => info!("no node was here for long: ending"),
        () = tasks.stopping().cancelled() => {}
    }
    tokio::select! {
        done = timeout(args.grace, service.drain()) => {
            if done.is_err() {
                warn!("requests were cut at the end of the grace time");
            }
        }
        // Told twice: whoever asks is in a hurry.
        _ = told_to_stop.recv() => hurry.cancel(),
    }
    service.backend().stop();
    closing.cancel();
    sleep(Duration::from_millis(50)).await;
    let ended = async {
        if timeout(ENDING, tasks.finished()).await.is_err() {
            warn!("not everything ended in time");
        }
    };
    tokio::select! {
        () = ended => {}
        _ = told_to_stop.recv() => {
            hurry.cancel();
            timeout(CLOSING, tasks.finished()).await.ok();
        }
    }
    match tasks.failure() {
        Some(failure) => Err(io::Error::other(failure)),
        None => Ok(()),
    }
}

fn node_bounds(max_line: usize) -> nodes::Bounds {
    nodes::Bounds {
        calls: CALLS,
        // One of the largest at a time, or many small ones.
        input: max_line.saturating_add(max_line / 4).max(4 << 20),
        // Answers of several calls at once.
        output: max_line.saturating_mul(4).max(16 << 20),
    }
}

fn process_bounds(args: &Args) -> backend::Bounds {
    backend::Bounds {
        processes: args.max_processes.max(1),
        sessions: SESSIONS,
        idle: args.session_idle,
    }
}

fn keep_tidy(service: &Arc<Service>, tasks: &Tasks, idle: Duration) {
    let (service, stopping) = (Arc::clone(service), tasks.stopping().clone());
    let pause = (idle / 4).clamp(Duration::from_millis(100), Duration::from_secs(30));
    tasks.spawn("sessions", async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(pause) => service.backend().tidy(),
            }
        }
    });
}

/// Accepts connections until dropped.
async fn accept(
    listener: TcpListener,
    service: Arc<Service>,
    tasks: Tasks,
    closing: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (service, closing) = (Arc::clone(&service), closing.clone());
                tasks.spawn_brief(async move {
                    connection(stream, service, closing).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, service: Arc<Service>, closing: CancellationToken) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let spoke = timeout(FIRST_WORD, stream.peek(&mut [0])).await;
    if !matches!(spoke, Ok(Ok(1..))) {
        return;
    }
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING);
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<_, std::convert::Infallible>(service.answer(request).await) }
    });
    let serving = server.serve_connection(TokioIo::new(stream), answer);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match timeout(CLOSING, serving).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(error, "a connection ended");
    }
}
