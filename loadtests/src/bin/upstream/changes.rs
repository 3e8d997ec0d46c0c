//! A list that changes, and the streams that say so.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::Either;
use hyper::{
    Response,
    body::{Body, Frame},
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::sync::mpsc;

use crate::Answer;

/// Messages a stream may be behind; a slower one is ended.
const BEHIND: usize = 64;

#[derive(Default)]
pub(crate) struct Changes(Mutex<State>);

#[derive(Default)]
struct State {
    version: u64,
    streams: Vec<(mpsc::Sender<Bytes>, Bytes)>,
}

impl Changes {
    /// The tools: `echo`, and one that is named after the number of changes.
    pub(crate) fn tools(&self) -> String {
        let version = self.lock().version;
        format!(
            r#"[{{"name":"echo","inputSchema":{{"type":"object"}}}},{{"name":"version_{version}","inputSchema":{{"type":"object"}}}}]"#
        )
    }

    /// Changes the list, tells who listens, and returns the number of changes.
    pub(crate) fn change(&self) -> u64 {
        let mut state = self.lock();
        state.version += 1;
        state
            .streams
            .retain(|(stream, word)| stream.try_send(word.clone()).is_ok());
        state.version
    }

    /// The stream of `subscriptions/listen`.
    pub(crate) fn listen(&self, id: &str, filter: &str) -> Answer {
        let meta = format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
        let acknowledged = event(
            "notifications/subscriptions/acknowledged",
            &format!(r#"{meta},"notifications":{filter}"#),
        );
        self.stream(Some(acknowledged), changed(&meta))
    }

    /// The standalone stream of a session.
    pub(crate) fn standalone(&self) -> Answer {
        self.stream(None, changed(""))
    }

    fn stream(&self, first: Option<Bytes>, word: Bytes) -> Answer {
        let (sender, events) = mpsc::channel(BEHIND);
        if let Some(first) = first {
            // There is room for one.
            sender.try_send(first).ok();
        }
        self.lock().streams.push((sender, word));
        Events(events).into_answer()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn changed(params: &str) -> Bytes {
    event("notifications/tools/list_changed", params)
}

fn event(method: &str, params: &str) -> Bytes {
    format!("data: {{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{{{params}}}}}\n\n")
        .into()
}

/// The body of a stream.
pub(crate) struct Events(mpsc::Receiver<Bytes>);

impl Events {
    /// A stream that ends with its second message, or its first.
    pub(crate) fn only(first: Option<Vec<u8>>, last: Vec<u8>) -> Answer {
        let (sender, events) = mpsc::channel(2);
        for message in first.into_iter().chain([last]) {
            let event = [b"event: message\ndata: ", &*message, b"\n\n"].concat();
            // There is room for two.
            sender.try_send(event.into()).ok();
        }
        Self(events).into_answer()
    }

    fn into_answer(self) -> Answer {
        let mut answer = Response::new(Either::Right(self));
        answer
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        answer
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = self.0.poll_recv(context);
        event.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
