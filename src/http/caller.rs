//! On whose behalf a request is made, and whose limits it counts against.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderName, header::AUTHORIZATION, request::Parts};

use super::listener::Peer;
use crate::{config::Network, gateway::Gateway, ids::Principal, rates::Client};

/// The addresses a request came by, as proxies tell them.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The authorization context of a request. Nobody is asked who they are yet;
/// whoever presents a credential all the same gets a context of their own.
#[must_use]
pub fn principal(headers: &HeaderMap) -> Principal {
    headers
        .get(AUTHORIZATION)
        .map_or(Principal::ANONYMOUS, |credential| {
            Principal::from_credential(credential.as_bytes())
        })
}

/// Whose limits a request counts against. Credentials that nobody checks do not
/// make a client another one: it could invent a new one for every call.
#[must_use]
pub fn client(gateway: &Gateway, parts: &Parts) -> Client {
    let Some(Peer(peer)) = parts.extensions.get::<Peer>() else {
        return Client::UNKNOWN;
    };
    let trusted = &gateway.config.node.trusted_proxies;
    Client::at(origin(peer.ip(), &parts.headers, trusted))
}

/// The last address that no trusted proxy has: what comes before it anybody
/// can have written.
fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|network| network.contains(address))
    };
    if trusted.is_empty() || !is_trusted(peer) {
        return peer;
    }
    let lines = headers.get_all(FORWARDED_FOR).iter();
    let told: Vec<&str> = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .collect();
    let mut last = peer;
    for hop in told.into_iter().rev() {
        let Some(address) = address(hop.trim()) else {
            break;
        };
        last = address;
        if !is_trusted(address) {
            break;
        }
    }
    last
}

/// An address, as some proxies write it with its port.
fn address(hop: &str) -> Option<IpAddr> {
    if let Ok(address) = hop.parse() {
        return Some(address);
    }
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match bare {
        Some((address, _port)) => address.parse().ok(),
        None => hop.rsplit_once(':')?.0.parse().ok(),
    }
}

impl FromRequestParts<Arc<Gateway>> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Self, Infallible> {
        Ok(client(gateway, parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(peer: &str, lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().expect("a value"));
        }
        let network = |text: &&str| Network::parse(text).expect("a network");
        let trusted: Vec<_> = trusted.iter().map(network).collect();
        origin(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies = ["10.0.0.0/8", "::1"];
        // Without trust nobody is believed.
        assert_eq!(told("10.0.0.1", &["1.2.3.4"], &[]), "10.0.0.1");
        assert_eq!(told("9.9.9.9", &["1.2.3.4"], &proxies), "9.9.9.9");
        assert_eq!(told("10.0.0.1", &["1.2.3.4"], &proxies), "1.2.3.4");
        // What the client wrote itself stands before what the proxies add.
        assert_eq!(told("10.0.0.1", &["8.8.8.8, 1.2.3.4"], &proxies), "1.2.3.4");
        assert_eq!(
            told("::1", &["8.8.8.8", "1.2.3.4, 10.0.0.2"], &proxies),
            "1.2.3.4"
        );
        assert_eq!(
            told("::ffff:10.0.0.1", &["1.2.3.4:5678"], &proxies),
            "1.2.3.4"
        );
        assert_eq!(told("::1", &["[2001:db8::1]:443"], &proxies), "2001:db8::1");
        assert_eq!(told("10.0.0.1", &["unknown"], &proxies), "10.0.0.1");
        assert_eq!(told("10.0.0.1", &[], &proxies), "10.0.0.1");
    }
}
