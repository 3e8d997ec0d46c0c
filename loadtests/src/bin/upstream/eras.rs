//! The two eras: what each demands of a request, and how its answers look.

use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue},
};
use serde_json::value::RawValue;

use crate::{
    Answer, Face, Upstream,
    counts::Counts,
    json,
    message::{self, Message},
    status,
};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

/// What every session id begins with; the rest is its number.
const SESSION_PREFIX: &str = "load-";

const SERVER_INFO: &str = r#"{"name":"load","version":"1"}"#;

/// How long lists stay fresh: longer than a run.
const HINTS: &str = r#""ttlMs":3600000,"cacheScope":"public""#;

/// Answers a request of 2026-07-28.
pub(crate) fn modern(
    upstream: &Upstream,
    face: &Face<'_>,
    headers: &HeaderMap,
    body: &[u8],
) -> serde_json::Result<Answer> {
    let message = Message::parse(body)?;
    upstream.counts.request(message.method);
    let Some(id) = message.id else {
        return Ok(status(StatusCode::ACCEPTED));
    };
    if !is(headers, &VERSION, MODERN) || !is(headers, &METHOD, message.method) {
        return Ok(refused(
            StatusCode::BAD_REQUEST,
            id,
            -32020,
            "header mismatch",
        ));
    }
    Ok(match message.method {
        "server/discover" => json(message::result(
            id,
            &[
                r#""resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":"#,
                tools_capability(face),
                "},",
                HINTS,
                r#","_meta":{"io.modelcontextprotocol/serverInfo":"#,
                SERVER_INFO,
                "}",
            ],
        )),
        "tools/list" => json(message::result(
            id,
            &[
                r#""resultType":"complete","tools":"#,
                face.tools,
                ",",
                HINTS,
            ],
        )),
        "tools/call" => {
            let params = message.members()?;
            let name = params.get("name").map_or("null", |raw| raw.get());
            let name: &str = serde_json::from_str(name)?;
            if !is(headers, &NAME, name) {
                return Ok(refused(
                    StatusCode::BAD_REQUEST,
                    id,
                    -32020,
                    "header mismatch",
                ));
            }
            let said = said(&message)?;
            let result = [
                r#""resultType":"complete","content":[{"type":"text","text":"#,
                said,
                "}]",
            ];
            json(message::result(id, &result))
        }
        "subscriptions/listen" if face.changes => {
            let params = message.members()?;
            let filter = params.get("notifications").map_or("{}", |raw| raw.get());
            upstream.changes.listen(id, filter)
        }
        _ => refused(StatusCode::NOT_FOUND, id, -32601, "method not found"),
    })
}

/// Answers a request of 2025-11-25.
pub(crate) fn legacy(
    upstream: &Upstream,
    face: &Face<'_>,
    headers: &HeaderMap,
    body: &[u8],
) -> serde_json::Result<Answer> {
    let message = Message::parse(body)?;
    upstream.counts.request(message.method);
    if let (Some(id), "initialize") = (message.id, message.method) {
        return Ok(open_session(upstream, face, id));
    }
    match headers.get(&SESSION).map(HeaderValue::as_bytes) {
        Some(session) if session.starts_with(SESSION_PREFIX.as_bytes()) => {}
        Some(_) => return Ok(status(StatusCode::NOT_FOUND)),
        None => return Ok(status(StatusCode::BAD_REQUEST)),
    }
    let Some(id) = message.id else {
        return Ok(status(StatusCode::ACCEPTED));
    };
    if !is(headers, &VERSION, LEGACY) {
        return Ok(refused(
            StatusCode::BAD_REQUEST,
            id,
            -32600,
            "version of another session",
        ));
    }
    Ok(match message.method {
        "tools/list" => json(message::result(id, &[r#""tools":"#, face.tools])),
        "tools/call" => {
            let result = [
                r#""content":[{"type":"text","text":"#,
                said(&message)?,
                "}]",
            ];
            json(message::result(id, &result))
        }
        "ping" => json(message::result(id, &[])),
        _ => refused(StatusCode::OK, id, -32601, "method not found"),
    })
}

/// Answers the DELETE of a session.
pub(crate) fn end_session(counts: &Counts) -> Answer {
    counts.session_ended();
    status(StatusCode::NO_CONTENT)
}

fn open_session(upstream: &Upstream, face: &Face<'_>, id: &str) -> Answer {
    let number = upstream.counts.session_opened();
    let mut answer = json(message::result(
        id,
        &[
            r#""protocolVersion":""#,
            LEGACY,
            r#"","capabilities":{"tools":"#,
            tools_capability(face),
            r#"},"serverInfo":"#,
            SERVER_INFO,
        ],
    ));
    if let Ok(session) = HeaderValue::from_str(&format!("{SESSION_PREFIX}{number:08}")) {
        answer.headers_mut().insert(SESSION, session);
    }
    answer
}

fn tools_capability(face: &Face<'_>) -> &'static str {
    match face.changes {
        true => r#"{"listChanged":true}"#,
        false => "{}",
    }
}

/// The argument `message` of a call, as it was written: what the tool echoes.
fn said<'a>(call: &Message<'a>) -> serde_json::Result<&'a str> {
    let params = call.members()?;
    let arguments = params.get("arguments").copied();
    let arguments = arguments.map_or(Ok(message::Members::new()), message::of)?;
    let said = arguments.get("message").copied();
    Ok(said.map_or("\"\"", RawValue::get))
}

fn is(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    headers.get(name).is_some_and(|found| found == value)
}

fn refused(status: StatusCode, id: &str, code: i32, why: &str) -> Answer {
    let mut answer = json(message::error(id, code, why));
    *answer.status_mut() = status;
    answer
}
