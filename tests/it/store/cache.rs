//! The contract of what the cache keeps: locks, fences, entries, invalidations.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mcp_fleet::{
    ids::ServerId,
    store::{
        EntryKey, EntryWrite, Event, Fence, Found, LockOutcome, Rank, ShortDigest, Store,
        StoredEntry, SubjectKey, WriteOutcome,
    },
};

use super::{LONG, SHORT, listening, next};
use crate::support::eventually;

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

pub(super) async fn a_lock_is_held_until_given_back(store: Arc<dyn Store>) {
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

pub(super) async fn a_lock_ends_with_its_time_to_live(store: Arc<dyn Store>) {
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

pub(super) async fn only_the_holder_extends_or_gives_back(store: Arc<dyn Store>) {
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

pub(super) async fn fences_grow_over_locks_and_invalidations(store: Arc<dyn Store>) {
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

pub(super) async fn an_entry_is_read_as_written(store: Arc<dyn Store>) {
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

pub(super) async fn an_entry_ends_with_its_time_to_live(store: Arc<dyn Store>) {
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

pub(super) async fn an_older_fence_does_not_overwrite(store: Arc<dyn Store>) {
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

pub(super) async fn a_write_gives_the_writers_lock_back_and_no_other(store: Arc<dyn Store>) {
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

pub(super) async fn an_invalidation_reaches_earlier_fences_only(store: Arc<dyn Store>) {
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

pub(super) async fn an_invalidation_reaches_writers_in_flight(store: Arc<dyn Store>) {
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

pub(super) async fn an_invalidation_of_a_part_leaves_the_others(store: Arc<dyn Store>) {
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

pub(super) async fn a_write_without_the_store_takes_its_place_by_time(store: Arc<dyn Store>) {
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

pub(super) async fn changes_of_the_cache_are_told_to_all(store: Arc<dyn Store>) {
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
