//! What each node may have waiting in a bridge, so that none can take what
//! the others need.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Nodes that are remembered; who is forgotten has nothing waiting.
const MOST: usize = 256;

/// Bounds of one node.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests and streams at once.
    pub calls: usize,
    /// Bytes on their way to the server.
    pub input: usize,
    /// Bytes on their way to the node.
    pub output: usize,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// As its tokens name it.
    pub name: Arc<str>,
    bounds: Bounds,
    calls: Arc<Semaphore>,
    input: Arc<Semaphore>,
    buffered: AtomicUsize,
}

/// The nodes that have spoken lately.
#[derive(Debug)]
pub struct Nodes {
    bounds: Bounds,
    known: Mutex<HashMap<Arc<str>, Arc<Node>>>,
}

impl Nodes {
    /// None yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            known: Mutex::default(),
        }
    }

    /// The node of that name.
    pub fn named(&self, name: &Arc<str>) -> Arc<Node> {
        // The map is whole at every point.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = known.get(name) {
            return Arc::clone(node);
        }
        if known.len() >= MOST {
            known.retain(|_, node| Arc::strong_count(node) > 1);
        }
        let node = Node::new(name, self.bounds);
        known.insert(Arc::clone(name), Arc::clone(&node));
        node
    }
}

impl Node {
    /// A node of which nothing waits.
    #[must_use]
    pub fn new(name: &Arc<str>, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::clone(name),
            bounds,
            calls: Arc::new(Semaphore::new(bounds.calls)),
            input: Arc::new(Semaphore::new(bounds.input)),
            buffered: AtomicUsize::new(0),
        })
    }

    /// A place for one more request; `None` when it has too many.
    #[must_use]
    pub fn begin(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.calls).try_acquire_owned().ok()
    }

    /// Room for a message of that length toward the server. Waits while the
    /// node's other messages have it.
    pub async fn room(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let length = u32::try_from(length.min(self.bounds.input)).ok()?;
        Arc::clone(&self.input)
            .acquire_many_owned(length)
            .await
            .ok()
    }

    /// Keeps that many bytes for the node; `None` when too much waits for it.
    #[must_use]
    pub fn hold(self: &Arc<Self>, length: usize) -> Option<Held> {
        let limit = self.bounds.output;
        let fits = |now: usize| (now == 0 || now + length <= limit).then_some(now + length);
        self.buffered
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .ok()?;
        Some(Held {
            node: Arc::clone(self),
            length,
        })
    }

    /// Bytes that wait for the node.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Acquire)
    }
}

/// Bytes kept for a node, until dropped.
#[derive(Debug)]
pub struct Held {
    node: Arc<Node>,
    length: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.buffered.fetch_sub(self.length, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        calls: 2,
        input: 100,
        output: 100,
    };

    #[tokio::test]
    async fn what_a_node_has_waiting_is_bounded_and_comes_free_again() {
        let nodes = Nodes::new(BOUNDS);
        let node = nodes.named(&"a".into());
        assert!(Arc::ptr_eq(&node, &nodes.named(&"a".into())));
        let (one, two) = (node.begin(), node.begin());
        assert!(one.is_some() && two.is_some() && node.begin().is_none());
        drop(one);
        assert!(node.begin().is_some());
        // A message larger than everything takes everything, alone.
        let large = node.room(1000).await.unwrap();
        let waiting = tokio_test::task::spawn(node.room(1)).poll();
        assert!(waiting.is_pending());
        drop(large);
        assert!(node.room(1).await.is_some());
    }

    #[test]
    fn the_first_message_for_a_node_is_kept_whatever_its_size() {
        let node = Node::new(&"a".into(), BOUNDS);
        let large = node.hold(1000).unwrap();
        assert!(node.hold(1).is_none());
        drop(large);
        let small = node.hold(60).unwrap();
        assert!(node.hold(60).is_none());
        assert_eq!(node.buffered(), 60);
        drop(small);
        assert_eq!(node.buffered(), 0);
    }

    #[test]
    fn idle_nodes_are_forgotten() {
        let nodes = Nodes::new(BOUNDS);
        for n in 0..MOST * 3 {
            nodes.named(&n.to_string().into());
        }
        assert!(nodes.known.lock().unwrap().len() <= MOST);
    }
}
