//! The first screen of `serve`: where the node is, what it serves, what to try.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{DEFAULT_NODE, output::table};
use crate::config::Config;

/// What the first screen is about.
#[derive(Debug)]
pub struct Welcome {
    /// The address that was bound.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Which store, e.g. `embedded`.
    pub store: String,
    /// Names and where they lead, in order.
    pub servers: Vec<(String, String)>,
}

impl Welcome {
    /// What the configuration says; the address may still have port 0.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut servers: Vec<_> = config
            .servers
            .iter()
            .map(|server| {
                let endpoints = server
                    .replicas
                    .iter()
                    .map(|replica| replica.endpoint.to_string());
                (
                    server.id.to_string(),
                    endpoints.collect::<Vec<_>>().join(", "),
                )
            })
            .collect();
        if config.node.demo && !servers.iter().any(|(name, _)| name == "demo") {
            servers.push(("demo".into(), "built-in".into()));
        }
        Self {
            address: config.node.listen,
            tls: config.node.tls.is_some(),
            store: if config.redis.is_some() {
                "redis"
            } else {
                "embedded"
            }
            .into(),
            servers,
        }
    }
}

/// The first screen.
#[must_use]
pub fn welcome(about: &Welcome) -> String {
    let scheme = if about.tls { "https" } else { "http" };
    let base = format!("{scheme}://{}", dialled(about.address));
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "mcp-fleet {version} listens on {scheme}://{} (store: {})\n\nservers\n",
        about.address, about.store
    );
    let rows: Vec<_> = about
        .servers
        .iter()
        .map(|(name, endpoint)| vec![name.clone(), endpoint.clone()])
        .collect();
    text.push_str(&table(&[], &rows));
    if rows.is_empty() {
        text.push_str("  none: stop the node and add some with --server NAME=URL\n");
    }
    text.push_str(&try_it(about, &base));
    text.push_str(&connect(about, &base));
    text
}

fn try_it(about: &Welcome, base: &str) -> String {
    let node = if base == DEFAULT_NODE {
        String::new()
    } else {
        format!(" --node {base}")
    };
    let has_demo = about
        .servers
        .iter()
        .any(|(name, endpoint)| name == "demo" && endpoint == "built-in");
    match about.servers.first() {
        _ if has_demo => format!(
            "\ntry it\n  mcp-fleet call{node} demo say_hello '{{\"name\":\"Ada\"}}'\n  curl -s \
             {base}/mcp/demo/tools/call -H 'content-type: application/json' -d \
             '{{\"name\":\"say_hello\",\"arguments\":{{\"name\":\"Ada\"}}}}'\n"
        ),
        Some((name, _)) => format!(
            "\ntry it\n  mcp-fleet tools{node} {name}\n  curl -s {base}/mcp/{name}/tools/list\n"
        ),
        None => String::new(),
    }
}

fn connect(about: &Welcome, base: &str) -> String {
    let one = about.servers.first().map_or("NAME", |(name, _)| name);
    format!(
        "\nconnect an MCP client (streamable HTTP)\n  {base}/mcp  all servers, tools named \
         {{server}}__{{tool}}\n  {base}/mcp/{one}  one server, names unchanged\n  in an mcpServers \
         file: {{ \"mcpServers\": {{ \"fleet\": {{ \"type\": \"http\", \"url\": \"{base}/mcp\" }} }} }}\n"
    )
}

/// An address that can be dialled from this machine.
fn dialled(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(address: &str, servers: &[(&str, &str)]) -> String {
        welcome(&Welcome {
            address: address.parse().expect("an address"),
            tls: false,
            store: "embedded".into(),
            servers: servers
                .iter()
                .map(|(name, endpoint)| ((*name).into(), (*endpoint).into()))
                .collect(),
        })
    }

    #[test]
    fn the_first_screen_has_a_line_to_copy() {
        let text = about("127.0.0.1:8080", &[("demo", "built-in")]);
        for line in [
            "listens on http://127.0.0.1:8080 (store: embedded)",
            "  demo  built-in\n",
            "\n  mcp-fleet call demo say_hello '{\"name\":\"Ada\"}'\n",
            "\n  curl -s http://127.0.0.1:8080/mcp/demo/tools/call -H 'content-type: application/json' -d '{\"name\":\"say_hello\",\"arguments\":{\"name\":\"Ada\"}}'\n",
            "http://127.0.0.1:8080/mcp/demo",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn lines_to_copy_lead_to_this_node() {
        let text = about("0.0.0.0:9000", &[("weather", "http://w/")]);
        assert!(
            text.contains("mcp-fleet tools --node http://127.0.0.1:9000 weather"),
            "{text}"
        );
        assert!(about("[::]:1", &[]).contains("http://[::1]:1/mcp"));
    }
}
