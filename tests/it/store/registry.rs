//! The contract of the registry.

use std::sync::Arc;

use bytes::Bytes;
use mcp_fleet::store::{
    Store,
    registry::{Change, Changed, Edition, Table},
};

fn put(name: &str, definition: &'static str) -> Change {
    Change::Put {
        name: name.to_owned(),
        definition: Bytes::from_static(definition.as_bytes()),
        most: 3,
    }
}

fn remove(name: &str) -> Change {
    let name = name.to_owned();
    Change::Remove { name }
}

async fn change(store: &dyn Store, change: Change) -> Changed {
    let known = store.registry_edition().await.expect("reachable");
    let changed = store.change_registry(&change, known).await;
    changed.expect("reachable")
}

async fn table(store: &dyn Store) -> Table {
    store.registry().await.expect("reachable")
}

fn names(table: &Table) -> Vec<(&str, &[u8])> {
    let entries = table.entries.iter();
    entries
        .map(|entry| (entry.name.as_str(), &*entry.definition))
        .collect()
}

pub(super) async fn registered_servers_are_kept_by_name(store: Arc<dyn Store>) {
    assert_eq!(table(&*store).await, Table::default());
    assert_eq!(
        change(&*store, put("b", "{\"url\":\"ä b\"}")).await,
        Changed::Created
    );
    assert_eq!(change(&*store, put("a", "{}")).await, Changed::Created);
    let before = table(&*store).await;
    assert_eq!(
        names(&before),
        [("a", &b"{}"[..]), ("b", "{\"url\":\"ä b\"}".as_bytes())]
    );
    assert_eq!(change(&*store, put("a", "{}")).await, Changed::Unchanged);
    assert_eq!(table(&*store).await, before);
    assert_eq!(change(&*store, put("a", "[]")).await, Changed::Replaced);
    assert_eq!(change(&*store, remove("b")).await, Changed::Removed);
    assert_eq!(change(&*store, remove("b")).await, Changed::Unknown);
    assert_eq!(names(&table(&*store).await), [("a", &b"[]"[..])]);
}

pub(super) async fn editions_of_the_registry_grow(store: Arc<dyn Store>) {
    let mut last = Edition(0);
    for definition in ["1", "2", "3"] {
        change(&*store, put("a", definition)).await;
        let now = table(&*store).await;
        assert!(now.edition > last, "{:?} after {last:?}", now.edition);
        assert_eq!(now.entries[0].edition, now.edition);
        assert_eq!(
            store.registry_edition().await.expect("reachable"),
            now.edition
        );
        last = now.edition;
    }
    change(&*store, put("b", "1")).await;
    let now = table(&*store).await;
    // A change of one server is none of the others.
    assert_eq!(now.entries[0].edition, last);
    change(&*store, remove("a")).await;
    change(&*store, remove("b")).await;
    let empty = table(&*store).await;
    assert!(empty.entries.is_empty() && empty.edition > now.edition);
}

pub(super) async fn the_registry_has_a_bound(store: Arc<dyn Store>) {
    for name in ["a", "b", "c"] {
        assert_eq!(change(&*store, put(name, "1")).await, Changed::Created);
    }
    assert_eq!(change(&*store, put("d", "1")).await, Changed::Full);
    assert_eq!(change(&*store, put("c", "2")).await, Changed::Replaced);
    assert_eq!(change(&*store, remove("a")).await, Changed::Removed);
    assert_eq!(change(&*store, put("d", "1")).await, Changed::Created);
}

pub(super) async fn a_registry_that_was_lost_is_restored_once(store: Arc<dyn Store>) {
    change(&*store, put("a", "old")).await;
    let stored = table(&*store).await;
    let mut newer = stored.clone();
    newer.edition.0 += 1_000_000;
    newer.entries[0].definition = Bytes::from_static(b"new");
    // Who knows more than the store puts that right before anything else.
    let early = store.change_registry(&put("b", "1"), newer.edition).await;
    assert_eq!(early.expect("reachable"), Changed::Behind);
    assert!(!store.restore_registry(&stored).await.expect("reachable"));
    assert!(store.restore_registry(&newer).await.expect("reachable"));
    assert!(!store.restore_registry(&newer).await.expect("reachable"));
    assert_eq!(table(&*store).await, newer);
    assert_eq!(change(&*store, put("b", "1")).await, Changed::Created);
    assert!(table(&*store).await.edition > newer.edition);
}
