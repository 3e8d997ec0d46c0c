//! Plain REST for scripts and load tools: lists as bare arrays, calls as the
//! result object. No sessions, no questions, no streams.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, VARY},
};
use serde::Serialize;
use tokio::time::Instant;

use super::{body, caller, error::RestError};
use crate::{
    cache::CacheStatus,
    config::Limits,
    gateway::Gateway,
    ids::Principal,
    lists::{Caller, ListPage, Target},
    mcp::{
        Raw,
        envelope::TraceContext,
        json::{self, RawObject},
        message::Answer,
        method::{self, ListKind},
        version::Version,
    },
    relay::RelayError,
    servers::{Replica, Server},
    telemetry::metrics,
    upstream::UpstreamError,
};

/// How a list was served.
pub const CACHE_HEADER: HeaderName = HeaderName::from_static("x-mcp-fleet-cache");

/// Servers whose part is missing from the list of all, separated by commas.
pub const MISSING_HEADER: HeaderName = HeaderName::from_static("x-mcp-fleet-missing");

/// The name that stands for all servers.
const ALL_SERVERS: &str = "*";

type Reply = Result<Response, RestError>;
type Node = State<Arc<Gateway>>;

/// The routes below `/mcp/{server}/`.
pub fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/mcp/{server}/tools/list", get(list_tools))
        .route("/mcp/{server}/prompts/list", get(list_prompts))
        .route("/mcp/{server}/resources/list", get(list_resources))
        .route(
            "/mcp/{server}/resources/templates/list",
            get(list_resource_templates),
        )
        .route("/mcp/{server}/tools/call", post(call_tool))
        .route("/mcp/{server}/prompts/get", post(get_prompt))
        .route("/mcp/{server}/resources/read", post(read_resource))
        .route("/mcp/{server}/health", get(health))
}

async fn list_tools(node: Node, name: Path<String>, headers: HeaderMap) -> Reply {
    list(node, name, &headers, ListKind::Tools).await
}

async fn list_prompts(node: Node, name: Path<String>, headers: HeaderMap) -> Reply {
    list(node, name, &headers, ListKind::Prompts).await
}

async fn list_resources(node: Node, name: Path<String>, headers: HeaderMap) -> Reply {
    list(node, name, &headers, ListKind::Resources).await
}

async fn list_resource_templates(node: Node, name: Path<String>, headers: HeaderMap) -> Reply {
    list(node, name, &headers, ListKind::ResourceTemplates).await
}

async fn list(
    State(gateway): Node,
    Path(name): Path<String>,
    headers: &HeaderMap,
    kind: ListKind,
) -> Reply {
    let begun = Instant::now();
    let caller = Caller::plain(caller::principal(headers));
    let (target, deadline) = if name == ALL_SERVERS {
        (Target::All, begun + gateway.config.cache.list_deadline)
    } else {
        let server = server(&gateway, &name)?;
        let deadline = begun + server.timeout;
        (Target::One(server), deadline)
    };
    let page = gateway.lists.whole(&target, kind, &caller, deadline).await;
    let server = match &target {
        Target::One(server) => Some(&**server),
        Target::All => None,
    };
    record(&gateway, server, kind.method(), begun, outcome(&page));
    Ok(array(&page?))
}

fn array(page: &ListPage) -> Response {
    let mut response = json(page.array(Version::LATEST_MODERN), Some(page.status));
    if !page.missing.is_empty() {
        let names: Vec<_> = page
            .missing
            .iter()
            .map(|missing| missing.server.as_str())
            .collect();
        if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
            response.headers_mut().insert(MISSING_HEADER, names);
        }
    }
    response
}

async fn call_tool(node: Node, name: Path<String>, headers: HeaderMap, body: Body) -> Reply {
    call(node, name, &headers, body, method::TOOLS_CALL).await
}

async fn get_prompt(node: Node, name: Path<String>, headers: HeaderMap, body: Body) -> Reply {
    call(node, name, &headers, body, method::PROMPTS_GET).await
}

async fn call(
    State(gateway): Node,
    Path(name): Path<String>,
    headers: &HeaderMap,
    body: Body,
    method: &'static str,
) -> Reply {
    let server = server(&gateway, &name)?;
    let params = parameters(body, &gateway.config.limits, "name").await?;
    let call = Once {
        server: &server,
        method,
        params: &params,
        principal: caller::principal(headers),
        trace: &TraceContext::from_headers(headers),
    };
    let result = call.run(&gateway).await?;
    Ok(json(result.get().to_owned().into(), None))
}

async fn read_resource(
    State(gateway): Node,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let server = server(&gateway, &name)?;
    let params = parameters(body, &gateway.config.limits, "uri").await?;
    let begun = Instant::now();
    let caller = Caller::plain(caller::principal(&headers));
    let deadline = begun + server.timeout;
    let kept = gateway.lists.read(&server, &caller, &params, deadline);
    let kept = kept.await.transpose();
    if let Some(read) = kept {
        let method = method::RESOURCES_READ;
        record(&gateway, Some(&server), method, begun, outcome(&read));
        let read = read?;
        return Ok(json(read.result.get().to_owned().into(), Some(read.status)));
    }
    let call = Once {
        server: &server,
        method: method::RESOURCES_READ,
        params: &params,
        principal: caller.principal,
        trace: &TraceContext::from_headers(&headers),
    };
    let result = call.run(&gateway).await?;
    Ok(json(
        result.get().to_owned().into(),
        Some(CacheStatus::Bypass),
    ))
}

/// One request to a server, without a conversation.
#[derive(Debug)]
pub(super) struct Once<'a> {
    pub(super) server: &'a Arc<Server>,
    pub(super) method: &'static str,
    pub(super) params: &'a Raw,
    pub(super) principal: Principal,
    pub(super) trace: &'a TraceContext,
}

impl Once<'_> {
    /// The result as the server gave it.
    pub(super) async fn run(&self, gateway: &Gateway) -> Result<Box<Raw>, RestError> {
        let begun = Instant::now();
        let answer = self.answer(gateway, begun + self.server.timeout).await;
        record(
            gateway,
            Some(self.server),
            self.method,
            begun,
            answer_outcome(&answer),
        );
        match answer? {
            Answer::Result(result) => Ok(result),
            Answer::Error(error) => Err(RestError::answered(&error)),
        }
    }

    async fn answer(&self, gateway: &Gateway, deadline: Instant) -> Result<Answer, RelayError> {
        let headers = self.param_headers(gateway, deadline).await;
        let relay = &gateway.relay;
        relay
            .call_once(
                self.server,
                self.method,
                self.params,
                &self.principal,
                self.trace,
                headers,
                deadline,
            )
            .await
    }

    /// The headers that repeat arguments, when the tool asks for that.
    async fn param_headers(
        &self,
        gateway: &Gateway,
        deadline: Instant,
    ) -> Vec<(HeaderName, HeaderValue)> {
        if self.method != method::TOOLS_CALL {
            return Vec::new();
        }
        let Ok(params) = RawObject::parse(self.params) else {
            return Vec::new();
        };
        let Some(name) = params.get_str("name") else {
            return Vec::new();
        };
        let caller = Caller::plain(self.principal);
        let deadline = deadline.min(Instant::now() + gateway.config.cache.list_deadline);
        let tool = gateway
            .lists
            .tool(self.server, &caller, &name, deadline)
            .await;
        match tool {
            Some(tool) if !tool.param_headers.is_empty() => {
                tool.param_headers.headers_for(params.get("arguments"))
            }
            Some(_) | None => Vec::new(),
        }
    }
}

/// What is known of a server's replicas.
#[derive(Debug, Serialize)]
struct Health {
    server: String,
    /// `healthy`: all replicas answer; `degraded`: some do; `unhealthy`: none does.
    status: &'static str,
    replicas: Vec<ReplicaHealth>,
}

#[derive(Debug, Serialize)]
struct ReplicaHealth {
    id: String,
    endpoint: String,
    healthy: bool,
    version: Option<&'static str>,
    error: Option<String>,
}

async fn health(State(gateway): Node, Path(name): Path<String>) -> Reply {
    let server = server(&gateway, &name)?;
    let deadline = Instant::now() + gateway.config.health.timeout;
    let asked = server
        .replicas
        .iter()
        .map(|replica| replica_health(&gateway, replica, deadline));
    let replicas = join_all(asked).await;
    let healthy = replicas.iter().filter(|replica| replica.healthy).count();
    let status = match healthy {
        0 => "unhealthy",
        some if some < replicas.len() => "degraded",
        _ => "healthy",
    };
    let health = Health {
        server: server.id.to_string(),
        status,
        replicas,
    };
    let mut response = json(json::raw(&health).get().to_owned().into(), None);
    if healthy == 0 {
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

async fn replica_health(
    gateway: &Gateway,
    replica: &Arc<Replica>,
    deadline: Instant,
) -> ReplicaHealth {
    let described = gateway.relay.upstreams.describe(replica, deadline).await;
    ReplicaHealth {
        id: replica.id.to_string(),
        endpoint: replica.endpoint.to_string(),
        healthy: described.is_ok(),
        version: described.as_ref().ok().map(|known| known.version.as_str()),
        error: described.err().map(|error| error.root().to_string()),
    }
}

/// The server of that name.
pub(super) fn server(gateway: &Gateway, name: &str) -> Result<Arc<Server>, RestError> {
    if name == ALL_SERVERS {
        return Err(RestError::bad_request(
            "only lists can be asked of all servers; name one, or use POST /mcp",
        ));
    }
    gateway
        .servers
        .get(name)
        .ok_or_else(|| RestError::unknown_server(&gateway.servers, name))
}

/// The body as parameters: an object with the text `required` in it.
async fn parameters(
    body: Body,
    limits: &Limits,
    required: &'static str,
) -> Result<Box<Raw>, RestError> {
    let body = body::read(body, limits.body, limits.body_timeout).await?;
    let params = object(&body, limits)?;
    check_call(&params, required)?;
    Ok(params)
}

/// Parses a body that has to be one JSON object.
pub(super) fn object(body: &[u8], limits: &Limits) -> Result<Box<Raw>, RestError> {
    if !json::depth_within(body, limits.nesting) {
        return Err(RestError::bad_request(format!(
            "the body is nested deeper than {} levels (limits.nesting)",
            limits.nesting
        )));
    }
    let raw: Box<Raw> = serde_json::from_slice(body)
        .map_err(|error| RestError::bad_request(format!("the body is not JSON: {error}")))?;
    if !json::is_object(&raw) {
        return Err(RestError::bad_request("the body has to be a JSON object"));
    }
    Ok(raw)
}

/// Checks what every server would refuse.
pub(super) fn check_call(params: &Raw, required: &'static str) -> Result<(), RestError> {
    let object = RawObject::parse(params)
        .map_err(|_| RestError::bad_request("the parameters have to be a JSON object"))?;
    if object.get_str(required).is_none() {
        let message = format!("{required:?} is missing or not text");
        return Err(RestError::bad_request(message));
    }
    match object.get("arguments") {
        Some(arguments) if !json::is_object(arguments) => {
            Err(RestError::bad_request("\"arguments\" has to be an object"))
        }
        Some(_) | None => Ok(()),
    }
}

/// 200 with a JSON body.
pub(super) fn json(body: Bytes, status: Option<CacheStatus>) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(status) = status {
        headers.insert(CACHE_HEADER, HeaderValue::from_static(status.as_str()));
        headers.insert(VARY, HeaderValue::from_static("authorization"));
    }
    response
}

fn record(
    gateway: &Gateway,
    server: Option<&Server>,
    method: &str,
    begun: Instant,
    outcome: metrics::Outcome,
) {
    let server = server.map(|server| &server.id);
    let took = begun.elapsed();
    // REST has no protocol era; it is served in the shape of the newest.
    gateway
        .metrics
        .request(server, method, metrics::Era::Modern, outcome, took);
}

fn outcome<T, E>(answered: &Result<T, E>) -> metrics::Outcome {
    match answered {
        Ok(_) => metrics::Outcome::Ok,
        Err(_) => metrics::Outcome::Unavailable,
    }
}

fn answer_outcome(answer: &Result<Answer, RelayError>) -> metrics::Outcome {
    match answer {
        Ok(Answer::Result(result)) if is_tool_error(result) => metrics::Outcome::ToolError,
        Ok(Answer::Result(_)) => metrics::Outcome::Ok,
        Ok(Answer::Error(_)) => metrics::Outcome::RpcError,
        Err(RelayError::Upstream {
            source: UpstreamError::TimedOut { .. },
            ..
        }) => metrics::Outcome::TimedOut,
        Err(RelayError::TooManyParked) => metrics::Outcome::Shed,
        Err(RelayError::Rpc(_)) => metrics::Outcome::Refused,
        Err(
            RelayError::Upstream { .. } | RelayError::NoReplica { .. } | RelayError::Unavailable,
        ) => metrics::Outcome::Unavailable,
    }
}

fn is_tool_error(result: &Raw) -> bool {
    RawObject::parse(result).ok().is_some_and(|result| {
        result
            .get("isError")
            .is_some_and(|flag| flag.get() == "true")
    })
}
