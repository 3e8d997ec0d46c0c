//! One bad server delays nobody else: its calls are still open while hundreds
//! of others complete.

use serde_json::{Value, json};

use crate::support::{
    client::{call, modern},
    fake_server::{FakeServer, Speaks},
    node::{Setup, TestNode},
    raw_server::{RawRequest, RawServer, Reply as RawReply, Step},
    wire::{self, Owned, within},
};

const OTHERS: usize = 200;
const STUCK: usize = 50;

/// What a bad server does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bad {
    /// Accepts and never answers, from the handshake on.
    Silent,
    /// Never answers calls.
    Hanging,
    /// Stalls in the middle of a JSON body.
    InTheBody,
    /// Stalls in the middle of an event stream.
    InTheStream,
    /// Status 500.
    Failing,
    /// Status 401.
    Unauthorized,
    /// Bytes that are no HTTP.
    Garbage,
    /// Nobody listens.
    Refusing,
}

impl Bad {
    const ALL: [Self; 8] = [
        Self::Silent,
        Self::Hanging,
        Self::InTheBody,
        Self::InTheStream,
        Self::Failing,
        Self::Unauthorized,
        Self::Garbage,
        Self::Refusing,
    ];

    fn stalls(self) -> bool {
        matches!(
            self,
            Self::Silent | Self::Hanging | Self::InTheBody | Self::InTheStream
        )
    }

    fn answer(self, request: &RawRequest) -> RawReply {
        if self == Self::Silent {
            return RawReply::hang();
        }
        if request.rpc_method() != "tools/call" {
            return modern_answer(request);
        }
        let text = "{\"jsonrpc\":\"2.0\",\"id\":";
        match self {
            Self::Silent | Self::Hanging => RawReply::hang(),
            Self::InTheBody => RawReply::raw(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{text}"
            ))
            .then(Step::Hang),
            Self::InTheStream => RawReply::sse().text("data: {\"jsonrpc\":").then(Step::Hang),
            Self::Failing => RawReply::status(500),
            Self::Unauthorized => RawReply::status(401),
            Self::Garbage => RawReply::raw("\u{0}\u{1}garbage\r\n\r\n").then(Step::Close),
            Self::Refusing => RawReply::close(),
        }
    }
}

fn modern_answer(request: &RawRequest) -> RawReply {
    let complete = |more: Value| {
        let mut result = json!({"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"});
        let object = result.as_object_mut().expect("an object");
        object.extend(crate::support::client::object(more));
        RawReply::json(200, &request.result(result))
    };
    match request.rpc_method().as_str() {
        "server/discover" => complete(json!({
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "bad", "version": "1"},
        })),
        "tools/list" => {
            complete(json!({"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}))
        }
        _ => RawReply::json(200, &request.error(-32601, "method not found")),
    }
}

async fn others_are_served(node: &TestNode) {
    for _ in 0..OTHERS / 4 {
        call("echo", json!({})).result(node).await;
        call("up__echo", json!({})).at("/mcp").result(node).await;
        modern("tools/list").result(node).await;
        let healthy = crate::support::client::bare(node, "GET", "/healthz", &[]).await;
        assert_eq!(healthy.status, 200);
    }
}

#[tokio::test]
async fn calls_and_lists_of_others_complete_while_a_bad_servers_calls_are_open() {
    for bad in Bad::ALL {
        let good = FakeServer::start(Speaks::Modern).await;
        let server = RawServer::start(move |request| bad.answer(request)).await;
        let url = server.url("/mcp");
        let raw = (bad != Bad::Refusing).then_some(server);
        let node = Setup::up(&good)
            .server("bad", &url)
            .set("cache.list_deadline", "\"1s\"")
            .start()
            .await;
        call("echo", json!({})).result(&node).await;
        if bad != Bad::Silent && raw.is_some() {
            modern("tools/list").at("/mcp/bad").result(&node).await;
        }
        let address = node.address;
        let stuck: Vec<_> = (0..STUCK)
            .map(|_| {
                Owned(tokio::spawn(async move {
                    call("t", json!({}))
                        .at("/mcp/bad")
                        .open_at(address)
                        .await
                        .answered()
                        .await
                }))
            })
            .collect();
        if let Some(raw) = raw.as_ref().filter(|_| bad.stalls()) {
            let wanted = if bad == Bad::Silent { 1 } else { STUCK };
            raw.until("the calls have arrived", |raw| {
                (raw.requests().len() >= wanted).then_some(())
            })
            .await;
        }
        others_are_served(&node).await;
        // The merged list waits for what it does not know, at most its deadline.
        let list = modern("tools/list").at("/mcp").result(&node).await;
        assert!(
            list["tools"]
                .as_array()
                .is_some_and(|tools| tools.len() >= 5),
            "{bad:?}"
        );
        if bad.stalls() {
            assert!(stuck.iter().all(|call| !call.0.is_finished()), "{bad:?}");
            if let Some(raw) = &raw {
                assert!(
                    raw.connections() <= STUCK + 4,
                    "{bad:?}: {}",
                    raw.connections()
                );
            }
            continue;
        }
        for mut call in stuck {
            let failed = within("the failure", &mut call.0).await.expect("no panic");
            assert_eq!(failed.code(), -32603, "{bad:?}");
        }
    }
}

#[tokio::test]
async fn a_replica_that_stalls_does_not_hold_up_its_server() {
    let good = FakeServer::start(Speaks::Modern).await;
    let stalled = RawServer::start(|request| Bad::Hanging.answer(request)).await;
    let urls = [stalled.url("/mcp"), good.url()];
    let node = Setup::new().replicas("up", &urls, "").start().await;
    let address = node.address;
    let mut stuck = Vec::new();
    // Until one is stuck; then the others go where answers come from.
    while stalled
        .methods()
        .iter()
        .all(|method| method != "tools/call")
    {
        let before = good.seen("tools/call").len();
        stuck.push(Owned(tokio::spawn(async move {
            call("echo", json!({}))
                .open_at(address)
                .await
                .answered()
                .await;
        })));
        crate::support::eventually("the call has arrived somewhere", async || {
            good.seen("tools/call").len() > before
                || stalled
                    .methods()
                    .iter()
                    .any(|method| method == "tools/call")
        })
        .await;
    }
    for _ in 0..OTHERS {
        let answered = wire::within("an answer", call("echo", json!({})).send(&node)).await;
        answered.result();
    }
    let calls = stalled.methods();
    let calls = calls
        .iter()
        .filter(|method| *method == "tools/call")
        .count();
    assert_eq!(calls, 1, "nobody else was sent there");
}
