//! The contract of permits.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mcp_fleet::{
    ids::{ReplicaId, ServerId},
    store::{
        Store,
        permits::{PermitRequest, Permitted},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::eventually;

const LONG: Duration = Duration::from_secs(600);

async fn ask(store: &dyn Store, holder: &str, keep: u32, wanted: u32, ttl: Duration) -> Permitted {
    let server = ServerId::try_from("up").expect("a good name");
    let replica = ReplicaId::new(&server, "http://127.0.0.1:1/mcp");
    let request = PermitRequest {
        max: 10,
        keep,
        wanted,
        ttl,
    };
    let answer = store.permits(&replica, holder, request).await;
    answer.expect("reachable")
}

fn got(held: u32, allowed: u32) -> Permitted {
    Permitted { held, allowed }
}

pub(super) async fn permits_are_divided_fairly_and_what_is_used_is_kept(store: Arc<dyn Store>) {
    let ask = async |holder, keep, wanted| ask(&*store, holder, keep, wanted, LONG).await;
    assert_eq!(ask("a", 0, 4).await, got(4, 4));
    assert_eq!(ask("a", 4, 30).await, got(10, 10));
    // Nothing is left; but a learns that it is not alone, and keeps what it uses.
    assert_eq!(ask("b", 0, 20).await, got(0, 0));
    assert_eq!(ask("a", 8, 30).await, got(8, 5));
    assert_eq!(ask("b", 0, 20).await, got(2, 2));
    assert_eq!(ask("a", 5, 30).await, got(5, 5));
    assert_eq!(ask("b", 2, 20).await, got(5, 5));
    // Small wishes are granted in full.
    assert_eq!(ask("c", 0, 1).await, got(0, 0));
    assert_eq!(ask("a", 4, 4).await, got(4, 4));
    assert_eq!(ask("c", 0, 1).await, got(1, 1));
    assert_eq!(ask("b", 5, 20).await, got(5, 5));
    assert_eq!(ask("a", 0, 0).await, got(0, 0));
    assert_eq!(ask("b", 5, 20).await, got(9, 9));
}

pub(super) async fn permits_of_the_silent_are_free(store: Arc<dyn Store>) {
    let soon = Duration::from_millis(50);
    assert_eq!(ask(&*store, "dead", 0, 10, soon).await, got(10, 10));
    eventually("its permits are free", async || {
        ask(&*store, "b", 0, 10, LONG).await == got(10, 10)
    })
    .await;
    // Should it come back, it has nothing, whatever it says that it uses.
    assert_eq!(ask(&*store, "dead", 10, 10, soon).await.held, 0);
}

pub(super) async fn permits_together_never_exceed_the_bound(store: Arc<dyn Store>) {
    let mut random = StdRng::seed_from_u64(11);
    let mut held: HashMap<&str, u32> = HashMap::new();
    for _ in 0..400 {
        let holder = ["a", "b", "c", "d"][random.random_range(0..4)];
        // A node keeps at most what it holds.
        let before = held.get(holder).copied().unwrap_or_default();
        let keep = random.random_range(0..=before);
        let wanted = random.random_range(0..20);
        let answer = ask(&*store, holder, keep, wanted, LONG).await;
        assert!(answer.held >= keep, "{answer:?} of {keep}");
        assert!(answer.allowed <= answer.held && answer.allowed <= wanted);
        held.insert(holder, answer.held);
        assert!(held.values().sum::<u32>() <= 10, "{held:?}");
    }
}
