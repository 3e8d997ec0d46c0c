//! The events of one stream of a client session, kept so that a client that
//! lost the stream can resume it on any node.
//!
//! Written only for streams that carry events: an answer that fits one JSON
//! body costs the store nothing. An event's id is `{stream}-{position}`.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::OnceCell;

use super::Settings;
use crate::{
    ids::hex,
    store::{Position, Store, StoreError, StreamBounds, StreamKey, StreamWatch},
};

const MORE: u8 = b'+';
const LAST: u8 = b'.';

/// Where events of one stream are written.
#[derive(Debug)]
pub(crate) struct EventLog {
    stream: Arc<str>,
    key: StreamKey,
    bounds: StreamBounds,
    store: Arc<dyn Store>,
    opened: OnceCell<bool>,
}

/// An event read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    /// The event's id.
    pub(crate) id: String,
    /// The message.
    pub(crate) message: Bytes,
    /// Nothing follows it.
    pub(crate) is_last: bool,
}

impl EventLog {
    /// A log that costs nothing until it is opened.
    pub(crate) fn new(session: &Arc<str>, store: Arc<dyn Store>, settings: &Settings) -> Self {
        Self::named("", session, store, settings)
    }

    /// The same, with a prefix that says what kind of stream it is.
    pub(crate) fn named(
        prefix: &str,
        session: &Arc<str>,
        store: Arc<dyn Store>,
        settings: &Settings,
    ) -> Self {
        let stream: Arc<str> = format!("{prefix}{}", hex(&rand::random::<[u8; 8]>())).into();
        let key = StreamKey::Events {
            session: Arc::clone(session),
            stream: Arc::clone(&stream),
        };
        let bounds = StreamBounds {
            max_entries: settings.max_events,
            ttl: settings.events_ttl,
        };
        Self {
            stream,
            key,
            bounds,
            store,
            opened: OnceCell::new(),
        }
    }

    /// The stream within the session.
    pub(crate) fn stream(&self) -> &Arc<str> {
        &self.stream
    }

    /// Opens the log; answers the id that stands before its first event, or
    /// `None` while the store is down: the stream then cannot be resumed.
    pub(crate) async fn open(&self) -> Option<String> {
        self.is_open().await.then(|| format!("{}-0", self.stream))
    }

    async fn is_open(&self) -> bool {
        let open = || async {
            match self.store.open_stream(&self.key, self.bounds).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "a stream cannot be resumed");
                    false
                }
            }
        };
        *self.opened.get_or_init(open).await
    }

    /// Whether somebody opened it.
    pub(crate) fn was_opened(&self) -> bool {
        self.opened.get().copied().unwrap_or(false)
    }

    /// Writes an event; answers its id, `None` when it could not be written.
    pub(crate) async fn append(&self, message: &Bytes, is_last: bool) -> Option<String> {
        if !self.is_open().await {
            return None;
        }
        let mut payload = BytesMut::with_capacity(message.len() + 1);
        payload.put_u8(if is_last { LAST } else { MORE });
        payload.put_slice(message);
        match self
            .store
            .append(&self.key, payload.freeze(), self.bounds)
            .await
        {
            Ok(Some(position)) => Some(format!("{}-{}", self.stream, position.0)),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "an event cannot be resumed");
                None
            }
        }
    }
}

/// Reads a stream's events again, following it while it grows.
#[derive(Debug)]
pub(crate) struct Replay {
    stream: String,
    key: StreamKey,
    position: Position,
    watch: StreamWatch,
    store: Arc<dyn Store>,
    read: std::collections::VecDeque<Logged>,
    /// The last read brought as many as it may: there may be more.
    has_more: bool,
}

/// Events read at once.
const READ: u32 = 256;

impl Replay {
    /// Continues after `last_event_id`; `None` when that is no event of a stream we still have.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub(crate) async fn begin(
        session: &Arc<str>,
        last_event_id: &str,
        store: &Arc<dyn Store>,
    ) -> Result<Option<Self>, StoreError> {
        let Some((stream, position)) = last_event_id.rsplit_once('-') else {
            return Ok(None);
        };
        let Ok(position) = position.parse() else {
            return Ok(None);
        };
        let key = StreamKey::Events {
            session: Arc::clone(session),
            stream: stream.into(),
        };
        let watch = store.watch_stream(&key).await;
        let mut replay = Self {
            stream: stream.to_owned(),
            key,
            position: Position(position),
            watch,
            store: Arc::clone(store),
            read: std::collections::VecDeque::new(),
            has_more: false,
        };
        Ok(replay.fill().await?.then_some(replay))
    }

    /// The stream that is read.
    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    /// The events there are, without those to come.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub(crate) async fn into_read(
        mut self,
    ) -> Result<std::collections::VecDeque<Logged>, StoreError> {
        while self.has_more && self.fill().await? {}
        Ok(self.read)
    }

    /// The next event. Ends with the last one, or when the log is gone.
    pub(crate) async fn next(&mut self) -> Option<Logged> {
        loop {
            if let Some(logged) = self.read.pop_front() {
                return Some(logged);
            }
            if !self.has_more {
                self.watch.changed().await;
            }
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    tracing::debug!(%error, "a resumed stream waits for the store");
                    self.has_more = false;
                }
            }
        }
    }

    async fn fill(&mut self) -> Result<bool, StoreError> {
        let entries = self.store.read(&self.key, self.position, READ).await?;
        let Some(entries) = entries else {
            return Ok(false);
        };
        self.has_more = entries.len() == READ as usize;
        for (position, payload) in entries {
            self.position = position;
            let id = format!("{}-{}", self.stream, position.0);
            let is_last = payload.first() == Some(&LAST);
            self.read.push_back(Logged {
                id,
                message: payload.slice(payload.len().min(1)..),
                is_last,
            });
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn a_long_log_is_read_to_its_end() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let session: Arc<str> = "s".into();
        let key = StreamKey::Events {
            session: Arc::clone(&session),
            stream: "t".into(),
        };
        let bounds = StreamBounds {
            max_entries: 1000,
            ttl: std::time::Duration::from_secs(60),
        };
        store.open_stream(&key, bounds).await.expect("opened");
        for _ in 0..600 {
            let payload = Bytes::from_static(&[MORE]);
            store.append(&key, payload, bounds).await.expect("written");
        }
        let replay = async || {
            let replay = Replay::begin(&session, "t-0", &store).await;
            replay.expect("reachable").expect("a stream")
        };
        assert_eq!(replay().await.into_read().await.expect("read").len(), 600);
        // Nothing is added: whoever waited for that would wait for ever.
        let mut following = replay().await;
        for _ in 0..600 {
            assert!(following.next().await.is_some());
        }
    }
}
