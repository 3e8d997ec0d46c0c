//! The connections to Redis: how long a command may take, and the watchdog that
//! notices a Redis that accepts and never answers.
//!
//! fred pipelines the commands of all tasks over one connection, so there is
//! one for commands and one for subscriptions. fred itself never notices a hung
//! server under steady traffic (each write resets its timer), hence the
//! watchdog; and it queues while it reconnects, hence `fail_fast`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::{Client, WithOptions},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, LuaInterface},
    types::{
        Value,
        config::{Options, Server},
        scripts::Script,
    },
};
use tokio::{
    sync::{broadcast, broadcast::error::RecvError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    RedisSettings, RedisSettingsError, advice::Advice, check, circuit::Circuit, config::builder,
};
use crate::{
    lifecycle::Tasks,
    store::{Event, Failures, StoreError},
};

/// How errors begin that mean "not now" (start, failover) or "not connected".
const NOT_NOW: [&str; 10] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "Client is not initialized",
    "Failed to send command",
    "Failed to route command",
    // Redirected by a cluster that is changing: the next one knows the way.
    "Too many failed write attempts",
];

/// An open connection without an answer for this long is torn down.
const SILENCE: Duration = Duration::from_secs(1);

/// Pause between checks while the circuit is open.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(100);

/// What keeps fred from connecting.
type Errors = broadcast::Receiver<(Error, Option<Server>)>;

/// Both connections, and the circuit in front of them.
#[derive(Debug)]
pub(super) struct Connections {
    /// For commands; each fails at once while there is no connection.
    commands: WithOptions<Client>,
    /// For subscriptions.
    pub(super) subscriber: Client,
    circuit: Circuit,
    pub(super) advice: Advice,
    command_timeout: Duration,
    connect_timeout: Duration,
    watchdog_interval: Duration,
    unreachable: AtomicU64,
    refused: AtomicU64,
}

impl Connections {
    /// Configured, not yet connected.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RedisSettingsError> {
        let builder = builder(settings)?;
        let build = || {
            builder
                .build()
                .map_err(|error| RedisSettingsError::Url(error.details().to_owned()))
        };
        let options = Options {
            max_attempts: Some(1),
            timeout: Some(settings.command_timeout),
            fail_fast: true,
            ..Options::default()
        };
        Ok(Self {
            commands: build()?.with_options(&options),
            subscriber: build()?,
            circuit: Circuit::new(),
            advice: Advice::default(),
            command_timeout: settings.command_timeout,
            connect_timeout: settings.connect_timeout,
            watchdog_interval: settings.watchdog_interval,
            unreachable: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Starts to connect, and waits for the first attempt. When the circuit
    /// closes after having been open, that is announced as a gap: what was
    /// done without the store has to be made up for.
    pub(super) async fn start(self: &Arc<Self>, tasks: &Tasks, events: broadcast::Sender<Event>) {
        let client: &Client = &self.commands;
        let mut errors = client.error_rx();
        for client in [client, &self.subscriber] {
            let client = client.clone();
            let stop = tasks.closing().clone();
            tasks.spawn_beneath("redis connection", keep_connected(client, stop));
        }
        let first_attempt = async {
            tokio::select! {
                connected = client.wait_for_connect() => connected?,
                error = errors.recv() => {
                    return Err(error.map_or_else(|_| Error::new_canceled(), |(error, _)| error));
                }
            }
            Ok(self.is_new_enough().await)
        };
        match timeout(self.connect_timeout, first_attempt).await {
            Ok(Ok(true)) => drop(self.circuit.close()),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                warn!(%error, "redis is not reachable yet, trying on");
                self.advice.on(&error);
            }
            Err(_) => warn!("redis does not answer yet, trying on"),
        }
        let (watchdog, advisor) = (Arc::clone(self), Arc::clone(self));
        let stop = tasks.closing().clone();
        tasks.spawn_beneath("redis watchdog", async move {
            watchdog.watch(stop, events).await
        });
        let stop = tasks.closing().clone();
        tasks.spawn_beneath(
            "redis advice",
            async move { advisor.advise(errors, stop).await },
        );
    }

    pub(super) fn failures(&self) -> Failures {
        Failures {
            unreachable: self.unreachable.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    pub(super) fn is_reachable(&self) -> bool {
        !self.circuit.is_open()
    }

    pub(super) fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// Runs one command: at once, in time, or not at all.
    pub(super) async fn run<T>(
        &self,
        command: impl AsyncFnOnce(&WithOptions<Client>) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        if self.circuit.is_open() {
            return Err(StoreError::Unreachable("the circuit is open".to_owned()));
        }
        // fred has the same time-out; this one also holds if fred forgets it.
        let limit = self.command_timeout + self.command_timeout / 4;
        let answer = match timeout(limit, command(&self.commands)).await {
            Ok(answer) => answer.inspect_err(|error| self.advice.on(error)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "no answer in time")),
        };
        match answer {
            Ok(value) => {
                self.circuit.answered();
                Ok(value)
            }
            Err(error) if is_silence(&error) => {
                if self.circuit.not_answered() {
                    warn!(error = %error, "redis does not answer, circuit opened");
                }
                self.unreachable.fetch_add(1, Ordering::Relaxed);
                Err(StoreError::Unreachable(error.to_string()))
            }
            Err(error) => {
                self.circuit.answered();
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(StoreError::Refused(error.to_string()))
            }
        }
    }

    /// Runs a script. One that the server does not know is sent whole, to the
    /// one server it is for: loading it everywhere, as fred would, needs all
    /// nodes of a cluster to be up.
    pub(super) async fn script(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<Value, StoreError> {
        self.run(async |client| {
            let hash = script.sha1().clone();
            match client.evalsha(hash, keys.clone(), args.clone()).await {
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    let source = script.lua().cloned().unwrap_or_default();
                    client.eval(source, keys, args).await
                }
                answer => answer,
            }
        })
        .await
    }

    /// Pings both connections; opens and closes the circuit; tears down a
    /// connection that is open and silent.
    async fn watch(&self, stop: CancellationToken, events: broadcast::Sender<Event>) {
        loop {
            let pause = if self.circuit.is_open() {
                RECOVERY_INTERVAL.min(self.watchdog_interval)
            } else {
                self.watchdog_interval
            };
            let pause = pause.mul_f64(rand::random_range(0.8..1.2));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let client: &Client = &self.commands;
            let (commands, _) = tokio::join!(self.check(client), self.check(&self.subscriber));
            if commands {
                // The one that answers may be another than before.
                if self.circuit.is_open() && self.is_new_enough().await && self.circuit.close() {
                    info!("redis answers, circuit closed");
                    // Nobody listening is not an error.
                    events.send(Event::Gap).ok();
                }
            } else if self.circuit.open() {
                warn!("redis does not answer, circuit opened");
            }
        }
    }

    /// Whether Redis has what the scripts need; when it has not, that is said.
    async fn is_new_enough(&self) -> bool {
        match check::too_old(&self.commands, self.command_timeout).await {
            None => true,
            Some(version) => {
                let cause = format!("its version is {version}");
                let cure = "upgrade to Redis 7 or later, or to Valkey";
                self.advice.say(&cause, cure);
                false
            }
        }
    }

    /// Says what can be done about what keeps fred from connecting.
    async fn advise(&self, mut errors: Errors, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                error = errors.recv() => match error {
                    Ok((error, _)) => self.advice.on(&error),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Whether all masters `client` knows answer a PING; if one does not
    /// although the client is connected, it is made to connect anew.
    async fn check(&self, client: &Client) -> bool {
        if check::answers(client, self.command_timeout).await {
            return true;
        }
        if client.is_connected() {
            // A late answer can be a hiccup of this machine, and connecting anew
            // costs a check of everything that was learned from messages.
            if check::answers(client, SILENCE.max(self.command_timeout)).await {
                return true;
            }
            // Resolves only when connected again, so it is not waited for.
            timeout(self.connect_timeout, client.force_reconnection())
                .await
                .ok();
        }
        false
    }
}

/// Runs the connection of `client` until `stop`. With the reconnect policy it
/// ends only on what fred thinks is final (wrong credentials); an operator may
/// be about to mend that.
async fn keep_connected(client: Client, stop: CancellationToken) {
    let mut connection = client.connect();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            ended = &mut connection => {
                if let Ok(Err(error)) = ended {
                    debug!(error = %error, "redis connection given up, trying again");
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
                connection = client.connect();
            }
        }
    }
    timeout(Duration::from_millis(500), client.quit())
        .await
        .ok();
    connection.abort();
}

/// Whether the error means that no answer came, as opposed to a bad one.
fn is_silence(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Timeout
        | ErrorKind::IO
        | ErrorKind::Canceled
        | ErrorKind::Backpressure
        | ErrorKind::Routing
        | ErrorKind::Cluster
        | ErrorKind::Sentinel
        | ErrorKind::Tls
        | ErrorKind::Protocol
        | ErrorKind::Auth
        | ErrorKind::Config => true,
        // Both what the server said and fred's own trouble with a client that
        // has not connected yet.
        _ => NOT_NOW.iter().any(|word| error.details().starts_with(word)),
    }
}
