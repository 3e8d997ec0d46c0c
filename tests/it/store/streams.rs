//! The contract of streams, and of what is published.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mcp_fleet::store::{Channel, Event, Position, Store, StreamBounds, StreamKey};
use tokio::time::timeout;

use super::{LONG, SHORT, listening, next};
use crate::support::eventually;

const BOUNDS: StreamBounds = StreamBounds {
    max_entries: 100,
    ttl: LONG,
};

fn mailbox() -> StreamKey {
    StreamKey::Mailbox("ca11".into())
}

async fn append(store: &dyn Store, key: &StreamKey, text: &str, bounds: StreamBounds) -> Position {
    let payload = Bytes::from(text.to_owned());
    let appended = store.append(key, payload, bounds).await.expect("reachable");
    appended.expect("the stream is open")
}

pub(super) async fn a_stream_has_to_be_opened(store: Arc<dyn Store>) {
    let key = mailbox();
    let appended = store.append(&key, Bytes::new(), BOUNDS).await;
    assert_eq!(appended.expect("reachable"), None);
    let read = store.read(&key, Position(0), 10).await;
    assert_eq!(read.expect("reachable"), None);
    store.open_stream(&key, BOUNDS).await.expect("reachable");
    let read = store.read(&key, Position(0), 10).await;
    assert_eq!(read.expect("reachable"), Some(vec![]));
    append(&*store, &key, "kept", BOUNDS).await;
    store.open_stream(&key, BOUNDS).await.expect("reachable");
    let read = store.read(&key, Position(0), 10).await;
    assert_eq!(read.expect("reachable").expect("open").len(), 1);
}

pub(super) async fn a_stream_is_read_in_order_and_capped(store: Arc<dyn Store>) {
    let key = StreamKey::Events {
        session: "5e55".into(),
        stream: "get".into(),
    };
    let bounds = StreamBounds {
        max_entries: 3,
        ..BOUNDS
    };
    store.open_stream(&key, bounds).await.expect("reachable");
    for n in 1..=5 {
        let position = append(&*store, &key, &n.to_string(), bounds).await;
        assert_eq!(position, Position(n));
    }
    let read = async |after, limit| {
        let read = store.read(&key, Position(after), limit).await;
        read.expect("reachable").expect("open")
    };
    let entry = |n: u64| (Position(n), Bytes::from(n.to_string()));
    assert_eq!(read(0, 10).await, [entry(3), entry(4), entry(5)]);
    assert_eq!(read(3, 10).await, [entry(4), entry(5)]);
    assert_eq!(read(3, 1).await, [entry(4)]);
    assert_eq!(read(5, 10).await, []);
    let every_byte: Vec<u8> = (0..=255).collect();
    let payload = Bytes::from(every_byte);
    let appended = store.append(&key, payload.clone(), bounds).await;
    assert_eq!(appended.expect("reachable"), Some(Position(6)));
    assert_eq!(read(5, 10).await, [(Position(6), payload)]);
}

pub(super) async fn a_stream_ends(store: Arc<dyn Store>) {
    let key = mailbox();
    let brief = StreamBounds {
        ttl: SHORT,
        ..BOUNDS
    };
    store.open_stream(&key, brief).await.expect("reachable");
    append(&*store, &key, "x", brief).await;
    eventually("the stream is gone", async || {
        let read = store.read(&key, Position(0), 10).await;
        read.expect("reachable").is_none()
    })
    .await;
    store.open_stream(&key, BOUNDS).await.expect("reachable");
    store.close_stream(&key).await.expect("reachable");
    let appended = store.append(&key, Bytes::new(), BOUNDS).await;
    assert_eq!(appended.expect("reachable"), None);
}

pub(super) async fn a_watch_wakes_its_reader(store: Arc<dyn Store>) {
    // Connections that have just come up wake everybody, once for each.
    listening(&*store, &mut store.subscribe()).await;
    let key = mailbox();
    store.open_stream(&key, BOUNDS).await.expect("reachable");
    let mut watch = store.watch_stream(&key).await;
    let mut other = store
        .watch_stream(&StreamKey::Mailbox("other".into()))
        .await;
    watch.appended.borrow_and_update();
    append(&*store, &key, "x", BOUNDS).await;
    let woken = timeout(Duration::from_secs(5), watch.appended.changed()).await;
    woken.expect("woken by the append").expect("sender lives");
    other.appended.borrow_and_update();
    store.close_stream(&key).await.expect("reachable");
    let woken = timeout(Duration::from_secs(5), watch.appended.changed()).await;
    woken.expect("woken by the end").expect("sender lives");
    assert!(!other.appended.has_changed().expect("sender lives"));
    // And without any wake-up, within about a second.
    timeout(Duration::from_secs(3), watch.changed())
        .await
        .expect("the fallback");
}

pub(super) async fn a_published_message_reaches_all(store: Arc<dyn Store>) {
    let mut first = store.subscribe();
    listening(&*store, &mut first).await;
    let mut second = store.subscribe();
    let payload = Bytes::from_static(b"\x00\xff message");
    store
        .publish(Channel::Fleet, payload.clone())
        .await
        .expect("reachable");
    for events in [&mut first, &mut second] {
        let event = next(events).await;
        let Event::Message { payload: got, .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!(got, payload);
    }
}
