//! Child processes: G94 and what becomes of a process that misbehaves.

use std::time::{Duration, Instant};

use mcp_fleet::{
    mcp::{message::Answer, version::Version},
    upstream::{Change, Event, Exchange, SessionUse, UpstreamError},
};
use serde_json::{Value, json};

use super::{Side, answer_of, client_session, raw, soon};

const CHILD: &str = include_str!("child.sh");

fn child(mode: &str) -> Side {
    Side::stdio(&["sh", "-c", CHILD, "child", mode])
}

async fn pid(side: &Side, capabilities: &Value, session: SessionUse) -> u64 {
    let call = side.call("tools/call", json!({"name": "pid"}), capabilities, session);
    let answer = answer_of(call.await.expect("called"))
        .await
        .expect("answered");
    answer["pid"].as_u64().expect("a number")
}

/// A call that has arrived and is not answered.
async fn slow(side: &Side, capabilities: &Value) -> Exchange {
    let params = raw(&json!({"name": "slow"}));
    let capabilities = super::caps(capabilities);
    let request = mcp_fleet::upstream::Outgoing {
        method: "tools/call",
        params: Some(&params),
        capabilities: &capabilities,
        log_level: None,
        progress_token: Some(raw(&json!("how far"))),
        trace: Default::default(),
        headers: Vec::new(),
    };
    let upstreams = &side.upstreams;
    let call = upstreams.call(&side.replica, request, SessionUse::Pooled, soon());
    let mut exchange = call.await.expect("called");
    let first = exchange.next().await.expect("progress");
    assert!(matches!(first, Event::Notification(_)), "{first:?}");
    exchange
}

fn is_running(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie waits only to be reaped.
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn every_kind_of_process_is_understood() {
    let modes = [
        ("error", Version::V2025_06_18),
        ("exit", Version::V2025_06_18),
        ("silent", Version::V2025_06_18),
        ("modern", Version::V2026_07_28),
    ];
    for (mode, version) in modes {
        let side = child(mode);
        let description = side.upstreams.describe(&side.replica, soon()).await;
        assert_eq!(description.expect(mode).version, version, "{mode}");
        let first = pid(&side, &json!({}), SessionUse::Pooled).await;
        let second = pid(&side, &json!({}), SessionUse::Pooled).await;
        assert_eq!(first, second, "{mode}: one process serves all");
        assert!(is_running(first));
        side.stop().await;
        assert!(!is_running(first), "{mode}: the process outlived its node");
    }
}

#[tokio::test]
async fn messages_are_single_lines_whatever_the_client_wrote() {
    let side = child("error");
    let text = "{\n  \"name\": \"pid\",\r\n  \"arguments\": {\"text\": \"a\\nb\"}\n}";
    let params: Box<mcp_fleet::mcp::Raw> = serde_json::from_str(text).unwrap();
    let capabilities = super::caps(&json!({}));
    let request = mcp_fleet::upstream::Outgoing {
        method: "tools/call",
        params: Some(&params),
        capabilities: &capabilities,
        log_level: None,
        progress_token: None,
        trace: Default::default(),
        headers: Vec::new(),
    };
    let call = side
        .upstreams
        .call(&side.replica, request, SessionUse::Pooled, soon());
    let answer = answer_of(call.await.unwrap()).await.unwrap();
    assert_eq!(answer["lines"], "ok");
    side.stop().await;
}

#[tokio::test]
async fn a_crashed_process_fails_its_calls_and_is_started_again() {
    let side = child("error");
    let before = pid(&side, &json!({}), SessionUse::Pooled).await;
    let slow = slow(&side, &json!({})).await;
    let died = side.ask("tools/call", json!({"name": "die"})).await;
    let failed = answer_of(slow).await;
    for failed in [died, failed] {
        let failed = failed.expect("answered");
        let message = failed["error"]["message"].as_str().expect("an error");
        assert!(message.contains("exit code 1"), "{message}");
    }
    let begun = Instant::now();
    let after = pid(&side, &json!({}), SessionUse::Pooled).await;
    assert_ne!(before, after);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    side.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_at_once() {
    let side = Side::stdio(&["/nowhere/no-such-program"]);
    let error = side.ask("tools/list", json!({})).await.unwrap_err();
    assert!(
        matches!(error.root(), UpstreamError::SpawnFailed(_)),
        "{error:?}"
    );
    assert!(error.to_string().contains("/nowhere/no-such-program"));
    assert!(error.is_safe_to_retry());
}

#[tokio::test]
async fn questions_on_a_pipe_belong_to_the_only_call_that_can_ask() {
    let side = child("error");
    let asked = json!({"elicitation": {}});
    let ask = || {
        side.call(
            "tools/call",
            json!({"name": "ask"}),
            &asked,
            SessionUse::Pooled,
        )
    };
    let mut one = ask().await.unwrap();
    // The second gets a process of its own instead of waiting for a person.
    let mut two = ask().await.unwrap();
    for (exchange, action) in [(&mut two, "decline"), (&mut one, "accept")] {
        let Event::Ask(question) = exchange.next().await.unwrap() else {
            panic!("no question");
        };
        let answer = Answer::Result(raw(&json!({"action": action})));
        exchange.answer(&question.key, &answer).await.unwrap();
    }
    assert_eq!(answer_of(one).await.unwrap()["answer"], "accept");
    assert_eq!(answer_of(two).await.unwrap()["answer"], "decline");
    // Nobody can be asked: the question is refused.
    let stray = side
        .ask("tools/call", json!({"name": "stray"}))
        .await
        .unwrap();
    assert!(stray["refused"].as_i64().unwrap() < 0, "{stray}");
    side.stop().await;
}

#[tokio::test]
async fn processes_are_bounded_and_waiting_ends_in_time() {
    let side = child("error");
    let asked = json!({"elicitation": {}});
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(slow(&side, &asked).await);
    }
    let params = raw(&json!({"name": "slow"}));
    let capabilities = super::caps(&asked);
    let request = mcp_fleet::upstream::Outgoing {
        method: "tools/call",
        params: Some(&params),
        capabilities: &capabilities,
        log_level: None,
        progress_token: None,
        trace: Default::default(),
        headers: Vec::new(),
    };
    let late = super::within(300);
    let calling = side
        .upstreams
        .call(&side.replica, request, SessionUse::Pooled, late);
    let error = calling.await.unwrap_err();
    assert!(matches!(error, UpstreamError::Busy(_)), "{error:?}");
    assert!(error.is_safe_to_retry());
    // One that gets free is used.
    held.pop();
    pid(&side, &asked, SessionUse::Pooled).await;
    side.stop().await;
}

#[tokio::test]
async fn clients_have_processes_of_their_own() {
    let side = child("error");
    let session = |key: &str| SessionUse::Dedicated(client_session(key, &json!({})));
    let one = pid(&side, &json!({}), session("c1")).await;
    assert_eq!(one, pid(&side, &json!({}), session("c1")).await);
    assert_ne!(one, pid(&side, &json!({}), session("c2")).await);
    side.stop().await;
}

#[tokio::test]
async fn giving_up_is_told_to_the_process() {
    for mode in ["error", "modern"] {
        let side = child(mode);
        drop(slow(&side, &json!({})).await);
        let deadline = soon();
        loop {
            let seen = side
                .ask("tools/call", json!({"name": "cancelled"}))
                .await
                .unwrap();
            if !seen["cancelled"].as_str().unwrap().is_empty() {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{mode}: never told");
        }
        side.stop().await;
    }
}

#[tokio::test]
async fn the_environment_is_minimal() {
    let side = child("error");
    let answer = side
        .ask("tools/call", json!({"name": "pid"}))
        .await
        .unwrap();
    assert_eq!(answer["secret"], "");
    assert_eq!(answer["home"], std::env::var("HOME").unwrap_or_default());
    side.stop().await;
}

#[tokio::test]
async fn a_modern_process_is_watched_over_its_pipe() {
    let side = child("modern");
    let (_wanted, uris) = tokio::sync::watch::channel(Default::default());
    let (to, mut changes) = tokio::sync::mpsc::channel(8);
    let watching = side.upstreams.watch(&side.replica, super::wanted(uris), to);
    let seeing = async {
        assert!(matches!(changes.recv().await, Some(Change::Watching)));
        assert!(matches!(changes.recv().await, Some(Change::List(_))));
        drop(changes);
    };
    let (outcome, ()) = tokio::join!(watching, seeing);
    outcome.unwrap();
    side.stop().await;
}

#[tokio::test]
async fn a_process_that_ignores_everything_is_killed_with_what_it_started() {
    let script = format!("trap '' TERM; sleep 1000 & {CHILD}\nwhile :; do sleep 1; done");
    let side = Side::stdio(&["sh", "-c", &script, "child", "error"]);
    let pid = pid(&side, &json!({}), SessionUse::Pooled).await;
    side.upstreams.shutdown(super::within(1200)).await;
    // Awaited, so that not even a zombie is left.
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    assert!(children.is_err());
}
