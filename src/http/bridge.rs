//! `/bridge/{server}`: a stdio server that runs beside this node, for the other
//! nodes of the fleet. They prove themselves as to any bridge; clients' words
//! and credentials mean nothing here.

use axum::{body::Body, extract::Request, response::Response};
use http::StatusCode;

use crate::{
    bridge::{reply, token::TokenError},
    gateway::Gateway,
    upstream::BRIDGE_PATH,
};

/// The server another node asks for; `None` for other paths.
pub(super) fn server_in(path: &str) -> Option<&str> {
    path.strip_prefix(BRIDGE_PATH)
}

/// Answers another node.
pub(super) async fn answer(gateway: &Gateway, server: &str, request: Request) -> Response {
    let server = gateway.servers.get(server);
    let bridge = server.and_then(|server| gateway.upstreams.bridge(&server));
    let Some(bridge) = bridge else {
        let why = "no stdio server of this name runs here\n";
        return reply::text(StatusCode::NOT_FOUND, why).map(Body::new);
    };
    let response = match bridge.sender(request.headers()) {
        Ok(node) => bridge.answer_node(&node, request).await,
        // Signed by the fleet, for another life of this node.
        Err(TokenError::OtherAudience) => reply::gone(),
        Err(_) => reply::unauthorized(),
    };
    response.map(Body::new)
}
