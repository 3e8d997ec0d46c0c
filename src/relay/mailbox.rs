//! Messages for whoever holds a call or a stream, from any node.
//!
//! A holder on the same node is reached directly, also while the store is
//! down. Across nodes a message goes through a capped stream in the store,
//! which exists only while the mailbox is open, so that a made-up address
//! creates nothing.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::ReusableBoxFuture;

use crate::{
    lifecycle::Tasks,
    mcp::{Raw, message::Answer},
    store::{Position, Store, StoreError, StreamBounds, StreamKey, StreamWatch},
};

/// Messages a mailbox holds; more are refused.
const CAPACITY: usize = 1024;

/// A message to the holder of a call or stream.
#[derive(Debug, Clone)]
pub(crate) enum Letter {
    /// To the holder of a legacy client's call or stream: the client's answer to a question.
    Answered {
        /// Which question: its key within the call.
        key: String,
        /// The answer.
        answer: Answer,
    },
    /// To the holder of a parked call: a client came back with answers.
    Claim {
        /// The round of questions that is answered; an old one is refused.
        round: u32,
        /// The answers by question.
        answers: Vec<(String, Box<Raw>)>,
        /// The mailbox of whoever speaks with the client now.
        reply_to: String,
    },
    /// To a claimer: the call is yours, what follows belongs to it.
    Accepted,
    /// To a claimer: the round was claimed before.
    Refused,
    /// To a claimer: a notification of the call, a whole message.
    Notification(Bytes),
    /// To a claimer: how the round ended.
    Done(Answer),
    /// To the holder of an HTTP+SSE stream: a message for the client.
    Message(Bytes),
    /// To the holder of an HTTP+SSE stream: the client opened this session.
    Opened(String),
    /// To the holder of a parked call: nobody waits for it any more.
    Abandoned,
}

/// [`Letter`] as it travels. New kinds are added at the end; a node that does
/// not know one drops it.
#[derive(Serialize, Deserialize)]
enum Packed {
    Answered {
        key: String,
        answer: PackedAnswer,
    },
    Claim {
        round: u32,
        answers: Vec<(String, String)>,
        reply_to: String,
    },
    Accepted,
    Refused,
    Notification(String),
    Done(PackedAnswer),
    Abandoned,
    Message(String),
    Opened(String),
}

#[derive(Serialize, Deserialize)]
enum PackedAnswer {
    Result(String),
    Error(String),
}

impl From<&Answer> for PackedAnswer {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Result(json) => Self::Result(json.get().to_owned()),
            Answer::Error(json) => Self::Error(json.get().to_owned()),
        }
    }
}

impl PackedAnswer {
    fn unpack(self) -> Option<Answer> {
        Some(match self {
            Self::Result(json) => Answer::Result(raw(json)?),
            Self::Error(json) => Answer::Error(raw(json)?),
        })
    }
}

fn raw(json: String) -> Option<Box<Raw>> {
    Raw::from_string(json).ok()
}

impl Letter {
    fn pack(&self) -> Bytes {
        let packed = match self {
            Self::Answered { key, answer } => Packed::Answered {
                key: key.clone(),
                answer: answer.into(),
            },
            Self::Claim {
                round,
                answers,
                reply_to,
            } => Packed::Claim {
                round: *round,
                answers: answers
                    .iter()
                    .map(|(key, json)| (key.clone(), json.get().to_owned()))
                    .collect(),
                reply_to: reply_to.clone(),
            },
            Self::Accepted => Packed::Accepted,
            Self::Refused => Packed::Refused,
            // Messages come out of our own JSON reader, so they are UTF-8.
            Self::Notification(bytes) => {
                Packed::Notification(String::from_utf8_lossy(bytes).into_owned())
            }
            Self::Done(answer) => Packed::Done(answer.into()),
            Self::Message(bytes) => Packed::Message(String::from_utf8_lossy(bytes).into_owned()),
            Self::Opened(session) => Packed::Opened(session.clone()),
            Self::Abandoned => Packed::Abandoned,
        };
        // Plain data always encodes; an empty letter would not unpack.
        rmp_serde::to_vec(&packed).unwrap_or_default().into()
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        Some(match rmp_serde::from_slice(bytes).ok()? {
            Packed::Answered { key, answer } => Self::Answered {
                key,
                answer: answer.unpack()?,
            },
            Packed::Claim {
                round,
                answers,
                reply_to,
            } => {
                let answers = answers
                    .into_iter()
                    .map(|(key, json)| Some((key, raw(json)?)));
                Self::Claim {
                    round,
                    answers: answers.collect::<Option<_>>()?,
                    reply_to,
                }
            }
            Packed::Accepted => Self::Accepted,
            Packed::Refused => Self::Refused,
            Packed::Notification(message) => Self::Notification(message.into()),
            Packed::Done(answer) => Self::Done(answer.unpack()?),
            Packed::Message(message) => Self::Message(message.into()),
            Packed::Opened(session) => Self::Opened(session),
            Packed::Abandoned => Self::Abandoned,
        })
    }
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// A holder has it or will read it.
    Delivered,
    /// There is no such mailbox (any more), or it is full.
    NobodyThere,
}

/// The mailboxes this node holds, and the way to all others.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    store: Arc<dyn Store>,
    tasks: Tasks,
    ttl: Duration,
    here: Arc<Here>,
}

impl Mailboxes {
    /// No mailboxes yet. A mailbox whose node died is gone after `ttl`.
    pub(crate) fn new(store: Arc<dyn Store>, tasks: Tasks, ttl: Duration) -> Self {
        Self {
            store,
            tasks,
            ttl,
            here: Arc::default(),
        }
    }

    fn bounds(&self) -> StreamBounds {
        StreamBounds {
            max_entries: CAPACITY as u32,
            ttl: self.ttl,
        }
    }

    /// Opens a mailbox. With the store down it can be reached from this node only.
    pub(crate) async fn open(&self, address: Arc<str>) -> Mailbox {
        let (sender, local) = mpsc::channel(CAPACITY);
        lock(&self.here).insert(Arc::clone(&address), sender);
        let key = StreamKey::Mailbox(Arc::clone(&address));
        // Made before the store is asked: whoever gives up waiting closes it.
        let mut mailbox = Mailbox {
            address,
            key,
            local,
            in_store: true,
            remote: None,
            position: Position::default(),
            unread: std::collections::VecDeque::new(),
            store: Arc::clone(&self.store),
            tasks: self.tasks.clone(),
            here: Arc::clone(&self.here),
        };
        match self.store.open_stream(&mailbox.key, self.bounds()).await {
            Ok(()) => {
                let watch = self.store.watch_stream(&mailbox.key).await;
                mailbox.remote = Some(ReusableBoxFuture::new(mailbox.reading(watch)));
            }
            Err(error) => {
                tracing::warn!(%error, "answers from other nodes will not arrive");
                mailbox.in_store = false;
            }
        }
        mailbox
    }

    /// Sends a letter to a mailbox on any node.
    ///
    /// # Errors
    /// When the mailbox is not on this node and the store cannot be asked.
    pub(crate) async fn send(&self, address: &str, letter: Letter) -> Result<Delivery, StoreError> {
        let sender = lock(&self.here).get(address).cloned();
        if let Some(sender) = sender {
            let sent = sender.try_send(letter).is_ok();
            return Ok(if sent {
                Delivery::Delivered
            } else {
                Delivery::NobodyThere
            });
        }
        let key = StreamKey::Mailbox(address.into());
        let position = self
            .store
            .append(&key, letter.pack(), self.bounds())
            .await?;
        Ok(if position.is_some() {
            Delivery::Delivered
        } else {
            Delivery::NobodyThere
        })
    }
}

type Here = std::sync::Mutex<HashMap<Arc<str>, mpsc::Sender<Letter>>>;

fn lock(here: &Here) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, mpsc::Sender<Letter>>> {
    // Single inserts and removes: a panic cannot leave the map in between.
    here.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

type Entries = Result<Option<Vec<(Position, Bytes)>>, StoreError>;
type Reading = ReusableBoxFuture<'static, (StreamWatch, Entries)>;

/// An open mailbox; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Mailbox {
    address: Arc<str>,
    key: StreamKey,
    local: mpsc::Receiver<Letter>,
    /// Whether the store may have it.
    in_store: bool,
    /// What other nodes send. Kept here: beginning anew whenever the caller
    /// stops waiting, a read might never end.
    remote: Option<Reading>,
    position: Position,
    unread: std::collections::VecDeque<Letter>,
    store: Arc<dyn Store>,
    tasks: Tasks,
    here: Arc<Here>,
}

impl Mailbox {
    /// The next letter. Cancel safe. Never ends by itself: the caller has a deadline.
    pub(crate) async fn next(&mut self) -> Letter {
        loop {
            if let Some(letter) = self.unread.pop_front() {
                return letter;
            }
            let Some(remote) = &mut self.remote else {
                return match self.local.recv().await {
                    Some(letter) => letter,
                    // The sender lives in the map as long as the mailbox does.
                    None => std::future::pending().await,
                };
            };
            tokio::select! {
                Some(letter) = self.local.recv() => return letter,
                (watch, entries) = poll_fn(|cx| remote.poll(cx)) => {
                    self.take_in(entries);
                    let reading = self.reading(watch);
                    if let Some(remote) = &mut self.remote {
                        remote.set(reading);
                    }
                }
            }
        }
    }

    /// A letter that has arrived and was not read yet.
    pub(crate) async fn try_next(&mut self) -> Option<Letter> {
        if self.unread.is_empty() {
            if let Ok(letter) = self.local.try_recv() {
                return Some(letter);
            }
            if self.remote.is_some() {
                let (after, most) = (self.position, CAPACITY as u32);
                let entries = self.store.read(&self.key, after, most).await;
                self.take_in(entries);
            }
        }
        self.unread.pop_front()
    }

    /// Waits until there may be more, then reads it.
    fn reading(
        &self,
        mut watch: StreamWatch,
    ) -> impl Future<Output = (StreamWatch, Entries)> + Send + 'static {
        let (store, key, after) = (Arc::clone(&self.store), self.key.clone(), self.position);
        async move {
            watch.changed().await;
            let entries = store.read(&key, after, CAPACITY as u32).await;
            (watch, entries)
        }
    }

    fn take_in(&mut self, entries: Entries) {
        match entries {
            Ok(Some(entries)) => {
                for (position, bytes) in entries {
                    // Two reads may have begun at the same place.
                    if position > self.position {
                        self.position = position;
                        self.unread.extend(Letter::unpack(&bytes));
                    }
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a mailbox could not be read"),
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        lock(&self.here).remove(&self.address);
        if self.in_store {
            let (store, key) = (Arc::clone(&self.store), self.key.clone());
            self.tasks.spawn_brief(async move {
                if let Err(error) = store.close_stream(&key).await {
                    tracing::debug!(%error, "a closed mailbox stays until its time to live ends");
                }
            });
        }
    }
}
