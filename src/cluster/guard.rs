//! Runs the work of a duty no longer than its lease.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    lifecycle::Tasks,
    store::{Fence, StoreTime},
    telemetry::metrics::Counted,
};

/// What is done under a lease: until dropped, which may happen at any `await`.
pub trait Work: Send + Sync + 'static {
    /// Does the duty. If it ends by itself it is soon begun again.
    fn run(self: Arc<Self>, grant: Grant) -> BoxFuture<'static, ()>;
}

/// The leave to do a duty.
#[derive(Debug, Clone)]
pub struct Grant {
    leave: watch::Receiver<Option<Leave>>,
    inherited: bool,
}

/// A lease as far as the work is concerned.
#[derive(Debug, Clone, Copy)]
struct Leave {
    fence: Fence,
    /// When the fence was asked for.
    since: Instant,
    until: Instant,
}

impl Grant {
    /// What writes have to carry. `None`: the store cannot be asked, so that
    /// every node does this duty by itself and nothing is written.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.leave.borrow().map(|leave| leave.fence)
    }

    /// The store's clock at `now`, to within the time a command takes: a
    /// fence is the store's time when it was given.
    #[must_use]
    pub fn store_time(&self, now: Instant) -> Option<StoreTime> {
        self.leave.borrow().map(|leave| {
            let since = now.saturating_duration_since(leave.since).as_millis();
            StoreTime(leave.fence.0 / 1000 + u64::try_from(since).unwrap_or(0))
        })
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
    leave: watch::Sender<Option<Leave>>,
    stop: CancellationToken,
    done: oneshot::Receiver<()>,
}

impl Running {
    /// Starts the work, under a lease (its fence, when it was asked for, when
    /// it ends) or without, for as long as it takes.
    pub(super) fn start(
        tasks: &Tasks,
        work: Arc<dyn Work>,
        lease: Option<(Fence, Instant, Instant)>,
        inherited: bool,
        counted: Counted,
    ) -> Self {
        let leave = lease.map(|(fence, since, until)| Leave {
            fence,
            since,
            until,
        });
        let leave = watch::Sender::new(leave);
        let grant = Grant {
            leave: leave.subscribe(),
            inherited,
        };
        let mut ends = leave.subscribe();
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
        Self { leave, stop, done }
    }

    /// The lease was renewed, or regained under another fence.
    pub(super) fn extend(&self, fence: Fence, asked_at: Instant, until: Instant) {
        self.leave.send_modify(|leave| {
            let since = match leave {
                Some(before) if before.fence == fence => before.since,
                _ => asked_at,
            };
            *leave = Some(Leave {
                fence,
                since,
                until,
            });
        });
    }

    /// The store is away: goes on without a lease.
    pub(super) fn go_alone(&self) {
        self.leave.send_replace(None);
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

/// Completes when the lease is over, however often it is renewed.
async fn over(leave: &mut watch::Receiver<Option<Leave>>) {
    loop {
        let until = leave.borrow_and_update().map(|leave| leave.until);
        let ended = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = leave.changed() => if changed.is_err() { return },
            () = ended => return,
        }
    }
}
