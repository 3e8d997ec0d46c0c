//! A scripted HTTP/1.1 server over a bare socket, for what real servers do not
//! do on purpose: hang, break off, send garbage, split bytes anywhere.
//!
//! A handler turns each request into a [`Reply`], a list of steps. All
//! requests are recorded. Nothing here checks what the client sends.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct RawRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    /// How many requests came before it, over all connections.
    pub(crate) index: usize,
}

impl RawRequest {
    /// The first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// The body as JSON, `null` when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON-RPC method of the body, or an empty text.
    pub(crate) fn rpc_method(&self) -> String {
        self.json()["method"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The JSON-RPC id of the body.
    pub(crate) fn rpc_id(&self) -> Value {
        self.json()["id"].clone()
    }

    /// A response carrying `result`, for this request.
    pub(crate) fn result(&self, result: Value) -> Value {
        serde_json::json!({"jsonrpc": "2.0", "id": self.rpc_id(), "result": result})
    }

    /// A response carrying an error, for this request.
    pub(crate) fn error(&self, code: i64, message: &str) -> Value {
        serde_json::json!({"jsonrpc": "2.0", "id": self.rpc_id(), "error": {"code": code, "message": message}})
    }
}

/// Text that handlers push into a response that is open elsewhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feed {
    text: Arc<Mutex<VecDeque<String>>>,
    pushed: Arc<Notify>,
}

impl Feed {
    /// Adds text; whoever follows the feed writes it.
    pub(crate) fn push(&self, text: impl Into<String>) {
        self.text
            .lock()
            .expect("not poisoned")
            .push_back(text.into());
        self.pushed.notify_one();
    }

    async fn next(&self) -> String {
        loop {
            let pushed = self.pushed.notified();
            if let Some(text) = self.text.lock().expect("not poisoned").pop_front() {
                return text;
            }
            pushed.await;
        }
    }
}

/// One step of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Bytes, written and flushed at once.
    Write(Vec<u8>),
    /// A pause.
    Pause(Duration),
    /// Waits until the test says so.
    Until(Arc<Notify>),
    /// Waits until the client closes the connection.
    Hang,
    /// Closes the connection.
    Close,
    /// Writes chunks from a feed until the client closes the connection.
    Follow(Feed),
}

/// What to do with a request: steps, then the next request on the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    steps: Vec<Step>,
    chunked: bool,
}

impl Reply {
    /// No bytes at all until the client goes.
    pub(crate) fn hang() -> Self {
        Self::default().then(Step::Hang)
    }

    /// Closes without an answer.
    pub(crate) fn close() -> Self {
        Self::default().then(Step::Close)
    }

    /// Bytes that need not be HTTP.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::default().then(Step::Write(bytes.into()))
    }

    /// A complete response.
    pub(crate) fn full(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut head = head(status, headers);
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        Self::raw(bytes)
    }

    /// A complete JSON response.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::json_with(status, &[], body)
    }

    /// A complete JSON response with more headers.
    pub(crate) fn json_with(status: u16, headers: &[(&str, &str)], body: &Value) -> Self {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        Self::full(status, &all, body.to_string())
    }

    /// A response without body.
    pub(crate) fn status(status: u16) -> Self {
        Self::full(status, &[], "")
    }

    /// The beginning of an event stream; end it with [`end`](Self::end) or a step.
    pub(crate) fn sse() -> Self {
        Self::sse_with(&[])
    }

    /// The beginning of an event stream with more headers.
    pub(crate) fn sse_with(headers: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("content-type", "text/event-stream"),
            ("transfer-encoding", "chunked"),
        ];
        all.extend_from_slice(headers);
        let mut reply = Self::raw(head(200, &all) + "\r\n");
        reply.chunked = true;
        reply
    }

    /// An event with data only.
    pub(crate) fn event(self, data: &Value) -> Self {
        self.text(&format!("data: {data}\n\n"))
    }

    /// An event with an id.
    pub(crate) fn event_with_id(self, id: &str, data: &Value) -> Self {
        self.text(&format!("id: {id}\ndata: {data}\n\n"))
    }

    /// Bytes of the body, as one chunk of a stream.
    pub(crate) fn text(self, text: &str) -> Self {
        let bytes = if self.chunked {
            format!("{:x}\r\n{text}\r\n", text.len())
        } else {
            text.to_owned()
        };
        self.then(Step::Write(bytes.into_bytes()))
    }

    /// Writes what is pushed into the feed, as chunks, until the client goes.
    pub(crate) fn feed(self, feed: &Feed) -> Self {
        self.then(Step::Follow(feed.clone()))
    }

    /// Ends an event stream in order.
    pub(crate) fn end(self) -> Self {
        self.then(Step::Write(b"0\r\n\r\n".to_vec()))
    }

    /// All of it not before the test says so.
    pub(crate) fn after(mut self, said: &Arc<Notify>) -> Self {
        self.steps.insert(0, Step::Until(Arc::clone(said)));
        self
    }

    /// Adds a step.
    pub(crate) fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> String {
    let mut head = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

type Handler = dyn Fn(&RawRequest) -> Reply + Send + Sync;

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<RawRequest>>,
    connections: AtomicUsize,
    hangups: AtomicUsize,
    changed: Notify,
}

/// The server. Dropping it closes the listener and all connections.
pub(crate) struct RawServer {
    address: SocketAddr,
    log: Arc<Log>,
    accepting: JoinHandle<()>,
}

impl RawServer {
    /// Listens on a free loopback port.
    pub(crate) async fn start(
        handler: impl Fn(&RawRequest) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let log = Arc::new(Log::default());
        let accepting = tokio::spawn(accept(listener, Arc::new(handler), Arc::clone(&log)));
        Self {
            address,
            log,
            accepting,
        }
    }

    /// `http://ADDRESS{path}`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<RawRequest> {
        self.log.requests.lock().expect("not poisoned").clone()
    }

    /// The JSON-RPC methods (or HTTP methods of bodiless requests) so far.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|request| match request.rpc_method() {
                empty if empty.is_empty() && request.body.is_empty() => request.method.clone(),
                empty if empty.is_empty() => "response".to_owned(),
                method => method,
            })
            .collect()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// How many times a client closed while a step was hanging.
    pub(crate) fn hangups(&self) -> usize {
        self.log.hangups.load(Ordering::SeqCst)
    }

    /// Waits until `found` gives something, at most five seconds.
    pub(crate) async fn until<T>(&self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let changed = self.log.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = found(self) {
                    return found;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(5), waiting).await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not happen; requests: {:?}", self.methods()),
        }
    }

    /// Waits for a request with that JSON-RPC method (or HTTP method).
    pub(crate) async fn request(&self, method: &str) -> RawRequest {
        self.until(method, |server| {
            let named = |r: &RawRequest| r.rpc_method() == method || r.method == method;
            server.requests().into_iter().find(named)
        })
        .await
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, handler: Arc<Handler>, log: Arc<Log>) {
    // Aborting this task drops the set, and with it all connections.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let number = log.connections.fetch_add(1, Ordering::SeqCst);
        let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
        connections.spawn(async move {
            serve(socket, number, handler, log).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut socket: TcpStream, number: usize, handler: Arc<Handler>, log: Arc<Log>) {
    socket.set_nodelay(true).expect("a live socket");
    let mut buffer = Vec::new();
    while let Some(mut request) = read_request(&mut socket, &mut buffer).await {
        request.connection = number;
        {
            let mut requests = log.requests.lock().expect("not poisoned");
            request.index = requests.len();
            requests.push(request.clone());
        }
        log.changed.notify_waiters();
        for step in handler(&request).steps {
            match step {
                Step::Write(bytes) => {
                    if socket.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Until(notify) => notify.notified().await,
                Step::Hang => {
                    let mut byte = [0; 1];
                    // A client that goes away ends the read.
                    let _gone = socket.read(&mut byte).await;
                    log.hangups.fetch_add(1, Ordering::SeqCst);
                    log.changed.notify_waiters();
                    return;
                }
                Step::Close => return,
                Step::Follow(feed) => {
                    follow(&mut socket, &feed).await;
                    log.hangups.fetch_add(1, Ordering::SeqCst);
                    log.changed.notify_waiters();
                    return;
                }
            }
        }
    }
}

async fn follow(socket: &mut TcpStream, feed: &Feed) {
    let (mut from, mut to) = socket.split();
    let mut byte = [0; 1];
    loop {
        tokio::select! {
            _gone = from.read(&mut byte) => return,
            text = feed.next() => {
                let chunk = format!("{:x}\r\n{text}\r\n", text.len());
                if to.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn read_request(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<RawRequest> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let length: usize = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let total = head_end + 4 + length;
    while buffer.len() < total {
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[head_end + 4..total].to_vec();
    buffer.drain(..total);
    Some(RawRequest {
        method,
        path,
        headers,
        body,
        connection: 0,
        index: 0,
    })
}
