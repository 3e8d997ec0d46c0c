//! Lines of bounded length out of a stream of bytes.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Least room for one read.
const CHUNK: usize = 16 * 1024;
/// Shorter lines are copied, so that keeping one does not keep a large buffer.
const SMALL: usize = 64 * 1024;

/// Why there is no further line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// A line is longer than the limit. What follows cannot be read.
    #[error("a line of more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The stream broke.
    #[error("cannot be read")]
    Broken(#[from] io::Error),
}

/// What becomes of a line that is too long.
#[derive(Debug, Clone, Copy)]
enum Excess {
    /// An error.
    Refuse { limit: usize },
    /// All but its beginning is dropped.
    Drop { keep: usize },
}

/// Reads lines. Cancel safe.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    buffer: BytesMut,
    scanned: usize,
    /// Bytes of the current line that are gone.
    dropped: usize,
    excess: Excess,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of at most `limit` bytes.
    #[must_use]
    pub fn bounded(from: R, limit: usize) -> Self {
        Self::new(from, Excess::Refuse { limit })
    }

    /// Lines of any length, of which not much more than the first `keep` bytes are kept.
    #[must_use]
    pub fn shortened(from: R, keep: usize) -> Self {
        Self::new(from, Excess::Drop { keep })
    }

    fn new(from: R, excess: Excess) -> Self {
        Self {
            from,
            buffer: BytesMut::new(),
            scanned: 0,
            dropped: 0,
            excess,
        }
    }

    /// The next line without its end, `None` at the end of the stream.
    ///
    /// # Errors
    /// When it is too long or the stream breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LineError> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
                let line = self.take(self.scanned + at)?;
                self.buffer.advance(1);
                return Ok(Some(line));
            }
            self.scanned = self.buffer.len();
            self.check(self.scanned)?;
            if let Excess::Drop { keep } = self.excess
                && self.scanned > keep
            {
                self.dropped = self.dropped.saturating_add(self.scanned - keep);
                self.buffer.truncate(keep);
                self.scanned = keep;
            }
            if self.buffer.capacity() - self.buffer.len() < CHUNK {
                self.buffer.reserve(CHUNK);
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return self.take(self.buffer.len()).map(Some);
            }
        }
    }

    /// The first `length` bytes of the buffer, which are a line.
    fn take(&mut self, length: usize) -> Result<Bytes, LineError> {
        self.check(length)?;
        self.scanned = 0;
        self.dropped = 0;
        if length < SMALL {
            let line = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return Ok(line);
        }
        let line = self.buffer.split_to(length).freeze();
        // What follows gets a buffer of its own, or it would keep this one.
        self.buffer = BytesMut::from(&self.buffer[..]);
        Ok(line)
    }

    fn check(&self, length: usize) -> Result<(), LineError> {
        match self.excess {
            Excess::Refuse { limit } if length > limit => Err(LineError::TooLong { limit }),
            Excess::Refuse { .. } | Excess::Drop { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn all<R: AsyncRead + Unpin>(mut lines: Lines<R>) -> Vec<Bytes> {
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_are_split_wherever_chunks_end() {
        let (mut input, output) = tokio::io::duplex(3);
        let writing = async {
            input.write_all(b"{\"a\":1}\n\n{\"b\"").await.unwrap();
            input.write_all(b":2}\nrest").await.unwrap();
            drop(input);
        };
        let ((), all) = tokio::join!(writing, all(Lines::bounded(output, 100)));
        assert_eq!(all, ["{\"a\":1}", "", "{\"b\":2}", "rest"]);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_an_error_before_its_end_comes() {
        let (mut input, output) = tokio::io::duplex(4);
        let mut bounded = Lines::bounded(output, 5);
        let writing = async { input.write_all(b"0123456789").await };
        let (outcome, _) = tokio::join!(bounded.next(), async {
            tokio::time::timeout(Duration::from_millis(100), writing).await
        });
        assert!(matches!(outcome, Err(LineError::TooLong { limit: 5 })));
        let mut whole = Lines::bounded(&b"01234\n567890\n"[..], 5);
        assert_eq!(whole.next().await.unwrap().unwrap(), "01234");
        assert!(matches!(
            whole.next().await,
            Err(LineError::TooLong { limit: 5 })
        ));
    }

    #[tokio::test]
    async fn of_shortened_lines_the_beginning_is_kept() {
        let (mut input, output) = tokio::io::duplex(16);
        let writing = async move {
            let mut text = vec![b'x'; 1000];
            text.extend_from_slice(b"\nnext\n");
            input.write_all(&text).await.unwrap();
        };
        let ((), all) = tokio::join!(writing, all(Lines::shortened(output, 8)));
        assert!(
            all[0].len() < 32 && all[0].starts_with(b"xxxxxxxx"),
            "{all:?}"
        );
        assert_eq!(all[1], "next");
    }

    #[tokio::test]
    async fn large_and_small_lines_keep_their_bytes() {
        let texts: Vec<Vec<u8>> = [10, SMALL - 1, SMALL, 5, 3 * SMALL, 0, 7]
            .iter()
            .enumerate()
            .map(|(at, length)| vec![b'a' + at as u8; *length])
            .collect();
        let mut stream = texts.join(&b"\n"[..]);
        stream.push(b'\n');
        assert_eq!(all(Lines::bounded(&stream[..], 1 << 20)).await, texts);
    }

    proptest! {
        #[test]
        fn every_chunking_gives_the_same_lines(lines in prop::collection::vec("[^\n]{0,40}", 0..20), chunk in 1usize..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let stream: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut input, output) = tokio::io::duplex(chunk);
            let read = runtime.block_on(async {
                let writing = async move { input.write_all(stream.as_bytes()).await.unwrap() };
                tokio::join!(writing, all(Lines::bounded(output, 1000))).1
            });
            prop_assert_eq!(read, lines);
        }
    }
}
