//! How a session begins, is found again and ends.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use super::{
    super::{Incoming, about, fail, modern::trace, refuse, stream},
    endpoint, servers,
};
use crate::{
    http::{
        error::{self, RpcFailure},
        record::Record,
    },
    lists::Caller,
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        classify,
        error::RpcError,
        header as mcp_header,
        json::{self, RawObject},
        message::{self, Answer, Request, RequestId},
        version::{self, Version},
    },
    session::{Hello, Session},
    telemetry::metrics::{Era, Outcome},
};

/// The end of a session by its client.
pub(crate) async fn delete(incoming: Incoming) -> Response<Body> {
    if is_modern(&incoming) {
        return stream::not_offered();
    }
    let session = match session(&incoming, None).await {
        Ok(session) => session,
        Err(refusal) => return refusal,
    };
    end_session(&incoming, &session).await;
    stream::empty(StatusCode::NO_CONTENT)
}

pub(crate) async fn end_session(incoming: &Incoming, session: &Arc<Session>) {
    let gateway = &incoming.gateway;
    gateway.sessions.end(session).await;
    for server in servers(incoming) {
        let (upstreams, key) = (Arc::clone(&gateway.upstreams), Arc::clone(&session.key));
        gateway
            .tasks
            .spawn_brief(async move { upstreams.retire(&key, &server).await });
    }
}

/// Whether a request without a body says that it is of an era that has no
/// such requests.
fn is_modern(incoming: &Incoming) -> bool {
    let version = incoming.headers.get(mcp_header::PROTOCOL_VERSION);
    let version = version.and_then(|version| Version::parse(version.to_str().ok()?));
    let has_session = incoming.headers.contains_key(mcp_header::SESSION_ID);
    !has_session && version.is_some_and(|version| version.era() == version::Era::Modern)
}

/// The session a request belongs to, or the response that turns it away.
/// `request` is the id to be repeated in it.
pub(crate) async fn session(
    incoming: &Incoming,
    request: Option<&RequestId>,
) -> Result<Arc<Session>, Response<Body>> {
    let bad = |error: &RpcError| refuse(StatusCode::BAD_REQUEST, request, error);
    let version = mcp_header::single(&incoming.headers, &mcp_header::PROTOCOL_VERSION)
        .map_err(|error| bad(&error))?;
    classify::legacy_version(version, true).map_err(|error| bad(&error))?;
    let id = mcp_header::single(&incoming.headers, &mcp_header::SESSION_ID)
        .map_err(|error| bad(&error))?;
    let Some(id) = id else {
        let message =
            "Mcp-Session-Id is missing: initialize first, then send the id you were given";
        return Err(bad(&RpcError::invalid_request(message)));
    };
    let found = incoming
        .gateway
        .sessions
        .find(id, endpoint(&incoming.target), &incoming.principal)
        .await;
    found.ok_or_else(|| refuse(StatusCode::NOT_FOUND, request, &ended()))
}

/// What is said of a session that is not there.
pub(super) fn ended() -> RpcError {
    RpcError::invalid_request(
        "this session is unknown or has ended: initialize anew without Mcp-Session-Id",
    )
}

/// `initialize`: answers from the cache and hands out a session id.
pub(crate) async fn initialize(incoming: &Incoming, request: &Request<'_>) -> Response<Body> {
    let record = Record::begin(incoming, request, Era::Legacy, &trace(incoming, request));
    let hello = match hello(incoming, request.params) {
        Ok(hello) => hello,
        Err(error) => {
            record.end(Outcome::Refused);
            return refuse(StatusCode::BAD_REQUEST, Some(&request.id), &error);
        }
    };
    let result = match initialize_result(incoming, &hello).await {
        Ok(result) => result,
        Err(failure) => {
            record.failed();
            return fail(&request.id, &failure);
        }
    };
    let Some((id, _)) = incoming.gateway.sessions.open(hello, incoming.principal) else {
        record.end(Outcome::Internal);
        let error = RpcError::internal("the session could not be opened");
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, Some(&request.id), &error);
    };
    let mut response = stream::json(
        StatusCode::OK,
        message::response_bytes(&request.id, &Answer::Result(result)),
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(mcp_header::SESSION_ID, id);
    }
    record.end(Outcome::Ok);
    response
}

/// What the client says of itself.
pub(crate) fn hello(incoming: &Incoming, params: Option<&Raw>) -> Result<Hello, RpcError> {
    let params = params
        .and_then(|params| RawObject::parse(params).ok())
        .unwrap_or_default();
    let requested = params
        .get_str("protocolVersion")
        .ok_or_else(|| RpcError::invalid_params("protocolVersion is missing or not a string"))?;
    let capabilities = match params.get("capabilities") {
        Some(capabilities) => ClientCapabilities::parse(capabilities)
            .map_err(|_| RpcError::invalid_params("capabilities have to be an object"))?,
        None => ClientCapabilities::none(),
    };
    Ok(Hello {
        endpoint: endpoint(&incoming.target).to_owned(),
        version: version::negotiate(&requested),
        capabilities,
        client_info: params.get("clientInfo").map(Raw::to_owned),
    })
}

/// What the client learns of the endpoint.
pub(crate) async fn initialize_result(
    incoming: &Incoming,
    hello: &Hello,
) -> Result<Box<Raw>, RpcFailure> {
    let caller = Caller {
        principal: incoming.principal,
        capabilities: hello.capabilities.clone(),
    };
    let deadline = Instant::now() + incoming.gateway.config.cache.list_deadline;
    let about = about::about(incoming, &caller, deadline)
        .await
        .map_err(|failed| error::list_failure(&failed, version::Era::Legacy))?;
    let mut result = RawObject::new();
    result.set("protocolVersion", json::raw_str(hello.version.as_str()));
    result.set("capabilities", about.capabilities.for_legacy(hello.version));
    result.set("serverInfo", about.server_info);
    if let Some(instructions) = about.instructions {
        result.set("instructions", instructions);
    }
    Ok(result.to_raw())
}
