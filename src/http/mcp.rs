//! The MCP endpoints: `/mcp/{server}` and the merged `/mcp`, every era.
//!
//! This file does what eras have in common: media types, size, JSON, and
//! which era a message belongs to. [`modern`] and [`legacy`] go on from there.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State},
};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};

use crate::{
    gateway::Gateway,
    http::{
        body, caller,
        error::{self, Absent, RpcFailure},
    },
    ids::Principal,
    lists::Target,
    mcp::{
        Raw,
        classify::{self, Classified},
        error::RpcError,
        header as mcp_header,
        message::{self, Answer, ParseLimits, RequestId},
    },
    rates::{Client, Limited},
    servers::Server,
};

pub(crate) mod about;
pub(crate) mod legacy;
pub(crate) mod listen;
pub(crate) mod modern;
pub(crate) mod route;
pub(crate) mod standalone;
pub(crate) mod stream;

/// What every message of a request shares.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) target: Target,
    pub(crate) principal: Principal,
    /// Whose limits it counts against.
    pub(crate) client: Client,
    pub(crate) headers: HeaderMap,
}

/// `POST /mcp`
pub(crate) async fn post_merged(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Response<Body> {
    post(gateway, Target::All, request).await
}

/// `POST /mcp/{server}`
pub(crate) async fn post_server(
    State(gateway): State<Arc<Gateway>>,
    Path(server): Path<String>,
    request: Request,
) -> Response<Body> {
    match gateway.servers.get(&server) {
        Some(server) => post(gateway, Target::One(server), request).await,
        None => Absent::of(&gateway, &server).response(),
    }
}

/// `GET /mcp`
pub(crate) async fn get_merged(
    State(gateway): State<Arc<Gateway>>,
    client: Client,
    headers: HeaderMap,
) -> Response<Body> {
    standalone::get(incoming(gateway, Target::All, client, headers)).await
}

/// `GET /mcp/{server}`
pub(crate) async fn get_server(
    State(gateway): State<Arc<Gateway>>,
    Path(server): Path<String>,
    client: Client,
    headers: HeaderMap,
) -> Response<Body> {
    match gateway.servers.get(&server) {
        Some(server) => {
            standalone::get(incoming(gateway, Target::One(server), client, headers)).await
        }
        None => Absent::of(&gateway, &server).response(),
    }
}

/// `DELETE /mcp`
pub(crate) async fn delete_merged(
    State(gateway): State<Arc<Gateway>>,
    client: Client,
    headers: HeaderMap,
) -> Response<Body> {
    legacy::delete(incoming(gateway, Target::All, client, headers)).await
}

/// `DELETE /mcp/{server}`
pub(crate) async fn delete_server(
    State(gateway): State<Arc<Gateway>>,
    Path(server): Path<String>,
    client: Client,
    headers: HeaderMap,
) -> Response<Body> {
    match gateway.servers.get(&server) {
        Some(server) => {
            legacy::delete(incoming(gateway, Target::One(server), client, headers)).await
        }
        None => Absent::of(&gateway, &server).response(),
    }
}

fn incoming(gateway: Arc<Gateway>, target: Target, client: Client, headers: HeaderMap) -> Incoming {
    let principal = caller::principal(&headers);
    Incoming {
        gateway,
        target,
        principal,
        client,
        headers,
    }
}

/// A message to a server, or to all of them.
pub(crate) async fn post(
    gateway: Arc<Gateway>,
    target: Target,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let client = caller::client(&gateway, &parts);
    if let Err((status, error)) = check_media_types(&parts.headers) {
        return refuse(status, None, &error);
    }
    let limits = &gateway.config.limits;
    let body = match body::read(body, limits.body, limits.body_timeout).await {
        Ok(body) => body,
        Err(failed) => {
            return refuse(
                error::body_status(&failed),
                None,
                &RpcError::invalid_request(failed.to_string()),
            );
        }
    };
    let incoming = incoming(gateway, target, client, parts.headers);
    dispatch(incoming, body).await
}

async fn dispatch(incoming: Incoming, body: Bytes) -> Response<Body> {
    let limits = &incoming.gateway.config.limits;
    let parsed = ParseLimits {
        max_depth: limits.nesting,
        max_batch: limits.batch,
    };
    let parsed = match message::parse_body(&body, &parsed) {
        Ok(parsed) => parsed,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.id.as_ref(), &error.to_rpc()),
    };
    let version = match mcp_header::single(&incoming.headers, &mcp_header::PROTOCOL_VERSION) {
        Ok(version) => version,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, parsed.id(), &error),
    };
    let has_session = incoming.headers.contains_key(&mcp_header::SESSION_ID);
    match classify::classify(parsed, version, has_session) {
        Classified::Modern { request, version } => {
            modern::answer(&incoming, &request, &version).await
        }
        // The core protocol defines none; what extensions send needs no answer.
        Classified::ModernNotification(_) | Classified::Dropped => {
            stream::empty(StatusCode::ACCEPTED)
        }
        Classified::Initialize(request) => legacy::initialize(&incoming, &request).await,
        Classified::Legacy { message, .. } => legacy::message(&incoming, message).await,
        Classified::LegacyBatch { messages, .. } => legacy::batch(&incoming, messages).await,
        Classified::Refused { id, error } => refuse(StatusCode::BAD_REQUEST, id.as_ref(), &error),
    }
}

/// JSON in, and a client that can take either kind of answer.
fn check_media_types(headers: &HeaderMap) -> Result<(), (StatusCode, RpcError)> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let accept = headers.get(header::ACCEPT);
    // How nearly all clients write it.
    if content_type.is_some_and(|value| value == "application/json")
        && accept.is_some_and(|value| value == "application/json, text/event-stream")
    {
        return Ok(());
    }
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let message = format!("Content-Type has to be application/json, not {media_type:?}");
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            RpcError::invalid_request(message),
        ));
    }
    if accepts(headers, "application/json") && accepts(headers, "text/event-stream") {
        return Ok(());
    }
    let message = "Accept has to list application/json and text/event-stream";
    Err((
        StatusCode::NOT_ACCEPTABLE,
        RpcError::invalid_request(message),
    ))
}

/// Whether the `Accept` header takes a media type. No header takes anything.
pub(crate) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let family = media_type.split('/').next().unwrap_or_default();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offer| {
            let range = offer.split(';').next().unwrap_or_default().trim();
            let is_family = |range: &str| range.eq_ignore_ascii_case(family);
            range == "*/*"
                || range.eq_ignore_ascii_case(media_type)
                || range.strip_suffix("/*").is_some_and(is_family)
        })
}

/// An error as a whole response.
pub(crate) fn refuse(
    status: StatusCode,
    id: Option<&RequestId>,
    error: &RpcError,
) -> Response<Body> {
    stream::json(status, message::error_bytes(id, error))
}

/// A failure as a whole response.
pub(crate) fn fail(id: &RequestId, failure: &RpcFailure) -> Response<Body> {
    let mut response = stream::json(failure.status, message::response_bytes(id, &failure.answer));
    error::set_retry_after(response.headers_mut(), failure.retry_after);
    response
}

/// A failure that is the caller's to mend.
pub(crate) fn refusal(status: StatusCode, error: &RpcError) -> RpcFailure {
    RpcFailure {
        status,
        answer: Answer::error(error),
        retry_after: None,
    }
}

impl Incoming {
    /// Counts a request to `server` against the client's limits. `params` are
    /// those the server gets.
    pub(crate) async fn admit(
        &self,
        server: &Server,
        method: &str,
        params: Option<&Raw>,
    ) -> Result<(), Limited> {
        self.gateway
            .admit(self.client, server, method, params)
            .await
    }
}

/// No place for another stream on this node.
pub(crate) fn no_place(error: &RpcError) -> RpcFailure {
    RpcFailure {
        status: StatusCode::SERVICE_UNAVAILABLE,
        answer: Answer::error(error),
        retry_after: Some(std::time::Duration::from_secs(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().expect("header value"));
        headers
    }

    #[test]
    fn accept_ranges_are_understood() {
        for good in [
            "application/json, text/event-stream",
            "*/*",
            "Application/JSON;q=0.9,text/*",
            "text/event-stream , application/*",
        ] {
            let headers = accept(good);
            assert!(
                accepts(&headers, "application/json") && accepts(&headers, "text/event-stream"),
                "{good}"
            );
        }
        assert!(!accepts(&accept("application/json"), "text/event-stream"));
        assert!(!accepts(&accept("text/html"), "application/json"));
        assert!(accepts(&HeaderMap::new(), "text/event-stream"));
    }
}
