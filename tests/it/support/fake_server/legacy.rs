//! Servers of 2025-11-25 and earlier, with and without sessions, and HTTP+SSE.

use std::{collections::HashSet, sync::Arc};

use axum::body::Body;
use http::Response;
use serde_json::Value;

use super::{
    Recorded, Shared, Speaks, lock,
    outbox::{Frame, Outbox},
    respond,
    response::{self, Events},
};

/// What a server remembers of a client.
#[derive(Debug)]
pub(super) struct Session {
    /// The standalone stream.
    standalone: Arc<Outbox>,
    ids: HashSet<String>,
}

/// What to do with a message.
enum Act {
    /// The response is known.
    Respond(String),
    /// The script answers.
    Run,
    /// Nothing to say.
    Accept,
}

fn act(shared: &Arc<Shared>, request: &Recorded, version: &str) -> Act {
    let id = &request.json["id"];
    let method = request.method();
    if request.json.get("id").is_none() {
        return Act::Accept;
    }
    if method.is_empty() {
        let key = id.as_str().unwrap_or_default();
        let Some(asked) = lock(&shared.pending).remove(key) else {
            shared.violation(format!("an answer nobody asked for: {}", request.body));
            return Act::Accept;
        };
        // A script that is gone needs no answer.
        asked.send(request.json.clone()).ok();
        return Act::Accept;
    }
    match method.as_str() {
        "initialize" => Act::Respond(initialized(shared, id, version)),
        "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => {
            Act::Respond(shared.result(id, "{}"))
        }
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
            Act::Respond(shared.list(request))
        }
        _ => Act::Run,
    }
}

fn initialized(shared: &Shared, id: &Value, version: &str) -> String {
    let contents = lock(&shared.contents);
    let result = format!(
        r#"{{"protocolVersion":"{version}","capabilities":{},"serverInfo":{{"name":"fake","version":"1"}}{}}}"#,
        contents.capabilities, contents.about
    );
    shared.result(id, &result)
}

/// Streamable HTTP.
pub(super) async fn answer(shared: &Arc<Shared>, request: &Recorded) -> Response<Body> {
    let (version, has_sessions) = match shared.speaks {
        Speaks::Sessions(version) => (version, true),
        Speaks::Stateless(version) => (version, false),
        Speaks::Modern | Speaks::HttpSse => panic!("not Streamable HTTP"),
    };
    let id = &request.json["id"];
    let session = request.header("mcp-session-id");
    let opens = request.method() == "initialize";
    if let Some(refusal) = refuse(shared, request, version, has_sessions, opens) {
        return refusal;
    }
    match request.http_method.as_str() {
        "GET" => return get(shared, request),
        "DELETE" => {
            let gone = session.and_then(|id| lock(&shared.sessions).remove(id));
            shared.changed.notify_waiters();
            return response::empty(if gone.is_some() { 204 } else { 405 });
        }
        _ => {}
    }
    if !opens && request.json.get("method").is_some() && !id.is_null() {
        note_id(shared, session, id);
    }
    match act(shared, request, version) {
        Act::Respond(response) => {
            let mut response = response::json(200, response);
            if opens && has_sessions {
                let id = new_session(shared);
                let headers = response.headers_mut();
                headers.insert("mcp-session-id", id.parse().expect("a header value"));
            }
            response
        }
        Act::Accept => response::empty(202),
        Act::Run => {
            let outbox = shared.stream();
            let reader = outbox.reader();
            shared.run(request, &outbox);
            respond(reader, events(shared, &outbox, version)).await
        }
    }
}

fn refuse(
    shared: &Shared,
    request: &Recorded,
    version: &str,
    has_sessions: bool,
    opens: bool,
) -> Option<Response<Body>> {
    let error = |status, message: &str| {
        Some(response::json(
            status,
            Shared::error(&request.json["id"], -32000, message),
        ))
    };
    let given = request.header("mcp-protocol-version");
    if opens {
        if request.headers.contains_key("mcp-session-id") {
            shared.violation("initialize with a session id".to_owned());
        }
        return None;
    }
    if has_sessions {
        match request.header("mcp-session-id") {
            None => return error(400, "Bad Request: Mcp-Session-Id header is required"),
            Some(id) if !lock(&shared.sessions).contains_key(id) => {
                return error(404, "Session not found");
            }
            Some(_) => {}
        }
    }
    if given.is_some_and(|given| given != version) {
        return error(400, "Bad Request: Unsupported protocol version");
    }
    if given.is_none() && version >= "2025-06-18" {
        shared.violation(format!("no version header: {request:?}"));
    }
    None
}

/// Ids are never used again in a session.
fn note_id(shared: &Shared, session: Option<&str>, id: &Value) {
    let mut sessions = lock(&shared.sessions);
    if let Some(session) = session.and_then(|session| sessions.get_mut(session))
        && !session.ids.insert(id.to_string())
    {
        shared.violation(format!("the id {id} is used twice in a session"));
    }
}

fn new_session(shared: &Shared) -> String {
    let id = format!("session-{}", shared.number());
    let session = Session {
        standalone: shared.stream(),
        ids: HashSet::new(),
    };
    lock(&shared.sessions).insert(id.clone(), session);
    id
}

fn events(shared: &Shared, outbox: &Outbox, version: &str) -> Events {
    let is_resumable = *lock(&shared.resumable);
    Events {
        ids: is_resumable.then(|| outbox.name.clone()),
        event: None,
        preface: match is_resumable && version >= "2025-11-25" {
            true => format!("id: {}-first\ndata: \n\n", outbox.name),
            false => String::new(),
        },
    }
}

fn get(shared: &Arc<Shared>, request: &Recorded) -> Response<Body> {
    let session = request.header("mcp-session-id").unwrap_or_default();
    if let Some(last) = request.header("last-event-id") {
        let (name, at) = last.rsplit_once('-').expect("one of our event ids");
        let outbox = lock(&shared.streams).get(name).cloned();
        let outbox = outbox.unwrap_or_else(|| panic!("no stream {name}"));
        let reader = match at.parse() {
            Ok(at) => outbox.resume(at),
            Err(_) => outbox.resume_all(),
        };
        let events = Events {
            ids: Some(name.to_owned()),
            ..Events::default()
        };
        return response::stream(None, reader, events);
    }
    let outbox = match lock(&shared.sessions).get(session) {
        Some(session) => Arc::clone(&session.standalone),
        None => return response::empty(405),
    };
    let reader = outbox.reader();
    shared.changed.notify_waiters();
    response::stream(None, reader, Events::default())
}

/// Tells every session whose standalone stream is open; answers how many.
pub(super) fn announce(shared: &Shared, method: &str, params: &Value) -> usize {
    let message = serde_json::json!({"jsonrpc": "2.0", "method": method, "params": params});
    let sessions = lock(&shared.sessions);
    let open = sessions.values().map(|session| &session.standalone);
    let open: Vec<_> = open.filter(|outbox| outbox.is_read()).collect();
    for outbox in &open {
        outbox.push(Frame::Message(message.to_string()));
    }
    open.len()
}

/// HTTP+SSE 2024-11-05.
pub(super) fn answer_http_sse(shared: &Arc<Shared>, request: &Recorded) -> Response<Body> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    match (request.http_method.as_str(), path) {
        ("GET", "/sse") => {
            let id = new_session(shared);
            let outbox = Arc::clone(&lock(&shared.sessions)[&id].standalone);
            let events = Events {
                ids: None,
                event: Some("message"),
                preface: format!("event: endpoint\ndata: /messages?sessionId={id}\n\n"),
            };
            response::stream(None, outbox.reader(), events)
        }
        ("POST", "/messages") => {
            let session = query.strip_prefix("sessionId=").unwrap_or_default();
            let outbox = match lock(&shared.sessions).get(session) {
                Some(session) => Arc::clone(&session.standalone),
                None => return response::empty(404),
            };
            match act(shared, request, "2024-11-05") {
                // One stream for everything: a response does not end it.
                Act::Respond(response) => outbox.push(Frame::Message(response)),
                Act::Run => shared.run_within(request, &outbox),
                Act::Accept => {}
            }
            response::empty(202)
        }
        _ => response::empty(405),
    }
}
