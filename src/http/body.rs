//! Request bodies, read whole within a size and a time; response bodies in pieces.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the node accepts.
    #[error("the request body is larger than {limit} bytes; limits.body sets how large one may be")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The client did not send all of it in time.
    #[error("the request body did not arrive within {}s", limit.as_secs())]
    TooSlow {
        /// The time it had.
        limit: Duration,
    },
    /// The connection broke.
    #[error("the request body could not be read")]
    Broken,
}

/// Reads the whole body. Nothing beyond `limit` bytes is kept, and nothing is
/// read at all when its announced length is beyond.
///
/// # Errors
/// [`BodyError`] says which bound was passed.
pub async fn read(body: Body, limit: usize, within: Duration) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(BodyError::TooLarge { limit });
    }
    let collected = tokio::time::timeout(within, Limited::new(body, limit).collect())
        .await
        .map_err(|_| BodyError::TooSlow { limit: within })?;
    match collected {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { limit }),
        Err(_) => Err(BodyError::Broken),
    }
}

/// A response's body in a few pieces that are sent as they are, one after the
/// other. Its length is known.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// What is left, the last first.
    left: Vec<Bytes>,
}

impl Pieces {
    /// A body of `pieces`.
    pub(crate) fn of<const N: usize>(pieces: [Bytes; N]) -> Self {
        let mut left = Vec::from(pieces);
        left.retain(|piece| !piece.is_empty());
        left.reverse();
        Self { left }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let length: usize = self.left.iter().map(Bytes::len).sum();
        SizeHint::with_exact(length as u64)
    }
}

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Self {
        Self::new(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn pieces_arrive_in_their_order_and_the_length_is_told() {
        let pieces = Pieces::of(["one, ", "", "two"].map(Bytes::from));
        assert_eq!(pieces.size_hint().exact(), Some(8));
        let whole = pieces.collect().await.expect("infallible").to_bytes();
        assert_eq!(whole, "one, two");
    }

    #[tokio::test]
    async fn a_body_within_its_bounds_is_read() {
        let read = read(Body::from("12345"), 5, SECOND).await;
        assert_eq!(read.expect("a body"), "12345");
    }

    #[tokio::test]
    async fn a_longer_one_is_refused_with_the_setting() {
        let error = read(Body::from("123456"), 5, SECOND)
            .await
            .expect_err("too long");
        assert!(matches!(error, BodyError::TooLarge { limit: 5 }));
        assert!(error.to_string().contains("limits.body"));
    }

    #[tokio::test]
    async fn a_longer_one_of_unknown_length_is_refused() {
        let chunks = ["123", "456"].map(Ok::<_, std::io::Error>);
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        let error = read(body, 5, SECOND).await.expect_err("too long");
        assert!(matches!(error, BodyError::TooLarge { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let error = read(Body::from_stream(never), 5, SECOND)
            .await
            .expect_err("too slow");
        assert!(matches!(error, BodyError::TooSlow { .. }));
    }
}
