//! G102: trace context.

use serde_json::{Value, json};

use super::BOTH;
use crate::support::{client::call, fake_server::Recorded, legacy_client::legacy, node::node_with};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Whether it is what W3C Trace Context allows, of that trace.
fn assert_trace(seen: &Recorded, trace: &str) {
    let parent = seen.meta("traceparent");
    let parent = parent
        .as_str()
        .unwrap_or_else(|| panic!("no traceparent: {}", seen.body));
    let parts: Vec<_> = parent.split('-').collect();
    let is_hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    assert_eq!(parts.len(), 4, "{parent}");
    assert!(
        is_hex(parts[0], 2) && is_hex(parts[2], 16) && is_hex(parts[3], 2),
        "{parent}"
    );
    assert_ne!(parts[2], "0000000000000000");
    assert_eq!(parts[1], trace);
}

#[tokio::test]
async fn g102_the_trace_of_a_request_goes_on_at_the_server() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        let in_meta = call("echo", json!({}))
            .meta("traceparent", json!(PARENT))
            .meta("tracestate", json!("vendor=1,other=a b"));
        in_meta.result(&node).await;
        let in_header = call("echo", json!({}))
            .also("traceparent", PARENT)
            .also("tracestate", "vendor=1");
        in_header.result(&node).await;
        let other = PARENT.replace(TRACE, "0af7651916cd43dd8448eb211c80319c");
        // What the message says counts more than the header.
        in_meta.also("traceparent", &other).result(&node).await;
        let session = legacy("2025-11-25").open(&node).await;
        let params = json!({"name": "echo", "_meta": {"traceparent": PARENT}});
        session.result("tools/call", params).await;
        let seen = server.seen("tools/call");
        assert_eq!(seen.len(), 4);
        for seen in &seen {
            assert_trace(seen, TRACE);
            let meta = seen.params()["_meta"].as_object().expect("_meta");
            let prefixed = meta
                .keys()
                .find(|key| key.contains('/') && key.contains("trace"));
            assert_eq!(prefixed, None);
        }
        let states: Vec<Value> = seen.iter().map(|seen| seen.meta("tracestate")).collect();
        assert_eq!(
            states,
            [
                json!("vendor=1,other=a b"),
                json!("vendor=1"),
                json!("vendor=1,other=a b"),
                Value::Null
            ]
        );
    }
}

#[tokio::test]
async fn g102_a_trace_that_is_none_is_not_passed_on() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        for bad in [
            "",
            "x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            call("echo", json!({}))
                .meta("traceparent", json!(bad))
                .result(&node)
                .await;
            let seen = server.seen("tools/call");
            let sent = seen.last().expect("a call").meta("traceparent");
            assert_ne!(sent, bad, "{speaks:?}");
            assert!(
                !sent.to_string().contains("00f067aa0ba902b7"),
                "{speaks:?} {bad}: {sent}"
            );
        }
        call("echo", json!({}))
            .meta("traceparent", json!(7))
            .result(&node)
            .await;
    }
}
