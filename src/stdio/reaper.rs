//! Reaping what nobody waits for: the first process of a container inherits
//! every orphan in it, and they stay zombies until it asks for them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tracing::{debug, warn};

/// Looks after orphans even if a signal was missed.
const AT_LEAST: Duration = Duration::from_secs(5);
/// When a child is being waited for by its owner, whoever is behind it is
/// looked at again after this.
const AGAIN: Duration = Duration::from_millis(20);

/// Knows the children that have an owner. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Reaper(Arc<Mutex<HashSet<Pid>>>);

/// A child that its owner waits for, until this is dropped.
#[derive(Debug)]
pub struct Owned {
    reaper: Reaper,
    pid: Pid,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.reaper.owned().remove(&self.pid);
    }
}

impl Reaper {
    /// Makes orphans below this process its children, whether or not it is the
    /// first process. Somebody has to [`run`](Self::run) it then.
    #[must_use]
    pub fn adopt_orphans() -> Self {
        if let Err(error) = prctl::set_child_subreaper(true) {
            warn!(%error, "orphans are not adopted");
        }
        Self::default()
    }

    fn owned(&self) -> MutexGuard<'_, HashSet<Pid>> {
        // A set of numbers, whole at every point.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child that is not taken for an orphan, however soon it ends.
    pub(super) fn start<T, E>(
        &self,
        start: impl FnOnce() -> Result<(T, Pid), E>,
    ) -> Result<(T, Owned), E> {
        let mut owned = self.owned();
        let (child, pid) = start()?;
        owned.insert(pid);
        drop(owned);
        let reaper = self.clone();
        Ok((child, Owned { reaper, pid }))
    }

    /// Reaps orphans until dropped.
    pub async fn run(&self) {
        let mut ended = match signal(SignalKind::child()) {
            Ok(ended) => ended,
            Err(error) => {
                warn!(%error, "orphans are not reaped");
                return std::future::pending().await;
            }
        };
        loop {
            while !self.reap() {
                sleep(AGAIN).await;
            }
            tokio::select! {
                _ = ended.recv() => {}
                () = sleep(AT_LEAST) => {}
            }
        }
    }

    /// Reaps the orphans that have ended; `false` when an owned child that has
    /// ended hides what is behind it.
    fn reap(&self) -> bool {
        let owned = self.owned();
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            let pid = match waitid(Id::All, look) {
                Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) => status.pid(),
                Ok(_) | Err(Errno::ECHILD) => None,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    debug!(%error, "children cannot be looked at");
                    None
                }
            };
            let Some(pid) = pid else { return true };
            if owned.contains(&pid) {
                return false;
            }
            if waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG).is_ok() {
                debug!(pid = pid.as_raw(), "an orphan was reaped");
            }
        }
    }
}
