//! HTTP as a client sees it: a connection per request, so that dropping a
//! [`Reply`] is what a client does that goes away.
//!
//! Reads event streams with a parser of its own; nothing of the product helps.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

/// How long a test waits for anything that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Ends its task when dropped.
#[derive(Debug)]
pub(crate) struct Owned<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A response whose body is still coming.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    unread: Vec<u8>,
    _connection: Owned<()>,
}

/// One event of a stream; comments are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<String>,
}

impl SseEvent {
    /// Its data as JSON.
    pub(crate) fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_default();
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))
    }
}

/// A whole answer to a request, however it was sent.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// What preceded the response on its stream.
    pub(crate) messages: Vec<Value>,
    /// The response, or `null` when there was none.
    pub(crate) response: Value,
    /// The same as it was written.
    pub(crate) text: String,
}

impl Answered {
    /// The `result`; fails the test when there is none.
    pub(crate) fn result(&self) -> &Value {
        let result = self.response.get("result");
        result.unwrap_or_else(|| panic!("no result: {} {}", self.status, self.text))
    }

    /// The error's code; fails the test when there is no error.
    pub(crate) fn code(&self) -> i64 {
        let code = self.response["error"]["code"].as_i64();
        code.unwrap_or_else(|| panic!("no error: {} {}", self.status, self.text))
    }

    /// Status and error code.
    pub(crate) fn refusal(&self) -> (u16, i64) {
        (self.status, self.code())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Sends a request on a connection of its own.
pub(crate) async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    within("an answer", try_send(address, request))
        .await
        .expect("an HTTP answer")
}

/// The same, when the connection may fail.
pub(crate) async fn try_send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Reply> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = Owned(tokio::spawn(async move {
        connection.await.ok();
    }));
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok(Reply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
        unread: Vec::new(),
        _connection: connection,
    })
}

/// Waits, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }

    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.body.frame().await?;
            // A connection that breaks ends the body.
            if let Ok(data) = frame.ok()?.into_data() {
                return Some(data);
            }
        }
    }

    /// The rest of the body.
    pub(crate) async fn text(mut self) -> String {
        let mut bytes = std::mem::take(&mut self.unread);
        let rest = within("the body", (&mut self.body).collect()).await;
        bytes.extend_from_slice(&rest.expect("a whole body").to_bytes());
        String::from_utf8(bytes).expect("text")
    }

    /// The rest of the body, unless the connection breaks.
    pub(crate) async fn try_text(mut self) -> anyhow::Result<String> {
        let mut bytes = std::mem::take(&mut self.unread);
        bytes.extend_from_slice(&(&mut self.body).collect().await?.to_bytes());
        Ok(String::from_utf8(bytes)?)
    }

    /// The body as JSON; an empty one is `null`.
    pub(crate) async fn json(self) -> Value {
        let text = self.text().await;
        if text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) async fn event(&mut self) -> Option<SseEvent> {
        // Comments that keep the connection alive do not count.
        within("another event", self.next_event()).await
    }

    async fn next_event(&mut self) -> Option<SseEvent> {
        loop {
            let end = self.unread.windows(2).position(|pair| pair == b"\n\n");
            if let Some(end) = end {
                let rest = self.unread.split_off(end + 2);
                let event = std::mem::replace(&mut self.unread, rest);
                let event = String::from_utf8(event).expect("text");
                match parse_event(&event) {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let chunk = self.chunk().await?;
            self.unread.extend_from_slice(&chunk);
        }
    }

    /// The next event with data, as JSON; fails the test at the end.
    pub(crate) async fn message(&mut self) -> Value {
        let event = self.message_event().await;
        event.expect("another message on the stream").json()
    }

    /// The next event with data; `None` at the end of the stream.
    pub(crate) async fn message_event(&mut self) -> Option<SseEvent> {
        loop {
            let event = self.event().await?;
            if event.data.as_deref().is_some_and(|data| !data.is_empty()) {
                return Some(event);
            }
        }
    }

    /// Everything, up to the end of the body.
    pub(crate) async fn answered(mut self) -> Answered {
        let (status, headers) = (self.status, self.headers.clone());
        let mut answered = Answered {
            status,
            headers,
            messages: Vec::new(),
            response: Value::Null,
            text: String::new(),
        };
        if !self.is_stream() {
            answered.text = self.text().await;
            if !answered.text.is_empty() {
                answered.response = serde_json::from_str(&answered.text)
                    .unwrap_or_else(|error| panic!("{error}: {status} {}", answered.text));
            }
            return answered;
        }
        while let Some(event) = self.message_event().await {
            let message = event.json();
            assert!(answered.text.is_empty(), "after the response: {message}");
            if message.get("method").is_some() {
                answered.messages.push(message);
            } else {
                answered.response = message;
                answered.text = event.data.unwrap_or_default();
            }
        }
        answered
    }
}

fn parse_event(text: &str) -> Option<SseEvent> {
    let mut event = SseEvent::default();
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" => {}
            "id" => event.id = Some(value),
            "event" => event.event = Some(value),
            "retry" => event.retry = Some(value),
            "data" => match &mut event.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => event.data = Some(value),
            },
            other => panic!("a field no event has: {other:?}"),
        }
    }
    (event != SseEvent::default()).then_some(event)
}

/// Writes bytes that need not be good HTTP and reads until the peer closes.
/// The request has to say `Connection: close`.
pub(crate) async fn exchange_bytes(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // The peer may refuse before it has read everything.
        stream.write_all(request).await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = within("an answer", talk).await;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}
