//! What a client has been promised to hear of is not missed: subscriptions
//! are confirmed when the server has confirmed them, streams are open when
//! the server's are.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    support::{
        client::{SUBSCRIPTION, modern},
        legacy_client::legacy,
        node::{Setup, TestNode},
        raw_server::{Feed, RawRequest, RawServer, Reply, Step},
        wire,
    },
    upstream::eras,
};

const RESOURCE: &str = "doc://a";
const UPDATED: &str = "notifications/resources/updated";

/// A server that confirms a subscription when it is told to.
struct Slow {
    server: RawServer,
    confirm: Arc<Notify>,
    changes: Feed,
}

impl Slow {
    async fn modern() -> Self {
        let (confirm, changes) = (Arc::new(Notify::new()), Feed::default());
        let (confirmed, pushed) = (Arc::clone(&confirm), changes.clone());
        let server = RawServer::start(move |request| match request.rpc_method().as_str() {
            "server/discover" => Reply::json(200, &request.result(eras::discovery())),
            "subscriptions/listen" => {
                let ack = acknowledgement(request);
                match is_subscription(request) {
                    true => Reply::sse()
                        .then(Step::Until(Arc::clone(&confirmed)))
                        .event(&ack)
                        .feed(&pushed),
                    false => Reply::sse().event(&ack).then(Step::Hang),
                }
            }
            _ => Reply::json(400, &request.error(-32602, "no envelope")),
        })
        .await;
        Self {
            server,
            confirm,
            changes,
        }
    }

    async fn legacy() -> Self {
        let (confirm, changes) = (Arc::new(Notify::new()), Feed::default());
        let (confirmed, pushed) = (Arc::clone(&confirm), changes.clone());
        let server = RawServer::start(eras::legacy(move |request| {
            match request.rpc_method().as_str() {
                "" => Reply::sse().feed(&pushed),
                "resources/subscribe" => Reply::sse()
                    .then(Step::Until(Arc::clone(&confirmed)))
                    .event(&request.result(json!({})))
                    .end(),
                _ => Reply::json(200, &request.result(json!({}))),
            }
        }))
        .await;
        Self {
            server,
            confirm,
            changes,
        }
    }

    async fn node(&self) -> TestNode {
        let url = self.server.url("/mcp");
        Setup::new().server("up", &url).start().await
    }

    /// The server has been asked and has not answered.
    async fn is_asked(&self) {
        self.server
            .until("a subscription", |server| {
                server
                    .requests()
                    .iter()
                    .find(|r| is_subscription(r))
                    .map(drop)
            })
            .await;
    }

    fn change(&self) {
        self.changes.push(event(UPDATED, json!({"uri": RESOURCE})));
    }
}

fn is_subscription(request: &RawRequest) -> bool {
    request.rpc_method() == "resources/subscribe"
        || request.json()["params"]["notifications"]["resourceSubscriptions"].is_array()
}

fn acknowledgement(request: &RawRequest) -> Value {
    let params = json!({"_meta": {SUBSCRIPTION: request.rpc_id()}, "notifications": {}});
    let method = "notifications/subscriptions/acknowledged";
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn event(method: &str, params: Value) -> String {
    let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
    format!("data: {message}\n\n")
}

async fn listen(node: &TestNode) -> wire::Reply {
    let filter = json!({"resourceSubscriptions": [RESOURCE]});
    let request = modern("subscriptions/listen").params(json!({ "notifications": filter }));
    request.open(node).await
}

#[tokio::test]
async fn listening_is_acknowledged_when_the_server_has_confirmed_it() {
    for up in [Slow::modern().await, Slow::legacy().await] {
        let node = up.node().await;
        let mut stream = listen(&node).await;
        tokio::select! {
            biased;
            early = stream.message() => panic!("before the server: {early}"),
            () = up.is_asked() => {}
        }
        up.confirm.notify_one();
        let first = stream.message().await;
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        up.change();
        let second = stream.message().await;
        assert_eq!(second["method"], UPDATED);
        assert_eq!(second["params"]["uri"], RESOURCE);
    }
}

#[tokio::test]
async fn a_subscription_is_answered_when_the_server_has_confirmed_it() {
    let up = Slow::modern().await;
    let node = up.node().await;
    let session = legacy("2025-11-25").open(&node).await;
    let mut stream = session.stream().await;
    {
        let answer = session.result("resources/subscribe", json!({"uri": RESOURCE}));
        tokio::pin!(answer);
        tokio::select! {
            biased;
            _ = &mut answer => panic!("before the server"),
            () = up.is_asked() => {}
        }
        up.confirm.notify_one();
        assert_eq!(answer.await, json!({}));
    }
    up.change();
    assert_eq!(stream.message().await["method"], UPDATED);
}

#[tokio::test]
async fn a_server_that_never_confirms_does_not_hold_its_clients_up_for_long() {
    for up in [Slow::modern().await, Slow::legacy().await] {
        let node = up.node().await;
        let first = listen(&node).await.message().await;
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    }
}

/// A server of both eras, whose standalone streams are answered by `get`,
/// given how many there were before. Only clients' sessions have one here.
async fn with_streams(get: impl Fn(usize) -> Reply + Send + Sync + 'static) -> RawServer {
    let gets = AtomicUsize::new(0);
    let sessions = eras::legacy(move |request| match &*request.method {
        "GET" => get(gets.fetch_add(1, Ordering::SeqCst)),
        _ => Reply::json(200, &request.result(json!({}))),
    });
    RawServer::start(move |request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(200, &request.result(eras::discovery())),
        "subscriptions/listen" => Reply::sse()
            .event(&acknowledgement(request))
            .then(Step::Hang),
        _ => sessions(request),
    })
    .await
}

fn conflict() -> Reply {
    Reply::status(409)
}

#[tokio::test]
async fn a_stream_that_is_slow_to_open_is_opened_once() {
    let (headers, changes) = (Arc::new(Notify::new()), Feed::default());
    let (sent, pushed) = (Arc::clone(&headers), changes.clone());
    let server = with_streams(move |before| match before {
        0 => Reply::sse().after(&sent).feed(&pushed),
        _ => conflict(),
    })
    .await;
    let node = Setup::new().server("up", &server.url("/mcp")).start().await;
    let session = legacy("2025-11-25").open(&node).await;
    // While the server has not answered, the node hears that the session has changed.
    let meanwhile = async {
        server.request("GET").await;
        let level = session.result("logging/setLevel", json!({"level": "info"}));
        assert_eq!(level.await, json!({}));
    };
    let (mut stream, ()) = tokio::join!(session.stream(), meanwhile);
    headers.notify_one();
    changes.push(event(UPDATED, json!({"uri": RESOURCE})));
    assert_eq!(stream.message().await["method"], UPDATED);
    let streams = server.methods().iter().filter(|m| *m == "GET").count();
    assert_eq!(streams, 1);
}

#[tokio::test]
async fn a_stream_is_opened_when_the_server_has_let_go_of_the_last_one() {
    let changes = Feed::default();
    let pushed = changes.clone();
    let server = with_streams(move |before| match before {
        0 | 1 => conflict(),
        _ => Reply::sse().feed(&pushed),
    })
    .await;
    let node = Setup::new().server("up", &server.url("/mcp")).start().await;
    let session = legacy("2025-11-25").open(&node).await;
    let mut stream = session.stream().await;
    changes.push(event(UPDATED, json!({"uri": RESOURCE})));
    assert_eq!(stream.message().await["method"], UPDATED);
}

#[tokio::test]
async fn a_client_sees_its_stream_open_when_the_servers_is() {
    let server = with_streams(|_| Reply::sse().then(Step::Hang)).await;
    let node = Setup::new().server("up", &server.url("/mcp")).start().await;
    let session = legacy("2025-11-25").open(&node).await;
    let stream = session.stream().await;
    assert_eq!(stream.status, 200);
    assert!(server.methods().iter().any(|method| method == "GET"));
}
