//! Plain REST for scripts and load tools: lists as bare arrays, calls as the
//! result object. No sessions, no questions, no streams.

mod health;
mod once;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, VARY},
};
use tokio::time::Instant;
use tracing::Instrument as _;

pub(super) use self::once::Once;
use super::{
    body, caller,
    error::{Absent, RestError},
    record::Record,
};
use crate::{
    cache::CacheStatus,
    config::Limits,
    gateway::Gateway,
    lists::{Caller, ListPage, Target},
    mcp::{
        Raw,
        envelope::TraceContext,
        json::{self, RawObject},
        method::{self, ListKind},
        version::Version,
    },
    rates::Client,
    servers::Server,
    telemetry::metrics::Outcome,
};

/// How a list was served.
pub const CACHE_HEADER: HeaderName = HeaderName::from_static("x-mcp-fleet-cache");

/// Servers whose part is missing from the list of all, separated by commas.
pub const MISSING_HEADER: HeaderName = HeaderName::from_static("x-mcp-fleet-missing");

/// The name that stands for all servers.
const ALL_SERVERS: &str = "*";

type Reply = Result<Response, RestError>;
type Node = State<Arc<Gateway>>;

const CALL_TOOL: &str = "/mcp/{server}/tools/call";
const GET_PROMPT: &str = "/mcp/{server}/prompts/get";
const READ_RESOURCE: &str = "/mcp/{server}/resources/read";
const HEALTH: &str = "/mcp/{server}/health";

/// The routes below `/mcp/{server}/`.
pub fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route(list_route(ListKind::Tools), get(list_tools))
        .route(list_route(ListKind::Prompts), get(list_prompts))
        .route(list_route(ListKind::Resources), get(list_resources))
        .route(
            list_route(ListKind::ResourceTemplates),
            get(list_resource_templates),
        )
        .route(CALL_TOOL, post(call_tool))
        .route(GET_PROMPT, post(get_prompt))
        .route(READ_RESOURCE, post(read_resource))
        .route(HEALTH, get(health::health))
}

fn list_route(kind: ListKind) -> &'static str {
    match kind {
        ListKind::Tools => "/mcp/{server}/tools/list",
        ListKind::Prompts => "/mcp/{server}/prompts/list",
        ListKind::Resources => "/mcp/{server}/resources/list",
        ListKind::ResourceTemplates => "/mcp/{server}/resources/templates/list",
    }
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
    let caller = Caller::plain(caller::principal(headers));
    let (target, within) = if name == ALL_SERVERS {
        (Target::All, gateway.config.cache.list_deadline)
    } else {
        let server = server(&gateway, &name)?;
        let within = server.timeout;
        (Target::One(server), within)
    };
    let id = match &target {
        Target::One(server) => Some(&server.id),
        Target::All => None,
    };
    let record = Record::plain(
        &gateway.metrics,
        ("GET", list_route(kind)),
        kind.method(),
        id,
        None,
        &TraceContext::from_headers(headers),
    );
    gateway.watch(&target);
    let deadline = Instant::now() + within;
    let page = gateway.lists.whole(&target, kind, &caller, deadline);
    match page.instrument(record.span()).await {
        Ok(page) => {
            record.end(Outcome::Ok);
            Ok(array(&page))
        }
        Err(error) => {
            record.failed();
            Err(error.into())
        }
    }
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

async fn call_tool(
    node: Node,
    name: Path<String>,
    client: Client,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    call(node, name, (client, &headers), body, method::TOOLS_CALL).await
}

async fn get_prompt(
    node: Node,
    name: Path<String>,
    client: Client,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    call(node, name, (client, &headers), body, method::PROMPTS_GET).await
}

async fn call(
    State(gateway): Node,
    Path(name): Path<String>,
    (client, headers): (Client, &HeaderMap),
    body: Body,
    method: &'static str,
) -> Reply {
    let server = server(&gateway, &name)?;
    let params = parameters(body, &gateway.config.limits, "name").await?;
    let call = Once {
        server: &server,
        route: if method == method::TOOLS_CALL {
            CALL_TOOL
        } else {
            GET_PROMPT
        },
        method,
        params: &params,
        principal: caller::principal(headers),
        client,
        trace: &TraceContext::from_headers(headers),
    };
    let result = call.run(&gateway).await?;
    Ok(json(result.get().to_owned().into(), None))
}

async fn read_resource(
    State(gateway): Node,
    Path(name): Path<String>,
    client: Client,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let server = server(&gateway, &name)?;
    let params = parameters(body, &gateway.config.limits, "uri").await?;
    let call = Once {
        server: &server,
        route: READ_RESOURCE,
        method: method::RESOURCES_READ,
        params: &params,
        principal: caller::principal(&headers),
        client,
        trace: &TraceContext::from_headers(&headers),
    };
    let (result, status) = call.read(&gateway).await?;
    Ok(json(result.get().to_owned().into(), Some(status)))
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
        .ok_or_else(|| Absent::of(gateway, name).into())
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
    if let Some(name) = object.repeated_name() {
        let message = format!("{name:?} is there more than once");
        return Err(RestError::bad_request(message));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_servers_would_read_in_two_ways_are_refused() {
        let check = |body: &str| {
            let params: Box<Raw> = serde_json::from_str(body).expect("JSON");
            check_call(&params, "name")
        };
        assert!(check(r#"{"name":"a","arguments":{}}"#).is_ok());
        for bad in [
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","arguments":{},"argu\u006dents":{}}"#,
            r#"{"name":1}"#,
            r#"{"name":"a","arguments":[]}"#,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
