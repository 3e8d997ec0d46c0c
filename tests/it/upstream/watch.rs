//! Change notifications: what is asked for, what is reported, when it ends.

use std::collections::BTreeSet;

use mcp_fleet::{
    mcp::method::ListKind,
    upstream::{Change, UpstreamError},
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    Side,
    eras::{discovery, legacy},
};
use crate::support::raw_server::{Feed, RawServer, Reply};

fn uris(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(ToString::to_string).collect()
}

async fn next(changes: &mut mpsc::Receiver<Change>) -> Change {
    let next = tokio::time::timeout(std::time::Duration::from_secs(5), changes.recv());
    next.await.expect("in time").expect("not ended")
}

fn event(method: &str, params: Value) -> String {
    format!(
        "data: {}\n\n",
        json!({"jsonrpc": "2.0", "method": method, "params": params})
    )
}

#[tokio::test]
async fn a_modern_watch_listens_and_follows_the_wanted_resources() {
    let feed = Feed::default();
    let pushed = feed.clone();
    let server = RawServer::start(move |request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(200, &request.result(discovery())),
        "subscriptions/listen" => {
            let meta = json!({"io.modelcontextprotocol/subscriptionId": request.rpc_id()});
            let ack = json!({"_meta": meta, "notifications": {}});
            let ack = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": ack});
            Reply::sse().event(&ack).feed(&pushed)
        }
        _ => Reply::status(500),
    })
    .await;
    let side = Side::http(&server.url("/mcp"));
    let (wanted, uris_rx) = watch::channel(uris(&[]));
    let (to, mut changes) = mpsc::channel(8);
    let watching = side
        .upstreams
        .watch(&side.replica, super::wanted(uris_rx), to);
    let seeing = async {
        assert!(matches!(next(&mut changes).await, Change::Watching));
        let meta = json!({"io.modelcontextprotocol/subscriptionId": 1});
        feed.push(event(
            "notifications/tools/list_changed",
            json!({"_meta": meta}),
        ));
        assert!(matches!(
            next(&mut changes).await,
            Change::List(ListKind::Tools)
        ));
        wanted.send(uris(&["a://1"])).unwrap();
        server
            .until("a second listen", |server| {
                let count = server
                    .methods()
                    .iter()
                    .filter(|m| *m == "subscriptions/listen")
                    .count();
                (count == 2).then_some(())
            })
            .await;
        // The first stream ends once the second is acknowledged.
        server
            .until("the end of the first", |s| (s.hangups() == 1).then_some(()))
            .await;
        feed.push(event(
            "notifications/resources/updated",
            json!({"uri": "a://1", "_meta": meta}),
        ));
        let Change::Resource { uri, params } = next(&mut changes).await else {
            panic!("no resource");
        };
        assert_eq!(
            (uri.as_str(), params.get()),
            ("a://1", "{\"uri\":\"a://1\"}")
        );
        drop(changes);
    };
    let (outcome, ()) = tokio::join!(watching, seeing);
    outcome.unwrap();
    let filters: Vec<Value> = server
        .requests()
        .iter()
        .filter(|r| r.rpc_method() == "subscriptions/listen")
        .map(|r| r.json()["params"]["notifications"].clone())
        .collect();
    assert_eq!(
        filters,
        [
            json!({"toolsListChanged": true}),
            json!({"toolsListChanged": true, "resourceSubscriptions": ["a://1"]})
        ]
    );
    server
        .until("the end of the second", |s| {
            (s.hangups() == 2).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_modern_watch_ends_with_its_stream_or_its_refusal() {
    for (reply, graceful) in [("end", false), ("result", true), ("refuse", false)] {
        let server = RawServer::start(move |request| match request.rpc_method().as_str() {
            "server/discover" => Reply::json(200, &request.result(discovery())),
            _ if reply == "refuse" => Reply::json(404, &request.error(-32601, "no")),
            _ => {
                let ack = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}});
                let stream = Reply::sse().event(&ack);
                match reply {
                    "result" => stream.event(&request.result(json!({}))).end(),
                    _ => stream.end(),
                }
            }
        })
        .await;
        let side = Side::http(&server.url("/mcp"));
        let (_wanted, uris_rx) = watch::channel(uris(&[]));
        let (to, _changes) = mpsc::channel(8);
        let outcome = side
            .upstreams
            .watch(&side.replica, super::wanted(uris_rx), to)
            .await;
        assert_eq!(outcome.is_ok(), graceful, "{reply}: {outcome:?}");
        if reply == "refuse" {
            assert!(
                matches!(outcome, Err(UpstreamError::NotOffered(_))),
                "{outcome:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_legacy_watch_reads_the_standalone_stream_and_subscribes() {
    let feed = Feed::default();
    let pushed = feed.clone();
    let server = RawServer::start(legacy(move |request| {
        if request.method == "GET" {
            return Reply::sse().feed(&pushed);
        }
        Reply::json(200, &request.result(json!({})))
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let (wanted, uris_rx) = watch::channel(uris(&["a://1"]));
    let (to, mut changes) = mpsc::channel(8);
    let watching = side
        .upstreams
        .watch(&side.replica, super::wanted(uris_rx), to);
    let seeing = async {
        assert!(matches!(next(&mut changes).await, Change::Watching));
        feed.push(event(
            "notifications/resources/updated",
            json!({"uri": "a://1"}),
        ));
        assert!(matches!(next(&mut changes).await, Change::Resource { .. }));
        wanted.send(uris(&["a://2"])).unwrap();
        server.request("resources/unsubscribe").await;
        feed.push(event("notifications/prompts/list_changed", json!({})));
        assert!(matches!(
            next(&mut changes).await,
            Change::List(ListKind::Prompts)
        ));
        drop(changes);
    };
    let (outcome, ()) = tokio::join!(watching, seeing);
    outcome.unwrap();
    let subscribed: Vec<Value> = server
        .requests()
        .iter()
        .filter(|r| r.rpc_method() == "resources/subscribe")
        .map(|r| r.json()["params"]["uri"].clone())
        .collect();
    assert_eq!(subscribed, ["a://1", "a://2"]);
    side.stop().await;
    server.request("DELETE").await;
    server
        .until("the end of the stream", |s| {
            (s.hangups() == 1).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_legacy_replica_without_a_stream_cannot_be_watched() {
    let server = RawServer::start(legacy(|request| {
        if request.method == "GET" {
            return Reply::status(405);
        }
        Reply::json(200, &request.result(json!({})))
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    let (_wanted, uris_rx) = watch::channel(uris(&[]));
    let (to, _changes) = mpsc::channel(8);
    let outcome = side
        .upstreams
        .watch(&side.replica, super::wanted(uris_rx), to)
        .await;
    assert!(
        matches!(outcome, Err(UpstreamError::NotOffered(_))),
        "{outcome:?}"
    );
}
