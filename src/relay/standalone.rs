//! What belongs to no call in a legacy session: the server's unsolicited
//! messages and questions, and the client's answers to those.

use std::{collections::HashMap, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::ReusableBoxFuture;

use super::{
    Relay,
    event_log::EventLog,
    legacy::mailbox_address,
    mailbox::{Letter, Mailbox},
};
use crate::{
    ids::hex,
    mcp::message::{self, RequestId},
    servers::{Replica, Server},
    session::Session,
    upstream::{ClientSession, Event, Exchange, UpstreamError},
};

/// Streams of this kind are told apart by their first letter.
const PREFIX: &str = "g";
/// The wait before a lost or refused stream is opened again, doubled each
/// time. Short, since a server may only have to notice that the last one ended.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// One standalone stream at work.
pub(crate) struct Standalone {
    relay: Arc<Relay>,
    session: Arc<Session>,
    log: EventLog,
    upstream: Option<Upstream>,
    mailbox: Option<Mailbox>,
    /// Prefix of the ids of questions asked here.
    call: String,
    asked: u64,
    questions: HashMap<String, RequestId>,
}

struct Upstream {
    replica: Arc<Replica>,
    session: ClientSession,
    stream: Stream,
    /// The wait before the next attempt.
    pause: Duration,
    /// Dropped after the first attempt.
    opened: Option<oneshot::Sender<()>>,
}

/// The session's stream at the server.
enum Stream {
    /// To be opened, not before this time.
    Wanted(Instant),
    /// Kept here while it is being opened: giving that up and beginning anew
    /// would be a second stream to the server, which it refuses.
    Opening(Opening),
    Open(Box<Exchange>),
    /// There is none to be had.
    Absent,
}

type Opening = ReusableBoxFuture<'static, Result<Exchange, UpstreamError>>;

enum Heard {
    Event(Result<Event, UpstreamError>),
    Letter(Letter),
}

impl Standalone {
    pub(crate) fn open(relay: &Arc<Relay>, session: &Arc<Session>) -> Self {
        Self {
            relay: Arc::clone(relay),
            session: Arc::clone(session),
            log: EventLog::named(
                PREFIX,
                &session.key,
                Arc::clone(&relay.store),
                &relay.settings,
            ),
            upstream: None,
            mailbox: None,
            call: hex(&rand::random::<[u8; 8]>()),
            asked: 0,
            questions: HashMap::new(),
        }
    }

    /// Whether an event's stream was one of these.
    pub(crate) fn is_standalone(stream: &str) -> bool {
        stream.starts_with(PREFIX)
    }

    pub(crate) fn stream(&self) -> &str {
        self.log.stream()
    }

    pub(crate) async fn open_log(&self) -> Option<String> {
        self.log.open().await
    }

    /// Writes an event for a client that resumes; answers its id.
    pub(crate) async fn log(&self, message: &Bytes) -> Option<String> {
        self.log.append(message, false).await
    }

    /// Listens to the session's own stream at a legacy server. `opened` is
    /// dropped when that is open, or is not to be had now.
    pub(crate) async fn attach(
        &mut self,
        server: &Server,
        session: ClientSession,
        opened: Option<oneshot::Sender<()>>,
    ) {
        if let Some(replica) = self.relay.home_of(server, &session).await {
            self.upstream = Some(Upstream {
                replica,
                session,
                stream: Stream::Wanted(Instant::now()),
                pause: FIRST_PAUSE,
                opened,
            });
        }
    }

    /// Whether the server itself tells this session what changes, so that
    /// news of the same would be told twice.
    pub(crate) fn hears_for_itself(&self) -> bool {
        self.upstream
            .as_ref()
            .is_some_and(|upstream| matches!(upstream.stream, Stream::Open(_)))
    }

    /// Another stream has the session now.
    pub(crate) fn fall_silent(&mut self) {
        self.upstream = None;
        self.mailbox = None;
    }

    /// The next message for the client. Cancel safe.
    pub(crate) async fn next(&mut self) -> Bytes {
        loop {
            match self.hear().await {
                Heard::Event(Ok(Event::Notification(message))) => return message,
                Heard::Event(Ok(Event::Ask(ask))) => {
                    let number = self.asked.to_string();
                    self.asked += 1;
                    let id = RequestId::new_string(&format!("{}.{number}", self.call));
                    let mut message = Vec::new();
                    message::write_request(&mut message, &id, &ask.method, ask.params.as_deref());
                    self.questions.insert(number, ask.key);
                    return message.into();
                }
                Heard::Event(Ok(Event::Done(_)) | Err(_)) => self.lost(),
                Heard::Event(Ok(Event::Paused { .. })) => {}
                Heard::Letter(Letter::Answered { key, answer }) => {
                    let Some(asked) = self.questions.remove(&key) else {
                        continue;
                    };
                    if let Some(Upstream {
                        stream: Stream::Open(exchange),
                        ..
                    }) = &mut self.upstream
                        && let Err(error) = exchange.answer(&asked, &answer).await
                    {
                        tracing::debug!(
                            error = &error as &dyn std::error::Error,
                            "an answer was not passed on"
                        );
                    }
                }
                Heard::Letter(_) => {}
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        if self.mailbox.is_none() && self.upstream.is_some() {
            let address = mailbox_address(&self.session.key, &self.call);
            self.mailbox = Some(self.relay.mailboxes.open(address).await);
        }
        let relay = &self.relay;
        let event = async {
            match &mut self.upstream {
                Some(upstream) => upstream.next(relay).await,
                None => std::future::pending().await,
            }
        };
        match &mut self.mailbox {
            Some(mailbox) => tokio::select! {
                letter = mailbox.next() => Heard::Letter(letter),
                event = event => Heard::Event(event),
            },
            None => Heard::Event(event.await),
        }
    }

    fn lost(&mut self) {
        if let Some(upstream) = &mut self.upstream {
            upstream.stream = Stream::Wanted(Instant::now() + upstream.pause);
            upstream.pause = (upstream.pause * 2).min(self.relay.settings.stream_retry);
        }
    }
}

impl Upstream {
    /// The next event of the stream, which is opened first. Cancel safe.
    async fn next(&mut self, relay: &Arc<Relay>) -> Result<Event, UpstreamError> {
        loop {
            match &mut self.stream {
                Stream::Wanted(at) => {
                    tokio::time::sleep_until(*at).await;
                    self.stream = Stream::Opening(self.open(relay));
                }
                Stream::Opening(opening) => {
                    let outcome = poll_fn(|cx| opening.poll(cx)).await;
                    self.opened = None;
                    match outcome {
                        Ok(mut exchange) => {
                            exchange.set_deadline(None);
                            self.pause = FIRST_PAUSE;
                            self.stream = Stream::Open(Box::new(exchange));
                        }
                        // Modern servers and those without such a stream will not
                        // have one later either.
                        Err(error @ UpstreamError::NotOffered(_)) => {
                            tracing::debug!(%error, "no stream of the server");
                            self.stream = Stream::Absent;
                        }
                        Err(error) if error.is_end_of_session() => self.stream = Stream::Absent,
                        Err(error) => return Err(error),
                    }
                }
                Stream::Open(exchange) => return exchange.next().await,
                Stream::Absent => return std::future::pending().await,
            }
        }
    }

    fn open(&self, relay: &Arc<Relay>) -> Opening {
        let (replica, session) = (Arc::clone(&self.replica), self.session.clone());
        let upstreams = Arc::clone(&relay.upstreams);
        let deadline = Instant::now() + relay.settings.stream_retry;
        ReusableBoxFuture::new(async move {
            upstreams.session_stream(&replica, &session, deadline).await
        })
    }
}
