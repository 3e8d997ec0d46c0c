//! Server-sent events: an incremental reader and the writing of events
//! (WHATWG HTML, section 9.2).

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

impl SseEvent {
    /// Whether it carries a protocol message: others are pings and the like
    /// that servers made up.
    #[must_use]
    pub fn is_message(&self) -> bool {
        !self.data.is_empty() && self.event.as_deref().is_none_or(|name| name == "message")
    }
}

/// An event exceeds the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {limit} bytes")]
pub struct EventTooLarge {
    /// The bound, in bytes.
    pub limit: usize,
}

/// Reads a stream chunk by chunk; chunks may end anywhere. What follows the
/// last empty line is no event yet, and never one if the stream ends there.
#[derive(Debug)]
pub struct SseParser {
    limit: usize,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    block: Block,
    position: Position,
}

/// Where in the stream the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// In the first line, which may begin with a byte order mark.
    FirstLine,
    InLine,
    /// Behind a carriage return: a line feed would belong to it.
    AfterReturn,
    /// Behind an event that was too large: nothing can be read any more.
    Broken,
}

/// The fields since the last empty line.
#[derive(Debug, Default)]
struct Block {
    event: Option<String>,
    data: Option<Vec<u8>>,
    id: Option<String>,
    retry_ms: Option<u64>,
}

impl SseParser {
    /// Refuses events larger than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            block: Block::default(),
            position: Position::FirstLine,
        }
    }

    /// Takes the next chunk; answers the events it completes.
    ///
    /// # Errors
    /// When an event grows over the limit. The stream cannot be read on.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<SseEvent>, EventTooLarge> {
        let mut events = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.position == Position::AfterReturn {
                self.position = Position::InLine;
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.require(rest.len())?;
                self.line.extend_from_slice(rest);
                break;
            };
            self.require(end)?;
            self.take_line(&rest[..end], &mut events);
            self.position = match rest[end] {
                b'\r' => Position::AfterReturn,
                _ => Position::InLine,
            };
            rest = &rest[end + 1..];
        }
        Ok(events)
    }

    /// Checks that `more` bytes may come to the current event.
    fn require(&mut self, more: usize) -> Result<(), EventTooLarge> {
        let held = self.line.len() + self.block.data.as_ref().map_or(0, Vec::len);
        if self.position == Position::Broken || held + more > self.limit {
            self.position = Position::Broken;
            self.line = Vec::new();
            self.block = Block::default();
            return Err(EventTooLarge { limit: self.limit });
        }
        Ok(())
    }

    fn take_line(&mut self, end: &[u8], events: &mut Vec<SseEvent>) {
        let mut held = std::mem::take(&mut self.line);
        let mut line = if held.is_empty() {
            end
        } else {
            held.extend_from_slice(end);
            &held
        };
        if self.position == Position::FirstLine {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            events.extend(std::mem::take(&mut self.block).into_event());
        } else {
            self.block.take_field(line);
        }
        // Keeps the buffer for the next line that is cut.
        held.clear();
        self.line = held;
    }
}

impl Block {
    fn take_field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            },
            b"event" => self.event = Some(text()),
            b"id" if !value.contains(&0) => self.id = Some(text()),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = text().parse().ok().or(self.retry_ms);
            }
            // Comments have an empty name; other fields mean nothing.
            _ => {}
        }
    }

    fn into_event(self) -> Option<SseEvent> {
        let has_any = self.data.is_some()
            || self.event.is_some()
            || self.id.is_some()
            || self.retry_ms.is_some();
        has_any.then(|| SseEvent {
            event: self.event,
            data: self.data.unwrap_or_default().into(),
            id: self.id,
            retry_ms: self.retry_ms,
        })
    }
}

/// Writes an event; line breaks in `data` become lines of their own.
#[must_use]
pub fn event(id: Option<&str>, event: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 32);
    for (name, value) in [("id", id), ("event", event)] {
        if let Some(value) = value {
            write_field(&mut out, name, value);
        }
    }
    let mut rest = data;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
            out.extend_from_slice(rest);
            break;
        };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let is_pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(is_pair)..];
    }
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// Writes a comment, which keeps the connection alive.
#[must_use]
pub fn comment(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 4);
    write_field(&mut out, "", text);
    out.push(b'\n');
    out.into()
}

/// Tells the client how long to wait before it reconnects.
#[must_use]
pub fn retry(ms: u64) -> Bytes {
    format!("retry: {ms}\n\n").into()
}

/// Writes a field of one line; what would end the line is left out.
fn write_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    // Readers ignore an id with a zero byte altogether.
    let is_kept = |byte: &u8| !matches!(byte, b'\r' | b'\n') && (*byte != 0 || name != "id");
    out.extend(value.bytes().filter(is_kept));
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
