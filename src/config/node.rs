//! `[node]`: this process and the address it listens on.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    networks::{self, Network},
    secret::Secret,
    section::Section,
    tree::{Located, Value},
    values::{self, Problem},
};

/// This process and the address it listens on.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Address and port to listen on. Default `127.0.0.1:8080`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where other nodes reach this one. Default: [`Node::reached_at`] says.
    pub advertise: Option<Advertised>,
    /// What clients that speak TLS are shown. Default: TLS is not spoken.
    pub tls: Option<Tls>,
    /// Grace for requests in flight at shutdown. Default 30 s.
    pub drain: Duration,
    /// Name in `x-mcp-fleet-node` and in listings. Default: random at each start.
    pub name: Option<String>,
    /// What seals session ids, cursors and request states, at least 32
    /// characters, the same on every node. Default: made once and kept in the store.
    pub secret: Option<Secret>,
    /// Secret that was used before; what it sealed is still opened. Default: none.
    pub previous_secret: Option<Secret>,
    /// Names (without port) accepted in `Host`, `*` for any. Default (`None`):
    /// see [`Node::accepts_host`].
    pub allowed_hosts: Option<Vec<String>>,
    /// Origins (`https://app.example.com`) of web pages that may call, `*` for
    /// any. Default (`None`): pages from this machine.
    pub allowed_origins: Option<Vec<String>>,
    /// Proxies whose word is taken for the address of a client
    /// (`X-Forwarded-For`). Default: none.
    pub trusted_proxies: Vec<Network>,
    /// Whether the built-in server `demo` is offered. Default true.
    pub demo: bool,
    /// Interval of the comments that keep idle event streams open. Default 15 s.
    pub keep_alive: Duration,
}

/// Where other nodes reach this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// Whether by TLS; not said: as the node listens.
    pub secure: Option<bool>,
    /// Host and port.
    pub authority: String,
}

/// What clients that speak TLS are shown; PEM files, read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, followed by those between it and an authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            advertise: None,
            tls: None,
            drain: Duration::from_secs(30),
            name: None,
            secret: None,
            previous_secret: None,
            allowed_hosts: None,
            allowed_origins: None,
            trusted_proxies: Vec::new(),
            demo: true,
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// Shorter ones can be guessed.
const MIN_SECRET: usize = 32;

impl Node {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let seconds = Duration::from_secs;
        let node = Self {
            listen: section.read("listen", defaults.listen, values::listen_address),
            advertise: section.optional("advertise", advertised),
            tls: Tls::read(section.section("tls")),
            drain: section.read(
                "drain",
                defaults.drain,
                values::duration(seconds(0)..=seconds(3600)),
            ),
            name: section.optional("name", node_name),
            secret: sealing_secret(&mut section, "secret"),
            previous_secret: sealing_secret(&mut section, "previous_secret"),
            allowed_hosts: section.optional("allowed_hosts", hosts),
            allowed_origins: section.optional("allowed_origins", origins),
            trusted_proxies: section
                .optional("trusted_proxies", networks::networks)
                .unwrap_or_default(),
            demo: section.read("demo", defaults.demo, values::boolean),
            keep_alive: section.read(
                "keep_alive",
                defaults.keep_alive,
                values::duration(seconds(1)..=seconds(3600)),
            ),
        };
        section.finish();
        node
    }

    /// Where other nodes reach this one, which listens on `listen`: what is
    /// written down, else that address; `None` when it is a wildcard.
    #[must_use]
    pub fn reached_at(&self, listen: SocketAddr) -> Option<Advertised> {
        let own = || Advertised {
            secure: None,
            authority: listen.to_string(),
        };
        let written = self.advertise.clone();
        written.or_else(|| (!listen.ip().is_unspecified()).then(own))
    }

    /// The address of [`reached_at`](Self::reached_at), to put a path behind.
    #[must_use]
    pub fn base(&self, advertised: &Advertised) -> String {
        let scheme = match advertised.secure.unwrap_or(self.tls.is_some()) {
            true => "https",
            false => "http",
        };
        format!("{scheme}://{}", advertised.authority)
    }

    /// Whether only this machine can reach the port.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    /// Whether a request may name `host` (the `Host` header or `:authority`,
    /// with or without a port). Without `allowed_hosts` a loopback listener
    /// takes loopback names only, which is what stops DNS rebinding; any other
    /// listener takes every name.
    #[must_use]
    pub fn accepts_host(&self, host: &str) -> bool {
        let name = without_port(host);
        let advertised = self.advertise.as_ref();
        if advertised.is_some_and(|own| without_port(&own.authority).eq_ignore_ascii_case(name)) {
            return true;
        }
        match &self.allowed_hosts {
            Some(names) => names
                .iter()
                .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(name)),
            None => !self.is_loopback() || is_loopback_name(name),
        }
    }

    /// Whether a web page of `origin` (the `Origin` header) may call. Without
    /// `allowed_origins`: only pages served from this machine.
    #[must_use]
    pub fn accepts_origin(&self, origin: &str) -> bool {
        match &self.allowed_origins {
            Some(origins) => origins
                .iter()
                .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)),
            None => origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"))
                .is_some_and(|host| is_loopback_name(without_port(host))),
        }
    }
}

impl Tls {
    /// `None` when nothing of it was written.
    fn read(mut section: Section<'_>) -> Option<Self> {
        let file = |located: &Located| {
            let path = values::some_text(located)?;
            Ok(located.place.resolve(&path))
        };
        let certificate = section.optional("certificate", file);
        let key = section.optional("key", file);
        for (missing, has) in [
            ("certificate", section.has("certificate")),
            ("key", section.has("key")),
        ] {
            if section.is_written() && !has {
                section.fail(missing, "is missing: TLS takes a certificate and its key");
            }
        }
        section.finish();
        Some(Self {
            certificate: certificate?,
            key: key?,
        })
    }
}

fn sealing_secret(section: &mut Section<'_>, key: &str) -> Option<Secret> {
    let (text, place) = section.secret(key)?;
    if text.chars().count() < MIN_SECRET {
        let message = format!(
            "expected at least {MIN_SECRET} characters that nobody can guess, for example from \
             `openssl rand -base64 32`"
        );
        let path = section.path_of(key);
        section.findings.error(&place, path, message);
        return None;
    }
    Some(Secret::new(text))
}

/// A name that can stand in a header, a log line and a label.
fn node_name(located: &Located) -> Result<String, Problem> {
    let name = values::some_text(located)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() <= 64 && name.chars().all(good) {
        Ok(name)
    } else {
        Err(Problem::new(format!(
            "expected 1 to 64 letters, digits, `.`, `_` or `-`, found {name:?}"
        )))
    }
}

/// `"http://10.0.0.5:8080"` or `"node-1.internal:8080"`.
fn advertised(located: &Located) -> Result<Advertised, Problem> {
    let text = values::some_text(located)?;
    let (secure, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Some(false), rest),
        Some(("https", rest)) => (Some(true), rest),
        Some(_) => (None, ""),
        None => (None, &*text),
    };
    let authority = rest.trim_end_matches('/');
    let is_wildcard = |host: &str| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_unspecified())
    };
    let parsed = authority.parse::<http::uri::Authority>().ok();
    let is_good = parsed.is_some_and(|parsed| {
        !parsed.host().is_empty()
            && !authority.contains('@')
            && !is_wildcard(parsed.host())
            && (secure.is_some() || parsed.port().is_some())
    });
    if !is_good {
        return Err(Problem::new(format!(
            "expected where other nodes reach this one, such as \"10.0.0.5:8080\" or \
             \"https://node-1.internal:8443\", without a path, found {text:?}"
        )));
    }
    Ok(Advertised {
        secure,
        authority: authority.to_owned(),
    })
}

fn hosts(located: &Located) -> Result<Vec<String>, Problem> {
    each(located, |host| {
        let plain = |c: char| !c.is_whitespace() && !matches!(c, '/' | '@' | '*' | '?');
        let is_name = host == "*" || (host.chars().all(plain) && without_port(host) == host);
        is_name.then(|| host.to_lowercase()).ok_or_else(|| {
            format!("expected names without scheme, port or path, or \"*\", found {host:?}")
        })
    })
}

fn origins(located: &Located) -> Result<Vec<String>, Problem> {
    each(located, |origin| {
        let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', '*'])
        });
        (origin == "*" || is_origin)
            .then(|| origin.to_lowercase())
            .ok_or_else(|| {
                format!(
                    "expected origins such as \"https://app.example.com\" without a path, or \"*\", \
                     found {origin:?}"
                )
            })
    })
}

fn each(
    located: &Located,
    check: impl Fn(&str) -> Result<String, String>,
) -> Result<Vec<String>, Problem> {
    let texts = values::texts(located)?;
    let places = match &located.value {
        Value::List(items) => items.iter().map(|item| item.place.clone()).collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Table(_) => Vec::new(),
    };
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            check(text).map_err(|message| Problem {
                place: places.get(index).cloned(),
                message,
            })
        })
        .collect()
}

fn is_loopback_name(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// `example.com:80` without its port; `[::1]:80` keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.is_empty()
                && port.bytes().all(|digit| digit.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_listener_takes_loopback_names_only() {
        let node = Node::default();
        for good in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "127.0.0.2",
            "[::1]:8080",
        ] {
            assert!(node.accepts_host(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:8080",
            "10.0.0.1",
            "",
            "[::2]:1",
        ] {
            assert!(!node.accepts_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_node_is_reached_where_it_listens_unless_that_is_everywhere() {
        let node = Node::default();
        let at = |node: &Node, listen: &str| {
            let reached = node.reached_at(listen.parse().expect("an address"));
            reached.map(|reached| node.base(&reached))
        };
        assert_eq!(
            at(&node, "10.0.0.5:80").as_deref(),
            Some("http://10.0.0.5:80")
        );
        assert_eq!(at(&node, "0.0.0.0:80"), None);
        assert_eq!(at(&node, "[::]:80"), None);
        let secure = Node {
            tls: Some(Tls {
                certificate: "a".into(),
                key: "b".into(),
            }),
            ..Node::default()
        };
        assert_eq!(at(&secure, "[::1]:80").as_deref(), Some("https://[::1]:80"));
        let proxied = Node {
            advertise: Some(Advertised {
                secure: Some(true),
                authority: "node-1.internal".into(),
            }),
            ..Node::default()
        };
        assert_eq!(
            at(&proxied, "0.0.0.0:80").as_deref(),
            Some("https://node-1.internal")
        );
        assert!(proxied.accepts_host("NODE-1.internal:443"));
        assert!(!proxied.accepts_host("node-2.internal"));
    }

    #[test]
    fn listed_hosts_replace_the_default() {
        let node = Node {
            allowed_hosts: Some(vec!["mcp.example.com".into()]),
            ..Node::default()
        };
        assert!(node.accepts_host("MCP.example.com:443"));
        assert!(!node.accepts_host("localhost"));
    }

    #[test]
    fn only_local_pages_may_call_by_default() {
        let node = Node::default();
        for good in [
            "http://localhost:6274",
            "https://127.0.0.1",
            "http://[::1]:3000",
        ] {
            assert!(node.accepts_origin(good), "{good}");
        }
        for bad in [
            "http://evil.example",
            "null",
            "",
            "http://localhost.evil.example",
            "file://",
        ] {
            assert!(!node.accepts_origin(bad), "{bad}");
        }
    }
}
