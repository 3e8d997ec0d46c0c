//! `GET /api/deployments/{deployment}/logs`: what its containers print, a JSON
//! object per line. A node without the engine passes on what one with it says.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};

use super::following::Following;
use crate::{
    certificates,
    deployments::{View, definition::Definition},
    engine::{LogLine, LogStream},
    gateway::Gateway,
    http::error::RestError,
};

/// Says that a node asks, which has to be answered without asking another one.
const RELAYED: HeaderName = HeaderName::from_static("x-mcp-fleet-relayed");
/// Lines told of each container when nobody says how many.
const TAIL: u32 = 200;
/// Most that can be asked for.
const MAX_TAIL: u32 = 100_000;
/// Longest wait for another node to begin.
const BEGIN: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http::admin) struct Asked {
    /// Lines of each container.
    tail: Option<u32>,
    /// Whether to go on with what comes.
    #[serde(default)]
    follow: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    container: &'a str,
    replica: u32,
    stream: &'static str,
    text: &'a str,
}

/// `GET /api/deployments/{deployment}/logs`
pub(in crate::http::admin) async fn logs(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, RestError> {
    let Query(asked) = asked.map_err(|error| RestError::bad_request(error.body_text()))?;
    let view = super::known(&gateway, &name)?;
    let engine = view.engine().unwrap_or_default();
    let is_own = gateway.deployments.engine().offered().contains(&engine);
    if !is_own && !headers.contains_key(&RELAYED) {
        return relay(&gateway, &view, &engine, &asked).await;
    }
    own(&gateway, &view, &asked).await
}

/// What containers of this node's engine print.
async fn own(gateway: &Arc<Gateway>, view: &View, asked: &Asked) -> Result<Response, RestError> {
    let tail = asked.tail.unwrap_or(TAIL).min(MAX_TAIL);
    if !asked.follow {
        let lines = printed(gateway, view, tail).await?.map(Ok::<_, Infallible>);
        return Ok(lines_of(Body::from_stream(lines)));
    }
    let place = gateway.stream_place().map_err(|_| {
        let message = "this node has as many streams open as it may (limits.streams)";
        RestError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message)
    })?;
    let stopping = gateway.tasks.stopping().clone();
    let lines = Following::new(gateway, &view.name, tail)
        .lines()
        .take_until(async move { stopping.cancelled().await })
        .map(move |line| {
            let _place = &place;
            Ok::<_, Infallible>(line)
        });
    Ok(lines_of(Body::from_stream(lines)))
}

/// What they printed until now.
async fn printed(
    gateway: &Gateway,
    view: &View,
    tail: u32,
) -> Result<impl Stream<Item = Bytes> + Send + use<>, RestError> {
    let docker = &gateway.deployments.engine().docker;
    let secrets = view
        .definition()
        .map(Definition::secrets)
        .unwrap_or_default();
    let replicas = view.record.iter().flat_map(|record| &record.replicas);
    let mut outputs = Vec::new();
    // Of one that was never made there is nothing to read.
    for one in replicas.filter(|one| !one.id.is_empty()) {
        let output = match docker.logs(&one.container, Some(tail), false).await {
            Ok(output) => output,
            // It went away meanwhile.
            Err(error) if error.cause == crate::engine::Cause::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let (name, ordinal, secrets) = (one.container.clone(), one.ordinal, secrets.clone());
        let lines = output.filter_map(move |line| {
            let line = line.ok().map(|line: LogLine| {
                let text = secrets.hide(&line.text);
                json_line(&name, ordinal, line.stream, &text)
            });
            std::future::ready(line)
        });
        outputs.push(lines.boxed());
    }
    Ok(stream::iter(outputs).flatten())
}

pub(super) fn json_line(container: &str, replica: u32, stream: LogStream, text: &str) -> Bytes {
    let line = Line {
        container,
        replica,
        stream: match stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        },
        text,
    };
    // Texts and a number: writing them as JSON cannot fail.
    let mut json = serde_json::to_vec(&line).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

fn lines_of(body: Body) -> Response {
    let mut response = Response::new(body);
    let lines = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, lines);
    response
}

/// Asks a node that has the engine.
async fn relay(
    gateway: &Gateway,
    view: &View,
    engine: &str,
    asked: &Asked,
) -> Result<Response, RestError> {
    let me = gateway.membership.me();
    let nodes = gateway.membership.view();
    let mut others = nodes.members.iter().filter(|member| {
        member.incarnation != *me && member.about.engines.iter().any(|known| known == engine)
    });
    let Some(other) = others.next() else {
        let message = format!(
            "no node of the fleet has the engine {engine} that runs {} now; `mcp-fleet nodes` \
             shows who lives",
            view.name
        );
        return Err(RestError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_engine",
            message,
        ));
    };
    let (node, address) = (other.incarnation.node(), &other.about.url);
    if address.is_empty() {
        let message = format!(
            "node {node} has the engine of {}, and does not say where it is reached: set \
             node.advertise there",
            view.name
        );
        let status = StatusCode::BAD_GATEWAY;
        return Err(RestError::new(status, "node_unreachable", message));
    }
    let failed = |why: String| {
        let message = format!(
            "node {node} has the engine of {}, and cannot be asked at {address} from here ({why}); \
             ask it yourself: --node http://ADDRESS-OF-{node}, or set node.advertise there",
            view.name
        );
        RestError::new(StatusCode::BAD_GATEWAY, "node_unreachable", message)
    };
    let tail = asked.tail.unwrap_or(TAIL).min(MAX_TAIL);
    let follow = asked.follow;
    let name = &view.name;
    let uri = format!("{address}/api/deployments/{name}/logs?tail={tail}&follow={follow}");
    let request = Request::builder()
        .uri(uri)
        .header(RELAYED, "1")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    let upstream = &gateway.config.upstream;
    let tls = certificates::client(upstream.ca_file.as_deref());
    let tls = tls.map_err(|error| failed(error.to_string()))?;
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(upstream.connect_timeout));
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answer = tokio::time::timeout(BEGIN, client.request(request))
        .await
        .map_err(|_| failed("no answer in time".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let (parts, body) = answer.into_parts();
    let mut response = lines_of(Body::new(body));
    *response.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    Ok(response)
}
