//! Requests that the server answers: finding out its era, opening a session,
//! calls.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::{Era, Received, Service, Visit, bad_request, not_sent};
use crate::{
    bridge::{
        backend::Lease,
        outbox::{Message, Outbox},
        reply::{self, Body},
        session::Session,
        splice::{Parts, Rope},
        table::Sink,
        worker::{NoAnswer, NotSent, Refusal},
    },
    mcp::{
        capabilities::ClientCapabilities,
        envelope::LogLevel,
        error::{self, RpcError},
        header,
        json::{self, RawObject},
        message::{Answer, RequestId, response_bytes},
        method,
    },
};

/// A request in flight. Dropped when it is answered or its client is gone.
struct Ongoing {
    lease: Lease,
    number: u64,
    session: Option<(Arc<Session>, RequestId)>,
    _visit: Visit,
    _running: Option<TaskTrackerToken>,
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        if let Some((session, id)) = &self.session {
            session.done(id);
        }
        self.lease.worker.give_up(self.number);
    }
}

impl Service {
    /// `server/discover`: how nodes find out the era. Servers of before may
    /// be silent, or end.
    pub(super) async fn discover(&self, id: &RequestId, received: Received) -> Response<Body> {
        let unknown = || {
            let error = RpcError::method_not_found(method::DISCOVER);
            reply::refused(StatusCode::NOT_FOUND, Some(id), &error)
        };
        let era = self.era();
        if era == Era::Legacy {
            return unknown();
        }
        let lease = match self.backend.sessionless().await {
            Ok(lease) => lease,
            Err(why) => return not_sent(&why),
        };
        // What lets itself be initialized is used like that.
        if era == Era::Unknown && lease.worker.handshake().is_some() {
            return unknown();
        }
        if let Err(why) = lease.worker.check() {
            return not_sent(&why);
        }
        let _running = self.running.token();
        let answer = match lease.worker.ask(&received.message, self.probe).await {
            Ok(answer) => answer,
            Err(NoAnswer::NotStarted(why)) => return not_sent(&NotSent::not_started(why)),
            Err(why) => {
                debug!(?why, "the server does not answer server/discover");
                if matches!(why, NoAnswer::Ended) && era == Era::Unknown {
                    self.set_era(Era::Legacy);
                }
                self.backend.end_common();
                return unknown();
            }
        };
        let Ok((parts, _)) = Parts::read(&answer) else {
            return unknown();
        };
        let code = parts
            .error
            .and_then(RpcError::parse)
            .map(|error| error.code);
        let era = match code {
            None
            | Some(
                error::UNSUPPORTED_VERSION | error::HEADER_MISMATCH | error::MISSING_CAPABILITY,
            ) => Era::Modern,
            Some(_) => Era::Legacy,
        };
        self.set_era(era);
        if era == Era::Legacy {
            self.backend.end_common();
        }
        let place = parts.id().into_iter();
        let edits = place.map(|id_place| (id_place, id.as_raw().get().to_owned()));
        reply::answer(Rope::splice(&answer, edits.collect()), None, true)
    }

    pub(super) async fn initialize(
        &self,
        parts: &Parts<'_>,
        id: &RequestId,
        received: Received,
    ) -> Response<Body> {
        let capabilities = parts
            .param("capabilities")
            .and_then(|raw| ClientCapabilities::parse(raw).ok())
            .unwrap_or_default();
        let _running = self.running.token();
        match self.backend.open(received.message, capabilities).await {
            Ok(session) => {
                let mut response = reply::answer(session.handshake.answer(id), None, false);
                if let Ok(value) = HeaderValue::from_str(&session.id) {
                    response.headers_mut().insert(header::SESSION_ID, value);
                }
                response
            }
            Err(Refusal::Answer(answer)) => {
                if self.era() == Era::Legacy {
                    // What ended at server/discover may just have failed.
                    self.set_era(Era::Unknown);
                }
                let Ok((parts, _)) = Parts::read(&answer) else {
                    return not_sent(&NotSent::Stopping);
                };
                let edits = parts
                    .id()
                    .map(|place| (place, id.as_raw().get().to_owned()));
                let rope = Rope::splice(&answer, edits.into_iter().collect());
                reply::answer(rope, None, false)
            }
            Err(Refusal::Ended(error)) => reply::refused(StatusCode::OK, Some(id), &error),
            Err(Refusal::NotSent(why)) => not_sent(&why),
            Err(Refusal::Stopping) => not_sent(&NotSent::Stopping),
        }
    }

    /// A request of a session. Some are about the session itself.
    pub(super) async fn session_request(
        &self,
        parts: &Parts<'_>,
        id: RequestId,
        method: String,
        session: &Arc<Session>,
        received: Received,
    ) -> Response<Body> {
        let is_told = match (&*method, parts.params) {
            (method::PING, _) => session.worker.is_some(),
            (method::LOGGING_SET_LEVEL, Some(params)) => {
                let level = json::member_str(params, "level");
                match level.and_then(|level| LogLevel::parse(&level)) {
                    Some(level) => {
                        session.set_level(level);
                        session.worker.as_ref().is_some_and(|worker| {
                            let mut table = worker.table();
                            let is_alone = table.sessions().count() == 1;
                            table.memory.set_level(level, params, is_alone)
                        })
                    }
                    // The server says what is wrong with it.
                    None => true,
                }
            }
            (method::RESOURCES_SUBSCRIBE, Some(params)) => {
                if let Some(worker) = &session.worker {
                    worker.table().memory.subscribe(&session.id, params);
                }
                true
            }
            (method::RESOURCES_UNSUBSCRIBE, Some(params)) => {
                let worker = session.worker.as_ref();
                worker.is_none_or(|worker| worker.table().memory.unsubscribe(&session.id, params))
            }
            _ => true,
        };
        if is_told {
            return self.call(parts, id, method, Some(session), received).await;
        }
        let done = Answer::Result(RawObject::new().to_raw());
        reply::json(StatusCode::OK, response_bytes(&id, &done).into(), None)
    }

    /// Gives a request to the server; the first thing that comes back decides
    /// the form of the response.
    pub(super) async fn call(
        &self,
        parts: &Parts<'_>,
        id: RequestId,
        method: String,
        session: Option<&Arc<Session>>,
        received: Received,
    ) -> Response<Body> {
        if session.is_some_and(|session| session.call(&id).is_some()) {
            return bad_request(Some(&id), "a request with this id is in flight");
        }
        // Nobody waits for the end of a stream that has none.
        let running = (method != method::LISTEN).then(|| self.running.token());
        let lease = match session {
            Some(session) => self.backend.for_session(session).await,
            None => self.backend.sessionless().await,
        };
        let lease = match lease {
            Ok(lease) => lease,
            Err(why) => return not_sent(&why),
        };
        let Received {
            message,
            room,
            visit,
        } = received;
        let outbox = Outbox::new(&visit.node);
        let asked = (id.clone(), method);
        let sink = Sink::Stream(Arc::clone(&outbox));
        let from = (&*visit.node, room);
        let sent = lease
            .worker
            .request(&message, parts, asked, session, sink, from);
        let number = match sent {
            Ok(number) => number,
            Err(why) => return not_sent(&why),
        };
        if let Some(session) = session {
            session.begin(&id, &lease.worker, number);
        }
        let ongoing = Ongoing {
            number,
            session: session.cloned().zip(Some(id)),
            lease,
            _visit: visit,
            _running: running,
        };
        match outbox.next().await {
            Some(Message {
                not_taken: Some(not_taken),
                rope,
                ..
            }) => reply::later(not_taken, &String::from_utf8_lossy(&rope.join())),
            Some(first) if first.is_last => {
                reply::answer(first.rope, first.held, session.is_none())
            }
            first => reply::events(outbox, first, ongoing),
        }
    }
}
