//! What happens is heard, of the fleet's own containers only.

use std::time::Duration;

use futures_util::StreamExt as _;
use mcp_fleet::engine::{Action, EngineEvent};

use super::{Fleet, workload};

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
    assert_eq!(
        actions,
        [
            Action::Created,
            Action::Started,
            Action::OutOfMemory,
            Action::Died(137),
            Action::Removed
        ]
    );
}
