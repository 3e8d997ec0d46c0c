//! The contract of records.

use std::sync::Arc;

use bytes::Bytes;
use mcp_fleet::store::{RecordKey, Store};

use super::{LONG, SHORT};
use crate::support::eventually;

pub(super) async fn records_are_kept_until_their_time(store: Arc<dyn Store>) {
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

pub(super) async fn a_record_is_taken_once(store: Arc<dyn Store>) {
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

pub(super) async fn the_first_of_many_writers_stays(store: Arc<dyn Store>) {
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
