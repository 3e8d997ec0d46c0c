//! What a fake server does with requests, whatever transport they came by.

use std::sync::{Arc, atomic::Ordering};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Recorded, Shared, Speaks,
    call::{Call, Outcome},
    lock,
    outbox::{Frame, Outbox},
};

impl Shared {
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn violation(&self, what: String) {
        lock(&self.violations).push(what);
    }

    /// Requests of that JSON-RPC method, or that HTTP method, or responses (`"response"`).
    pub(crate) fn seen(&self, method: &str) -> Vec<Recorded> {
        let requests = lock(&self.requests);
        let is_it = |seen: &&Recorded| match method {
            "response" => seen.json.get("result").or(seen.json.get("error")).is_some(),
            _ => seen.method() == method || seen.http_method == method,
        };
        requests.iter().filter(is_it).cloned().collect()
    }

    pub(crate) async fn until<T>(&self, found: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = found(self) {
                return found;
            }
            changed.await;
        }
    }

    /// Sends a request of the server and waits for the response.
    pub(super) async fn ask(&self, outbox: &Outbox, method: &str, params: Value) -> Value {
        let id = format!("srv-{}", self.number());
        let (sender, answer) = oneshot::channel();
        lock(&self.pending).insert(id.clone(), sender);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        outbox.push(Frame::Message(message.to_string()));
        // Without an answer the call is never done, which the test notices.
        answer.await.unwrap_or(Value::Null)
    }

    pub(super) fn stream(&self) -> Arc<Outbox> {
        let outbox = Outbox::new(format!("s{}", self.number()));
        lock(&self.streams).insert(outbox.name.clone(), Arc::clone(&outbox));
        outbox
    }

    /// Lets the script answer into a stream, which then ends.
    pub(super) fn run(self: &Arc<Self>, request: &Recorded, outbox: &Arc<Outbox>) {
        self.run_and(request, outbox, Frame::Response);
    }

    /// Lets the script answer into a stream of many calls.
    pub(super) fn run_within(self: &Arc<Self>, request: &Recorded, outbox: &Arc<Outbox>) {
        self.run_and(request, outbox, Frame::Message);
    }

    pub(super) fn run_and(
        self: &Arc<Self>,
        request: &Recorded,
        outbox: &Arc<Outbox>,
        respond: fn(String) -> Frame,
    ) {
        let call = Call {
            request: request.clone(),
            shared: Arc::clone(self),
            outbox: Arc::clone(outbox),
        };
        let id = request.json["id"].clone();
        let key = format!(
            "{:?} {id}",
            request.header("mcp-session-id").unwrap_or_default()
        );
        if !lock(&self.ids).insert(key.clone()) {
            self.violation(format!("the id {id} is used twice at once"));
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = (shared.script)(call.clone()).await;
            lock(&shared.ids).remove(&key);
            let response = match outcome {
                Outcome::Result(result) => shared.result(&id, &result),
                Outcome::Error(error) => {
                    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
                }
                Outcome::Http(status, body) => {
                    call.outbox
                        .push(Frame::Message(format!("HTTP {status} {body}")));
                    return call.outbox.push(Frame::End);
                }
                Outcome::Silence => return,
            };
            call.outbox.push(respond(response));
        });
    }

    /// A response in the shape of this server's era.
    pub(super) fn result(&self, id: &Value, result: &str) -> String {
        let is_bare = self.speaks.is_modern() && !result.contains("\"resultType\"");
        let result = match (is_bare, result) {
            (true, "{}") => r#"{"resultType":"complete"}"#.to_owned(),
            (true, result) => format!(r#"{{"resultType":"complete",{}"#, &result[1..]),
            (false, result) => result.to_owned(),
        };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
    }

    pub(super) fn error(id: &Value, code: i64, message: &str) -> String {
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
    }

    /// The answer to a list request.
    pub(super) fn list(&self, request: &Recorded) -> String {
        let id = &request.json["id"];
        let contents = lock(&self.contents).clone();
        let cursor = request.params()["cursor"].as_str();
        let Some(page) = contents.page(&request.method(), cursor) else {
            return Self::error(id, -32602, "bad cursor");
        };
        let hints = match self.speaks {
            Speaks::Modern => format!(
                r#","ttlMs":{},"cacheScope":"{}""#,
                contents.ttl_ms, contents.scope
            ),
            _ => String::new(),
        };
        self.result(id, &format!("{{{page}{hints}}}"))
    }
}
