use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, task};

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn gate(max: u32, queue: usize) -> Arc<Gate> {
    Gate::new(InFlightLimit {
        max,
        queue,
        queue_timeout: SOON,
    })
}

fn give(gate: &Gate, count: u32) {
    let permitted = Permitted {
        held: count,
        allowed: count,
    };
    gate.grant(permitted, Instant::now() + 100 * SOON);
}

fn later() -> Instant {
    Instant::now() + 10 * SOON
}

#[tokio::test(start_paused = true)]
async fn calls_wait_in_order_within_bounds() {
    let gate = gate(10, 2);
    let mut first = task::spawn(gate.enter(later()));
    let mut second = task::spawn(gate.enter(later()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert_eq!(gate.enter(later()).await.err(), Some(Turned::QueueFull));
    give(&gate, 1);
    assert_pending!(second.poll());
    let place = assert_ready!(first.poll()).expect("a place");
    drop(place);
    drop(assert_ready!(second.poll()).expect("a place"));
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_leaves_no_gap() {
    let gate = gate(10, 2);
    let mut first = task::spawn(gate.enter(later()));
    let mut second = task::spawn(gate.enter(later()));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop(first);
    give(&gate, 1);
    assert!(assert_ready!(second.poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends() {
    let gate = gate(10, 2);
    let begun = Instant::now();
    let turned = gate.enter(later()).await.err();
    assert_eq!(turned, Some(Turned::WaitedTooLong));
    assert_eq!(begun.elapsed(), SOON);
}

#[tokio::test(start_paused = true)]
async fn what_shrinks_ends_with_its_calls() {
    let gate = gate(10, 2);
    give(&gate, 3);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(gate.enter(later()).await.expect("a place"));
    }
    give(&gate, 1);
    held.truncate(1);
    assert!(gate.is_full());
    assert_eq!(gate.wish().expect("it is in use").keep, 1);
    held.clear();
    assert!(!gate.is_full());
}

#[tokio::test(start_paused = true)]
async fn lapsed_permits_let_nobody_through() {
    let gate = gate(10, 2);
    give(&gate, 3);
    tokio::time::advance(101 * SOON).await;
    let mut call = task::spawn(gate.enter(later()));
    assert_pending!(call.poll());
    gate.go_alone(1, Instant::now());
    assert!(assert_ready!(call.poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_not_used_is_given_up() {
    let gate = gate(80, 2);
    give(&gate, 50);
    drop(gate.enter(later()).await.expect("a place"));
    let wish = gate.wish();
    let some = Wish {
        keep: 11,
        wanted: 11,
    };
    assert_eq!(
        wish,
        Some(some),
        "one was used, and a tenth of all to spare"
    );
    let nothing = Wish { keep: 0, wanted: 0 };
    assert_eq!(gate.wish(), Some(nothing));
    assert_eq!(gate.wish(), None);
}

/// What happens to one of three nodes.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A call wants in.
    Call(usize),
    /// The oldest call ends.
    End(usize),
    /// The node sends its wish; the store takes it.
    Ask(usize),
    /// The answer arrives.
    Hear(usize),
    /// The answer is lost.
    Lose(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..3).prop_map(Step::Call),
        3 => (0usize..3).prop_map(Step::End),
        3 => (0usize..3).prop_map(Step::Ask),
        3 => (0usize..3).prop_map(Step::Hear),
        1 => (0usize..3).prop_map(Step::Lose),
    ]
}

proptest! {
    /// Nodes, their gates and the real arithmetic of the store, in any order
    /// of events: while permits hold there are never more calls than allowed.
    #[test]
    fn the_fleet_never_exceeds_the_bound(
        max in 1u32..12,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        use crate::{
            ids::{ReplicaId, ServerId},
            store::{memory::MemoryStore, permits::{PermitRequest, Permits as _}},
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let store = MemoryStore::new();
            let server = ServerId::try_from("up").expect("a good name");
            let replica = ReplicaId::new(&server, "x");
            let gates: Vec<_> = (0..3).map(|_| gate(max, 100)).collect();
            let mut calls: [Vec<Place>; 3] = Default::default();
            let mut answers: [Option<Permitted>; 3] = [None; 3];
            for step in steps {
                match step {
                    Step::Call(node) => {
                        let mut call = task::spawn(gates[node].enter(later()));
                        if let std::task::Poll::Ready(Ok(place)) = call.poll() {
                            calls[node].push(place);
                        }
                    }
                    Step::End(node) => drop(calls[node].pop()),
                    Step::Ask(node) => {
                        // One question at a time, as the keeper asks them.
                        if answers[node].is_none() && let Some(wish) = gates[node].wish().or(Some(Wish { keep: 0, wanted: 2 })) {
                            let request = PermitRequest { max, keep: wish.keep, wanted: wish.wanted, ttl: 100 * SOON };
                            let holder = ["a", "b", "c"][node];
                            answers[node] = Some(store.permits(&replica, holder, request).await.expect("it answers"));
                        }
                    }
                    Step::Hear(node) => {
                        if let Some(permitted) = answers[node].take() {
                            gates[node].grant(permitted, later());
                        }
                    }
                    Step::Lose(node) => answers[node] = None,
                }
                let all: usize = calls.iter().map(Vec::len).sum();
                prop_assert!(all <= max as usize, "{} calls, at most {}", all, max);
            }
            Ok(())
        })?;
    }
}
