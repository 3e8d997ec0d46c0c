//! The contract of the store, kept by every implementation: embedded, Redis,
//! and Redis as a cluster (where a script's keys must be in one slot).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mcp_fleet::{
    ids::{ReplicaId, ServerId},
    lifecycle::Tasks,
    store::{
        Channel, EntryKey, EntryWrite, Event, Fence, Found, LockOutcome, Position, Rank, RecordKey,
        ShortDigest, Store, StoredEntry, StreamBounds, StreamKey, SubjectKey, WriteOutcome,
        leases::{Ask, Duty, DutyKind, LeaseOutcome, Renewal},
        memory::MemoryStore,
        redis::{RedisSettings, RedisStore},
        rosters::{RosterChange, RosterKey, RosterLine},
    },
};
use tokio::{sync::broadcast, time::timeout};

use crate::support::{eventually, redis::RedisServer};

mod permits;
mod rates;
mod registry;

use permits::{
    permits_are_divided_fairly_and_what_is_used_is_kept, permits_of_the_silent_are_free,
    permits_together_never_exceed_the_bound,
};
use rates::{a_limit_gives_its_burst_and_says_when_to_return, limits_are_apart, tokens_come_back};
use registry::{
    a_registry_that_was_lost_is_restored_once, an_entry_that_moved_on_is_left_alone,
    editions_of_the_registry_grow, registered_servers_are_kept_by_name, the_registry_has_a_bound,
};

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test] async fn $name() {
                super::$name(std::sync::Arc::new(super::MemoryStore::new())).await;
            })*
        }
        mod redis {
            $(#[tokio::test] async fn $name() {
                super::on_redis(super::RedisServer::start(), super::$name).await;
            })*
        }
        mod redis_cluster {
            $(#[tokio::test] async fn $name() {
                super::on_redis(super::RedisServer::start_cluster(), super::$name).await;
            })*
        }

        /// The whole contract on another Redis, each clause under the prefix
        /// (and with whatever else) that `settings` says.
        pub(crate) async fn contract_on(settings: impl Fn() -> RedisSettings) {
            $(
                println!("{}", stringify!($name));
                on_settings(settings(), $name).await;
            )*
        }
    };
}

contract!(
    permits_are_divided_fairly_and_what_is_used_is_kept,
    permits_of_the_silent_are_free,
    permits_together_never_exceed_the_bound,
    a_lock_is_held_until_given_back,
    a_lock_ends_with_its_time_to_live,
    only_the_holder_extends_or_gives_back,
    fences_grow_over_locks_and_invalidations,
    an_entry_is_read_as_written,
    an_entry_ends_with_its_time_to_live,
    an_older_fence_does_not_overwrite,
    a_write_gives_the_writers_lock_back_and_no_other,
    an_invalidation_reaches_earlier_fences_only,
    an_invalidation_reaches_writers_in_flight,
    an_invalidation_of_a_part_leaves_the_others,
    a_write_without_the_store_takes_its_place_by_time,
    changes_of_the_cache_are_told_to_all,
    records_are_kept_until_their_time,
    a_record_is_taken_once,
    the_first_of_many_writers_stays,
    a_stream_has_to_be_opened,
    a_stream_is_read_in_order_and_capped,
    a_stream_ends,
    a_watch_wakes_its_reader,
    a_published_message_reaches_all,
    a_lease_is_held_renewed_and_given_back,
    a_holder_hears_whose_turn_it_is,
    a_lease_ends_with_its_time_to_live,
    fences_of_a_duty_grow,
    an_older_fence_does_not_replace_a_record,
    a_roster_has_a_line_per_writer,
    a_silent_writers_line_goes,
    registered_servers_are_kept_by_name,
    editions_of_the_registry_grow,
    the_registry_has_a_bound,
    a_registry_that_was_lost_is_restored_once,
    an_entry_that_moved_on_is_left_alone,
    a_limit_gives_its_burst_and_says_when_to_return,
    limits_are_apart,
    tokens_come_back,
);

async fn on_redis<F: Future<Output = ()>>(
    server: RedisServer,
    test: impl FnOnce(Arc<dyn Store>) -> F,
) {
    let settings = server.settings();
    on_settings(settings.clone(), test).await;
    every_key_ends(&server, &settings.prefix);
}

async fn on_settings<F: Future<Output = ()>>(
    settings: RedisSettings,
    test: impl FnOnce(Arc<dyn Store>) -> F,
) {
    let tasks = Tasks::new();
    let store = RedisStore::connect(settings, &tasks).await;
    let store = store.expect("good settings");
    eventually("redis answers", async || store.is_reachable()).await;
    test(Arc::new(store)).await;
    tasks.stop();
    tasks.finished().await;
}

/// Every key has a time to live, and the test's prefix.
fn every_key_ends(server: &RedisServer, prefix: &str) {
    let keys = server.cli(&["keys", "*"]);
    for key in keys.lines().filter(|key| !key.is_empty()) {
        assert!(key.starts_with(&format!("{prefix}:")), "{key}");
        let for_ever = ["secret", "servers", "deployments"];
        if for_ever
            .iter()
            .all(|name| key != format!("{prefix}:{name}"))
        {
            let ttl: i64 = server.cli(&["pttl", key]).trim().parse().expect("a number");
            assert!(ttl != -1, "{key} lives for ever");
        }
    }
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(60);

fn subject(method: &'static str, uri: Option<&str>) -> SubjectKey {
    SubjectKey {
        server: ServerId::try_from("demo").expect("good name"),
        method,
        part: uri.map(|uri| ShortDigest::of(&[uri.as_bytes()])),
    }
}

fn slot(method: &'static str, uri: Option<&str>, name: &str) -> EntryKey {
    EntryKey {
        subject: subject(method, uri),
        slot: ShortDigest::of(&[method.as_bytes(), name.as_bytes()]),
    }
}

fn tools() -> EntryKey {
    slot("tools/list", None, "all")
}

async fn locked(store: &dyn Store, key: &EntryKey, token: &str) -> Fence {
    match store.lock(key, token, LONG).await.expect("reachable") {
        LockOutcome::Acquired(fence) => fence,
        LockOutcome::Held(left) => panic!("held for {left:?}"),
    }
}

fn write(rank: Rank, payload: &'static str) -> EntryWrite {
    EntryWrite {
        rank,
        age: Duration::ZERO,
        ttl: LONG,
        payload: Bytes::from_static(payload.as_bytes()),
    }
}

fn under(fence: Fence, token: &str) -> Rank {
    Rank::Locked {
        fence,
        token: token.into(),
    }
}

async fn written(store: &dyn Store, key: &EntryKey, write: EntryWrite) -> (Fence, Fence) {
    match store.write_entry(key, write).await.expect("reachable") {
        WriteOutcome::Written { generation, epoch } => (generation, epoch),
        WriteOutcome::Refused { newer } => panic!("refused for {newer:?}"),
    }
}

async fn stored(store: &dyn Store, key: &EntryKey) -> Option<StoredEntry> {
    match store.entry(key, None).await.expect("reachable").found {
        Found::Nothing => None,
        Found::Entry(entry) => Some(entry),
        Found::Known => panic!("nothing was known"),
    }
}

async fn a_lock_is_held_until_given_back(store: Arc<dyn Store>) {
    let key = tools();
    locked(&*store, &key, "a").await;
    let second = store.lock(&key, "b", LONG).await.expect("reachable");
    let LockOutcome::Held(left) = second else {
        panic!("two hold the lock")
    };
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
    // Another slot of the same subject is another lock.
    locked(&*store, &slot("tools/list", None, "other"), "b").await;
    assert!(store.unlock(&key, "a").await.expect("reachable"));
    locked(&*store, &key, "b").await;
}

async fn a_lock_ends_with_its_time_to_live(store: Arc<dyn Store>) {
    let key = tools();
    store.lock(&key, "a", SHORT).await.expect("reachable");
    eventually("the lock can be taken", async || {
        let outcome = store.lock(&key, "b", LONG).await.expect("reachable");
        matches!(outcome, LockOutcome::Acquired(_))
    })
    .await;
    assert!(!store.unlock(&key, "a").await.expect("reachable"));
    assert!(store.unlock(&key, "b").await.expect("reachable"));
}

async fn only_the_holder_extends_or_gives_back(store: Arc<dyn Store>) {
    let key = tools();
    assert!(!store.extend_lock(&key, "a", LONG).await.expect("reachable"));
    // Long enough to be held still when it is extended, however busy the machine.
    let first = LONG / 4;
    store.lock(&key, "a", first).await.expect("reachable");
    assert!(!store.extend_lock(&key, "b", LONG).await.expect("reachable"));
    assert!(!store.unlock(&key, "b").await.expect("reachable"));
    assert!(store.extend_lock(&key, "a", LONG).await.expect("reachable"));
    let again = store.lock(&key, "b", LONG).await.expect("reachable");
    assert!(matches!(again, LockOutcome::Held(left) if left > first));
}

async fn fences_grow_over_locks_and_invalidations(store: Arc<dyn Store>) {
    let mut last = Fence(0);
    for round in 0..50 {
        let key = slot("tools/list", None, &round.to_string());
        let fence = locked(&*store, &key, "a").await;
        assert!(fence > last, "{fence:?} after {last:?}");
        let epoch = store
            .invalidate(&key.subject, LONG)
            .await
            .expect("reachable");
        assert!(epoch > fence, "{epoch:?} after {fence:?}");
        last = epoch;
    }
}

async fn an_entry_is_read_as_written(store: Arc<dyn Store>) {
    let key = tools();
    assert_eq!(stored(&*store, &key).await, None);
    let every_byte: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for payload in [Bytes::new(), Bytes::from_static(b"{}"), every_byte.into()] {
        let fence = locked(&*store, &key, "a").await;
        let write = EntryWrite {
            age: Duration::from_secs(7),
            payload: payload.clone(),
            ..write(under(fence, "a"), "")
        };
        let (generation, epoch) = written(&*store, &key, write).await;
        assert_eq!((generation, epoch), (fence, Fence(0)));
        let lookup = store.entry(&key, None).await.expect("reachable");
        let Found::Entry(entry) = lookup.found else {
            panic!("nothing stored")
        };
        assert_eq!(entry.payload, payload);
        assert_eq!(entry.generation, fence);
        let age = lookup.read_at.0 - entry.fetched_at.0;
        assert!((7000..9000).contains(&age), "{age} ms");
        let known = store.entry(&key, Some(fence)).await.expect("reachable");
        assert_eq!(known.found, Found::Known);
    }
}

async fn an_entry_ends_with_its_time_to_live(store: Arc<dyn Store>) {
    let key = tools();
    let fence = locked(&*store, &key, "a").await;
    let brief = EntryWrite {
        ttl: SHORT,
        ..write(under(fence, "a"), "brief")
    };
    written(&*store, &key, brief).await;
    eventually("the entry is gone", async || {
        stored(&*store, &key).await.is_none()
    })
    .await;
    // What comes after a lost entry still ranks above it.
    assert!(locked(&*store, &key, "b").await > fence);
}

async fn an_older_fence_does_not_overwrite(store: Arc<dyn Store>) {
    let key = tools();
    let paused = locked(&*store, &key, "paused").await;
    store
        .extend_lock(&key, "paused", SHORT)
        .await
        .expect("reachable");
    eventually("another takes over", async || {
        let outcome = store.lock(&key, "next", LONG).await.expect("reachable");
        let LockOutcome::Acquired(fence) = outcome else {
            return false;
        };
        written(&*store, &key, write(under(fence, "next"), "new")).await;
        true
    })
    .await;
    let late = write(under(paused, "paused"), "old");
    let outcome = store.write_entry(&key, late).await.expect("reachable");
    let entry = stored(&*store, &key).await.expect("stored");
    assert_eq!(entry.payload, "new");
    let newer = entry.generation;
    assert_eq!(outcome, WriteOutcome::Refused { newer });
    // The same write again (its answer was lost) changes nothing.
    let again = write(under(newer, "next"), "new");
    assert_eq!(written(&*store, &key, again).await.0, newer);
}

async fn a_write_gives_the_writers_lock_back_and_no_other(store: Arc<dyn Store>) {
    let key = tools();
    let first = locked(&*store, &key, "a").await;
    written(&*store, &key, write(under(first, "a"), "1")).await;
    locked(&*store, &key, "b").await;
    store
        .write_entry(&key, write(under(first, "a"), "1"))
        .await
        .expect("reachable");
    let held = store.lock(&key, "c", LONG).await.expect("reachable");
    assert!(matches!(held, LockOutcome::Held(_)), "b lost its lock");
}

async fn an_invalidation_reaches_earlier_fences_only(store: Arc<dyn Store>) {
    let key = tools();
    let other = slot("prompts/list", None, "all");
    for key in [&key, &other] {
        let fence = locked(&*store, key, "a").await;
        written(&*store, key, write(under(fence, "a"), "before")).await;
    }
    let epoch = store
        .invalidate(&key.subject, LONG)
        .await
        .expect("reachable");
    let lookup = store.entry(&key, None).await.expect("reachable");
    assert_eq!(lookup.epoch, epoch);
    let untouched = store.entry(&other, None).await.expect("reachable");
    assert_eq!(untouched.epoch, Fence(0));
    let fence = locked(&*store, &key, "a").await;
    let (generation, seen) = written(&*store, &key, write(under(fence, "a"), "after")).await;
    assert_eq!(seen, epoch);
    assert!(generation > epoch);
}

async fn an_invalidation_reaches_writers_in_flight(store: Arc<dyn Store>) {
    let key = tools();
    let fence = locked(&*store, &key, "a").await;
    let epoch = store
        .invalidate(&key.subject, LONG)
        .await
        .expect("reachable");
    let (generation, seen) = written(&*store, &key, write(under(fence, "a"), "before")).await;
    assert!(generation < epoch);
    assert_eq!(seen, epoch);
}

async fn an_invalidation_of_a_part_leaves_the_others(store: Arc<dyn Store>) {
    let one = slot("resources/read", Some("file:///1"), "1");
    let two = slot("resources/read", Some("file:///2"), "2");
    let of_one = store
        .invalidate(&one.subject, LONG)
        .await
        .expect("reachable");
    let epoch = async |key: &EntryKey| store.entry(key, None).await.expect("reachable").epoch;
    assert_eq!(epoch(&one).await, of_one);
    assert_eq!(epoch(&two).await, Fence(0));
    let all = subject("resources/read", None);
    let of_all = store.invalidate(&all, LONG).await.expect("reachable");
    assert_eq!(epoch(&one).await, of_all);
    assert_eq!(epoch(&two).await, of_all);
    let later = store
        .invalidate(&one.subject, LONG)
        .await
        .expect("reachable");
    assert_eq!(epoch(&one).await, later);
    assert_eq!(epoch(&two).await, of_all);
}

async fn a_write_without_the_store_takes_its_place_by_time(store: Arc<dyn Store>) {
    let key = tools();
    let now = store.entry(&key, None).await.expect("reachable").read_at;
    let alone = |seconds| Rank::Alone {
        fence: Fence::at(now, Duration::from_secs(seconds)),
    };
    let (old, _) = written(&*store, &key, write(alone(30), "30 s ago")).await;
    let (newer, _) = written(&*store, &key, write(alone(20), "20 s ago")).await;
    assert!(newer > old);
    let late = write(alone(25), "25 s ago");
    let outcome = store.write_entry(&key, late).await.expect("reachable");
    assert_eq!(outcome, WriteOutcome::Refused { newer });
    // Of two with the same place the first stays.
    let again = write(alone(20), "20 s ago");
    let outcome = store.write_entry(&key, again).await.expect("reachable");
    assert_eq!(outcome, WriteOutcome::Refused { newer });
    let epoch = store
        .invalidate(&key.subject, LONG)
        .await
        .expect("reachable");
    let (generation, seen) = written(&*store, &key, write(alone(10), "10 s ago")).await;
    assert_eq!(seen, epoch);
    assert!(generation < epoch, "fetched before the invalidation");
    let fence = locked(&*store, &key, "a").await;
    assert!(fence > generation);
    written(&*store, &key, write(under(fence, "a"), "now")).await;
    assert_eq!(stored(&*store, &key).await.expect("stored").payload, "now");
}

/// The next event that is not a gap (a connection that has just come up).
async fn next(events: &mut broadcast::Receiver<Event>) -> Event {
    loop {
        let event = timeout(Duration::from_secs(5), events.recv()).await;
        match event.expect("an event in time").expect("a fast reader") {
            Event::Gap => {}
            event => return event,
        }
    }
}

/// Waits until what is published is heard.
async fn listening(store: &dyn Store, events: &mut broadcast::Receiver<Event>) {
    loop {
        let hello = Bytes::from_static(b"hello");
        store
            .publish(Channel::Fleet, hello)
            .await
            .expect("reachable");
        if timeout(Duration::from_millis(100), next(events))
            .await
            .is_ok()
        {
            break;
        }
    }
    while timeout(Duration::from_millis(50), events.recv())
        .await
        .is_ok()
    {}
}

async fn changes_of_the_cache_are_told_to_all(store: Arc<dyn Store>) {
    let key = tools();
    let mut first = store.subscribe();
    listening(&*store, &mut first).await;
    let mut second = store.subscribe();
    let fence = locked(&*store, &key, "a").await;
    written(&*store, &key, write(under(fence, "a"), "x")).await;
    let epoch = store
        .invalidate(&key.subject, LONG)
        .await
        .expect("reachable");
    locked(&*store, &key, "b").await;
    store.unlock(&key, "b").await.expect("reachable");
    for events in [&mut first, &mut second] {
        let event = next(events).await;
        assert!(
            matches!(event, Event::Written { slot, generation } if slot == key.slot && generation == fence),
            "{event:?}"
        );
        let event = next(events).await;
        assert!(
            matches!(event, Event::Invalidated { subject, epoch: e } if subject == key.subject.digest() && e == epoch),
            "{event:?}"
        );
        let event = next(events).await;
        assert!(
            matches!(event, Event::Released { slot } if slot == key.slot),
            "{event:?}"
        );
    }
}

async fn records_are_kept_until_their_time(store: Arc<dyn Store>) {
    let session = RecordKey::Session("5e55".into());
    let revoked = RecordKey::Revoked("5e55".into());
    assert_eq!(store.get(&session).await.expect("reachable"), None);
    let value = Bytes::from_static(b"\x00\xff value");
    store
        .put(&session, value.clone(), Some(LONG))
        .await
        .expect("reachable");
    assert_eq!(store.get(&session).await.expect("reachable"), Some(value));
    assert_eq!(store.get(&revoked).await.expect("reachable"), None);
    store
        .put(&session, Bytes::new(), Some(LONG))
        .await
        .expect("reachable");
    let empty = store.get(&session).await.expect("reachable");
    assert_eq!(empty, Some(Bytes::new()));
    assert!(store.delete(&session).await.expect("reachable"));
    assert!(!store.delete(&session).await.expect("reachable"));
    store
        .put(&session, Bytes::from_static(b"brief"), Some(SHORT))
        .await
        .expect("reachable");
    eventually("the record is gone", async || {
        store.get(&session).await.expect("reachable").is_none()
    })
    .await;
    let secret = Bytes::from_static(b"for ever");
    store
        .put(&RecordKey::Secret, secret.clone(), None)
        .await
        .expect("reachable");
    let kept = store.get(&RecordKey::Secret).await.expect("reachable");
    assert_eq!(kept, Some(secret));
}

async fn a_record_is_taken_once(store: Arc<dyn Store>) {
    let parked = RecordKey::Stream("ca11".into());
    let value = Bytes::from_static(b"call");
    store
        .put(&parked, value, Some(LONG))
        .await
        .expect("reachable");
    let takers = (0..50).map(|_| store.take(&parked));
    let taken = futures_util::future::join_all(takers).await;
    let got = taken
        .into_iter()
        .filter(|taken| taken.as_ref().expect("reachable").is_some())
        .count();
    assert_eq!(got, 1);
}

async fn the_first_of_many_writers_stays(store: Arc<dyn Store>) {
    let writers = (0..50).map(|n| {
        let ours = Bytes::from(format!("secret {n}"));
        store.put_if_absent(&RecordKey::Secret, ours, None)
    });
    let seen = futures_util::future::join_all(writers).await;
    let kept = store.get(&RecordKey::Secret).await.expect("reachable");
    for seen in seen {
        assert_eq!(Some(seen.expect("reachable")), kept);
    }
}

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

async fn a_stream_has_to_be_opened(store: Arc<dyn Store>) {
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

async fn a_stream_is_read_in_order_and_capped(store: Arc<dyn Store>) {
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

async fn a_stream_ends(store: Arc<dyn Store>) {
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

async fn a_watch_wakes_its_reader(store: Arc<dyn Store>) {
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

async fn a_published_message_reaches_all(store: Arc<dyn Store>) {
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

fn probe() -> Duty {
    Duty::new(DutyKind::Probe, "up/0a1b2c3d4e5f")
}

async fn ask(store: &dyn Store, holder: &str, ttl: Duration, ask: Ask) -> LeaseOutcome {
    store
        .acquire_lease(&probe(), holder, ttl, ask)
        .await
        .expect("answer")
}

async fn acquired(store: &dyn Store, holder: &str, ttl: Duration) -> (Fence, bool) {
    match ask(store, holder, ttl, Ask::IfFree).await {
        LeaseOutcome::Acquired { fence, inherited } => (fence, inherited),
        LeaseOutcome::Held(left) => panic!("held for {left:?}"),
    }
}

async fn renewed(store: &dyn Store, holder: &str, ttl: Duration) -> Vec<Renewal> {
    let both = [probe(), Duty::new(DutyKind::Watch, "up")];
    store
        .renew_leases(&both, holder, ttl)
        .await
        .expect("answer")
}

async fn released(store: &dyn Store, holder: &str, fence: Fence) -> bool {
    let answer = store.release_lease(&probe(), holder, fence).await;
    answer.expect("answer")
}

async fn a_lease_is_held_renewed_and_given_back(store: Arc<dyn Store>) {
    let (duty, ttl) = (probe(), Duration::from_secs(60));
    let (fence, inherited) = acquired(&*store, "a/1", ttl).await;
    assert!(!inherited);
    let refused = ask(&*store, "b/1", ttl, Ask::IfFree).await;
    assert!(
        matches!(refused, LeaseOutcome::Held(left) if left <= ttl && left > ttl / 2),
        "{refused:?}"
    );
    let of = |renewal| [renewal, Renewal::Lost];
    assert_eq!(renewed(&*store, "a/1", ttl).await, of(Renewal::Kept));
    assert_eq!(renewed(&*store, "b/1", ttl).await, of(Renewal::Lost));
    let both = [duty.clone(), Duty::new(DutyKind::Watch, "up")];
    let holders = store.lease_holders(&both).await.expect("answer");
    assert_eq!(holders, [Some("a/1".to_owned()), None]);
    assert!(!released(&*store, "b/1", fence).await);
    // It was given anew: what was sent before that does not end it.
    let (again, _) = acquired(&*store, "a/1", ttl).await;
    assert!(!released(&*store, "a/1", fence).await);
    assert!(released(&*store, "a/1", again).await);
    assert!(!released(&*store, "a/1", again).await);
    let (_, inherited) = acquired(&*store, "b/1", ttl).await;
    assert!(inherited);
}

async fn a_holder_hears_whose_turn_it_is(store: Arc<dyn Store>) {
    let ttl = Duration::from_secs(60);
    let of = |renewal| [renewal, Renewal::Lost];
    let (fence, _) = acquired(&*store, "a/1", ttl).await;
    ask(&*store, "b/1", ttl, Ask::MyTurn).await;
    assert_eq!(renewed(&*store, "a/1", ttl).await, of(Renewal::Wanted));
    assert!(released(&*store, "a/1", fence).await);
    acquired(&*store, "b/1", ttl).await;
    assert_eq!(renewed(&*store, "b/1", ttl).await, of(Renewal::Kept));
}

async fn a_lease_ends_with_its_time_to_live(store: Arc<dyn Store>) {
    let short = Duration::from_millis(50);
    acquired(&*store, "a/1", short).await;
    eventually("the lease is free", async || {
        let outcome = ask(&*store, "b/1", Duration::from_secs(60), Ask::IfFree).await;
        matches!(outcome, LeaseOutcome::Acquired { .. })
    })
    .await;
    let lost = [Renewal::Lost, Renewal::Lost];
    assert_eq!(renewed(&*store, "a/1", short).await, lost);
}

async fn fences_of_a_duty_grow(store: Arc<dyn Store>) {
    let ttl = Duration::from_secs(60);
    let mut last = Fence::default();
    for holder in ["a/1", "b/1", "a/1"] {
        // Its holder asks again: perhaps it did not hear the first answer.
        for _ in 0..2 {
            let (fence, _) = acquired(&*store, holder, ttl).await;
            assert!(fence > last);
            last = fence;
        }
        assert!(released(&*store, holder, last).await);
    }
}

async fn an_older_fence_does_not_replace_a_record(store: Arc<dyn Store>) {
    let server = ServerId::try_from("up").expect("name");
    let key = RecordKey::Health(ReplicaId::new(&server, "http://127.0.0.1:1/mcp"));
    let ttl = Duration::from_secs(60);
    let mut events = store.subscribe();
    listening(&*store, &mut events).await;
    let put = async |fence, text: &'static str| {
        let value = Bytes::from_static(text.as_bytes());
        store
            .put_fenced(&key, Fence(fence), value, ttl, Channel::Health)
            .await
            .expect("answer")
    };
    assert!(put(5, "five").await);
    assert!(put(5, "five again").await);
    assert!(!put(4, "four").await);
    assert!(put(6, "six").await);
    let stored = store
        .get_fenced(&[key.clone(), key.clone()])
        .await
        .expect("answer");
    assert_eq!(stored[1], Some((Fence(6), Bytes::from_static(b"six"))));
    for expected in ["five", "five again", "six"] {
        let event = next(&mut events).await;
        assert!(
            matches!(&event, Event::Message { channel: Channel::Health, payload } if *payload == expected.as_bytes()),
            "{event:?}"
        );
    }
}

async fn lines(
    store: &dyn Store,
    writer: &str,
    change: RosterChange,
    ttl: Duration,
) -> Vec<RosterLine> {
    let mut lines = store
        .roster(&RosterKey::Members, writer, change, ttl)
        .await
        .expect("answer");
    lines.sort_by(|one, other| one.writer.cmp(&other.writer));
    lines
}

async fn a_roster_has_a_line_per_writer(store: Arc<dyn Store>) {
    let ttl = Duration::from_secs(60);
    // Bytes of every kind, and a text that looks like the script's own format.
    let odd = Bytes::from_static(b"12 \0\r\n\xff 7");
    assert_eq!(lines(&*store, "a", RosterChange::Keep, ttl).await, []);
    lines(&*store, "a", RosterChange::Put(odd.clone()), ttl).await;
    let both = lines(&*store, "b", RosterChange::Put(Bytes::new()), ttl).await;
    let told: Vec<_> = both
        .iter()
        .map(|line| (line.writer.as_str(), &line.payload))
        .collect();
    assert_eq!(told, [("a", &odd), ("b", &Bytes::new())]);
    assert!(both.iter().all(|line| line.age < ttl));
    let left = lines(&*store, "a", RosterChange::Remove, ttl).await;
    assert_eq!(
        left.iter()
            .map(|line| line.writer.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
}

async fn a_silent_writers_line_goes(store: Arc<dyn Store>) {
    let ttl = Duration::from_millis(100);
    lines(
        &*store,
        "a",
        RosterChange::Put(Bytes::from_static(b"x")),
        ttl,
    )
    .await;
    eventually("the line of a is gone", async || {
        let left = lines(&*store, "b", RosterChange::Put(Bytes::new()), ttl).await;
        left.iter().all(|line| line.writer == "b")
    })
    .await;
}
