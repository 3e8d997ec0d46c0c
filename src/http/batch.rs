//! `POST /api/batch`: many tool calls in one request.
//!
//! Calls are grouped by server, so that one slow server holds up only its own,
//! run in parallel within each group up to a bound, and are answered in the
//! order they were asked, each with its own result or error.

use std::{collections::HashMap, sync::Arc};

use axum::{Router, body::Body, extract::State, response::Response, routing::post};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::{
    body, caller,
    error::RestError,
    rest::{self, Once},
};
use crate::{
    gateway::Gateway,
    ids::Principal,
    mcp::{
        Raw,
        envelope::TraceContext,
        json::{self, RawObject},
        method,
    },
    rates::Client,
    servers::Server,
};

/// Calls of one batch that run at once at one server.
const PER_SERVER: usize = 16;

const ROUTE: &str = "/api/batch";

/// The batch route.
pub fn routes() -> Router<Arc<Gateway>> {
    Router::new().route(ROUTE, post(batch))
}

/// One call of a batch, ready to be made.
struct Planned {
    /// Its place in the batch.
    at: usize,
    params: Box<Raw>,
}

type Outcome = Result<Box<Raw>, RestError>;

async fn batch(
    State(gateway): State<Arc<Gateway>>,
    client: Client,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RestError> {
    let limits = &gateway.config.limits;
    let body = body::read(body, limits.body, limits.body_timeout).await?;
    let request = rest::object(&body, limits)?;
    let calls = calls(&request, limits.batch)?;
    let caller = (caller::principal(&headers), client);
    let trace = TraceContext::from_headers(&headers);

    let mut outcomes: Vec<Option<Outcome>> = calls.iter().map(|_| None).collect();
    let mut groups: HashMap<String, (Arc<Server>, Vec<Planned>)> = HashMap::new();
    for (at, call) in calls.into_iter().enumerate() {
        match plan(&gateway, call) {
            Ok((server, params)) => {
                let id = server.id.to_string();
                let group = groups.entry(id).or_insert_with(|| (server, Vec::new()));
                group.1.push(Planned { at, params });
            }
            Err(error) => outcomes[at] = Some(Err(error)),
        }
    }
    let groups = groups.into_values();
    let mut finished = stream::select_all(
        groups.map(|(server, calls)| run(&gateway, server, calls, caller, &trace)),
    );
    // Each call ends at its server's own deadline; this bounds waiting for a turn.
    let deadline = Instant::now() + limits.call;
    while let Ok(Some((at, outcome))) = timeout_at(deadline, finished.next()).await {
        outcomes[at] = Some(outcome);
    }
    Ok(rest::json(written(outcomes).into(), None))
}

/// The calls of a batch.
fn calls(request: &Raw, most: usize) -> Result<Vec<&Raw>, RestError> {
    let shape = || RestError::bad_request("the body has to be {\"calls\": [..]}");
    #[derive(serde::Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        calls: &'a Raw,
    }
    let request: Request<'_> = serde_json::from_str(request.get()).map_err(|_| shape())?;
    let calls = json::elements(request.calls).map_err(|_| shape())?;
    if calls.len() > most {
        return Err(RestError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "batch_too_large",
            format!("a batch may have at most {most} calls (limits.batch)"),
        ));
    }
    Ok(calls)
}

/// The server of a call and its parameters: all of its members but `server`,
/// with the tool under `name`.
fn plan(gateway: &Gateway, call: &Raw) -> Result<(Arc<Server>, Box<Raw>), RestError> {
    let (server, params) = parameters(call)?;
    Ok((rest::server(gateway, &server)?, params))
}

fn parameters(call: &Raw) -> Result<(String, Box<Raw>), RestError> {
    let mut params = RawObject::parse(call)
        .map_err(|_| RestError::bad_request("a call has to be a JSON object"))?;
    if let Some(name) = params.repeated_name() {
        let message = format!("{name:?} is there more than once");
        return Err(RestError::bad_request(message));
    }
    let server = params
        .get_str("server")
        .map(|server| server.into_owned())
        .ok_or_else(|| RestError::bad_request("\"server\" is missing or not text"))?;
    params.remove("server");
    if let Some(tool) = params.remove("tool") {
        params.set("name", tool);
    }
    let params = params.to_raw();
    rest::check_call(&params, "name").map_err(|_| {
        RestError::bad_request("a call needs \"tool\" (text) and \"arguments\" (an object)")
    })?;
    Ok((server, params))
}

/// The outcomes of one server's calls, as they come.
fn run<'a>(
    gateway: &'a Gateway,
    server: Arc<Server>,
    calls: Vec<Planned>,
    (principal, client): (Principal, Client),
    trace: &'a TraceContext,
) -> BoxStream<'a, (usize, Outcome)> {
    let made = stream::iter(calls).map(move |planned| {
        let server = Arc::clone(&server);
        async move {
            let call = Once {
                server: &server,
                route: ROUTE,
                method: method::TOOLS_CALL,
                params: &planned.params,
                principal,
                client,
                trace,
            };
            (planned.at, call.run(gateway).await)
        }
    });
    made.buffer_unordered(PER_SERVER).boxed()
}

/// `{"results":[{"result":..}|{"error":..}, ..]}`
fn written(outcomes: Vec<Option<Outcome>>) -> Vec<u8> {
    let mut out = b"{\"results\":[".to_vec();
    for (at, outcome) in outcomes.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let outcome = outcome.unwrap_or_else(|| {
            Err(RestError::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "the batch took longer than limits.call",
            ))
        });
        let (member, value) = match outcome {
            Ok(result) => ("{\"result\":", result),
            Err(error) => ("{\"error\":", error.to_raw()),
        };
        out.extend_from_slice(member.as_bytes());
        out.extend_from_slice(value.get().as_bytes());
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<Raw> {
        Raw::from_string(text.to_owned()).expect("valid JSON")
    }

    #[test]
    fn a_batch_is_an_object_with_calls() {
        for bad in ["{}", r#"{"calls":{}}"#, r#"{"calls":null}"#] {
            assert!(calls(&raw(bad), 10).is_err(), "{bad}");
        }
        assert_eq!(calls(&raw(r#"{"calls":[]}"#), 10).expect("calls").len(), 0);
        let error = calls(&raw(r#"{"calls":[1,2,3]}"#), 2).expect_err("too many");
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn the_tool_may_be_called_tool_or_name() {
        let by_tool = raw(r#"{"server":"demo","tool":"echo","arguments":{"n":1.0}}"#);
        let by_name = raw(r#"{"server":"demo","name":"echo","arguments":{"n":1.0}}"#);
        for call in [by_tool, by_name] {
            let (server, params) = parameters(&call).expect("a call");
            assert_eq!(server, "demo");
            let params = RawObject::parse(&params).expect("an object");
            assert_eq!(params.get_str("name").as_deref(), Some("echo"));
            assert_eq!(params.get("arguments").map(Raw::get), Some(r#"{"n":1.0}"#));
        }
    }

    #[test]
    fn a_bad_call_is_refused_on_its_own() {
        for bad in [
            "1",
            r#"{"tool":"echo"}"#,
            r#"{"server":"demo"}"#,
            r#"{"server":"demo","tool":1}"#,
            r#"{"server":"demo","tool":"echo","arguments":[]}"#,
        ] {
            assert!(parameters(&raw(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_keep_their_places() {
        let outcomes = vec![
            Some(Ok(raw(r#"{"content":[]}"#))),
            Some(Err(RestError::bad_request("no"))),
            None,
        ];
        let text = String::from_utf8(written(outcomes)).expect("text");
        assert_eq!(
            text,
            r#"{"results":[{"result":{"content":[]}},{"error":{"code":"bad_request","message":"no"}},{"error":{"code":"timeout","message":"the batch took longer than limits.call"}}]}"#
        );
        assert_eq!(written(Vec::new()), b"{\"results\":[]}");
    }
}
