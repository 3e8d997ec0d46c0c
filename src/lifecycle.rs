//! The tasks of a node and their end: who owns them, how they are told to
//! stop, and that the node waits for them.

use std::future::Future;

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, info_span};

/// Owner of all tasks of a node. Clones share the same tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stopping: CancellationToken,
    ending: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the node begins to stop: no new work. Every long-lived
    /// task waits on it.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Cancelled when the time for draining is over: what still runs ends now.
    /// Tasks that carry a client's call wait on this one.
    #[must_use]
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Runs a task that lives as long as the node. If it ends or panics before
    /// the node stops, the node stops.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that spawns long-lived tasks"
    )]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop_the_node = self.stopping.clone().drop_guard();
        let supervised = async move {
            let _stop_the_node = stop_the_node;
            task.await;
        };
        tokio::spawn(
            self.tracker
                .track_future(supervised.instrument(info_span!("task", task.name = name))),
        );
    }

    /// Runs a task that ends by itself soon: a refresh, a cancellation notice.
    /// The node waits for it when it stops.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that spawns brief tasks"
    )]
    pub fn spawn_brief(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tracker.track_future(task.in_current_span()));
    }

    /// Tells all tasks to stop.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Ends what draining did not, and waits until every task has ended.
    pub async fn finished(&self) {
        self.stopping.cancel();
        self.ending.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
