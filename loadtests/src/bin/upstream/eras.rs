//! The two eras: what each demands of a request, and how its answers look.

use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue},
};

use crate::{
    Answer, Upstream,
    counts::Counts,
    echo,
    faces::{Era, Face},
    json,
    message::{self, Message},
    status,
    tools::Page,
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

/// What results of the modern era begin with.
const COMPLETE: &str = r#""resultType":"complete","#;

/// How long lists stay fresh: longer than a run.
const HINTS: &str = r#""ttlMs":3600000,"cacheScope":"public""#;

/// Answers a request of 2026-07-28.
pub(crate) fn modern(
    upstream: &Upstream,
    face: &Face,
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
        "tools/list" => {
            let page = page(upstream, face, &message)?;
            let next = next(&page);
            let result = [COMPLETE, &next, r#""tools":"#, &page.tools, ",", HINTS];
            json(message::result(id, &result))
        }
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
            echo::answer(&message, id, COMPLETE)?
        }
        "subscriptions/listen" if face.changes() => {
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
    face: &Face,
    headers: &HeaderMap,
    body: &[u8],
) -> serde_json::Result<Answer> {
    let message = Message::parse(body)?;
    upstream.counts.request(message.method);
    if let (Some(id), "initialize") = (message.id, message.method) {
        return Ok(open_session(upstream, face, id));
    }
    match headers.get(&SESSION).map(HeaderValue::as_bytes) {
        None if face.era == Era::Sessionless => {}
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
        "tools/list" => {
            let page = page(upstream, face, &message)?;
            json(message::result(
                id,
                &[&next(&page), r#""tools":"#, &page.tools],
            ))
        }
        "tools/call" => echo::answer(&message, id, "")?,
        "ping" => json(message::result(id, &[])),
        _ => refused(StatusCode::OK, id, -32601, "method not found"),
    })
}

/// Whether a request of the modern era is one for a list.
pub(crate) fn is_list(headers: &HeaderMap) -> bool {
    is(headers, &METHOD, "tools/list")
}

/// Answers the DELETE of a session.
pub(crate) fn end_session(counts: &Counts) -> Answer {
    counts.session_ended();
    status(StatusCode::NO_CONTENT)
}

fn open_session(upstream: &Upstream, face: &Face, id: &str) -> Answer {
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
    if face.era == Era::Sessionless {
        return answer;
    }
    let number = upstream.counts.session_opened();
    if let Ok(session) = HeaderValue::from_str(&format!("{SESSION_PREFIX}{number:08}")) {
        answer.headers_mut().insert(SESSION, session);
    }
    answer
}

fn tools_capability(face: &Face) -> &'static str {
    match face.changes() {
        true => r#"{"listChanged":true}"#,
        false => "{}",
    }
}

/// The page of the list that is asked for.
fn page(upstream: &Upstream, face: &Face, list: &Message<'_>) -> serde_json::Result<Page> {
    let params = list.members()?;
    let cursor = params.get("cursor").map_or("null", |raw| raw.get());
    let cursor: Option<&str> = serde_json::from_str(cursor)?;
    Ok(face.page(&upstream.catalogue, &upstream.changes, cursor))
}

/// The member that leads to the next page, if there is one.
fn next(page: &Page) -> String {
    page.next
        .map_or_else(String::new, |cursor| format!(r#""nextCursor":"{cursor}","#))
}

fn is(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    headers.get(name).is_some_and(|found| found == value)
}

fn refused(status: StatusCode, id: &str, code: i32, why: &str) -> Answer {
    let mut answer = json(message::error(id, code, why));
    *answer.status_mut() = status;
    answer
}
