//! The contract of rate limits.

use std::{sync::Arc, time::Duration};

use mcp_fleet::store::{
    ShortDigest, Store,
    rates::{Rate, RateKey, Taken},
};

use crate::support::eventually;

const HOURLY: Rate = Rate {
    count: 10,
    per: Duration::from_secs(3600),
    burst: 10,
};

fn key(name: &str) -> RateKey {
    RateKey(ShortDigest::of(&[name.as_bytes()]))
}

async fn take(store: &dyn Store, name: &str, rate: &Rate, wanted: u32) -> Taken {
    let taken = store.take_tokens(&key(name), rate, wanted).await;
    taken.expect("reachable")
}

pub(super) async fn a_limit_gives_its_burst_and_says_when_to_return(store: Arc<dyn Store>) {
    assert_eq!(take(&*store, "a", &HOURLY, 4).await.granted, 4);
    assert_eq!(take(&*store, "a", &HOURLY, 4).await.granted, 4);
    // What is left is less than what is wanted.
    assert_eq!(take(&*store, "a", &HOURLY, 4).await.granted, 2);
    for _ in 0..3 {
        let refused = take(&*store, "a", &HOURLY, 1).await;
        assert_eq!(refused.granted, 0);
        let six_minutes = Duration::from_secs(360);
        let wait = refused.retry_after;
        assert!(wait <= six_minutes && wait > six_minutes / 2, "{wait:?}");
    }
}

pub(super) async fn limits_are_apart(store: Arc<dyn Store>) {
    assert_eq!(take(&*store, "a", &HOURLY, 20).await.granted, 10);
    assert_eq!(take(&*store, "b", &HOURLY, 20).await.granted, 10);
    // Another rate of the same limit sees what was taken.
    let single = Rate { burst: 1, ..HOURLY };
    assert_eq!(take(&*store, "a", &single, 1).await.granted, 0);
}

pub(super) async fn tokens_come_back(store: Arc<dyn Store>) {
    let quick = Rate {
        count: 1000,
        per: Duration::from_secs(1),
        burst: 3,
    };
    assert!(take(&*store, "a", &quick, 3).await.granted > 0);
    eventually("the limit is whole again", async || {
        take(&*store, "a", &quick, 3).await.granted == 3
    })
    .await;
}
