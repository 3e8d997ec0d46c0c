//! What is sent again, and what never is.

use serde_json::json;

use super::{hinting, nobody};
use crate::support::{
    client::{call, modern},
    eventually,
    fake_server::{Contents, FakeServer, SESSIONS, Speaks, call::Outcome, contents::tool},
    legacy_client::legacy,
    node::{Setup, TestCluster, TestNode},
};

#[tokio::test]
async fn calls_to_a_server_with_dead_replicas_all_succeed() {
    for policy in [
        "p2c",
        "round_robin",
        "least_in_flight",
        "weighted",
        "random",
    ] {
        let server = FakeServer::start(Speaks::Modern).await;
        let urls = [nobody(), server.url(), nobody()];
        let keys = format!("balance = \"{policy}\"");
        let node = Setup::new().replicas("up", &urls, &keys).start().await;
        for _ in 0..30 {
            call("echo", json!({})).result(&node).await;
        }
        assert_eq!(server.seen("tools/call").len(), 30, "{policy}");
    }
}

/// A node whose replicas are `bad` and one that answers well; the list of
/// tools is known.
async fn with_bad(bad: &FakeServer, keys: &str) -> (TestNode, FakeServer) {
    let good = hinting(Outcome::text("good")).await;
    let urls = [bad.url(), good.url()];
    let keys = format!("balance = \"round_robin\"\n{keys}");
    let node = Setup::new().replicas("up", &urls, &keys).start().await;
    modern("tools/list").result(&node).await;
    (node, good)
}

#[tokio::test]
async fn a_failed_call_runs_again_elsewhere_if_its_tool_says_that_it_may() {
    let broken = || Outcome::Http(500, String::new());
    for (trusting, tool, repeated) in [
        ("", "safe", true),
        ("", "unsafe", false),
        ("trust_annotations = false", "safe", false),
    ] {
        let bad = hinting(broken()).await;
        let (node, good) = with_bad(&bad, trusting).await;
        let mut failures = 0;
        for _ in 0..4 {
            let answered = call(tool, json!({})).send(&node).await;
            failures += usize::from(answered.response.get("error").is_some());
        }
        let (to_bad, to_good) = (bad.seen("tools/call").len(), good.seen("tools/call").len());
        assert!(to_bad > 0, "{tool} {trusting}");
        if repeated {
            assert_eq!((failures, to_good), (0, 4), "{tool} {trusting}");
        } else {
            assert_eq!(
                (failures, to_good),
                (to_bad, 4 - to_bad),
                "{tool} {trusting}"
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_again_after_part_of_the_answer_was_passed_on() {
    let safe =
        r#"{"name":"safe","inputSchema":{"type":"object"},"annotations":{"idempotentHint":true}}"#;
    let bad = FakeServer::with(
        Speaks::Modern,
        Contents::tools(&[safe, &tool("x")]),
        |call| async move {
            call.progress(1.0);
            call.break_off(None);
            Outcome::Silence
        },
    )
    .await;
    let (node, good) = with_bad(&bad, "").await;
    let mut seen_broken = false;
    for _ in 0..4 {
        let progress = call("safe", json!({})).meta("progressToken", json!(1));
        let answered = progress.send(&node).await;
        let was_told = !answered.messages.is_empty();
        assert_eq!(
            answered.response.get("error").is_some(),
            was_told,
            "{answered:?}"
        );
        seen_broken |= was_told;
    }
    assert!(seen_broken);
    let all = bad.seen("tools/call").len() + good.seen("tools/call").len();
    assert_eq!(all, 4);
}

#[tokio::test]
async fn retries_are_bounded_per_call_and_as_a_share_of_calls() {
    let urls = [nobody(), nobody(), nobody(), nobody(), nobody()];
    for (retries, budget, most) in [(0, 0.2, 0), (2, 0.0, 10), (2, 0.5, 30)] {
        let node = Setup::new()
            .replicas("up", &urls, "balance = \"random\"")
            .set("upstream.retries", &retries.to_string())
            .set("upstream.retry_budget", &budget.to_string())
            .start()
            .await;
        for _ in 0..40 {
            call("echo", json!({}))
                .at("/mcp/up")
                .send(&node)
                .await
                .code();
        }
        let text = node.gateway.metrics.render();
        let counted = text
            .lines()
            .filter(|line| line.starts_with("mcp_fleet_retries_total"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum::<u64>();
        assert!(counted <= most, "{retries} {budget}: {counted}");
    }
}

#[tokio::test]
async fn a_session_goes_back_to_its_replica_from_any_node_and_moves_when_that_is_gone() {
    let mut servers = vec![
        FakeServer::start(SESSIONS).await,
        FakeServer::start(SESSIONS).await,
    ];
    let urls: Vec<_> = servers.iter().map(FakeServer::url).collect();
    let cluster = TestCluster::pair(Setup::new().replicas("up", &urls, "")).await;
    let session = legacy("2025-11-25").open(cluster.a()).await;
    session.call("echo", json!({})).await.result();
    let home = usize::from(!servers[1].seen("tools/call").is_empty());
    // Node b thinks badly of the replica; the session is there all the same.
    cluster.b().replicas()[home].set_healthy(false);
    let through_b = session.through(cluster.b());
    through_b.call("echo", json!({})).await.result();
    assert_eq!(servers[home].seen("tools/call").len(), 2);
    assert!(servers[1 - home].seen("tools/call").is_empty());
    // New sessions go elsewhere.
    for _ in 0..6 {
        let other = legacy("2025-11-25").open(cluster.b()).await;
        other.call("echo", json!({})).await.result();
    }
    assert_eq!(servers[1 - home].seen("tools/call").len(), 6);
    drop(servers.remove(home));
    let left = &servers[0];
    eventually("the connections are closed", async || {
        session
            .call("echo", json!({}))
            .await
            .response
            .get("result")
            .is_some()
    })
    .await;
    through_b.call("echo", json!({})).await.result();
    assert!(left.seen("tools/call").len() >= 8);
}
