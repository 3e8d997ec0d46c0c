use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_test::{assert_pending, assert_ready, task};

use super::*;
use crate::upstream::incoming::read;

const ASKED: Interest = Interest {
    questions: true,
    logs: false,
};
const LOGS: Interest = Interest {
    questions: false,
    logs: true,
};

fn router(owner: Owner) -> Arc<Router> {
    Router::new(owner, Kind::Shared, Changes::new())
}

fn message(value: &Value) -> Incoming {
    let mut read_into = VecDeque::new();
    read(&Bytes::from(value.to_string()), &mut read_into).unwrap();
    read_into.pop_front().unwrap()
}

fn question(id: &str) -> Incoming {
    message(&json!({"jsonrpc": "2.0", "id": id, "method": "roots/list"}))
}

fn notice(method: &str, params: &Value) -> Incoming {
    message(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
}

fn answer(id: u64) -> Incoming {
    message(&json!({"jsonrpc": "2.0", "id": id, "result": {"of": id}}))
}

fn id(number: u64) -> RequestId {
    RequestId::new_number(number)
}

fn is_refusal(routed: &Routed) -> bool {
    matches!(routed, Routed::Reply(bytes) if bytes.windows(7).any(|w| w == b"\"error\""))
}

#[tokio::test]
async fn answers_and_progress_go_by_id() {
    let router = router(Owner::Pool);
    let mut one = router.register(&id(1), Interest::default()).unwrap();
    let mut two = router.register(&id(2), Interest::default()).unwrap();
    router.route(notice(
        "notifications/progress",
        &json!({"progressToken": 2, "progress": 1}),
    ));
    router.route(notice(
        "notifications/progress",
        &json!({"progressToken": "2", "progress": 1}),
    ));
    router.route(answer(2));
    router.route(answer(1));
    router.route(answer(1));
    router.route(answer(77));
    assert!(matches!(
        one.next().await,
        Ok(Incoming::Answer { id: Some(of), .. }) if of == id(1)
    ));
    assert!(matches!(two.next().await, Ok(Incoming::Notification(_))));
    assert!(matches!(two.next().await, Ok(Incoming::Answer { .. })));
    assert!(two.next().await.is_err(), "nothing follows the answer");
}

#[tokio::test]
async fn a_question_goes_to_the_only_call_that_can_ask() {
    let router = router(Owner::Pool);
    assert!(is_refusal(&router.route(question("a"))), "no call at all");
    let mut one = router.register(&id(1), ASKED).unwrap();
    let _quiet = router.register(&id(2), Interest::default()).unwrap();
    assert!(matches!(router.route(question("b")), Routed::Done));
    assert!(matches!(one.next().await, Ok(Incoming::Request { .. })));
    let two = router.register(&id(3), ASKED).unwrap();
    assert!(is_refusal(&router.route(question("c"))), "one of two");
    drop(two);
    assert!(matches!(router.route(question("d")), Routed::Done));
}

#[tokio::test]
async fn a_clients_messages_wait_for_its_listener_and_go_to_the_newest() {
    let router = router(Owner::Client);
    for n in 0..BACKLOG {
        assert!(matches!(
            router.route(question(&n.to_string())),
            Routed::Done
        ));
    }
    assert!(is_refusal(&router.route(question("one too many"))));
    let mut first = router.listen().unwrap();
    for _ in 0..BACKLOG {
        assert!(matches!(first.next().await, Ok(Incoming::Request { .. })));
    }
    let mut second = router.listen().unwrap();
    router.route(notice("notifications/tools/list_changed", &json!({})));
    assert!(matches!(second.next().await, Ok(Incoming::Notification(_))));
    assert_pending!(task::spawn(first.next()).poll());
    drop(second);
    assert!(router.has_listeners());
    drop(first);
    assert!(!router.has_listeners());
}

#[tokio::test]
async fn on_a_standalone_stream_the_clients_listener_comes_first() {
    let router = Router::new(Owner::Client, Kind::Standalone, Changes::new());
    let mut call = router.register(&id(1), ASKED).unwrap();
    router.route(question("a"));
    assert!(matches!(call.next().await, Ok(Incoming::Request { .. })));
    let mut listener = router.listen().unwrap();
    router.route(question("b"));
    assert!(matches!(
        listener.next().await,
        Ok(Incoming::Request { .. })
    ));
    assert_pending!(task::spawn(call.next()).poll());
}

#[tokio::test]
async fn log_messages_go_to_the_only_call_that_wants_them() {
    let router = router(Owner::Pool);
    let log = || {
        notice(
            "notifications/message",
            &json!({"level": "info", "data": 1}),
        )
    };
    let mut one = router.register(&id(1), LOGS).unwrap();
    let mut quiet = router.register(&id(2), Interest::default()).unwrap();
    router.route(log());
    assert!(matches!(one.next().await, Ok(Incoming::Notification(_))));
    assert_pending!(task::spawn(quiet.next()).poll());
    let mut two = router.register(&id(3), LOGS).unwrap();
    router.route(log());
    assert_pending!(task::spawn(two.next()).poll());
}

#[tokio::test]
async fn a_ping_is_answered_at_once() {
    let ping = message(&json!({"jsonrpc": "2.0", "id": 5, "method": "ping"}));
    let Routed::Reply(pong) = router(Owner::Pool).route(ping) else {
        panic!("no reply");
    };
    let pong: Value = serde_json::from_slice(&pong).unwrap();
    assert_eq!(pong, json!({"jsonrpc": "2.0", "id": 5, "result": {}}));
}

#[tokio::test]
async fn a_slow_reader_loses_notifications_but_not_its_answer() {
    let router = router(Owner::Pool);
    let mut slow = router.register(&id(1), Interest::default()).unwrap();
    for n in 0..2 * QUEUE {
        let params = json!({"progressToken": 1, "progress": n});
        router.route(notice("notifications/progress", &params));
    }
    router.route(answer(1));
    let mut seen = 0;
    while let Ok(Incoming::Notification(_)) = slow.next().await {
        seen += 1;
    }
    assert_eq!(seen, QUEUE);
}

#[tokio::test]
async fn closing_fails_calls_now_and_later() {
    let router = router(Owner::Client);
    let mut call = router.register(&id(1), Interest::default()).unwrap();
    let mut listener = router.listen().unwrap();
    let mut waiting = task::spawn(call.next());
    assert_pending!(waiting.poll());
    router.close(&UpstreamError::SessionLost);
    let outcome = assert_ready!(waiting.poll());
    assert!(matches!(outcome, Err(UpstreamError::SessionLost)));
    assert!(matches!(
        listener.next().await,
        Err(UpstreamError::SessionLost)
    ));
    assert!(matches!(
        router.register(&id(2), ASKED),
        Err(UpstreamError::SessionLost)
    ));
}

#[tokio::test]
async fn reading_is_cancel_safe() {
    let router = router(Owner::Pool);
    let mut call = router.register(&id(1), ASKED).unwrap();
    for _ in 0..3 {
        assert_pending!(task::spawn(call.next()).poll());
    }
    router.route(question("q"));
    router.route(answer(1));
    assert!(matches!(call.next().await, Ok(Incoming::Request { .. })));
    assert!(matches!(call.next().await, Ok(Incoming::Answer { .. })));
}

#[test]
fn subscriptions_are_told_apart_by_the_type_of_their_id() {
    let router = router(Owner::Pool);
    let mut listen = router.register(&id(7), Interest::default()).unwrap();
    let of = |id: Value| json!({"_meta": {"io.modelcontextprotocol/subscriptionId": id}});
    router.route(notice("notifications/tools/list_changed", &of(json!("7"))));
    assert_pending!(task::spawn(listen.next()).poll());
    router.route(notice("notifications/tools/list_changed", &of(json!(7))));
    assert!(assert_ready!(task::spawn(listen.next()).poll()).is_ok());
}
