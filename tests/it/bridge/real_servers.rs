//! A node's own way to a bridge: probing, sessions, calls, the signed header,
//! in front of servers of both eras.

use std::sync::Arc;

use mcp_fleet::{
    bridge::signer::Signer,
    ids::NodeId,
    mcp::version::Version,
    servers::Endpoint,
    store::memory::MemoryStore,
    upstream::{Change, Event, SessionUse, UpstreamError},
};
use serde_json::json;

use crate::{
    support::bridge::{Bridge, SECRET, Setup},
    upstream::{Side, answer_of, dedicated, settings, soon, wanted},
};

fn side(bridge: &Bridge, secret: &[u8; 32]) -> Side {
    let uri = format!("http://{}/mcp", bridge.address);
    let mut settings = settings();
    settings.signer = Signer::new(NodeId::named("node-1"), secret);
    settings.probe_timeout = std::time::Duration::from_secs(5);
    let mut side = Side::of(
        Endpoint::Http(uri.parse().expect("a URI")),
        settings,
        Arc::new(MemoryStore::new()),
    );
    let replica = Arc::into_inner(side.replica).expect("nobody else has it");
    side.replica = Arc::new(replica.signed("bridge-under-test"));
    side
}

async fn describe(side: &Side) -> Result<Version, UpstreamError> {
    let described = side.upstreams.describe(&side.replica, soon()).await;
    described.map(|description| description.version)
}

#[tokio::test]
async fn a_node_finds_out_the_era_and_calls() {
    for (era, version) in [
        ("legacy", Version::V2025_11_25),
        ("exits", Version::V2025_11_25),
        ("modern", Version::V2026_07_28),
    ] {
        for mode in ["shared", "per-session", "per-call"] {
            let bridge = Setup::scripted(era).with(&["--mode", mode]).start().await;
            let side = side(&bridge, &SECRET);
            assert_eq!(describe(&side).await.expect(era), version, "{era} {mode}");
            let params = json!({"name": "echo", "arguments": {"text": mode}});
            let answer = side
                .ask("tools/call", params.clone())
                .await
                .expect("answered");
            assert_eq!(answer["content"][0]["text"], mode, "{era}");
            let call = side
                .call("tools/call", params, json!({}), dedicated("client"))
                .await;
            let answer = answer_of(call.expect("called")).await.expect("answered");
            assert_eq!(answer["content"][0]["text"], mode, "{era}");
            side.stop().await;
        }
    }
}

#[tokio::test]
async fn a_node_of_another_fleet_gets_nowhere() {
    let bridge = Setup::scripted("legacy").start().await;
    let side = side(&bridge, &[8; 32]);
    let refused = describe(&side).await.expect_err("a stranger");
    let UpstreamError::Http { status, .. } = refused.root() else {
        panic!("{refused:?}");
    };
    assert_eq!(status.as_u16(), 401);
    side.stop().await;
}

#[tokio::test]
async fn a_question_is_asked_through_the_node() {
    let bridge = Setup::scripted("legacy").start().await;
    let side = side(&bridge, &SECRET);
    let capabilities = json!({"elicitation": {}});
    let params = json!({"name": "ask", "arguments": {}});
    let call = side.call("tools/call", params, &capabilities, SessionUse::Pooled);
    let mut call = call.await.expect("called");
    let Event::Ask(question) = call.next().await.expect("a question") else {
        panic!("no question");
    };
    let answer = mcp_fleet::mcp::message::Answer::Result(mcp_fleet::mcp::json::raw(
        &json!({"action": "accept"}),
    ));
    call.answer(&question.key, &answer).await.expect("taken");
    let answered = answer_of(call).await.expect("answered");
    assert_eq!(answered["answered"]["action"], "accept");
    side.stop().await;
}

#[tokio::test]
async fn changes_are_watched_through_a_bridge() {
    for era in ["legacy", "modern"] {
        let bridge = Setup::scripted(era).start().await;
        let side = side(&bridge, &SECRET);
        let (_uris, wanted_uris) = tokio::sync::watch::channel(Default::default());
        let (to, changes) = tokio::sync::mpsc::channel(8);
        let watching = side.upstreams.watch(&side.replica, wanted(wanted_uris), to);
        let seen = std::cell::Cell::new(false);
        let seeing = async {
            let mut changes = changes;
            let Some(Change::Watching) = changes.recv().await else {
                return;
            };
            if era == "legacy" {
                let params = json!({"name": "changed", "arguments": {}});
                side.ask("tools/call", params).await.expect("answered");
            }
            assert!(matches!(changes.recv().await, Some(Change::List(_))));
            seen.set(true);
            drop(changes);
        };
        let (watched, ()) = tokio::join!(watching, seeing);
        watched.expect(era);
        assert!(seen.get(), "{era}");
        side.stop().await;
    }
}
