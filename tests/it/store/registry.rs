//! The contract of the registry.

use std::sync::Arc;

use bytes::Bytes;
use mcp_fleet::store::{
    Store,
    registry::{Change, Changed, Edition, Table, Which},
};

fn put(name: &str, definition: &'static str) -> Change {
    Change::Put {
        name: name.to_owned(),
        definition: Bytes::from_static(definition.as_bytes()),
        most: 3,
        over: None,
    }
}

fn remove(name: &str) -> Change {
    let name = name.to_owned();
    Change::Remove { name, over: None }
}

/// One of a store's tables, while the other has something else in it.
#[derive(Clone, Copy)]
struct Kept<'a> {
    store: &'a dyn Store,
    which: Which,
}

async fn change(kept: Kept<'_>, change: Change) -> Changed {
    let known = edition(kept).await;
    let changed = kept.store.change_registry(kept.which, &change, known).await;
    changed.expect("reachable")
}

async fn edition(kept: Kept<'_>) -> Edition {
    let edition = kept.store.registry_edition(kept.which).await;
    edition.expect("reachable")
}

async fn table(kept: Kept<'_>) -> Table {
    kept.store.registry(kept.which).await.expect("reachable")
}

/// Runs a clause for each of the tables, and sees that the other stays as it is.
async fn of_both(store: Arc<dyn Store>, clause: impl AsyncFn(Kept<'_>)) {
    for (which, other) in [
        (Which::Servers, Which::Deployments),
        (Which::Deployments, Which::Servers),
    ] {
        let (kept, other) = (
            Kept {
                store: &*store,
                which,
            },
            Kept {
                store: &*store,
                which: other,
            },
        );
        let before = table(other).await;
        clause(kept).await;
        assert_eq!(table(other).await, before);
    }
}

fn names(table: &Table) -> Vec<(&str, &[u8])> {
    let entries = table.entries.iter();
    entries
        .map(|entry| (entry.name.as_str(), &*entry.definition))
        .collect()
}

pub(super) async fn registered_servers_are_kept_by_name(store: Arc<dyn Store>) {
    of_both(store, async |kept| {
        registered_servers_are_kept_by_name_in(kept).await
    })
    .await;
}

async fn registered_servers_are_kept_by_name_in(kept: Kept<'_>) {
    assert_eq!(table(kept).await, Table::default());
    assert_eq!(
        change(kept, put("b", "{\"url\":\"ä b\"}")).await,
        Changed::Created
    );
    assert_eq!(change(kept, put("a", "{}")).await, Changed::Created);
    let before = table(kept).await;
    assert_eq!(
        names(&before),
        [("a", &b"{}"[..]), ("b", "{\"url\":\"ä b\"}".as_bytes())]
    );
    assert_eq!(change(kept, put("a", "{}")).await, Changed::Unchanged);
    assert_eq!(table(kept).await, before);
    assert_eq!(change(kept, put("a", "[]")).await, Changed::Replaced);
    assert_eq!(change(kept, remove("b")).await, Changed::Removed);
    assert_eq!(change(kept, remove("b")).await, Changed::Unknown);
    assert_eq!(names(&table(kept).await), [("a", &b"[]"[..])]);
}

pub(super) async fn editions_of_the_registry_grow(store: Arc<dyn Store>) {
    of_both(store, async |kept| {
        editions_of_the_registry_grow_in(kept).await
    })
    .await;
}

async fn editions_of_the_registry_grow_in(kept: Kept<'_>) {
    let mut last = Edition(0);
    for definition in ["1", "2", "3"] {
        change(kept, put("a", definition)).await;
        let now = table(kept).await;
        assert!(now.edition > last, "{:?} after {last:?}", now.edition);
        assert_eq!(now.entries[0].edition, now.edition);
        assert_eq!(edition(kept).await, now.edition);
        last = now.edition;
    }
    change(kept, put("b", "1")).await;
    let now = table(kept).await;
    // A change of one server is none of the others.
    assert_eq!(now.entries[0].edition, last);
    change(kept, remove("a")).await;
    change(kept, remove("b")).await;
    let empty = table(kept).await;
    assert!(empty.entries.is_empty() && empty.edition > now.edition);
}

pub(super) async fn the_registry_has_a_bound(store: Arc<dyn Store>) {
    of_both(store, async |kept| the_registry_has_a_bound_in(kept).await).await;
}

async fn the_registry_has_a_bound_in(kept: Kept<'_>) {
    for name in ["a", "b", "c"] {
        assert_eq!(change(kept, put(name, "1")).await, Changed::Created);
    }
    assert_eq!(change(kept, put("d", "1")).await, Changed::Full);
    assert_eq!(change(kept, put("c", "2")).await, Changed::Replaced);
    assert_eq!(change(kept, remove("a")).await, Changed::Removed);
    assert_eq!(change(kept, put("d", "1")).await, Changed::Created);
}

pub(super) async fn an_entry_that_moved_on_is_left_alone(store: Arc<dyn Store>) {
    of_both(store, async |kept| {
        an_entry_that_moved_on_is_left_alone_in(kept).await;
    })
    .await;
}

async fn an_entry_that_moved_on_is_left_alone_in(kept: Kept<'_>) {
    let over = |name: &str, over| Change::Put {
        name: name.to_owned(),
        definition: Bytes::from_static(b"2"),
        most: 3,
        over: Some(over),
    };
    assert_eq!(change(kept, over("a", Edition(1))).await, Changed::Moved);
    change(kept, put("a", "1")).await;
    let first = table(kept).await.entries[0].edition;
    assert_eq!(change(kept, over("a", Edition(0))).await, Changed::Moved);
    assert_eq!(change(kept, over("b", Edition(0))).await, Changed::Created);
    assert_eq!(change(kept, over("a", first)).await, Changed::Replaced);
    assert_eq!(change(kept, over("a", first)).await, Changed::Moved);
    let remove = |edition| Change::Remove {
        name: "a".to_owned(),
        over: Some(edition),
    };
    assert_eq!(change(kept, remove(first)).await, Changed::Moved);
    let second = table(kept).await.entries[0].edition;
    assert_eq!(change(kept, remove(second)).await, Changed::Removed);
    assert_eq!(change(kept, remove(second)).await, Changed::Moved);
}

pub(super) async fn a_registry_that_was_lost_is_restored_once(store: Arc<dyn Store>) {
    of_both(store, async |kept| {
        a_registry_that_was_lost_is_restored_once_in(kept).await
    })
    .await;
}

async fn a_registry_that_was_lost_is_restored_once_in(kept: Kept<'_>) {
    change(kept, put("a", "old")).await;
    let stored = table(kept).await;
    let mut newer = stored.clone();
    newer.edition.0 += 1_000_000;
    newer.entries[0].definition = Bytes::from_static(b"new");
    // Who knows more than the store puts that right before anything else.
    let early = kept
        .store
        .change_registry(kept.which, &put("b", "1"), newer.edition)
        .await;
    assert_eq!(early.expect("reachable"), Changed::Behind);
    assert!(
        !kept
            .store
            .restore_registry(kept.which, &stored)
            .await
            .expect("reachable")
    );
    assert!(
        kept.store
            .restore_registry(kept.which, &newer)
            .await
            .expect("reachable")
    );
    assert!(
        !kept
            .store
            .restore_registry(kept.which, &newer)
            .await
            .expect("reachable")
    );
    assert_eq!(table(kept).await, newer);
    assert_eq!(change(kept, put("b", "1")).await, Changed::Created);
    assert!(table(kept).await.edition > newer.edition);
}
