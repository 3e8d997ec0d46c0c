//! The settings as fred wants them: URLs of every kind, TLS, time-outs, bounds.

use std::{path::Path, sync::Arc, time::Duration};

use fred::types::{
    Builder, RespVersion,
    config::{
        ClusterDiscoveryPolicy, Config, ReconnectError, ReconnectPolicy, ServerConfig, TcpConfig,
        TlsConnector, UnresponsiveConfig,
    },
};

use super::{RedisSettings, RedisSettingsError};
use crate::certificates;

/// Messages that may wait for their reader before it lags. Their places are
/// allocated beforehand, in eight channels of each client.
const BROADCAST_CAPACITY: usize = 1024;

/// Commands that may wait to be written; more are refused at once.
const COMMAND_QUEUE: usize = 10_000;

/// Makes connections as `settings` say.
pub(super) fn builder(settings: &RedisSettings) -> Result<Builder, RedisSettingsError> {
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
    if let ServerConfig::Clustered { policy, .. } = &mut config.server {
        // Masters found since the start are asked too: those of the URL may be gone.
        *policy = ClusterDiscoveryPolicy::UseCache;
    }
    if plain == "redis-sentinel" {
        // fred shows the sentinels what it shows Redis. A name with it makes
        // that fit sentinels without a password, which take any for `default`
        // (but refuse one without a name); and asking for something shows which
        // sentinel hangs before fred relies on it, for that has no second try.
        config.username.get_or_insert_with(|| "default".to_owned());
        config.password.get_or_insert_with(|| "none".to_owned());
    }
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
        certificates::trust(&mut roots, file)?;
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
