//! An event stream that survives its connection where the protocol allows.
//!
//! Since 2025-11-25 a server may drop the connection in mid-call; since
//! 2025-03-26 a broken one can be resumed. Both work alike: wait as long as
//! the server's `retry` says, then GET with `Last-Event-ID`. Without an id
//! there is nothing to resume from. Modern streams are never resumed.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming as Body;
use tokio::time::{Instant, sleep};
use tokio_util::sync::ReusableBoxFuture;
use tracing::debug;

use super::{
    UpstreamError,
    client::{self, HttpClient, Media, Target},
    incoming::{EventReader, cause, ended},
};
use crate::mcp::{header, sse::SseEvent};

/// Attempts in a row that bring no event.
const MAX_FRUITLESS: u32 = 5;
/// The wait when the server names none.
const DEFAULT_RETRY: Duration = Duration::from_millis(500);
const MIN_RETRY: Duration = Duration::from_millis(10);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// For the headers of a resumed stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What to do when the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnEnd {
    /// It is over: modern streams.
    Fail,
    /// Resume from the last event id, if there was one: the stream of a call.
    Resume,
    /// Open it again, from the last event id if there was one: the standalone stream.
    Reopen,
}

/// Events of one logical stream. Reading is cancel safe.
pub(super) struct EventStream {
    origin: Origin,
    on_end: OnEnd,
    reader: Option<EventReader>,
    opening: Option<ReusableBoxFuture<'static, Result<EventReader, UpstreamError>>>,
    last_id: Option<String>,
    retry: Duration,
    fruitless: u32,
    /// A pause that was not reported yet.
    pause: Option<Duration>,
}

/// What a stream brings.
#[derive(Debug)]
pub(super) enum Item {
    /// An event with data.
    Event(SseEvent),
    /// The server ended the connection and goes on after this time.
    Paused(Duration),
}

/// Where the stream is opened again.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) http: HttpClient,
    pub(super) target: Target,
    /// Of the session.
    pub(super) headers: HeaderMap,
    pub(super) max_message_bytes: usize,
}

impl Origin {
    /// Opens the standalone stream, or the broken one after `last_id`.
    pub(super) async fn open(
        &self,
        last_id: Option<&str>,
        deadline: Instant,
    ) -> Result<EventReader, UpstreamError> {
        let mut headers = self.headers.clone();
        if let Some(id) = last_id {
            let id = HeaderValue::from_str(id)
                .map_err(|_| UpstreamError::malformed("an event id that no header can carry"))?;
            headers.insert(header::LAST_EVENT_ID, id);
        }
        let response = self
            .http
            .get_stream(&self.target, headers, deadline)
            .await?;
        let status = response.status();
        if status.is_success() && Media::of(response.headers()) == Media::EventStream {
            return Ok(EventReader::new(
                response.into_body(),
                self.max_message_bytes,
            ));
        }
        let (error, _) = client::failure(response, deadline).await;
        Err(match status {
            StatusCode::NOT_FOUND if self.headers.contains_key(header::SESSION_ID) => {
                UpstreamError::SessionLost
            }
            StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::NOT_IMPLEMENTED => UpstreamError::NotOffered("an event stream"),
            // One stream per session, and the server has not seen the last one end.
            StatusCode::CONFLICT => UpstreamError::Busy("the session's stream is still open"),
            ok if ok.is_success() => UpstreamError::NotOffered("an event stream"),
            _ => error,
        })
    }
}

impl EventStream {
    /// Reads a response's body.
    pub(super) fn new(body: Body, origin: Origin, on_end: OnEnd) -> Self {
        let reader = EventReader::new(body, origin.max_message_bytes);
        Self::from_reader(reader, origin, on_end)
    }

    pub(super) fn from_reader(reader: EventReader, origin: Origin, on_end: OnEnd) -> Self {
        Self {
            reader: Some(reader),
            ..Self::unopened(origin, on_end)
        }
    }

    /// A stream whose headers have not come yet.
    pub(super) fn from_opening(
        opening: impl Future<Output = Result<EventReader, UpstreamError>> + Send + 'static,
        origin: Origin,
        on_end: OnEnd,
    ) -> Self {
        Self {
            opening: Some(ReusableBoxFuture::new(opening)),
            ..Self::unopened(origin, on_end)
        }
    }

    fn unopened(origin: Origin, on_end: OnEnd) -> Self {
        Self {
            origin,
            on_end,
            reader: None,
            opening: None,
            last_id: None,
            retry: DEFAULT_RETRY,
            fruitless: 0,
            pause: None,
        }
    }

    /// The next event with data.
    pub(super) async fn next(&mut self) -> Result<SseEvent, UpstreamError> {
        loop {
            if let Item::Event(event) = self.next_item().await? {
                return Ok(event);
            }
        }
    }

    /// The next event with data, or that the server paused the stream.
    pub(super) async fn next_item(&mut self) -> Result<Item, UpstreamError> {
        loop {
            if let Some(pause) = self.pause.take() {
                return Ok(Item::Paused(pause));
            }
            if let Some(opening) = &mut self.opening {
                let opened = std::future::poll_fn(|cx| opening.poll(cx)).await;
                self.opening = None;
                match opened {
                    Ok(reader) => self.reader = Some(reader),
                    Err(error) => self.ended_by(error)?,
                }
            }
            let Some(reader) = &mut self.reader else {
                return Err(ended());
            };
            let error = match reader.next().await {
                Ok(Some(event)) => {
                    self.note(&event);
                    if !event.is_message() {
                        continue;
                    }
                    return Ok(Item::Event(event));
                }
                Ok(None) => ended(),
                Err(error) => error,
            };
            self.reader = None;
            self.ended_by(error)?;
        }
    }

    /// The body's remaining end, see [`EventReader::finish`].
    pub(super) fn finish(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        self.reader.as_mut().and_then(EventReader::finish)
    }

    fn note(&mut self, event: &SseEvent) {
        self.fruitless = 0;
        if let Some(id) = &event.id {
            self.last_id = (!id.is_empty()).then(|| id.clone());
        }
        if let Some(ms) = event.retry_ms {
            self.retry = Duration::from_millis(ms).clamp(MIN_RETRY, MAX_RETRY);
        }
    }

    /// Plans the next attempt, or gives up.
    fn ended_by(&mut self, error: UpstreamError) -> Result<(), UpstreamError> {
        let worth_it = match &error {
            UpstreamError::Closed { .. }
            | UpstreamError::ConnectFailed(_)
            | UpstreamError::Busy(_)
            | UpstreamError::TimedOut { .. } => true,
            UpstreamError::Http { status, .. } => status.is_server_error(),
            _ => false,
        };
        let possible = match self.on_end {
            OnEnd::Fail => false,
            OnEnd::Resume => self.last_id.is_some() && self.fruitless < MAX_FRUITLESS,
            OnEnd::Reopen => true,
        };
        if !(worth_it && possible) {
            return Err(match (error, self.on_end) {
                // The call may have run: not to be taken for one that was never sent.
                (UpstreamError::Busy(_), OnEnd::Resume) => not_resumed(StatusCode::CONFLICT),
                (error, _) => error,
            });
        }
        if self.on_end == OnEnd::Resume && self.fruitless == 0 {
            self.pause = Some(self.retry);
        }
        let wait = (self.retry * 2u32.saturating_pow(self.fruitless)).min(MAX_RETRY);
        self.fruitless = (self.fruitless + 1).min(16);
        debug!(
            ?wait,
            attempt = self.fruitless,
            "a stream ended early and is resumed"
        );
        let (origin, last_id) = (self.origin.clone(), self.last_id.clone());
        self.opening = Some(ReusableBoxFuture::new(async move {
            sleep(wait).await;
            let deadline = Instant::now() + OPEN_TIMEOUT;
            let opened = origin.open(last_id.as_deref(), deadline).await;
            if let Err(UpstreamError::NotOffered(_)) = opened {
                return Err(not_resumed(StatusCode::METHOD_NOT_ALLOWED));
            }
            opened
        }));
        Ok(())
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("uri", &self.origin.target)
            .field("on_end", &self.on_end)
            .field("last_id", &self.last_id)
            .finish_non_exhaustive()
    }
}

fn not_resumed(status: StatusCode) -> UpstreamError {
    UpstreamError::Http {
        status,
        text: "the stream ended early and cannot be resumed".into(),
        www_authenticate: None,
        retry_after: None,
    }
}

/// The failure of a stream that its server ended although it owes an answer.
pub(super) fn never_answered() -> UpstreamError {
    UpstreamError::Closed {
        before_headers: false,
        cause: Some(cause("the stream ended without the answer")),
    }
}
