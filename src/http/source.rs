//! No server asks a node for anything: what comes from the networks that the
//! fleet's servers are in is refused before anything else is looked at.
//!
//! A container that a node shares a network with can dial it, and one on the
//! node's machine can dial the machine. Whoever runs in there may be hostile,
//! and a node may let in everybody who reaches it (`auth.mode = "none"`).

use axum::extract::Request;

use super::{guard::Refused, listener::Peer};
use crate::engine::Subnets;

/// Lets in whatever does not come from a server's network.
///
/// # Errors
/// When it does.
pub(super) fn check(servers: &Subnets, request: &Request) -> Result<(), Refused> {
    match request.extensions().get::<Peer>() {
        Some(Peer(peer)) if servers.contain(peer.ip()) => Err(Refused::Server { peer: peer.ip() }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::config::Network;

    #[test]
    fn what_a_server_sends_is_refused_whatever_else_it_says() {
        let servers = Subnets::default();
        let from = |address: &str| {
            let mut request = Request::new(Body::empty());
            let headers = request.headers_mut();
            headers.insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
            let peer = format!("{address}:40000").parse().unwrap();
            request.extensions_mut().insert(Peer(peer));
            request
        };
        assert_eq!(check(&servers, &from("172.18.0.3")), Ok(()));
        servers.set(vec![Network::parse("172.18.0.0/16").unwrap()]);
        let refused = check(&servers, &from("172.18.0.3")).expect_err("a server");
        assert!(refused.to_string().contains("172.18.0.3"), "{refused}");
        assert_eq!(check(&servers, &from("172.20.0.3")), Ok(()));
        assert_eq!(check(&servers, &from("127.0.0.1")), Ok(()));
    }
}
