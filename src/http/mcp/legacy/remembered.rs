//! What a session is asked to remember: its log level, the resources it
//! subscribed to.

use futures_util::future::join_all;

use super::{
    super::{Incoming, route},
    caller, empty_result, list_deadline, servers, upstream_session,
};
use crate::{
    lists::Target,
    mcp::{Raw, envelope::LogLevel, error::RpcError, json::RawObject, message::Request, method},
    session::Session,
};

pub(super) async fn set_level(
    incoming: &Incoming,
    session: &Session,
    params: Option<&Raw>,
) -> Result<Box<Raw>, RpcError> {
    let params = params
        .and_then(|params| RawObject::parse(params).ok())
        .unwrap_or_default();
    let level = params
        .get_str("level")
        .and_then(|level| LogLevel::parse(&level))
        .ok_or_else(|| RpcError::invalid_params("level has to be one of debug, info, notice, warning, error, critical, alert, emergency"))?;
    let gateway = &incoming.gateway;
    gateway.sessions.set_log_level(session, level).await;
    let (session, principal) = (upstream_session(incoming, session), incoming.principal);
    let told = servers(incoming).into_iter().map(|server| {
        let (relay, session) = (&gateway.relay, &session);
        async move { relay.set_level(&server, session, principal, level).await }
    });
    join_all(told).await;
    Ok(empty_result())
}

pub(super) async fn subscribe(
    incoming: &Incoming,
    session: &Session,
    request: &Request<'_>,
) -> Result<Box<Raw>, RpcError> {
    let uri = uri(request.params)?;
    let gateway = &incoming.gateway;
    let caller = caller(incoming, session);
    let routed = route::route(
        gateway,
        &incoming.target,
        &caller,
        method::RESOURCES_SUBSCRIBE,
        request.params,
        list_deadline(incoming),
    );
    let server = routed.await?.server;
    let added = gateway.sessions.subscribe(session, &uri).await;
    added.map_err(|error| RpcError::invalid_params(error.to_string()))?;
    // Whoever holds the session's standalone stream keeps its resources
    // watched; this bridges the time until that node has heard of it.
    gateway.changes.subscribe_briefly(&server, &uri).await;
    Ok(empty_result())
}

pub(super) async fn unsubscribe(
    incoming: &Incoming,
    session: &Session,
    params: Option<&Raw>,
) -> Result<Box<Raw>, RpcError> {
    let uri = uri(params)?;
    incoming.gateway.sessions.unsubscribe(session, &uri).await;
    Ok(empty_result())
}

/// Whether the one server of this endpoint keeps the session's subscriptions
/// itself, in the session it shares with the client.
pub(super) async fn keeps_subscriptions(incoming: &Incoming, session: &Session) -> bool {
    let Target::One(server) = &incoming.target else {
        return false;
    };
    let upstream = upstream_session(incoming, session);
    let deadline = list_deadline(incoming);
    incoming
        .gateway
        .relay
        .keeps_session(server, &upstream, deadline)
        .await
}

fn uri(params: Option<&Raw>) -> Result<String, RpcError> {
    let params = params
        .and_then(|params| RawObject::parse(params).ok())
        .unwrap_or_default();
    let uri = params.get_str("uri").map(|uri| uri.into_owned());
    uri.ok_or_else(|| RpcError::invalid_params("uri is missing or not a string"))
}
