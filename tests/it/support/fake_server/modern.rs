//! A server of 2026-07-28, strict about what clients have to send.

use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use http::Response;
use serde_json::{Value, json};

use super::{
    Recorded, Shared, lock,
    outbox::Frame,
    respond,
    response::{self, Events},
};
use crate::support::client::{CAPABILITIES, MODERN, SUBSCRIPTION, VERSION};

pub(super) async fn answer(shared: &Arc<Shared>, request: &Recorded) -> Response<Body> {
    if request.http_method != "POST" {
        return response::empty(405);
    }
    let id = &request.json["id"];
    if request.json.get("method").is_none() || request.json.get("id").is_none() {
        shared.violation(format!("no modern request: {}", request.body));
        return response::json(400, Shared::error(id, -32600, "not a request"));
    }
    let method = request.method();
    if method == "initialize" {
        return response::json(400, Shared::error(id, -32602, "no envelope"));
    }
    if let Some(wrong) = wrong_headers(request) {
        shared.violation(format!("{wrong}: {request:?}"));
        return response::json(400, Shared::error(id, -32020, &wrong));
    }
    if request.meta(VERSION) != MODERN {
        let error = json!({"code": -32022, "message": "unsupported version",
            "data": {"supported": [MODERN], "requested": request.meta(VERSION)}});
        let body = json!({"jsonrpc": "2.0", "id": id, "error": error});
        return response::json(400, body.to_string());
    }
    if !request.meta(CAPABILITIES).is_object() {
        shared.violation(format!("no capabilities: {}", request.body));
    }
    match method.as_str() {
        "server/discover" => response::json(200, discover(shared, id)),
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
            response::json(200, shared.list(request))
        }
        "subscriptions/listen" => listen(shared, request),
        _ => {
            let outbox = shared.stream();
            let reader = outbox.reader();
            shared.run(request, &outbox);
            respond(reader, Events::default()).await
        }
    }
}

/// What is wrong with the standard headers.
fn wrong_headers(request: &Recorded) -> Option<String> {
    let expect = |header: &str, value: &str| {
        let given: Vec<_> = request.headers.get_all(header).iter().collect();
        let is_right = matches!(&given[..], [one] if decode(one.to_str().ok()?) == value);
        (!is_right).then(|| format!("{header} is {given:?} and not {value:?}"))
    };
    let version = request.meta(VERSION);
    let name = match request.method().as_str() {
        "tools/call" | "prompts/get" => request.params()["name"].as_str(),
        "resources/read" => request.params()["uri"].as_str(),
        _ => None,
    };
    for never in ["mcp-session-id", "last-event-id", "origin", "cookie"] {
        if request.headers.contains_key(never) {
            return Some(format!("{never} was sent"));
        }
    }
    expect("mcp-protocol-version", version.as_str().unwrap_or_default())
        .or_else(|| expect("mcp-method", &request.method()))
        .or_else(|| name.and_then(|name| expect("mcp-name", name)))
}

fn decode(value: &str) -> String {
    let inner = value
        .strip_prefix("=?base64?")
        .and_then(|v| v.strip_suffix("?="));
    match inner {
        None => value.to_owned(),
        Some(inner) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(inner);
            String::from_utf8(bytes.expect("base64")).expect("text")
        }
    }
}

fn discover(shared: &Shared, id: &Value) -> String {
    let contents = lock(&shared.contents);
    let result = format!(
        r#"{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{},"ttlMs":{},"cacheScope":"{}","_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"fake","version":"1"}}}}{}}}"#,
        contents.capabilities, contents.ttl_ms, contents.scope, contents.about
    );
    shared.result(id, &result)
}

fn listen(shared: &Arc<Shared>, request: &Recorded) -> Response<Body> {
    let outbox = shared.stream();
    let id = request.json["id"].clone();
    let filter = request.params()["notifications"].clone();
    let params = json!({"_meta": {SUBSCRIPTION: id}, "notifications": filter});
    let method = "notifications/subscriptions/acknowledged";
    let ack = json!({"jsonrpc": "2.0", "method": method, "params": params});
    outbox.push(Frame::Message(ack.to_string()));
    let reader = outbox.reader();
    lock(&shared.listens).push((id, filter, outbox));
    shared.changed.notify_waiters();
    response::stream(None, reader, Events::default())
}

/// Tells those who asked; answers how many.
pub(super) fn announce(shared: &Shared, method: &str, params: &Value, key: &str) -> usize {
    let mut told = 0;
    for (id, filter, outbox) in &*lock(&shared.listens) {
        let uris = filter["resourceSubscriptions"].as_array();
        let wants = filter[key] == true || uris.is_some_and(|uris| uris.iter().any(|u| u == key));
        if !wants || outbox.is_gone() {
            continue;
        }
        let mut params = params.clone();
        params["_meta"] = json!({ SUBSCRIPTION: id });
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        outbox.push(Frame::Message(message.to_string()));
        told += 1;
    }
    told
}

pub(super) fn end_listens(shared: &Shared) {
    for (id, _, outbox) in lock(&shared.listens).drain(..) {
        let meta = json!({ SUBSCRIPTION: id });
        let result = json!({"resultType": "complete", "_meta": meta});
        let response = json!({"jsonrpc": "2.0", "id": id, "result": result});
        outbox.push(Frame::Response(response.to_string()));
    }
}
