//! The tasks of a node and their end: who owns them, how they are told to
//! stop, and that the node waits for them.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, info_span};

/// Owner of all tasks of a node. Clones share the same tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stopping: CancellationToken,
    ending: CancellationToken,
    closing: CancellationToken,
    tracker: TaskTracker,
    beneath: TaskTracker,
    failed: Arc<OnceLock<TaskFailed>>,
}

/// A task that lives as long as the node did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TaskFailed {
    /// It panicked; the message is on stderr.
    #[error("the internal task `{task}` panicked")]
    Panicked {
        /// Its name.
        task: &'static str,
    },
    /// It ended while the node was running.
    #[error("the internal task `{task}` ended before its time")]
    Ended {
        /// Its name.
        task: &'static str,
    },
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

    /// Cancelled when all other tasks have ended: the connections that they
    /// said goodbye over close now.
    #[must_use]
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Runs a task that lives as long as the node. If it ends or panics before
    /// the node stops, the node stops.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.supervise(name, task, &self.tracker);
    }

    /// Runs a task that others need to the end: it waits on
    /// [`closing`](Self::closing).
    pub fn spawn_beneath(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.supervise(name, task, &self.beneath);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that spawns long-lived tasks"
    )]
    fn supervise(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        tracker: &TaskTracker,
    ) {
        let supervision = Supervision {
            task: name,
            stopping: self.stopping.clone(),
            failed: Arc::clone(&self.failed),
        };
        let supervised = async move {
            let _supervision = supervision;
            task.await;
        };
        tokio::spawn(
            tracker.track_future(supervised.instrument(info_span!("task", task.name = name))),
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

    /// The task because of which the node stops, when that is why.
    #[must_use]
    pub fn failure(&self) -> Option<TaskFailed> {
        self.failed.get().copied()
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
        self.closing.cancel();
        self.beneath.close();
        self.beneath.wait().await;
    }
}

/// Dropped when its task is over, however that came about.
struct Supervision {
    task: &'static str,
    stopping: CancellationToken,
    failed: Arc<OnceLock<TaskFailed>>,
}

impl Drop for Supervision {
    fn drop(&mut self) {
        if self.stopping.is_cancelled() {
            return;
        }
        let task = self.task;
        let failure = match std::thread::panicking() {
            true => TaskFailed::Panicked { task },
            false => TaskFailed::Ended { task },
        };
        // The first is the cause; what follows from it is not.
        if self.failed.set(failure).is_ok() {
            tracing::error!(%failure, "the node stops");
        }
        self.stopping.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_stops_the_node_and_is_named() {
        let tasks = Tasks::new();
        let stopping = tasks.stopping().clone();
        tasks.spawn("steady", async move { stopping.cancelled().await });
        tasks.spawn("brittle", async { panic!("as the test wants") });
        tasks.stopping().cancelled().await;
        tasks.finished().await;
        let failure = tasks.failure();
        assert_eq!(failure, Some(TaskFailed::Panicked { task: "brittle" }));

        let tasks = Tasks::new();
        tasks.spawn("short", async {});
        tasks.stopping().cancelled().await;
        let failure = tasks.failure().expect("a failure");
        assert_eq!(failure, TaskFailed::Ended { task: "short" });
        assert!(failure.to_string().contains("`short`"));
    }

    #[tokio::test]
    async fn a_task_that_ends_because_the_node_stops_has_not_failed() {
        let tasks = Tasks::new();
        let stopping = tasks.stopping().clone();
        tasks.spawn("steady", async move { stopping.cancelled().await });
        tasks.stop();
        tasks.finished().await;
        assert_eq!(tasks.failure(), None);
    }
}
