//! A scripted MCP server over real sockets, of any era.
//!
//! It answers handshakes and lists from its [`Contents`] and leaves the rest
//! to a script. It records every request, and as `violations` what no client
//! may do; a test whose server has seen one fails.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
};
use bytes::Bytes;
use http::{HeaderMap, Response};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot},
    time::Instant,
};

use self::{
    call::{Call, Outcome},
    outbox::{Frame, Outbox, Reader},
};
use super::wire::{Owned, within};

mod answers;
pub(crate) mod call;
pub(crate) mod contents;
mod legacy;
mod modern;
pub(crate) mod outbox;
mod response;
pub(crate) mod scripts;

pub(crate) use contents::Contents;

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// 2026-07-28.
    Modern,
    /// Streamable HTTP of that version, with sessions.
    Sessions(&'static str),
    /// The same without sessions.
    Stateless(&'static str),
    /// HTTP+SSE 2024-11-05.
    HttpSse,
}

pub(crate) const SESSIONS: Speaks = Speaks::Sessions("2025-11-25");

impl Speaks {
    pub(crate) fn is_modern(self) -> bool {
        self == Self::Modern
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) http_method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// The body, or `null`.
    pub(crate) json: Value,
    pub(crate) at: Instant,
}

impl Recorded {
    /// The JSON-RPC method, or an empty text.
    pub(crate) fn method(&self) -> String {
        let method = self.json["method"].as_str();
        method.unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn params(&self) -> &Value {
        &self.json["params"]
    }

    /// A key of `params._meta`.
    pub(crate) fn meta(&self, key: &str) -> Value {
        self.json["params"]["_meta"][key].clone()
    }

    /// `params.arguments` as they were written.
    pub(crate) fn raw_arguments(&self) -> String {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow)]
            params: Params<'a>,
        }
        #[derive(Deserialize)]
        struct Params<'a> {
            #[serde(borrow)]
            arguments: Option<&'a RawValue>,
        }
        let message: Message<'_> = serde_json::from_str(&self.body).expect("a call");
        let arguments = message.params.arguments;
        arguments.map_or("null", RawValue::get).to_owned()
    }
}

/// Answers some requests, by status and body, in place of the server.
type Intercept = dyn Fn(&Recorded) -> Option<(u16, String)> + Send;
type Script = dyn Fn(Call) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync;

/// What handlers, scripts and tests have in common.
pub(crate) struct Shared {
    pub(crate) speaks: Speaks,
    pub(crate) contents: Mutex<Contents>,
    requests: Mutex<Vec<Recorded>>,
    gates: Mutex<HashSet<String>>,
    violations: Mutex<Vec<String>>,
    changed: Notify,
    script: Box<Script>,
    intercept: Mutex<Option<Box<Intercept>>>,
    sessions: Mutex<HashMap<String, legacy::Session>>,
    /// Modern listen streams: the id of the request, its filter, its stream.
    listens: Mutex<Vec<(Value, Value, Arc<Outbox>)>>,
    streams: Mutex<HashMap<String, Arc<Outbox>>>,
    pending: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    /// Ids of requests that are being answered, and all there were, by session.
    ids: Mutex<HashSet<String>>,
    next: AtomicU64,
    /// Whether legacy streams have event ids.
    resumable: Mutex<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({:?})", self.speaks)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}

/// The server. Dropping it closes it.
pub(crate) struct FakeServer {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    _serving: Owned<()>,
}

impl FakeServer {
    /// A server with the usual contents and [`scripts::standard`].
    pub(crate) async fn start(speaks: Speaks) -> Self {
        Self::with(speaks, Contents::default(), scripts::standard).await
    }

    /// A server with the usual script.
    pub(crate) async fn offering(speaks: Speaks, contents: Contents) -> Self {
        Self::with(speaks, contents, scripts::standard).await
    }

    pub(crate) async fn with<F>(
        speaks: Speaks,
        contents: Contents,
        script: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            speaks,
            contents: Mutex::new(contents),
            requests: Mutex::default(),
            gates: Mutex::default(),
            violations: Mutex::default(),
            changed: Notify::new(),
            script: Box::new(move |call| Box::pin(script(call))),
            intercept: Mutex::default(),
            sessions: Mutex::default(),
            listens: Mutex::default(),
            streams: Mutex::default(),
            pending: Mutex::default(),
            ids: Mutex::default(),
            next: AtomicU64::new(1),
            resumable: Mutex::new(false),
        });
        let app = Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves");
        });
        Self {
            address,
            shared,
            _serving: Owned(serving),
        }
    }

    /// Its endpoint.
    pub(crate) fn url(&self) -> String {
        let path = match self.shared.speaks {
            Speaks::HttpSse => "sse",
            _ => "mcp",
        };
        format!("http://{}/{path}", self.address)
    }

    pub(crate) fn seen(&self, method: &str) -> Vec<Recorded> {
        self.shared.seen(method)
    }

    /// The only request of that method.
    pub(crate) fn only(&self, method: &str) -> Recorded {
        let mut seen = self.seen(method);
        assert_eq!(seen.len(), 1, "{method}: {seen:?}");
        seen.remove(0)
    }

    /// Waits for so many requests of that method.
    pub(crate) async fn wait_for(&self, method: &str, count: usize) -> Vec<Recorded> {
        let what = format!("{count} x {method}");
        let seen = self.shared.until(|shared| {
            let seen = shared.seen(method);
            (seen.len() >= count).then_some(seen)
        });
        within(&what, seen).await
    }

    /// Changes what it offers.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut lock(&self.shared.contents));
    }

    /// Gives its streams event ids.
    pub(crate) fn make_resumable(&self) {
        *lock(&self.shared.resumable) = true;
    }

    /// Answers in its place, where the function has an answer.
    pub(crate) fn intercept(
        &self,
        answer: impl Fn(&Recorded) -> Option<(u16, String)> + Send + 'static,
    ) {
        *lock(&self.shared.intercept) = Some(Box::new(answer));
    }

    /// Opens a gate that scripts wait at.
    pub(crate) fn open_gate(&self, name: &str) {
        lock(&self.shared.gates).insert(name.to_owned());
        self.shared.changed.notify_waiters();
    }

    /// Forgets all sessions.
    pub(crate) fn forget_sessions(&self) {
        lock(&self.shared.sessions).clear();
    }

    /// Says on every change stream that a list changed (`"tools"`), once
    /// somebody listens.
    pub(crate) async fn list_changed(&self, list: &str) {
        let method = format!("notifications/{list}/list_changed");
        self.announce(&method, json!({}), &format!("{list}ListChanged"))
            .await;
    }

    /// Says that a resource changed, once somebody asked for it.
    pub(crate) async fn resource_updated(&self, uri: &str) {
        let method = "notifications/resources/updated";
        self.announce(method, json!({ "uri": uri }), uri).await;
    }

    /// Says something on every standalone stream, once there is one.
    pub(crate) async fn say(&self, method: &str, params: Value) {
        self.announce(method, params, "").await;
    }

    async fn announce(&self, method: &str, params: Value, key: &str) {
        let told = self.shared.until(|shared| {
            let told = match shared.speaks {
                Speaks::Modern => modern::announce(shared, method, &params, key),
                _ => legacy::announce(shared, method, &params),
            };
            (told > 0).then_some(told)
        });
        within("somebody who listens", told).await;
    }

    /// Ends all listen streams in good order.
    pub(crate) fn end_listens(&self) {
        modern::end_listens(&self.shared);
    }

    /// What clients did that they must not.
    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.violations(), Vec::<String>::new());
        }
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .unwrap_or_default();
    let body = String::from_utf8(body.to_vec()).expect("text");
    let recorded = Recorded {
        http_method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers,
        json: serde_json::from_str(&body).unwrap_or(Value::Null),
        body,
        at: Instant::now(),
    };
    lock(&shared.requests).push(recorded.clone());
    shared.changed.notify_waiters();
    let intercepted = match &*lock(&shared.intercept) {
        Some(intercept) => intercept(&recorded),
        None => None,
    };
    if let Some((status, body)) = intercepted {
        return response::json(status, body);
    }
    match shared.speaks {
        Speaks::Modern => modern::answer(&shared, &recorded).await,
        Speaks::Sessions(_) | Speaks::Stateless(_) => legacy::answer(&shared, &recorded).await,
        Speaks::HttpSse => legacy::answer_http_sse(&shared, &recorded),
    }
}

/// What a request's stream carries, as JSON when the response is all there is.
async fn respond(mut reader: Reader, events: response::Events) -> Response<Body> {
    match reader.next().await {
        Some((_, Frame::Response(response))) => response::json(200, response),
        Some((_, Frame::Message(message))) if message.starts_with("HTTP ") => {
            response::verbatim(&message)
        }
        Some(first) => response::stream(Some(first), reader, events),
        None => response::empty(204),
    }
}
