//! A modern client's side of a call: everything belongs to one request.
//!
//! Notifications go out on the request's stream, a question ends the request
//! with `input_required`, dropping the flow (the client closed its stream)
//! cancels the call.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Begun, Call, Relay, RelayError,
    ask::{self, Retry, State},
    park::{self, Claimed},
};
use crate::{
    mcp::{
        Raw,
        capabilities::InputKind,
        envelope::LogLevel,
        error::{self, RpcError},
        json::{RawObject, raw},
        message::{self, Answer, Message},
        method, shape,
        version::{Era, Version},
    },
    upstream::Event,
};

/// What the client is sent next.
#[derive(Debug)]
pub enum Item {
    /// A notification, a whole message.
    Message(Bytes),
    /// The answer; nothing follows.
    Done(Answer),
}

/// A call on behalf of a modern client.
#[derive(Debug)]
pub struct Flow {
    relay: Arc<Relay>,
    call: Call,
    source: Source,
    deadline: Instant,
    call_ends: Instant,
    last_progress: f64,
}

#[derive(Debug)]
enum Source {
    /// The call as this node made it.
    Begun(Begun),
    /// A call another request left parked.
    Claimed(Claimed),
    /// Said its last word.
    Ended,
}

impl Flow {
    /// Makes the call, or takes up the one that the client's answers belong to.
    ///
    /// # Errors
    /// When no replica takes the call, or the state sent along is refused.
    pub async fn begin(relay: &Arc<Relay>, mut call: Call) -> Result<Self, RelayError> {
        let now = Instant::now();
        let deadline = now + call.server.timeout;
        let source = match Self::parked(relay, &call, deadline).await? {
            Resume::Claim { holder, round, answers } => {
                Source::Claimed(park::claim(relay, holder, round, answers).await?)
            }
            Resume::SendAgain(params) => {
                call.params = params;
                Source::Begun(relay.begin(&call, deadline).await?)
            }
            Resume::AsIs => Source::Begun(relay.begin(&call, deadline).await?),
        };
        let call_ends = now + relay.settings.max_duration;
        Ok(Self { relay: Arc::clone(relay), call, source, deadline, call_ends, last_progress: f64::NEG_INFINITY })
    }

    /// Whether the parameters carry answers to questions of ours. Toward a
    /// modern server answers and state are its own and pass untouched.
    async fn parked(relay: &Arc<Relay>, call: &Call, deadline: Instant) -> Result<Resume, RelayError> {
        if !method::allows_input_required(&call.method) {
            return Ok(Resume::AsIs);
        }
        let params = call.params.as_deref();
        let Some(retry) = Retry::of(params).map_err(RelayError::Rpc)? else { return Ok(Resume::AsIs) };
        if relay.era_of(&call.server, deadline).await? == Era::Modern {
            return Ok(Resume::AsIs);
        }
        let Some(state) = retry.state else {
            // Answers without a state belong to no call of ours: a legacy server never sees them.
            return Ok(Resume::SendAgain(params.map(ask::without_round)));
        };
        let digest = ask::digest(&call.server.id, &call.method, params);
        match State::open(&state, &relay.sealer, &call.principal, &digest).map_err(RelayError::Rpc)? {
            State::Parked { mailbox, round, .. } => {
                Ok(Resume::Claim { holder: mailbox, round, answers: retry.answers })
            }
            State::SendAgain { .. } => Ok(Resume::SendAgain(params.map(ask::without_round))),
        }
    }

    /// What the client is sent next; after [`Item::Done`] nothing. Cancel safe.
    pub async fn next(&mut self) -> Item {
        loop {
            let deadline = self.deadline.min(self.call_ends);
            let event = match &mut self.source {
                Source::Begun(begun) => begun.next(deadline).await,
                Source::Claimed(claimed) => claimed.next(deadline).await,
                Source::Ended => return Item::Done(Answer::error(RpcError::internal("the call is over"))),
            };
            match event {
                Ok(Event::Notification(message)) => {
                    if self.wants(&message) {
                        return Item::Message(message);
                    }
                }
                Ok(Event::Ask(asked)) => {
                    let answer = match std::mem::replace(&mut self.source, Source::Ended) {
                        Source::Begun(begun) => {
                            let digest = ask::digest(&self.call.server.id, &self.call.method, self.call.params.as_deref());
                            park::park(&self.relay, begun, &self.call, digest, asked).await
                        }
                        // A claimed call asks through its holder, which answers with Done.
                        Source::Claimed(_) | Source::Ended => Err(RelayError::Unavailable),
                    };
                    return Item::Done(answer.unwrap_or_else(|error| Answer::error(error.to_rpc())));
                }
                Ok(Event::Done(answer)) => {
                    let version = match &self.source {
                        Source::Begun(begun) => begun.version(),
                        Source::Claimed(_) | Source::Ended => Version::LATEST_LEGACY,
                    };
                    self.source = Source::Ended;
                    return Item::Done(self.shaped(answer, version));
                }
                Err(error) => {
                    self.source = Source::Ended;
                    return Item::Done(Answer::error(error.to_rpc()));
                }
            }
        }
    }

    /// Whether a notification may go out on this request's stream. Progress
    /// that is reported also proves that the call is alive.
    fn wants(&mut self, message: &[u8]) -> bool {
        let Ok(Message::Notification(notification)) = message::parse_message(message) else { return false };
        let params = notification.params.and_then(|params| RawObject::parse(params).ok());
        match &*notification.method {
            method::PROGRESS => {
                let progress = params.and_then(|params| params.get("progress")?.get().parse::<f64>().ok());
                let grows = self.call.progress_token.is_some() && progress.is_some_and(|now| now > self.last_progress);
                if let Some(progress) = progress.filter(|_| grows) {
                    self.last_progress = progress;
                    self.deadline = Instant::now() + self.call.server.timeout;
                }
                grows
            }
            method::LOG_MESSAGE => {
                let level = params.and_then(|params| LogLevel::parse(&params.get_str("level")?));
                self.call.log_level.is_some_and(|least| level.is_some_and(|level| level >= least))
            }
            // Changes travel on listen streams only, everything else has no place here.
            _ => false,
        }
    }

    /// The server's answer as a modern client expects it.
    fn shaped(&self, answer: Answer, version: Version) -> Answer {
        match answer {
            Answer::Result(result) => Answer::Result(shape::result_for_modern(&self.call.method, &result, None)),
            Answer::Error(error) => self.url_elicitation(&error).unwrap_or_else(|| {
                if version.era() == Era::Modern { Answer::Error(error) } else { Answer::Error(shape::error_for_modern(&error)) }
            }),
        }
    }

    /// A 2025-11-25 server's "visit these URLs first" as questions.
    fn url_elicitation(&self, answer: &Raw) -> Option<Answer> {
        let object = RawObject::parse(answer).ok()?;
        if object.get("code")?.get() != error::URL_ELICITATION_REQUIRED.to_string() {
            return None;
        }
        if !self.call.capabilities.allows(&InputKind::ElicitUrl) {
            let needed = raw(&serde_json::json!({ "elicitation": { "url": {} } }));
            return Some(Answer::error(RpcError::missing_capability(&needed)));
        }
        let elicitations = RawObject::parse(object.get("data")?).ok()?.get("elicitations")?.to_owned();
        let mut questions = Vec::new();
        for (index, elicitation) in crate::mcp::json::elements(&elicitations).ok()?.into_iter().enumerate() {
            let mut params = RawObject::parse(elicitation).ok()?;
            params.remove("elicitationId");
            questions.push((format!("url-{index}"), params.to_raw()));
        }
        let digest = ask::digest(&self.call.server.id, &self.call.method, self.call.params.as_deref());
        let state = State::SendAgain { digest }.seal(&self.relay.sealer, &self.call.principal);
        let requests =
            questions.iter().map(|(key, params)| (key.as_str(), method::ELICITATION_CREATE, Some(&**params)));
        Some(Answer::Result(shape::input_required(requests, Some(&state))))
    }
}

enum Resume {
    /// An ordinary call.
    AsIs,
    /// The call again, with these parameters.
    SendAgain(Option<Box<Raw>>),
    /// A parked call.
    Claim { holder: String, round: u32, answers: Vec<(String, Box<Raw>)> },
}
