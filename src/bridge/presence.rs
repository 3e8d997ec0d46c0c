//! Whether any node of the fleet still takes notice of a bridge.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Counts nodes that are being answered.
#[derive(Debug)]
pub struct Presence(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    now: usize,
    last: Instant,
}

impl Presence {
    /// Nobody yet, since now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Seen {
            now: 0,
            last: Instant::now(),
        })))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A number and a time, whole at every point.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node is there, until this is dropped.
    pub fn enter(self: &Arc<Self>) -> Present {
        self.seen().now += 1;
        Present(Arc::clone(self))
    }

    /// Completes when no node was there for that long.
    pub async fn absent(&self, limit: Duration) {
        loop {
            let until = {
                let seen = self.seen();
                let since = if seen.now > 0 {
                    Instant::now()
                } else {
                    seen.last
                };
                since + limit
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A node that is there.
#[derive(Debug)]
pub struct Present(Arc<Presence>);

impl Drop for Present {
    fn drop(&mut self) {
        let mut seen = self.0.seen();
        seen.now -= 1;
        seen.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn absence_begins_when_the_last_node_leaves() {
        let start = Instant::now();
        let presence = Presence::new();
        let limit = Duration::from_secs(600);
        let visit = presence.enter();
        let leaving = async {
            tokio::time::sleep(Duration::from_secs(1000)).await;
            drop(visit);
            tokio::time::sleep(Duration::from_secs(300)).await;
            drop(presence.enter());
        };
        let absent = async {
            presence.absent(limit).await;
            start.elapsed()
        };
        let ((), noticed) = tokio::join!(leaving, absent);
        assert_eq!(noticed, Duration::from_secs(1900));
    }
}
