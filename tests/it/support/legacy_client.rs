//! Clients of 2025-11-25 and earlier: sessions over Streamable HTTP, and HTTP+SSE.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{Request, request::Builder};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{
    node::{Listens, TestNode},
    wire::{self, Answered, Reply, SseEvent},
};

/// What a client says in `initialize`.
#[derive(Debug, Clone)]
pub(crate) struct Legacy {
    path: String,
    version: String,
    capabilities: Value,
    headers: Vec<(String, String)>,
}

/// A client of that version for the server `up`.
pub(crate) fn legacy(version: &str) -> Legacy {
    Legacy {
        path: "/mcp/up".to_owned(),
        version: version.to_owned(),
        capabilities: json!({}),
        headers: Vec::new(),
    }
}

impl Legacy {
    pub(crate) fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub(crate) fn capabilities(mut self, capabilities: Value) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A header of every request.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn initialize(&self) -> Value {
        json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": {
            "protocolVersion": self.version,
            "capabilities": self.capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        }})
    }

    /// Sends `initialize` and nothing else.
    pub(crate) async fn hello(&self, node: &impl Listens) -> Reply {
        self.post(node.address(), &[], self.initialize().to_string())
            .await
    }

    /// Opens a session.
    pub(crate) async fn open(&self, node: &impl Listens) -> Session {
        let reply = self.hello(node).await;
        assert_eq!(reply.status, 200, "initialize");
        let id = reply
            .header("mcp-session-id")
            .expect("a session")
            .to_owned();
        let hello = reply.answered().await.result().clone();
        let version = hello["protocolVersion"].as_str().expect("a version");
        let session = Session {
            version: version.to_owned(),
            hello: hello.clone(),
            client: self.clone(),
            id,
            address: node.address(),
            next: AtomicU64::new(1),
        };
        assert_eq!(
            session.notify("notifications/initialized", json!({})).await,
            202
        );
        session
    }

    async fn post(&self, to: SocketAddr, headers: &[(&str, &str)], body: String) -> Reply {
        let request = self
            .builder("POST", headers)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        let body = Full::new(Bytes::from(body));
        wire::send(to, request.body(body).expect("a request")).await
    }

    fn builder(&self, method: &str, headers: &[(&str, &str)]) -> Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(&self.path)
            .header("host", "localhost");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    /// Opens HTTP+SSE (2024-11-05) on `/sse/up` and shakes hands.
    pub(crate) async fn open_sse(&self, node: &TestNode, path: &str) -> SseSession {
        let mut client = self.clone().at(path);
        let request = client.builder("GET", &[("accept", "text/event-stream")]);
        let request = request.body(Full::default()).expect("a request");
        let mut stream = wire::send(node.address, request).await;
        assert_eq!(stream.status, 200, "the stream");
        let first = stream.event().await.expect("a first event");
        assert_eq!(first.event.as_deref(), Some("endpoint"), "{first:?}");
        client.path = first.data.expect("the endpoint");
        let mut session = SseSession {
            client,
            stream,
            hello: Value::Null,
            address: node.address,
            next: 1,
        };
        let initialize = session.client.initialize();
        session.hello = session.exchange(&initialize).await["result"].clone();
        let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        session.post(&done).await;
        session
    }
}

/// An open session. A clone of it at another node is the same session.
#[derive(Debug)]
pub(crate) struct Session {
    client: Legacy,
    pub(crate) version: String,
    /// The result of `initialize`.
    pub(crate) hello: Value,
    pub(crate) id: String,
    address: SocketAddr,
    next: AtomicU64,
}

impl Session {
    /// The same session, spoken to through another node.
    pub(crate) fn through(&self, node: &impl Listens) -> Self {
        Self {
            client: self.client.clone(),
            version: self.version.clone(),
            hello: self.hello.clone(),
            id: self.id.clone(),
            address: node.address(),
            next: AtomicU64::new(self.next.load(Ordering::SeqCst) + 1000),
        }
    }

    /// The same session as somebody with another credential presents it.
    pub(crate) fn with_header(&self, name: &str, value: &str) -> Self {
        Self {
            client: self.client.clone().header(name, value),
            version: self.version.clone(),
            hello: self.hello.clone(),
            id: self.id.clone(),
            address: self.address,
            next: AtomicU64::new(5000),
        }
    }

    fn headers(&self) -> [(&str, &str); 2] {
        [
            ("mcp-session-id", &self.id),
            ("mcp-protocol-version", &self.version),
        ]
    }

    /// `POST`s any body.
    pub(crate) async fn post(&self, body: impl Into<String>) -> Reply {
        let body = body.into();
        self.client.post(self.address, &self.headers(), body).await
    }

    /// Sends a request under an id and waits for the beginning of the answer.
    pub(crate) async fn open(&self, id: Value, method: &str, params: Value) -> Reply {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.post(body.to_string()).await
    }

    /// Sends a request and waits for the end of the answer.
    pub(crate) async fn send(&self, method: &str, params: Value) -> Answered {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let answered = self.open(json!(id), method, params).await.answered().await;
        assert_eq!(answered.response["id"], json!(id), "{}", answered.text);
        answered
    }

    /// The result of a request.
    pub(crate) async fn result(&self, method: &str, params: Value) -> Value {
        self.send(method, params).await.result().clone()
    }

    /// The answer to a tool call.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Answered {
        let params = json!({"name": tool, "arguments": arguments});
        self.send("tools/call", params).await
    }

    /// Sends a notification; answers the status.
    pub(crate) async fn notify(&self, method: &str, params: Value) -> u16 {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.post(body.to_string()).await.status
    }

    /// Answers a question of the server; answers the status.
    pub(crate) async fn respond(&self, id: &Value, result: Value) -> u16 {
        let body = json!({"jsonrpc": "2.0", "id": id, "result": result});
        self.post(body.to_string()).await.status
    }

    /// Opens the standalone stream.
    pub(crate) async fn stream(&self) -> Reply {
        self.get(&[("accept", "text/event-stream")]).await
    }

    /// Resumes a stream after that event.
    pub(crate) async fn resume(&self, last_event: &str) -> Reply {
        self.get(&[
            ("accept", "text/event-stream"),
            ("last-event-id", last_event),
        ])
        .await
    }

    async fn get(&self, headers: &[(&str, &str)]) -> Reply {
        let all = [&self.headers()[..], headers].concat();
        let request = self.client.builder("GET", &all).body(Full::default());
        wire::send(self.address, request.expect("a request")).await
    }

    /// Ends it; answers the status.
    pub(crate) async fn delete(&self) -> u16 {
        let request = self.client.builder("DELETE", &self.headers());
        let request = request.body(Full::default()).expect("a request");
        wire::send(self.address, request).await.status
    }
}

/// An open HTTP+SSE session.
#[derive(Debug)]
pub(crate) struct SseSession {
    client: Legacy,
    pub(crate) stream: Reply,
    pub(crate) hello: Value,
    address: SocketAddr,
    next: u64,
}

impl SseSession {
    /// Where its messages go.
    pub(crate) fn endpoint(&self) -> &str {
        &self.client.path
    }

    /// Speaks to another node from now on; the stream stays where it is.
    pub(crate) fn post_through(&mut self, node: &TestNode) {
        self.address = node.address;
    }

    /// Sends a message, which has to be accepted.
    pub(crate) async fn post(&self, message: &Value) {
        let reply = self.client.post(self.address, &[], message.to_string());
        let status = reply.await.status;
        assert!((200..300).contains(&status), "{status} for {message}");
    }

    /// The next `message` event.
    pub(crate) async fn next(&mut self) -> SseEvent {
        let event = self.stream.message_event().await.expect("another event");
        assert_eq!(event.event.as_deref(), Some("message"), "{event:?}");
        event
    }

    async fn exchange(&mut self, message: &Value) -> Value {
        self.post(message).await;
        self.next().await.json()
    }

    /// Sends a request; the next message has to be its response.
    pub(crate) async fn send(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let response = self.exchange(&message).await;
        assert_eq!(response["id"], json!(id), "{response}");
        response
    }
}
