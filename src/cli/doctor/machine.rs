//! The machine itself: its port, its limits.

use std::{fs, io};

use super::Finding;
use crate::config::Config;

/// Files beside connections: logs, libraries, the runtime's own.
const OTHER_FILES: usize = 200;

/// Whether the node could listen.
pub(super) async fn port(config: &Config) -> Finding {
    let listen = config.node.listen;
    match tokio::net::TcpListener::bind(listen).await {
        Ok(_) => Finding::good("port", format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if is_node(listen).await {
                return Finding::good("port", format!("a node listens at {listen}"));
            }
            Finding::wrong(
                "port",
                format!("{listen} is taken by another program"),
                format!(
                    "find it with `ss -ltnp 'sport = :{}'` and end it, or set node.listen",
                    listen.port()
                ),
            )
        }
        Err(error) => {
            let cure = "set node.listen to an address of this machine and a port it may use";
            Finding::wrong("port", format!("{listen}: {error}"), cure)
        }
    }
}

/// Whether what listens there is one of ours.
async fn is_node(listen: std::net::SocketAddr) -> bool {
    let mut address = listen;
    if address.ip().is_unspecified() {
        let loopback = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    let Ok(node) = super::Node::at(&format!("http://{address}")) else {
        return false;
    };
    let asked = tokio::time::timeout(super::engine::PATIENCE, node.get("/api/cluster"));
    matches!(asked.await, Ok(Ok(_)))
}

/// Whether as many connections can be open as are configured.
pub(super) fn open_files(config: &Config) -> Finding {
    let limits = &config.limits;
    // A client's connection, and one to a replica while its call runs.
    let wanted = limits.connections * 2 + OTHER_FILES;
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some((now, most)) = files_allowed(&text) else {
        return Finding::good("open files", "the limit is not known on this system");
    };
    if now >= wanted {
        return Finding::good(
            "open files",
            format!("{now} may be open, {wanted} are enough"),
        );
    }
    let cure = if most >= wanted {
        format!(
            "start the node after `ulimit -n {wanted}`, or with LimitNOFILE={wanted} in its unit"
        )
    } else {
        format!(
            "raise the limit to {wanted} (LimitNOFILE in the unit, `ulimits` in a compose file), or lower \
             limits.connections to {}",
            now.saturating_sub(OTHER_FILES) / 2
        )
    };
    let found = format!(
        "{now} may be open; {} connections and as many to servers need {wanted}",
        limits.connections
    );
    Finding::warning("open files", found, cure)
}

/// Soft and hard limit.
fn files_allowed(limits: &str) -> Option<(usize, usize)> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    });
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max processes             95617                95617                processes\n\
                    Max open files            1024                 unlimited            files\n";
        assert_eq!(files_allowed(text), Some((1024, usize::MAX)));
        assert_eq!(files_allowed(""), None);
    }
}
