//! The connections to Redis: how they are configured, how long a command may
//! take, and the watchdog that notices a Redis that accepts and never answers.
//!
//! fred pipelines the commands of all tasks over one connection, so there is
//! one for commands and one for subscriptions. fred itself never notices a hung
//! server under steady traffic (each write resets its timer), hence the
//! watchdog; and it queues while it reconnects, hence `fail_fast`.

use std::{path::Path, sync::Arc, time::Duration};

use fred::{
    clients::{Client, WithOptions},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, LuaInterface},
    types::{
        Builder, RespVersion, Value,
        config::{
            Config, Options, ReconnectError, ReconnectPolicy, TcpConfig, TlsConnector,
            UnresponsiveConfig,
        },
        scripts::Script,
    },
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{sync::broadcast, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{RedisSettings, RedisSettingsError, circuit::Circuit};
use crate::{
    lifecycle::Tasks,
    store::{Event, StoreError},
};

/// Messages that may wait for their reader before it lags.
const BROADCAST_CAPACITY: usize = 4096;

/// Commands that may wait to be written; more are refused at once.
const COMMAND_QUEUE: usize = 10_000;

/// How errors begin that mean "not now" (start, failover) or "not connected".
const NOT_NOW: [&str; 8] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "Client is not initialized",
    "Failed to send command",
];

/// Pause between checks while the circuit is open.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(100);

/// Both connections, and the circuit in front of them.
#[derive(Debug)]
pub(super) struct Connections {
    /// For commands; each fails at once while there is no connection.
    commands: WithOptions<Client>,
    /// For subscriptions.
    pub(super) subscriber: Client,
    circuit: Circuit,
    command_timeout: Duration,
    connect_timeout: Duration,
    watchdog_interval: Duration,
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
            command_timeout: settings.command_timeout,
            connect_timeout: settings.connect_timeout,
            watchdog_interval: settings.watchdog_interval,
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
            let stop = tasks.ending().clone();
            tasks.spawn("redis connection", keep_connected(client, stop));
        }
        let first_attempt = async {
            tokio::select! {
                connected = client.wait_for_connect() => connected.is_ok(),
                _ = errors.recv() => false,
            }
        };
        if timeout(self.connect_timeout, first_attempt).await == Ok(true) {
            self.circuit.close();
        } else {
            warn!("redis is not reachable yet, trying on");
        }
        let connections = Arc::clone(self);
        let stop = tasks.ending().clone();
        tasks.spawn("redis watchdog", async move {
            connections.watch(stop, events).await
        });
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
            Ok(answer) => answer,
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
                Err(StoreError::Unreachable(error.to_string()))
            }
            Err(error) => {
                self.circuit.answered();
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
                if self.circuit.close() {
                    info!("redis answers, circuit closed");
                    // Nobody listening is not an error.
                    events.send(Event::Gap).ok();
                }
            } else if self.circuit.open() {
                warn!("redis does not answer, circuit opened");
            }
        }
    }

    /// Whether `client` answers a PING; if it does not although it is
    /// connected, it is made to connect anew.
    async fn check(&self, client: &Client) -> bool {
        let options = Options {
            max_attempts: Some(1),
            timeout: Some(self.command_timeout),
            fail_fast: true,
            ..Options::default()
        };
        let ping = |limit| {
            let client = client.with_options(&options);
            async move { matches!(timeout(limit, client.ping::<Value>(None)).await, Ok(Ok(_))) }
        };
        if ping(self.command_timeout).await {
            return true;
        }
        if client.is_connected() {
            // One lost answer can be a hiccup of this machine; two are silence.
            if ping(self.command_timeout).await {
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
                    warn!(error = %error, "redis connection given up, trying again");
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

fn builder(settings: &RedisSettings) -> Result<Builder, RedisSettingsError> {
    let mut builder = Builder::from_config(config(&settings.url, settings.ca_file.as_deref())?);
    builder.with_connection_config(|connection| {
        connection.connection_timeout = settings.connect_timeout;
        connection.internal_command_timeout = settings.connect_timeout;
        connection.max_command_attempts = 1;
        connection.max_command_buffer_len = COMMAND_QUEUE;
        connection.auto_client_setname = true;
        connection.reconnect_on_auth_error = true;
        connection.tcp = TcpConfig {
            nodelay: Some(true),
            ..TcpConfig::default()
        };
        connection.unresponsive = UnresponsiveConfig {
            max_timeout: Some(Duration::from_millis(1500)),
            interval: Duration::from_millis(400),
        };
        connection
            .reconnect_errors
            .extend([ReconnectError::MasterDown, ReconnectError::NoReplicas]);
    });
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = settings.command_timeout;
        performance.broadcast_channel_capacity = BROADCAST_CAPACITY;
    });
    let mut policy = ReconnectPolicy::new_exponential(0, 20, 500, 2);
    policy.set_jitter(30);
    builder.set_policy(policy);
    Ok(builder)
}

/// The URL as fred wants it, with a TLS setup of our own: fred's depends on
/// which crypto providers happen to be compiled in.
fn config(url: &str, ca_file: Option<&Path>) -> Result<Config, RedisSettingsError> {
    let refuse = |why: &str| RedisSettingsError::Url(why.to_owned());
    let scheme = url.split("://").next().unwrap_or_default();
    let (tls, plain) = match scheme.strip_prefix("rediss") {
        Some(kind) => (true, format!("redis{kind}")),
        None => (false, scheme.to_owned()),
    };
    if !matches!(plain.as_str(), "redis" | "redis-cluster" | "redis-sentinel") {
        return Err(refuse(
            "it must begin with redis://, rediss://, redis-cluster:// or redis-sentinel:// \
             (rediss-cluster:// and rediss-sentinel:// for TLS)",
        ));
    }
    let rest = url.get(scheme.len()..).unwrap_or_default();
    let mut config =
        Config::from_url(&format!("{plain}{rest}")).map_err(|error| refuse(error.details()))?;
    config.version = RespVersion::RESP3;
    config.fail_fast = false;
    if tls {
        config.tls = Some(tls_connector(ca_file)?.into());
    }
    Ok(config)
}

/// TLS with the system's certificates and those of `ca_file`.
fn tls_connector(ca_file: Option<&Path>) -> Result<TlsConnector, RedisSettingsError> {
    let mut roots = rustls::RootCertStore::empty();
    // Some unreadable certificates of the system are no reason to refuse the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        let refuse = |why: String| RedisSettingsError::Certificates {
            file: file.to_owned(),
            why,
        };
        let certificates = CertificateDer::pem_file_iter(file);
        for certificate in certificates.map_err(|error| refuse(error.to_string()))? {
            let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| refuse(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RedisSettingsError::Url(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config.into())
}

/// The URL for people: no credentials, no query.
pub(super) fn describe(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(url) => {
            let port = url
                .port()
                .map(|port| format!(":{port}"))
                .unwrap_or_default();
            format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or("?"))
        }
        Err(_) => "redis".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_kind_are_understood() {
        for good in [
            "redis://localhost",
            "redis://:secret@localhost:6380/2",
            "rediss://user:p%40ss@redis.example:6379",
            "redis-cluster://a:1?node=b:2&node=c:3",
            "rediss-cluster://a:1?node=b:2",
            "redis-sentinel://a:26379?sentinelServiceName=main&node=b:26379",
        ] {
            let config = config(good, None).expect(good);
            assert_eq!(config.tls.is_some(), good.starts_with("rediss"), "{good}");
        }
        let config = config("rediss://user:p%40ss@h:1", None).expect("good URL");
        assert_eq!(config.username.as_deref(), Some("user"));
        assert_eq!(config.password.as_deref(), Some("p@ss"));
    }

    #[test]
    fn bad_urls_are_refused_without_telling_the_password() {
        for bad in [
            "",
            "localhost:6379",
            "http://:hunter2@h",
            "redis://",
            "redis-sentinel://:hunter2@h:1",
        ] {
            let error = config(bad, None).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn descriptions_have_no_credentials() {
        assert_eq!(
            describe("rediss://user:hunter2@redis.example:6380/2?x=hunter2"),
            "rediss://redis.example:6380"
        );
    }
}
