//! G71-G75: `subscriptions/listen`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{
    client::{Modern, SUBSCRIPTION, modern},
    fake_server::{Contents, FakeServer, SESSIONS, Speaks},
    node::{Setup, TestCluster, node_with},
    wire::Reply,
};

const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

fn listen(filter: Value) -> Modern {
    modern("subscriptions/listen").params(json!({ "notifications": filter }))
}

/// Everything there is to listen to.
fn all() -> Value {
    json!({"toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
        "resourceSubscriptions": ["doc://a"]})
}

/// The first message, which has to be the acknowledgement; answers the honoured filter.
async fn acknowledged(stream: &mut Reply, id: &Value) -> Value {
    assert!(stream.is_stream(), "{}", stream.status);
    let first = stream.message().await;
    assert_eq!(first["method"], ACKNOWLEDGED, "{first}");
    assert_eq!(&first["params"]["_meta"][SUBSCRIPTION], id);
    first["params"]["notifications"].clone()
}

#[tokio::test]
async fn g71_the_acknowledgement_is_first_and_names_what_is_honoured() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        let mut stream = listen(all()).open(&node).await;
        assert_eq!(
            acknowledged(&mut stream, &json!(1)).await,
            all(),
            "{speaks:?}"
        );
        let some = json!({"promptsListChanged": true, "toolsListChanged": false});
        let mut stream = listen(some).open(&node).await;
        let honoured = acknowledged(&mut stream, &json!(1)).await;
        assert_eq!(honoured, json!({"promptsListChanged": true}));

        let contents = Contents {
            capabilities:
                r#"{"tools":{"listChanged":true},"prompts":{},"resources":{"listChanged":false}}"#
                    .into(),
            ..Contents::default()
        };
        let server = FakeServer::offering(speaks, contents).await;
        let node = Setup::up(&server).start().await;
        let mut stream = listen(all()).open(&node).await;
        let honoured = acknowledged(&mut stream, &json!(1)).await;
        assert_eq!(honoured, json!({"toolsListChanged": true}), "{speaks:?}");
    }
}

#[tokio::test]
async fn g71_a_listen_without_a_filter_is_refused() {
    let (node, _server) = node_with(Speaks::Modern).await;
    for params in [
        json!({}),
        json!({"notifications": []}),
        json!({"notifications": {"toolsListChanged": 1}}),
    ] {
        let refused = modern("subscriptions/listen")
            .params(params.clone())
            .send(&node)
            .await;
        assert_eq!(refused.code(), -32602, "{params}");
    }
}

#[tokio::test]
async fn g72_every_message_carries_the_id_with_its_type() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        let ids = [json!(7), json!("7"), json!("caf\u{e9}"), json!(0)];
        let mut streams = Vec::new();
        for id in &ids {
            let mut stream = listen(all()).id(id.clone()).open(&node).await;
            acknowledged(&mut stream, id).await;
            streams.push(stream);
        }
        server.list_changed("tools").await;
        server.resource_updated("doc://a").await;
        for (stream, id) in streams.iter_mut().zip(&ids) {
            for method in [
                "notifications/tools/list_changed",
                "notifications/resources/updated",
            ] {
                let message = stream.message().await;
                assert_eq!(message["method"], method, "{speaks:?}");
                assert_eq!(&message["params"]["_meta"][SUBSCRIPTION], id, "{speaks:?}");
            }
        }
        node.stop();
        for (stream, id) in streams.into_iter().zip(&ids) {
            let end = stream.answered().await;
            assert_eq!(&end.response["id"], id);
            assert_eq!(&end.result()["_meta"][SUBSCRIPTION], id);
        }
    }
}

#[tokio::test]
async fn g73_nothing_is_sent_that_was_not_asked_for() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        let mut tools = listen(json!({"toolsListChanged": true})).open(&node).await;
        acknowledged(&mut tools, &json!(1)).await;
        let other = json!({"resourceSubscriptions": ["doc://b"], "promptsListChanged": true});
        let mut prompts = listen(other).open(&node).await;
        acknowledged(&mut prompts, &json!(1)).await;
        // The second is what makes the gateway itself hear of all this.
        let mut wide = listen(all()).open(&node).await;
        acknowledged(&mut wide, &json!(1)).await;
        server.resource_updated("doc://a").await;
        server.list_changed("resources").await;
        server.list_changed("prompts").await;
        server.list_changed("tools").await;
        // What happens at once has no order, and may be told twice.
        let mut heard = BTreeSet::new();
        while heard.len() < 4 {
            heard.insert(wide.message().await["method"].to_string());
        }
        node.stop();
        for (stream, allowed) in [
            (tools, "notifications/tools/list_changed"),
            (prompts, "notifications/prompts/list_changed"),
        ] {
            let all = stream.answered().await.messages;
            assert!(!all.is_empty(), "{speaks:?} {allowed}");
            for message in all {
                assert_eq!(message["method"], allowed, "{speaks:?}");
            }
        }
    }
}

#[tokio::test]
async fn g73_progress_and_log_messages_stay_off_listen_streams() {
    let (node, server) = node_with(SESSIONS).await;
    let mut stream = listen(all()).open(&node).await;
    acknowledged(&mut stream, &json!(1)).await;
    // Said on the streams that list changes come by.
    server
        .say(
            "notifications/message",
            json!({"level": "error", "data": "x"}),
        )
        .await;
    server
        .say(
            "notifications/progress",
            json!({"progressToken": 1, "progress": 1}),
        )
        .await;
    server.list_changed("tools").await;
    assert_eq!(
        stream.message().await["method"],
        "notifications/tools/list_changed"
    );
    node.stop();
    assert_eq!(stream.answered().await.messages, Vec::<Value>::new());
}

#[tokio::test]
async fn g74_a_listen_ends_with_its_result() {
    let (node, _server) = node_with(Speaks::Modern).await;
    for path in ["/mcp/up", "/mcp"] {
        let (node, _other) = node_with(Speaks::Modern).await;
        let mut stream = listen(all()).at(path).id(json!("l")).open(&node).await;
        acknowledged(&mut stream, &json!("l")).await;
        node.stop();
        let result = stream.message().await;
        assert_eq!(result["id"], "l", "{path}");
        assert_eq!(
            result["result"],
            json!({"resultType": "complete", "_meta": {SUBSCRIPTION: "l"}})
        );
        assert_eq!(stream.event().await, None, "{path}");
        node.stopped().await;
    }
    drop(node);
}

#[tokio::test]
async fn g75_a_change_reaches_listeners_on_every_node() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let mut streams = Vec::new();
        for node in &cluster.nodes {
            for path in ["/mcp/up", "/mcp"] {
                let mut stream = listen(all()).at(path).open(node).await;
                acknowledged(&mut stream, &json!(1)).await;
                streams.push(stream);
            }
        }
        server.list_changed("prompts").await;
        for stream in &mut streams {
            // When the watch moves to the second node, everything counts as changed.
            while stream.message().await["method"] != "notifications/prompts/list_changed" {}
        }
        server.resource_updated("doc://a").await;
        for stream in &mut streams {
            loop {
                let message = stream.message().await;
                if message["method"] == "notifications/resources/updated" {
                    assert_eq!(message["params"]["uri"], "doc://a", "{speaks:?}");
                    break;
                }
            }
        }
    }
}
