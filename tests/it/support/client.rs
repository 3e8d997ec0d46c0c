//! Requests of modern clients, right by default and easy to bend.

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use serde_json::{Map, Value, json};

use super::{
    node::TestNode,
    wire::{self, Answered, Reply},
};

pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub(crate) const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub(crate) const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
pub(crate) const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// A modern request. Headers follow from the body unless a test says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Modern {
    path: String,
    id: Value,
    method: String,
    params: Map<String, Value>,
    meta: Map<String, Value>,
    headers: Vec<(String, String)>,
    without: Vec<String>,
    /// Instead of the body that follows from the rest.
    body: Option<String>,
}

/// A modern request to the server `up`.
pub(crate) fn modern(method: &str) -> Modern {
    let meta = json!({
        VERSION: MODERN,
        CAPABILITIES: {},
        CLIENT_INFO: {"name": "test", "version": "1"},
    });
    Modern {
        path: "/mcp/up".to_owned(),
        id: json!(1),
        method: method.to_owned(),
        params: Map::new(),
        meta: object(meta),
        headers: Vec::new(),
        without: Vec::new(),
        body: None,
    }
}

/// `tools/call` of a tool of the server `up`.
pub(crate) fn call(tool: &str, arguments: Value) -> Modern {
    modern("tools/call").params(json!({"name": tool, "arguments": arguments}))
}

/// The members of a JSON object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("not an object: {other}"),
    }
}

impl Modern {
    pub(crate) fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub(crate) fn id(mut self, id: Value) -> Self {
        self.id = id;
        self
    }

    /// Adds parameters.
    pub(crate) fn params(mut self, params: Value) -> Self {
        self.params.extend(object(params));
        self
    }

    /// Sets a key of `_meta`.
    pub(crate) fn meta(mut self, key: &str, value: Value) -> Self {
        self.meta.insert(key.to_owned(), value);
        self
    }

    pub(crate) fn without_meta(mut self, key: &str) -> Self {
        self.meta.remove(key);
        self
    }

    /// What the client can do.
    pub(crate) fn capabilities(self, capabilities: Value) -> Self {
        self.meta(CAPABILITIES, capabilities)
    }

    /// Sets a header in place of the one that follows from the body.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.without.push(name.to_owned());
        self.also(name, value)
    }

    /// Adds a header, whether or not there is one of that name.
    pub(crate) fn also(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.without.push(name.to_owned());
        self
    }

    /// Sends exactly this body, with the headers of the body that it replaces.
    pub(crate) fn body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The body as it will be sent.
    pub(crate) fn text(&self) -> String {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let mut params = self.params.clone();
        if !self.meta.is_empty() {
            params.insert("_meta".to_owned(), Value::Object(self.meta.clone()));
        }
        let message =
            json!({"jsonrpc": "2.0", "id": self.id, "method": self.method, "params": params});
        message.to_string()
    }

    /// The headers that go with it.
    pub(crate) fn header_lines(&self) -> Vec<(String, String)> {
        let mut lines = vec![
            ("host".to_owned(), "localhost".to_owned()),
            ("content-type".to_owned(), "application/json".to_owned()),
            (
                "accept".to_owned(),
                "application/json, text/event-stream".to_owned(),
            ),
            ("mcp-method".to_owned(), self.method.clone()),
        ];
        let version = self.meta.get(VERSION).and_then(Value::as_str);
        lines.push((
            "mcp-protocol-version".to_owned(),
            version.unwrap_or(MODERN).to_owned(),
        ));
        let name = match self.method.as_str() {
            "tools/call" | "prompts/get" => self.params.get("name"),
            "resources/read" => self.params.get("uri"),
            "tasks/get" | "tasks/update" | "tasks/cancel" => self.params.get("taskId"),
            _ => None,
        };
        if let Some(name) = name.and_then(Value::as_str) {
            lines.push(("mcp-name".to_owned(), header_value(name)));
        }
        lines.retain(|(name, _)| !self.without.iter().any(|w| w.eq_ignore_ascii_case(name)));
        lines.extend(self.headers.iter().cloned());
        lines
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::post(&self.path);
        for (name, value) in self.header_lines() {
            let name = HeaderName::try_from(name).expect("a header name");
            request = request.header(name, HeaderValue::try_from(value).expect("a value"));
        }
        request
            .body(Full::new(self.text().into()))
            .expect("a request")
    }

    /// Sends it and waits for the beginning of the answer.
    pub(crate) async fn open(&self, node: &TestNode) -> Reply {
        wire::send(node.address, self.request()).await
    }

    /// The same toward any address.
    pub(crate) async fn open_at(&self, address: std::net::SocketAddr) -> Reply {
        wire::send(address, self.request()).await
    }

    /// The same, when the connection may fail.
    pub(crate) async fn try_at(&self, address: std::net::SocketAddr) -> anyhow::Result<Reply> {
        wire::try_send(address, self.request()).await
    }

    /// Sends it and waits for the end of the answer.
    pub(crate) async fn send(&self, node: &TestNode) -> Answered {
        self.open(node).await.answered().await
    }

    /// The result of sending it; fails the test when it is an error.
    pub(crate) async fn result(&self, node: &TestNode) -> Value {
        self.send(node).await.result().clone()
    }
}

/// The rules for values of `Mcp-Name` and `Mcp-Param-*`.
pub(crate) fn header_value(text: &str) -> String {
    let is_plain = text.chars().all(|c| (' '..='~').contains(&c))
        && text.trim() == text
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if is_plain {
        return text.to_owned();
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    format!("=?base64?{encoded}?=")
}

/// Any `POST`, for what is not a modern request.
pub(crate) async fn post(
    node: &TestNode,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<String>,
) -> Reply {
    let mut request = Request::post(path).header("host", "localhost");
    for (name, default) in [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ] {
        if !headers.iter().any(|(given, _)| *given == name) {
            request = request.header(name, default);
        }
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.into())));
    wire::send(node.address, request.expect("a request")).await
}

/// Any request without a body.
pub(crate) async fn bare(
    node: &TestNode,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Reply {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::default()).expect("a request");
    wire::send(node.address, request).await
}
