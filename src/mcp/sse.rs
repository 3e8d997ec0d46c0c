//! Server-sent events: an incremental reader and the writing of events.

use bytes::Bytes;

/// One block of a stream. A block without data is no event to a browser, but
/// its id and its delay count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// `event`, when given.
    pub event: Option<String>,
    /// The lines of `data`, joined.
    pub data: Bytes,
    /// `id`, when given; empty resets it.
    pub id: Option<String>,
    /// `retry`, in milliseconds.
    pub retry_ms: Option<u64>,
}

/// An event exceeds the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {limit} bytes")]
pub struct EventTooLarge {
    /// The bound, in bytes.
    pub limit: usize,
}

/// Reads a stream chunk by chunk.
#[derive(Debug)]
pub struct SseParser {
    limit: usize,
}

impl SseParser {
    /// Refuses events larger than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit }
    }

    /// Takes the next chunk; answers the events it completes.
    ///
    /// # Errors
    /// When an event grows over the limit. The stream cannot be read on.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<SseEvent>, EventTooLarge> {
        let _ = (chunk, self.limit);
        todo!()
    }
}

/// Writes an event; line breaks in `data` become lines of their own.
#[must_use]
pub fn event(id: Option<&str>, event: Option<&str>, data: &[u8]) -> Bytes {
    let _ = (id, event, data);
    todo!()
}

/// Writes a comment, which keeps the connection alive.
#[must_use]
pub fn comment(text: &str) -> Bytes {
    let _ = text;
    todo!()
}

/// Tells the client how long to wait before it reconnects.
#[must_use]
pub fn retry(ms: u64) -> Bytes {
    let _ = ms;
    todo!()
}
