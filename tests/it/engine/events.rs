//! What happens is heard, of the fleet's own containers only.

use std::time::Duration;

use futures_util::StreamExt as _;
use mcp_fleet::engine::{Action, EngineEvent, State};

use super::{Fleet, workload};
use crate::support::eventually;

#[tokio::test]
async fn what_happens_to_the_fleets_containers_is_heard() {
    let Some(fleet) = Fleet::new() else { return };
    let Some(other) = Fleet::new() else { return };
    let mut events = std::pin::pin!(fleet.docker.events(&fleet.id));
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    // Before the stream is read again: nothing may be lost.
    other.run("other", &workload(&["wait"])).await;
    let mut spec = workload(&["eat"]);
    spec.isolation.memory = 16 << 20;
    let name = fleet.run("seen", &spec).await;
    fleet.ended(&name).await;
    // The engine hears that a process ended and why in any order, and tells
    // nothing more of a container that is gone.
    eventually(
        "the engine knows why it ended",
        async || matches!(fleet.inspect(&name).await.state, State::Exited(exit) if exit.oom_killed),
    )
    .await;
    fleet.docker.remove(&name).await.expect("removed");

    let mut actions = Vec::new();
    while actions.last() != Some(&Action::Removed) {
        let next = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
        match next.expect("an event").expect("no end") {
            EngineEvent::Container { name: of, action } => {
                assert_eq!(of, name);
                actions.push(action);
            }
            other => panic!("{other:?}"),
        }
    }
    let [begun @ .., one, other, last] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(begun, [Action::Created, Action::Started]);
    let end = [Action::OutOfMemory, Action::Died(137)];
    assert!(
        end.contains(one) && end.contains(other) && one != other,
        "{actions:?}"
    );
    assert_eq!(*last, Action::Removed);
}
