//! `[redis]`: the store that nodes share.

use std::{path::PathBuf, time::Duration};

use super::{secret::Secret, section::Section, tree::Place, values};

/// The store that nodes share. Section absent: the embedded store of a single node.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// `redis://`, `rediss://`, `redis-cluster://` or `redis-sentinel://`, user
    /// and password included. No default: its presence makes the section.
    pub url: Secret,
    /// What every key begins with, so that fleets can share a Redis. Default `mcp-fleet`.
    pub prefix: String,
    /// Certificates (PEM) to trust with TLS beside the system's. No default.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for a connection. Default 500 ms.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to a command. Default 250 ms.
    pub command_timeout: Duration,
}

impl Redis {
    /// The defaults around an address.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: Secret::new(url),
            prefix: "mcp-fleet".into(),
            ca_file: None,
            connect_timeout: Duration::from_millis(500),
            command_timeout: Duration::from_millis(250),
        }
    }

    /// `None` when nothing of it was written.
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let millis = Duration::from_millis;
        let defaults = Self::at("");
        let address = address(&mut section);
        let redis = Self {
            url: Secret::new(address.unwrap_or_default()),
            prefix: section.read("prefix", defaults.prefix, |located| {
                let prefix = values::some_text(located)?;
                // Braces would decide which cluster slot a key falls into.
                let good = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
                if !prefix.chars().all(good) || prefix.len() > 64 {
                    let message = "expected at most 64 letters, digits, `-`, `_`, `.` and `:`";
                    return Err(values::Problem::new(message));
                }
                Ok(prefix)
            }),
            ca_file: section.optional("ca_file", |located| {
                let path = values::some_text(located)?;
                Ok(located.place.resolve(&path))
            }),
            connect_timeout: section.read(
                "connect_timeout",
                defaults.connect_timeout,
                values::duration(millis(10)..=millis(60_000)),
            ),
            command_timeout: section.read(
                "command_timeout",
                defaults.command_timeout,
                values::duration(millis(10)..=millis(60_000)),
            ),
        };
        let is_plain = !redis.url.reveal().is_empty() && !redis.url.reveal().starts_with("rediss");
        if redis.ca_file.is_some() && is_plain {
            let why =
                "is for connections with TLS: write redis.url with rediss://, or leave it out";
            section.fail("ca_file", why);
        }
        let is_written = section.is_written();
        section.finish();
        is_written.then_some(redis)
    }
}

const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
];

/// The address with the password in it, wherever that was written.
fn address(section: &mut Section<'_>) -> Option<String> {
    let url = section.secret("url");
    let password = section.secret("password");
    let Some((text, place)) = url else {
        if section.is_written() && !section.has("url") && !section.has("url_file") {
            section.fail(
                "url",
                "is missing: a Redis needs an address, such as \"redis://127.0.0.1:6379\"",
            );
        }
        return None;
    };
    let checked = check(
        &text,
        password
            .as_ref()
            .map(|(password, _): &(String, Place)| &**password),
    );
    if let Err(message) = &checked {
        let path = section.path_of("url");
        section.findings.error(&place, path, *message);
    }
    checked.ok()
}

/// Never shows the address: it may hold a password.
fn check(text: &str, password: Option<&str>) -> Result<String, &'static str> {
    let bad = "expected an address such as \"redis://127.0.0.1:6379\", beginning with redis://, \
               rediss://, redis-cluster:// or redis-sentinel://";
    let mut url = url::Url::parse(text).map_err(|_| bad)?;
    if !SCHEMES.contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) {
        return Err(bad);
    }
    match password {
        None => Ok(text.to_owned()),
        Some(password) => {
            url.set_password(Some(password)).map_err(|()| bad)?;
            Ok(url.into())
        }
    }
}
