//! Wakes the readers of streams that are in this process.
//!
//! Bounded by the watches that are alive: names nobody watches any more are
//! dropped when the map has doubled since it was last cleaned.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::StreamWatch;

/// Cleaning below this size is not worth it.
const CLEAN_FROM: usize = 64;

/// Who watches what; `K` names a stream.
#[derive(Debug)]
pub(super) struct Wakers<K> {
    watched: Mutex<Watched<K>>,
}

#[derive(Debug)]
struct Watched<K> {
    senders: HashMap<K, watch::Sender<u64>>,
    clean_at: usize,
}

impl<K: Hash + Eq + Clone> Wakers<K> {
    pub(super) fn new() -> Self {
        Self {
            watched: Mutex::new(Watched {
                senders: HashMap::new(),
                clean_at: CLEAN_FROM,
            }),
        }
    }

    /// A watch on `key`.
    pub(super) fn watch(&self, key: &K) -> StreamWatch {
        let mut watched = self.lock();
        if watched.senders.len() >= watched.clean_at {
            watched
                .senders
                .retain(|_, sender| sender.receiver_count() > 0);
            watched.clean_at = (watched.senders.len() * 2).max(CLEAN_FROM);
        }
        let sender = watched
            .senders
            .entry(key.clone())
            .or_insert_with(|| watch::Sender::new(0));
        StreamWatch {
            appended: sender.subscribe(),
        }
    }

    /// Wakes who watches `key`.
    pub(super) fn wake(&self, key: &K) {
        if let Some(sender) = self.lock().senders.get(key) {
            sender.send_modify(|wakes| *wakes += 1);
        }
    }

    /// Wakes everybody: something may have been missed.
    pub(super) fn wake_all(&self) {
        for sender in self.lock().senders.values() {
            sender.send_modify(|wakes| *wakes += 1);
        }
    }

    /// What is watched now; forgets the rest.
    pub(super) fn live(&self) -> Vec<K> {
        let mut watched = self.lock();
        watched
            .senders
            .retain(|_, sender| sender.receiver_count() > 0);
        watched.senders.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Watched<K>> {
        // No code under the lock can leave the map half changed.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_nobody_watches_are_forgotten() {
        let wakers = Wakers::new();
        let kept = wakers.watch(&usize::MAX);
        for name in 0..10_000 {
            drop(wakers.watch(&name));
        }
        assert!(wakers.lock().senders.len() <= 2 * CLEAN_FROM);
        assert_eq!(wakers.live(), vec![usize::MAX]);
        wakers.wake(&usize::MAX);
        assert!(kept.appended.has_changed().expect("the sender lives"));
    }
}
