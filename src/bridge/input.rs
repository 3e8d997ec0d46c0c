//! What waits to be written to a process: everybody's messages in fair turns,
//! the bridge's own first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::{fair::Fair, nodes::Node, splice::Rope};

/// Messages of the bridge itself that may wait.
const OWN: usize = 1024;

/// One message to be written.
#[derive(Debug)]
pub struct Job {
    /// The number of the request, if it is one.
    pub call: Option<u64>,
    /// The message.
    pub rope: Rope,
    /// The room it takes, until it is written.
    pub room: Option<OwnedSemaphorePermit>,
}

/// What waits.
#[derive(Debug, Default)]
pub struct Input {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    own: VecDeque<Job>,
    others: Fair<Arc<str>, Job>,
}

impl Input {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Queues, whole at every point.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message of a node, which has made room for it.
    pub fn push(&self, node: &Node, job: Job) {
        let cost = job.rope.len();
        self.waiting().others.push(&node.name, cost, job);
        self.news.notify_one();
    }

    /// Adds a message of the bridge; `false` when too many wait.
    pub fn push_own(&self, rope: Rope) -> bool {
        let mut waiting = self.waiting();
        if waiting.own.len() >= OWN {
            return false;
        }
        waiting.own.push_back(Job {
            call: None,
            rope,
            room: None,
        });
        drop(waiting);
        self.news.notify_one();
        true
    }

    /// The next message, if one waits.
    pub fn try_next(&self) -> Option<Job> {
        let mut waiting = self.waiting();
        waiting.own.pop_front().or_else(|| waiting.others.pop())
    }

    /// The next message. Cancel safe; for one reader at a time.
    pub async fn next(&self) -> Job {
        loop {
            if let Some(job) = self.try_next() {
                return job;
            }
            self.news.notified().await;
        }
    }

    /// Drops the bridge's own messages: they were for a process that is gone.
    pub fn forget_own(&self) {
        self.waiting().own.clear();
    }

    /// Drops everything.
    pub fn clear(&self) {
        let mut waiting = self.waiting();
        waiting.own.clear();
        waiting.others.drain();
    }
}
