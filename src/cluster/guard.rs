//! Runs the work of a duty no longer than its lease.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{lifecycle::Tasks, store::Fence, telemetry::metrics::Counted};

/// What is done under a lease: until dropped, which may happen at any `await`.
pub trait Work: Send + Sync + 'static {
    /// Does the duty. If it ends by itself it is soon begun again.
    fn run(self: Arc<Self>, grant: Grant) -> BoxFuture<'static, ()>;
}

/// The leave to do a duty.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Zero: without a lease.
    fence: Arc<AtomicU64>,
    inherited: bool,
}

impl Grant {
    /// What writes have to carry. `None`: the store cannot be asked, so that
    /// every node does this duty by itself and nothing is written.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        match self.fence.load(Ordering::Acquire) {
            0 => None,
            fence => Some(Fence(fence)),
        }
    }

    /// Whether another node may have done this duty until now: what it
    /// learned and did not write down is lost.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.inherited
    }
}

/// Work that runs.
#[derive(Debug)]
pub(super) struct Running {
    fence: Arc<AtomicU64>,
    until: watch::Sender<Option<Instant>>,
    stop: CancellationToken,
    done: oneshot::Receiver<()>,
}

impl Running {
    /// Starts the work. `until` none: without a lease, for as long as it takes.
    pub(super) fn start(
        tasks: &Tasks,
        work: Arc<dyn Work>,
        fence: Option<Fence>,
        inherited: bool,
        until: Option<Instant>,
        counted: Counted,
    ) -> Self {
        let number = fence.map_or(0, |fence| fence.0);
        let fence = Arc::new(AtomicU64::new(number));
        let grant = Grant {
            fence: Arc::clone(&fence),
            inherited,
        };
        let until = watch::Sender::new(until);
        let mut ends = until.subscribe();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (finished, done) = oneshot::channel();
        tasks.spawn_brief(async move {
            // Dropped with this task, also when the work panics.
            let (_finished, _counted) = (finished, counted);
            tokio::select! {
                // The lease is looked at first: a process that was paused past
                // its end must not take one more step.
                biased;
                () = stopped.cancelled() => {}
                () = over(&mut ends) => {}
                () = work.run(grant) => {}
            }
        });
        Self {
            fence,
            until,
            stop,
            done,
        }
    }

    /// The lease was renewed or regained.
    pub(super) fn extend(&self, fence: Fence, until: Instant) {
        self.fence.store(fence.0, Ordering::Release);
        self.until.send_replace(Some(until));
    }

    /// The store is away: goes on without a lease.
    pub(super) fn go_alone(&self) {
        self.fence.store(0, Ordering::Release);
        self.until.send_replace(None);
    }

    /// Whether the work has ended, by itself or with its time.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(
            self.done.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        )
    }

    /// Stops the work; afterwards nothing of it runs.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // An error says the same: the task is gone.
        self.done.await.ok();
    }
}

/// Completes when the time is over that `until` says, however often it changes.
async fn over(until: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let end = *until.borrow_and_update();
        let ended = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = until.changed() => if changed.is_err() { return },
            () = ended => return,
        }
    }
}
