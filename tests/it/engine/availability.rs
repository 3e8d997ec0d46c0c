//! The engine comes and goes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use mcp_fleet::{
    config,
    engine::{Availability, Cause, EngineEvent, State, docker::Docker},
};

use super::{Fleet, workload};
use crate::support::dockerd::Dockerd;

#[tokio::test]
async fn an_engine_that_stops_and_starts_is_noticed_at_once() {
    let Some(engine) = Dockerd::start().map(Arc::new) else {
        return;
    };
    let fleet = Fleet::on(engine);
    assert_eq!(fleet.docker.availability(), Availability::Unknown);
    let events = fleet.docker.events(&fleet.id);
    let mut events = std::pin::pin!(events);
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    assert_eq!(fleet.docker.availability(), Availability::Available);
    let info = fleet.docker.info().await.expect("it runs");
    assert!(!info.id.is_empty() && info.platform.starts_with("linux/"));
    assert_eq!(info.missing_limits, Vec::<&str>::new());

    let name = fleet.run("survivor", &workload(&["wait"])).await;
    let engine = Arc::clone(&fleet.engine);
    let stopping = tokio::task::spawn_blocking(move || engine.stop());
    let error = loop {
        match events.next().await.expect("no end") {
            EngineEvent::Lost(error) => break error,
            EngineEvent::Connected => panic!("it is connected"),
            EngineEvent::Container { .. } => {}
        }
    };
    assert!(matches!(error.cause, Cause::Unreachable { .. }), "{error}");
    assert!(!fleet.docker.availability().is_available());
    stopping.await.expect("stopped");
    let before = Instant::now();
    let error = fleet.docker.list(&fleet.id).await.expect_err("it is away");
    assert!(error.is_unavailable() && error.is_transient(), "{error}");
    assert!(error.to_string().contains(&fleet.engine.host()), "{error}");
    assert!(before.elapsed() < Duration::from_secs(5));

    let engine = Arc::clone(&fleet.engine);
    let starting = tokio::task::spawn_blocking(move || engine.run());
    while events.next().await != Some(EngineEvent::Connected) {}
    assert!(fleet.docker.availability().is_available());
    starting.await.expect("started");
    // Nobody restarts containers but the fleet.
    assert!(matches!(fleet.inspect(&name).await.state, State::Exited(_)));
}

#[tokio::test]
async fn an_engine_that_hangs_is_noticed_too_and_bounds_everything() {
    let Some(engine) = Dockerd::start().map(Arc::new) else {
        return;
    };
    let mut settings = engine.settings();
    settings.timeout = Duration::from_millis(500);
    settings.fresh = Duration::from_millis(500);
    let fleet = Fleet::with(engine, settings);
    let events = fleet.docker.events(&fleet.id);
    let mut events = std::pin::pin!(events);
    while events.next().await != Some(EngineEvent::Connected) {}
    fleet.engine.pause();
    let EngineEvent::Lost(error) = events.next().await.expect("no end") else {
        panic!("it hangs");
    };
    assert!(matches!(error.cause, Cause::TimedOut { .. }), "{error}");
    assert!(!fleet.docker.availability().is_available());
    // Four at a time, so three rounds.
    let before = Instant::now();
    let names: Vec<_> = (0..12).map(|n| format!("c{n}")).collect();
    let asked = names.iter().map(|name| fleet.docker.inspect(name));
    for answer in futures_util::future::join_all(asked).await {
        answer.expect_err("it hangs");
    }
    let took = before.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    fleet.engine.resume();
    while events.next().await != Some(EngineEvent::Connected) {}
    assert!(fleet.docker.check().await.is_available());
}

#[tokio::test]
async fn availability_is_asked_for_once_in_a_while() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        // Whoever connects is turned away.
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let config = config::Docker {
        host: format!("unix://{}", socket.display()),
        ..config::Docker::default()
    };
    let docker = Docker::connect(config.settings(Duration::from_secs(60))).expect("good");
    for _ in 0..10 {
        assert!(!docker.check().await.is_available());
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    let now = Docker::connect(config.settings(Duration::ZERO)).expect("good");
    for _ in 0..3 {
        assert!(!now.check().await.is_available());
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_engine_that_was_never_there_is_an_error_with_a_cure() {
    let config = config::Docker {
        host: "unix:///nowhere/docker.sock".into(),
        ..config::Docker::default()
    };
    let docker = Docker::connect(config.settings(Duration::ZERO)).expect("good settings");
    let error = docker.info().await.expect_err("nobody there");
    assert_eq!(
        error.to_string(),
        "cannot look at the engine unix:///nowhere/docker.sock: no connection to the Docker engine at \
         unix:///nowhere/docker.sock: there is no /nowhere/docker.sock; start the engine, or correct \
         engine.docker.host; the node's user has to be allowed to use its socket"
    );
}
