//! What waits to be sent on one stream to a node. Whoever puts a message in
//! never waits: a stream that is full is cut with an error.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    nodes::{Held, Node},
    not_taken::NotTaken,
    splice::Rope,
};

/// Messages that may wait on one stream.
const MESSAGES: usize = 512;
/// What a message costs beside its bytes.
const OVERHEAD: usize = 256;

/// One message on its way.
#[derive(Debug)]
pub struct Message {
    /// The message.
    pub rope: Rope,
    /// Whether it is the answer: nothing follows.
    pub is_last: bool,
    /// Counts against the node until it was sent.
    pub held: Option<Held>,
    /// The server was not given the request; the message says why, in words.
    pub not_taken: Option<NotTaken>,
}

/// A stream's buffer, with one reader.
#[derive(Debug)]
pub struct Outbox {
    node: Arc<Node>,
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    has_ended: bool,
}

/// There is no room for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Outbox {
    /// A stream to a node.
    #[must_use]
    pub fn new(node: &Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            node: Arc::clone(node),
            waiting: Mutex::default(),
            news: Notify::new(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A queue and a flag, whole at every point.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message.
    ///
    /// # Errors
    /// When the node does not read what waits. The caller ends the stream.
    pub fn push(&self, rope: Rope) -> Result<(), Full> {
        let mut waiting = self.waiting();
        if waiting.has_ended {
            return Ok(());
        }
        if waiting.messages.len() >= MESSAGES {
            return Err(Full);
        }
        let held = self.node.hold(rope.len() + OVERHEAD).ok_or(Full)?;
        waiting.messages.push_back(Message {
            rope,
            is_last: false,
            held: Some(held),
            not_taken: None,
        });
        drop(waiting);
        self.news.notify_one();
        Ok(())
    }

    /// Adds the answer, the last message.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&self, rope: Rope) -> Result<(), Full> {
        let mut waiting = self.waiting();
        if waiting.has_ended {
            return Ok(());
        }
        let held = self.node.hold(rope.len() + OVERHEAD).ok_or(Full)?;
        waiting.messages.push_back(Message {
            rope,
            is_last: true,
            held: Some(held),
            not_taken: None,
        });
        waiting.has_ended = true;
        drop(waiting);
        self.news.notify_one();
        Ok(())
    }

    /// Drops what waits and ends the stream with `error`.
    pub fn cut(&self, error: Option<Rope>) {
        let mut waiting = self.waiting();
        if waiting.has_ended {
            return;
        }
        waiting.messages.clear();
        waiting.has_ended = true;
        waiting.messages.extend(error.map(|rope| Message {
            rope,
            is_last: true,
            // Small, one per stream, and has to get through.
            held: None,
            not_taken: None,
        }));
        drop(waiting);
        self.news.notify_one();
    }

    /// Ends the stream with `error`, after what waits.
    pub fn fail(&self, error: Rope) {
        self.conclude(error, None);
    }

    /// Ends the stream of a request that the server was not given, saying why.
    pub fn refuse(&self, not_taken: NotTaken, why: &str) {
        self.conclude(why.as_bytes().to_vec().into(), Some(not_taken));
    }

    fn conclude(&self, rope: Rope, not_taken: Option<NotTaken>) {
        let mut waiting = self.waiting();
        if waiting.has_ended {
            return;
        }
        waiting.has_ended = true;
        waiting.messages.push_back(Message {
            rope,
            is_last: true,
            // Small, one per stream, and has to get through.
            held: None,
            not_taken,
        });
        drop(waiting);
        self.news.notify_one();
    }

    /// Ends the stream after what waits, without an answer.
    pub fn end(&self) {
        self.waiting().has_ended = true;
        self.news.notify_one();
    }

    /// Whether nothing more comes.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.waiting().has_ended
    }

    /// The next message, `None` at the end. Cancel safe; for one reader.
    pub async fn next(&self) -> Option<Message> {
        loop {
            {
                let mut waiting = self.waiting();
                if let Some(message) = waiting.messages.pop_front() {
                    return Some(message);
                }
                if waiting.has_ended {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::nodes::Bounds;

    fn node(output: usize) -> Arc<Node> {
        let bounds = Bounds {
            calls: 1,
            input: 1,
            output,
        };
        Node::new(&"n".into(), bounds)
    }

    fn rope(text: &'static str) -> Rope {
        bytes::Bytes::from_static(text.as_bytes()).into()
    }

    async fn all(outbox: &Outbox) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        while let Some(message) = outbox.next().await {
            let text = String::from_utf8(message.rope.join().to_vec()).unwrap();
            all.push((text, message.is_last));
        }
        all
    }

    #[tokio::test]
    async fn messages_come_in_order_and_the_answer_ends_it() {
        let node = node(10_000);
        let outbox = Outbox::new(&node);
        outbox.push(rope("one")).unwrap();
        outbox.finish(rope("two")).unwrap();
        outbox.push(rope("late")).unwrap();
        let expected = [("one".to_owned(), false), ("two".to_owned(), true)];
        assert_eq!(all(&outbox).await, expected);
        assert_eq!(node.buffered(), 0);
    }

    #[tokio::test]
    async fn a_stream_that_is_full_is_cut_and_its_node_has_room_again() {
        let node = node(1000);
        let stalled = Outbox::new(&node);
        let pushed = (0..10)
            .take_while(|_| stalled.push(rope("x")).is_ok())
            .count();
        assert_eq!(pushed, 3);
        assert_eq!(stalled.finish(rope("answer")), Err(Full));
        stalled.cut(Some(rope("too slow")));
        let other = Outbox::new(&node);
        other.finish(rope("fine")).unwrap();
        assert_eq!(all(&stalled).await, [("too slow".to_owned(), true)]);
        assert_eq!(all(&other).await, [("fine".to_owned(), true)]);
    }

    #[tokio::test]
    async fn the_number_of_waiting_messages_is_bounded() {
        let outbox = Outbox::new(&node(usize::MAX / 2));
        let pushed = (0..MESSAGES * 2)
            .take_while(|_| outbox.push(rope("x")).is_ok())
            .count();
        assert_eq!(pushed, MESSAGES);
    }
}
