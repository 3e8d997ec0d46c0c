//! The cases: the steps of a call by themselves, and whole requests to a node
//! in this process whose only server is the built-in one.

use std::{
    future::{Future, ready},
    sync::Arc,
};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use mcp_fleet::{
    config::Config,
    gateway::Gateway,
    http::router,
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        classify::{Classified, classify},
        envelope::{Envelope, OutgoingMeta, TraceContext, with_modern_meta},
        header::check_standard_headers,
        message::{self, Body as Message, ParseLimits, RequestId, parse_body},
        shape::{ModernResult, result_for_modern},
        sse,
        version::Version,
    },
    telemetry::metrics::Metrics,
};
use tower::ServiceExt as _;

use super::Visitor;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
const LIMITS: ParseLimits = ParseLimits {
    max_depth: 64,
    max_batch: 64,
};

pub(crate) async fn run(visitor: &mut impl Visitor) {
    steps(visitor).await;
    if !visitor.is_done() {
        requests(visitor).await;
    }
}

fn text() -> String {
    "All happy payloads are alike; each unhappy one is unhappy in its own way. ".repeat(13)
}

fn modern_call() -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1234567890,"method":"tools/call","params":{{"name":"echo","arguments":{{"message":"{}"}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientInfo":{{"name":"costs","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#,
        text()
    )
}

fn modern_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("mcp-protocol-version", HeaderValue::from_static(MODERN));
    headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
    headers.insert("mcp-name", HeaderValue::from_static("echo"));
    headers
}

fn raw(text: String) -> Box<Raw> {
    Raw::from_string(text).expect("JSON")
}

async fn steps(visitor: &mut impl Visitor) {
    let body = modern_call();
    let read = || parse_body(body.as_bytes(), &LIMITS).expect("a message");
    visitor
        .case("parse-and-classify", || {
            let classified = classify(read(), Some(MODERN), false);
            ready(matches!(classified, Classified::Modern { .. }))
        })
        .await;

    let Message::Single(message::Message::Request(request)) = read() else {
        panic!("one request");
    };
    let headers = modern_headers();
    visitor
        .case("envelope-and-headers", || {
            let envelope = Envelope::from_params(&request.known).expect("an envelope");
            let name = request.known.get_str("name");
            let method = &request.method;
            check_standard_headers(&headers, MODERN, method, name.as_deref()).expect("agree");
            ready(envelope)
        })
        .await;

    let capabilities = ClientCapabilities::none();
    let client_info = raw(r#"{"name":"mcp-fleet","version":"1"}"#.into());
    let meta = OutgoingMeta {
        version: Version::LATEST_MODERN,
        capabilities: &capabilities,
        client_info: &client_info,
        log_level: None,
        progress_token: None,
        trace: &TraceContext::default(),
    };
    visitor
        .case("request-spliced", || {
            ready(with_modern_meta(request.params, &meta))
        })
        .await;

    let result = raw(format!(
        r#"{{"resultType":"complete","content":[{{"type":"text","text":"{}"}}],"_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"x","version":"1"}}}}}}"#,
        text()
    ));
    let context = ModernResult {
        method: "tools/call",
        cache: None,
        server_info: &client_info,
    };
    visitor
        .case("result-shaped", || {
            ready(result_for_modern(&result, &context).get().len())
        })
        .await;

    let id = RequestId::new_string("r-1");
    let answer = message::Answer::Result(result.clone());
    visitor
        .case("response-written", || {
            ready(message::response_bytes(&id, &answer))
        })
        .await;
    visitor
        .case("event-written", || {
            ready(sse::event(Some("1-2"), None, body.as_bytes()))
        })
        .await;
}

async fn requests(visitor: &mut impl Visitor) {
    let config = Config::from_toml("[node]\nlisten = \"127.0.0.1:0\"\n");
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    let bound = Gateway::build(config, Arc::new(Metrics::new())).await;
    let node = router::router(bound.expect("a node").gateway());
    let ask = |request: Request<Body>| {
        let answering = node.clone().oneshot(request);
        async {
            let Ok(response) = answering.await;
            assert_eq!(response.status(), StatusCode::OK);
            let headers = response.headers().clone();
            let body = response.into_body().collect().await.expect("a body");
            (headers, body.to_bytes())
        }
    };

    let call = modern_call();
    measured(visitor, "call-modern", &ask, || {
        post("mcp-protocol-version", MODERN, call.clone())
            .header("mcp-method", "tools/call")
            .header("mcp-name", "echo")
    })
    .await;

    let list = call
        .replace("tools/call", "tools/list")
        .replace(r#""name":"echo","#, "");
    measured(visitor, "list-modern", &ask, || {
        post("mcp-protocol-version", MODERN, list.clone()).header("mcp-method", "tools/list")
    })
    .await;

    measured(visitor, "list-rest", &ask, || {
        Made(
            Request::get("/mcp/demo/tools/list").header("host", "localhost"),
            String::new(),
        )
    })
    .await;

    let hello = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{LEGACY}","capabilities":{{}},"clientInfo":{{"name":"costs","version":"1"}}}}}}"#
    );
    let (headers, _) = ask(post("accept-language", "en", hello).request()).await;
    let session = headers.get("mcp-session-id").expect("a session").clone();
    let session = session.to_str().expect("visible characters");
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":1234567890,"method":"tools/call","params":{{"name":"echo","arguments":{{"message":"{}"}}}}}}"#,
        text()
    );
    measured(visitor, "call-session", &ask, || {
        post("mcp-protocol-version", LEGACY, call.clone()).header("mcp-session-id", session)
    })
    .await;
}

/// A request that is being put together.
struct Made(http::request::Builder, String);

impl Made {
    fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value), self.1)
    }

    fn request(self) -> Request<Body> {
        self.0.body(Body::from(self.1)).expect("a request")
    }
}

fn post(header: &str, value: &str, body: String) -> Made {
    let request = Request::post("/mcp/demo")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    Made(request, body).header(header, value)
}

async fn measured<F: Future>(
    visitor: &mut impl Visitor,
    name: &'static str,
    ask: impl Fn(Request<Body>) -> F,
    made: impl Fn() -> Made,
) {
    // The first fills the caches.
    ask(made().request()).await;
    visitor.case(name, || ask(made().request())).await;
}
