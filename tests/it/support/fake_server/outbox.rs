//! What a server sends on one stream, kept so that a broken stream can be resumed.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

/// One thing on a stream.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    /// A JSON-RPC message that is not the response.
    Message(String),
    /// The response; the last frame.
    Response(String),
    /// The connection ends here; the rest waits for whoever resumes.
    Break(Option<Duration>),
    /// The stream ends here for good.
    End,
}

/// All frames of one stream.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(super) name: String,
    frames: Mutex<Vec<Frame>>,
    changed: Notify,
    gone: AtomicBool,
    readers: AtomicUsize,
}

impl Outbox {
    pub(super) fn new(name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            frames: Mutex::default(),
            changed: Notify::new(),
            gone: AtomicBool::new(false),
            readers: AtomicUsize::new(0),
        })
    }

    pub(super) fn push(&self, frame: Frame) {
        self.frames.lock().expect("not poisoned").push(frame);
        self.changed.notify_waiters();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Whether somebody reads it now.
    pub(super) fn is_read(&self) -> bool {
        self.readers.load(Ordering::SeqCst) > 0
    }

    /// Waits until a reader went away before the end.
    pub(super) async fn gone(&self) {
        self.until(|| self.gone.load(Ordering::SeqCst).then_some(()))
            .await;
    }

    async fn until<T>(&self, found: impl Fn() -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = found() {
                return found;
            }
            changed.await;
        }
    }

    /// Reads from the beginning, up to the first break.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        self.reader_from(0, false)
    }

    fn reader_from(self: &Arc<Self>, at: usize, resumed: bool) -> Reader {
        self.readers.fetch_add(1, Ordering::SeqCst);
        Reader {
            outbox: Arc::clone(self),
            at,
            resumed,
            finished: false,
        }
    }

    /// Reads everything, breaks left out.
    pub(super) fn resume_all(self: &Arc<Self>) -> Reader {
        self.reader_from(0, true)
    }

    /// Reads what came after a frame, breaks left out.
    pub(super) fn resume(self: &Arc<Self>, after: usize) -> Reader {
        self.reader_from(after + 1, true)
    }
}

/// A stream's client.
#[derive(Debug)]
pub(super) struct Reader {
    outbox: Arc<Outbox>,
    at: usize,
    resumed: bool,
    finished: bool,
}

impl Reader {
    /// The next frame and its number; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<(usize, Frame)> {
        while !self.finished {
            let at = self.at;
            let outbox = Arc::clone(&self.outbox);
            let frame = outbox
                .until(|| outbox.frames.lock().expect("not poisoned").get(at).cloned())
                .await;
            self.at += 1;
            match frame {
                Frame::Break(_) if self.resumed => continue,
                Frame::Message(_) => {}
                Frame::Response(_) | Frame::Break(_) | Frame::End => self.finished = true,
            }
            return Some((at, frame));
        }
        None
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.outbox.readers.fetch_sub(1, Ordering::SeqCst);
        if !self.finished {
            self.outbox.gone.store(true, Ordering::SeqCst);
            self.outbox.changed.notify_waiters();
        }
    }
}
