//! What this node learns from others, and tells them: published generations,
//! invalidations, and what has to be checked when messages were missed.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Cache, Cacheable, Subject};
use crate::store::{Event, Fence, SubjectKey};

/// Invalidations kept for a store that is down. More are widened from a
/// resource to its method, of which there are few.
const MAX_UNHEARD: usize = 1024;

/// How often the store is told again what it has not heard.
const REPEAT_EVERY: Duration = Duration::from_secs(1);

/// An epoch has to outlive what a fetch already under way will write.
const EPOCH_MARGIN: Duration = Duration::from_secs(60);

impl<V: Cacheable> Cache<V> {
    /// Applies what other nodes publish to L1, until `stop`. The node runs it
    /// as long as it serves; without it L1 does not learn of changes.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let first = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut events = match first {
            Some(events) => events,
            None => {
                // Followed before: what was published in between is lost.
                let events = self.store.subscribe();
                self.missed_messages();
                events
            }
        };
        let mut repeat = tokio::time::interval(REPEAT_EVERY);
        repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.recv() => event,
                _ = repeat.tick() => {
                    self.repeat_unheard().await;
                    continue;
                }
            };
            match event {
                Ok(event) => self.learn(event),
                Err(RecvError::Lagged(missed)) => {
                    warn!(missed, "the cache was too slow for the store's messages");
                    self.missed_messages();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Marks every entry of that server and method out of date, on all nodes:
    /// who asks this node after this returns is not served what was fetched
    /// before, unless fetching fails; other nodes follow when they hear of it.
    pub async fn invalidate(self: &Arc<Self>, subject: &Subject) {
        let subject = subject.key();
        if !self.tell_invalidation(&subject).await {
            let now = Instant::now();
            self.subjects
                .raise(&subject.digest(), self.clock.next_fence(now));
            let mut unheard = self.unheard();
            if unheard.len() < MAX_UNHEARD {
                unheard.insert(subject);
            } else {
                unheard.insert(subject.whole());
            }
        }
    }

    /// The gaps so far.
    pub(super) fn current_gap(&self) -> u32 {
        self.gap.load(Ordering::Relaxed)
    }

    fn learn(self: &Arc<Self>, event: Event) {
        match event {
            Event::Written { slot, generation } => {
                // In this order: a flight puts its copy into L1, then looks at
                // what it was told. One of the two is in time.
                self.flights.tell(&slot, generation);
                self.l1.published(slot, generation);
            }
            Event::Released { slot } => self.flights.tell(&slot, Fence(0)),
            Event::Invalidated { subject, epoch } => {
                self.clock.saw_fence(epoch, Instant::now());
                self.subjects.raise(&subject, epoch);
            }
            Event::Gap => self.missed_messages(),
            Event::Message { .. } => {}
        }
    }

    /// From now on no copy is trusted that was not checked since.
    fn missed_messages(self: &Arc<Self>) {
        let gap = self.gap.fetch_add(1, Ordering::Relaxed) + 1;
        self.flights.tell_all();
        let cache = Arc::clone(self);
        self.tasks
            .spawn_brief(async move { cache.check_all(gap).await });
    }

    /// Repeats what the store has not heard, then checks all copies (and puts
    /// them back into a store that lost them), one after the other. Requests
    /// do not wait for this: they check what they need.
    async fn check_all(self: Arc<Self>, gap: u32) {
        if !self.repeat_unheard().await {
            return;
        }
        let copies = self.l1.all();
        debug!(copies = copies.len(), "checking copies after a gap");
        for held in copies {
            let overtaken = self.current_gap() != gap;
            if overtaken || self.tasks.stopping().is_cancelled() {
                return;
            }
            if !held.is_trusted(gap) && !self.check(&held.key, gap).await {
                return;
            }
        }
    }

    /// Tells the store the invalidations it has not heard of; false when it
    /// still does not hear.
    async fn repeat_unheard(&self) -> bool {
        let unheard: Vec<SubjectKey> = self.unheard().iter().cloned().collect();
        for subject in unheard {
            if !self.tell_invalidation(&subject).await {
                return false;
            }
            self.unheard().remove(&subject);
        }
        true
    }

    /// False when the store did not hear it.
    async fn tell_invalidation(&self, subject: &SubjectKey) -> bool {
        let keep = self.settings.max_age + self.settings.fetch_limit + EPOCH_MARGIN;
        match self.store.invalidate(subject, keep).await {
            Ok(epoch) => {
                self.clock.saw_fence(epoch, Instant::now());
                self.subjects.raise(&subject.digest(), epoch);
                true
            }
            Err(_) => false,
        }
    }

    fn unheard(&self) -> MutexGuard<'_, HashSet<SubjectKey>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
