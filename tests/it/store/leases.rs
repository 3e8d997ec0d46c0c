//! The contract of leases, of what is written under them, and of rosters.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mcp_fleet::{
    ids::{ReplicaId, ServerId},
    store::{
        Channel, Event, Fence, RecordKey, Store,
        leases::{Ask, Duty, DutyKind, LeaseOutcome, Renewal},
        rosters::{RosterChange, RosterKey, RosterLine},
    },
};

use super::{listening, next};
use crate::support::eventually;

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

pub(super) async fn a_lease_is_held_renewed_and_given_back(store: Arc<dyn Store>) {
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

pub(super) async fn a_holder_hears_whose_turn_it_is(store: Arc<dyn Store>) {
    let ttl = Duration::from_secs(60);
    let of = |renewal| [renewal, Renewal::Lost];
    let (fence, _) = acquired(&*store, "a/1", ttl).await;
    ask(&*store, "b/1", ttl, Ask::MyTurn).await;
    assert_eq!(renewed(&*store, "a/1", ttl).await, of(Renewal::Wanted));
    assert!(released(&*store, "a/1", fence).await);
    acquired(&*store, "b/1", ttl).await;
    assert_eq!(renewed(&*store, "b/1", ttl).await, of(Renewal::Kept));
}

pub(super) async fn a_lease_ends_with_its_time_to_live(store: Arc<dyn Store>) {
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

pub(super) async fn fences_of_a_duty_grow(store: Arc<dyn Store>) {
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

pub(super) async fn an_older_fence_does_not_replace_a_record(store: Arc<dyn Store>) {
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

pub(super) async fn a_roster_has_a_line_per_writer(store: Arc<dyn Store>) {
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

pub(super) async fn a_silent_writers_line_goes(store: Arc<dyn Store>) {
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
