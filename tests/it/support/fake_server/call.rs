//! A request that a test's script answers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Recorded, Shared,
    outbox::{Frame, Outbox},
};

/// How a script answers.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// A result, sent as it is.
    Result(String),
    /// An error, sent as it is.
    Error(String),
    /// An HTTP response in place of a JSON-RPC one.
    Http(u16, String),
    /// Nothing; what was sent before stays.
    Silence,
}

impl Outcome {
    /// A text block, in the shape of either era.
    pub(crate) fn text(text: &str) -> Self {
        Self::value(&json!({"content": [{"type": "text", "text": text}]}))
    }

    pub(crate) fn value(result: &Value) -> Self {
        Self::Result(result.to_string())
    }

    pub(crate) fn error(code: i64, message: &str) -> Self {
        Self::Error(json!({"code": code, "message": message}).to_string())
    }
}

/// A request on its way through a script.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) request: Recorded,
    pub(crate) shared: Arc<Shared>,
    pub(super) outbox: Arc<Outbox>,
}

impl Call {
    /// Whether the server speaks 2026-07-28.
    pub(crate) fn is_modern(&self) -> bool {
        self.shared.speaks.is_modern()
    }

    /// `params.name`, or what else names the thing.
    pub(crate) fn name(&self) -> String {
        let params = &self.request.json["params"];
        let name = params.get("name").or_else(|| params.get("uri"));
        name.and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The progress token of the request.
    pub(crate) fn token(&self) -> Value {
        self.request.meta("progressToken")
    }

    /// Sends a message as it is.
    pub(crate) fn say(&self, message: impl Into<String>) {
        self.outbox.push(Frame::Message(message.into()));
    }

    pub(crate) fn notify(&self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.say(message.to_string());
    }

    /// Reports progress under the request's own token.
    pub(crate) fn progress(&self, progress: f64) {
        let params = json!({"progressToken": self.token(), "progress": progress, "total": 10});
        self.notify("notifications/progress", params);
    }

    pub(crate) fn log(&self, level: &str, data: Value) {
        self.notify(
            "notifications/message",
            json!({"level": level, "logger": "fake", "data": data}),
        );
    }

    /// Asks the client on the call's stream and waits for the answer, a whole response.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Value {
        self.shared.ask(&self.outbox, method, params).await
    }

    /// Breaks the connection of the call's stream; what follows waits for a resume.
    pub(crate) fn break_off(&self, retry: Option<Duration>) {
        self.outbox.push(Frame::Break(retry));
    }

    /// Waits until the client closed the call's stream.
    pub(crate) async fn gone(&self) {
        self.outbox.gone().await;
    }

    /// Waits for `notifications/cancelled` of this request.
    pub(crate) async fn cancelled(&self) {
        let id = self.request.json["id"].clone();
        let session = self.request.header("mcp-session-id").map(str::to_owned);
        self.shared
            .until(|shared| {
                shared
                    .seen("notifications/cancelled")
                    .into_iter()
                    .find(|seen| {
                        seen.json["params"]["requestId"] == id
                            && seen.header("mcp-session-id") == session.as_deref()
                    })
            })
            .await;
    }

    /// Waits until the test has opened that gate.
    pub(crate) async fn gate(&self, name: &str) {
        self.shared
            .until(|shared| {
                let gates = shared.gates.lock().expect("not poisoned");
                gates.contains(name).then_some(())
            })
            .await;
    }
}
