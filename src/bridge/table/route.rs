//! Giving what a process says to whom it belongs.

use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;

use super::{Call, QUESTIONS, Question, Sink, Table};
use crate::{
    bridge::{
        session::Session,
        splice::{Kind, Parts, Rope},
    },
    mcp::{
        Raw,
        capabilities::InputKind,
        error::RpcError,
        json::{self, RawObject},
        message::{Answer, RequestId, error_bytes, response_bytes},
        method,
    },
};

impl Table {
    /// Gives a line to whom it belongs; answers what the process is to be told.
    pub fn route(&mut self, line: &Bytes) -> Option<Rope> {
        match Parts::read(line) {
            Err(error) => {
                debug!(%error, "a line of output is skipped");
                self.strays.unreadable += 1;
                None
            }
            Ok((parts, Kind::Answer(id))) => self.route_answer(line, &parts, id.as_ref()),
            Ok((parts, Kind::Notification(method))) => {
                let (delivered, reply) = self.route_notification(line, &parts, &method);
                self.strays.unclaimed += u64::from(!delivered);
                reply
            }
            Ok((_, Kind::Request(id, method))) if method == method::PING => {
                let pong = Answer::Result(RawObject::new().to_raw());
                Some(response_bytes(&id, &pong).into())
            }
            Ok((parts, Kind::Request(id, method))) => {
                let refusal = self.route_question(line, &parts, &id, &method).err()?;
                self.strays.unclaimed += 1;
                Some(error_bytes(Some(&id), &refusal).into())
            }
        }
    }

    fn route_answer(
        &mut self,
        line: &Bytes,
        parts: &Parts<'_>,
        id: Option<&RequestId>,
    ) -> Option<Rope> {
        let number = id.and_then(number_of);
        let known = number.filter(|number| self.calls.get(number).is_some_and(|call| call.sent));
        let Some(call) = known.and_then(|number| self.remove(number)) else {
            self.strays.forged += 1;
            return None;
        };
        match call.sink {
            // Whoever asked may be gone.
            Sink::Own(answer) => drop(answer.send(line.clone())),
            Sink::Stream(outbox) => {
                let client = call.id.as_raw().get();
                let mut edits: Vec<_> = parts
                    .id()
                    .map(|place| (place, client.to_owned()))
                    .into_iter()
                    .collect();
                if call.method == method::LISTEN {
                    let subscription = parts.subscription();
                    edits.extend(subscription.map(|id| (parts.place(id), client.to_owned())));
                }
                if outbox.finish(Rope::splice(line, edits)).is_err() {
                    outbox.cut(Some(too_slow(&call.id)));
                }
            }
        }
        None
    }

    /// Whether the notification found somebody, and what the process is told.
    fn route_notification(
        &mut self,
        line: &Bytes,
        parts: &Parts<'_>,
        method: &str,
    ) -> (bool, Option<Rope>) {
        if method == method::PROGRESS {
            let token = parts.param("progressToken");
            let number = token
                .and_then(|token| RequestId::parse(token).ok())
                .and_then(|token| self.tokens.get(&token).copied());
            let (Some(token), Some(number)) = (token, number) else {
                return (false, None);
            };
            let original = self.calls.get(&number).and_then(|call| {
                let original = call.token.as_ref()?.original.clone()?;
                Some((parts.place(token), original))
            });
            let edits = original.into_iter().collect();
            return self.send_on(number, Rope::splice(line, edits));
        }
        if let Some(id) = parts.subscription() {
            return self.route_to_listener(line, parts, id);
        }
        match method {
            method::CANCELLED => (self.route_withdrawal(line, parts), None),
            method::LOG_MESSAGE => self.route_log(line, parts),
            method::TOOLS_CHANGED | method::PROMPTS_CHANGED | method::RESOURCES_CHANGED => {
                (self.tell_all(line, |_| true), None)
            }
            method::RESOURCE_UPDATED => {
                let uri = parts
                    .param("uri")
                    .and_then(json::as_str)
                    .unwrap_or_default();
                let concerned = |session: &Session| self.memory.concerns(&session.id, &uri);
                (self.tell_all(line, concerned), None)
            }
            // It may concern one client only, and nothing says which.
            _ => {
                let session = self.only_session(|table, session| {
                    table.sessions.len() == 1 || table.has_calls(session)
                });
                let delivered = session.is_some_and(|s| s.deliver(line.clone().into()));
                (delivered, None)
            }
        }
    }

    /// Sends every session that is concerned what belongs to no call.
    fn tell_all(&self, line: &Bytes, concerned: impl Fn(&Session) -> bool) -> bool {
        let mut delivered = false;
        for session in self.sessions.values().filter(|session| concerned(session)) {
            delivered |= session.deliver(line.clone().into());
        }
        delivered
    }

    fn route_to_listener(
        &mut self,
        line: &Bytes,
        parts: &Parts<'_>,
        id: &Raw,
    ) -> (bool, Option<Rope>) {
        let number = RequestId::parse(id).ok().as_ref().and_then(number_of);
        let Some((number, call)) = number.and_then(|n| Some((n, self.calls.get(&n)?))) else {
            return (false, None);
        };
        let client = call.id.as_raw().get().to_owned();
        let rope = Rope::splice(line, vec![(parts.place(id), client)]);
        self.send_on(number, rope)
    }

    /// The process withdraws a question, or ends a listen stream early.
    fn route_withdrawal(&mut self, line: &Bytes, parts: &Parts<'_>) -> bool {
        let Some(raw) = parts.param("requestId") else {
            return false;
        };
        let Ok(id) = RequestId::parse(raw) else {
            return false;
        };
        if let Some(number) = self.asked.remove(&id)
            && let Some(question) = self.questions.remove(&number)
        {
            question.session.take_question(number);
            let rope = Rope::splice(line, vec![(parts.place(raw), number.to_string())]);
            return match question.call.filter(|call| self.calls.contains_key(call)) {
                Some(call) => self.send_on(call, rope).0,
                None => question.session.deliver(rope),
            };
        }
        let number = number_of(&id);
        let Some((number, call)) = number.and_then(|n| Some((n, self.calls.get(&n)?))) else {
            return false;
        };
        let client = call.id.as_raw().get().to_owned();
        let rope = Rope::splice(line, vec![(parts.place(raw), client)]);
        self.send_on(number, rope).0
    }

    fn route_log(&mut self, line: &Bytes, parts: &Parts<'_>) -> (bool, Option<Rope>) {
        let mut in_flight = self.calls.iter().filter(|(_, call)| call.is_of_client());
        let rope = Rope::from(line.clone());
        match (in_flight.next(), in_flight.next()) {
            (Some((number, call)), None) => {
                let wanted = call.session.as_ref().is_none_or(|s| s.wants(parts));
                if !call.wants_logs || !wanted {
                    return (true, None);
                }
                let number = *number;
                self.send_on(number, rope)
            }
            // Of one of several calls: only a client alone may see it.
            (Some(_), Some(_)) => {
                let session = self.only_session(|_, _| true);
                let session = session.filter(|_| self.calls.values().all(Call::has_session));
                let delivered =
                    session.is_some_and(|session| !session.wants(parts) || session.deliver(rope));
                (delivered, None)
            }
            (None, _) => {
                let mut delivered = false;
                for session in self.sessions.values() {
                    delivered |= !session.wants(parts) || session.deliver(rope.clone());
                }
                (delivered, None)
            }
        }
    }

    fn route_question(
        &mut self,
        line: &Bytes,
        parts: &Parts<'_>,
        id: &RequestId,
        method: &str,
    ) -> Result<(), RpcError> {
        if self.questions.len() >= QUESTIONS {
            return Err(RpcError::internal("too many questions are open"));
        }
        let kind = InputKind::of(method, parts.params);
        let allowing = |session: &Session| session.capabilities.allows(kind);
        if !self.sessions.values().any(|session| allowing(session)) {
            return Err(RpcError::method_not_found(method));
        }
        let at_work = self.only_session(|table, s| allowing(s) && table.newest_call(s).is_some());
        let listening = || {
            let nobody_works = !self
                .sessions
                .values()
                .any(|s| allowing(s) && self.newest_call(s).is_some());
            self.only_session(|_, s| nobody_works && allowing(s) && s.is_listening())
        };
        let session = at_work.or_else(listening).ok_or_else(|| {
            RpcError::internal("the question cannot be attributed to one client's call")
        })?;
        let session = Arc::clone(session);
        let call = self.newest_call(&session);
        let number = self.number();
        let place = parts.id().into_iter();
        let rope = Rope::splice(line, place.map(|id| (id, number.to_string())).collect());
        session.asked(number, self.worker.clone());
        let delivered = match call {
            Some(call) => self.send_on(call, rope).0,
            None => session.deliver(rope),
        };
        if !delivered {
            session.take_question(number);
            return Err(RpcError::internal(
                "the client does not read what it is sent",
            ));
        }
        let question = Question {
            id: id.clone(),
            session,
            call,
        };
        self.questions.insert(number, question);
        self.asked.insert(id.clone(), number);
        Ok(())
    }

    /// The session, if exactly one qualifies.
    fn only_session(&self, qualifies: impl Fn(&Self, &Session) -> bool) -> Option<&Arc<Session>> {
        let mut found = self.sessions.values().filter(|s| qualifies(self, s));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    fn calls_of<'t>(&'t self, session: &'t Session) -> impl Iterator<Item = (u64, &'t Call)> {
        let of_session =
            move |call: &Call| call.session.as_ref().is_some_and(|s| s.id == session.id);
        self.calls
            .iter()
            .filter(move |(_, call)| of_session(call))
            .map(|(number, call)| (*number, call))
    }

    fn has_calls(&self, session: &Session) -> bool {
        self.calls_of(session).next().is_some()
    }

    /// The session's latest call that can have caused a question.
    fn newest_call(&self, session: &Session) -> Option<u64> {
        self.calls_of(session)
            .filter(|(_, call)| call.sent && call.can_ask())
            .map(|(number, _)| number)
            .max()
    }

    /// Sends a message on the stream of a call, which is cut when it is full:
    /// whether it was sent, and what the process is told.
    fn send_on(&mut self, number: u64, rope: Rope) -> (bool, Option<Rope>) {
        let Some(call) = self.calls.get(&number) else {
            return (false, None);
        };
        let Sink::Stream(outbox) = &call.sink else {
            return (false, None);
        };
        if outbox.push(rope).is_ok() {
            return (true, None);
        }
        outbox.cut(Some(too_slow(&call.id)));
        let told = self.give_up(number, "the client reads too slowly");
        (false, told)
    }
}

/// The number that an id of ours is, also from servers that write `7.0`.
fn number_of(id: &RequestId) -> Option<u64> {
    let text = id.as_raw().get();
    let (digits, _zeros) = text.split_once('.').unwrap_or((text, ""));
    digits.parse().ok()
}

fn too_slow(id: &RequestId) -> Rope {
    let error = RpcError::internal("the stream was cut: what waited for it was not read in time");
    error_bytes(Some(id), &error).into()
}
