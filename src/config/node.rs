//! `[node]`: this process and the address it listens on.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::secret::Secret;

/// This process and the address it listens on.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Address and port to listen on. Default `127.0.0.1:8080`; port 0 takes a free one.
    pub listen: SocketAddr,
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
    /// Whether the built-in server `demo` is offered. Default true.
    pub demo: bool,
    /// Interval of the comments that keep idle event streams open. Default 15 s.
    pub keep_alive: Duration,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            drain: Duration::from_secs(30),
            name: None,
            secret: None,
            previous_secret: None,
            allowed_hosts: None,
            allowed_origins: None,
            demo: true,
            keep_alive: Duration::from_secs(15),
        }
    }
}

impl Node {
    /// Whether a request may name `host` (the `Host` header or `:authority`,
    /// with or without a port). Without `allowed_hosts` a loopback listener
    /// takes loopback names only, which is what stops DNS rebinding; any other
    /// listener takes every name.
    #[must_use]
    pub fn accepts_host(&self, host: &str) -> bool {
        let name = without_port(host);
        match &self.allowed_hosts {
            Some(names) => names
                .iter()
                .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(name)),
            None => !self.listen.ip().is_loopback() || is_loopback_name(name),
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
