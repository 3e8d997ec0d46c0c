//! A modern client's side of a call: everything belongs to one request.
//!
//! Notifications go out on the request's stream, a question ends the request
//! with `input_required`, dropping the flow (the client closed its stream)
//! cancels the call.

use std::{borrow::Cow, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Begun, Call, Relay, RelayError,
    ask::{self, State},
    park::{self, Claimed},
};
use crate::{
    mcp::{
        Raw,
        capabilities::InputKind,
        envelope::{self, LogLevel},
        error::RpcError,
        json::RawObject,
        message::{self, Answer, Message},
        method,
        mrtr::{self, InputRequired, Retry},
        shape::{self, ModernResult},
        version::Era,
    },
    upstream::{Ask, Description, Event},
};

/// What the client is sent next.
#[derive(Debug)]
pub enum Item {
    /// A notification, a whole message.
    Message(Bytes),
    /// The answer; nothing follows.
    Done(Answer),
}

/// A call on behalf of a modern client. Dropping it cancels the call.
pub struct Flow {
    stage: Stage,
    patience: Duration,
    call_ends: Instant,
}

enum Stage {
    /// Until the first item. Kept here, so that whoever waits for it may stop
    /// waiting and go on later.
    Beginning(Beginning),
    Going(Box<Carrier>),
    Over,
}

type Beginning = Pin<Box<dyn Future<Output = Result<Begins, RelayError>> + Send>>;

/// How a call begins: what its client is sent first, and what carries it on.
type Begins = (Item, Option<Box<Carrier>>);

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").finish_non_exhaustive()
    }
}

impl Flow {
    /// Makes the call, or takes up the one that the client's answers belong to.
    #[must_use]
    pub fn begin(relay: &Arc<Relay>, call: Call) -> Self {
        let relay = Arc::clone(relay);
        let patience = call.server.timeout;
        let now = Instant::now();
        let call_ends = now + relay.settings.max_duration;
        let beginning = async move {
            let mut carrier = Carrier::begin(relay, call, now + patience, call_ends).await?;
            let first = carrier.next().await;
            let is_all = matches!(first, Item::Done(_));
            Ok((first, (!is_all).then(|| Box::new(carrier))))
        };
        Self {
            stage: Stage::Beginning(Box::pin(beginning)),
            patience,
            call_ends,
        }
    }

    /// When a client that takes nothing has to have taken the next item.
    #[must_use]
    pub fn gives_up(&self) -> Instant {
        (Instant::now() + self.patience).min(self.call_ends)
    }

    /// What the client is sent next; after [`Item::Done`] nothing. Cancel safe
    /// until the first item; whoever gives up later drops the flow.
    ///
    /// # Errors
    /// In place of the first item: no replica takes the call, or the state
    /// sent along is refused.
    pub async fn next(&mut self) -> Result<Item, RelayError> {
        let item = match &mut self.stage {
            Stage::Beginning(beginning) => {
                let begun = beginning.as_mut().await;
                self.stage = Stage::Over;
                let (first, carrier) = begun?;
                if let Some(carrier) = carrier {
                    self.stage = Stage::Going(carrier);
                }
                return Ok(first);
            }
            Stage::Going(carrier) => carrier.next().await,
            Stage::Over => Item::Done(Answer::error(&RpcError::internal("the call is over"))),
        };
        if matches!(item, Item::Done(_)) {
            self.stage = Stage::Over;
        }
        Ok(item)
    }
}

/// What carries one call.
#[derive(Debug)]
struct Carrier {
    relay: Arc<Relay>,
    call: Call,
    source: Source,
    described: Arc<Description>,
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

impl Carrier {
    async fn begin(
        relay: Arc<Relay>,
        mut call: Call,
        deadline: Instant,
        call_ends: Instant,
    ) -> Result<Self, RelayError> {
        let described = relay.describe(&call.server, deadline).await?;
        let source = match Self::resume(&relay, &call, described.version.era())? {
            Resume::Claim {
                holder,
                round,
                answers,
            } => Source::Claimed(park::claim(&relay, holder, round, answers).await?),
            Resume::SendAgain(params) => {
                call.params = params;
                Source::Begun(relay.begin(&call, deadline).await?)
            }
            Resume::AsIs => Source::Begun(relay.begin(&call, deadline).await?),
        };
        Ok(Self {
            relay,
            call,
            source,
            described,
            deadline,
            call_ends,
            last_progress: f64::NEG_INFINITY,
        })
    }

    /// Whether the parameters carry answers to questions of ours. Toward a
    /// modern server answers and state are its own and pass untouched.
    fn resume(relay: &Relay, call: &Call, era: Era) -> Result<Resume, RelayError> {
        if era == Era::Modern || !method::allows_input_required(&call.method) {
            return Ok(Resume::AsIs);
        }
        let params = call.params.as_deref();
        let Some(retry) = Retry::from_params(params).map_err(RelayError::Rpc)? else {
            return Ok(Resume::AsIs);
        };
        let Some(state) = retry.state else {
            // Answers without a state belong to no call of ours: a legacy server never sees them.
            return Ok(Resume::SendAgain(mrtr::without_retry(params)));
        };
        let digest = ask::digest(&call.server.id, &call.method, params);
        match State::open(&state, &relay.sealer, &call.principal, &digest)
            .map_err(RelayError::Rpc)?
        {
            State::Parked { mailbox, round, .. } => Ok(Resume::Claim {
                holder: mailbox,
                round,
                answers: retry.responses,
            }),
            State::SendAgain { .. } => Ok(Resume::SendAgain(mrtr::without_retry(params))),
        }
    }

    async fn next(&mut self) -> Item {
        loop {
            let deadline = self.deadline.min(self.call_ends);
            let event = match &mut self.source {
                Source::Begun(begun) => begun.next(deadline).await,
                Source::Claimed(claimed) => claimed.next(deadline).await,
                Source::Ended => {
                    return Item::Done(Answer::error(&RpcError::internal("the call is over")));
                }
            };
            match event {
                Ok(Event::Notification(message)) => {
                    if self.wants(&message) {
                        return Item::Message(self.under_own_token(message));
                    }
                }
                // A modern client's stream cannot be resumed, so it is not paused either.
                Ok(Event::Paused { .. }) => {}
                Ok(Event::Ask(asked)) if !method::allows_input_required(&self.call.method) => {
                    self.refuse(&asked).await;
                }
                Ok(Event::Ask(asked)) => {
                    let answer = match std::mem::replace(&mut self.source, Source::Ended) {
                        Source::Begun(begun) => {
                            let digest = ask::digest(
                                &self.call.server.id,
                                &self.call.method,
                                self.call.params.as_deref(),
                            );
                            park::park(&self.relay, begun, &self.call, digest, asked).await
                        }
                        // A claimed call asks through its holder, which answers with Done.
                        Source::Claimed(_) | Source::Ended => Err(RelayError::Unavailable),
                    };
                    return Item::Done(
                        answer.unwrap_or_else(|error| Answer::error(&error.to_rpc())),
                    );
                }
                Ok(Event::Done(answer)) => {
                    self.source = Source::Ended;
                    return Item::Done(self.shaped(answer));
                }
                Err(error) => {
                    self.source = Source::Ended;
                    return Item::Done(Answer::error(&error.to_rpc()));
                }
            }
        }
    }

    /// Tells the server that the client cannot be asked in answer to this request.
    async fn refuse(&mut self, asked: &Ask) {
        let Source::Begun(begun) = &mut self.source else {
            return;
        };
        let refusal = Answer::error(&RpcError::method_not_found(&asked.method));
        if let Err(error) = begun.answer(&asked.key, &refusal).await {
            tracing::debug!(%error, "a question could not be refused");
        }
    }

    /// Whether a notification may go out on this request's stream. Progress
    /// that is reported also proves that the call is alive.
    fn wants(&mut self, message: &[u8]) -> bool {
        let Ok(Message::Notification(notification)) = message::parse_message(message) else {
            return false;
        };
        let params = notification
            .params
            .and_then(|params| RawObject::parse(params).ok());
        match &*notification.method {
            method::PROGRESS => {
                let progress =
                    params.and_then(|params| params.get("progress")?.get().parse::<f64>().ok());
                let grows = self.call.progress_token.is_some()
                    && progress.is_some_and(|now| now > self.last_progress);
                if let Some(progress) = progress.filter(|_| grows) {
                    self.last_progress = progress;
                    self.deadline = Instant::now() + self.call.server.timeout;
                }
                grows
            }
            method::LOG_MESSAGE => {
                let level = params.and_then(|params| LogLevel::parse(&params.get_str("level")?));
                self.call
                    .log_level
                    .is_some_and(|least| level.is_some_and(|level| level >= least))
            }
            // Changes travel on listen streams only, everything else has no place here.
            _ => false,
        }
    }

    /// A claimed call reports progress under the token of the request it was
    /// made with, which is over.
    fn under_own_token(&self, message: Bytes) -> Bytes {
        let (Source::Claimed(_), Some(token)) = (&self.source, &self.call.progress_token) else {
            return message;
        };
        let Ok(Message::Notification(notification)) = message::parse_message(&message) else {
            return message;
        };
        let (method::PROGRESS, Some(params)) = (&*notification.method, notification.params) else {
            return message;
        };
        let params = envelope::with_progress_token(params, token);
        let mut own = Vec::new();
        message::write_notification(&mut own, method::PROGRESS, Some(&params));
        own.into()
    }

    /// The server's answer as a modern client expects it.
    fn shaped(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Result(result) => {
                let object = RawObject::parse(&result).unwrap_or_default();
                if object.get_str("resultType").as_deref() != Some(shape::COMPLETE)
                    && let Err(refused) = self.may_ask(&result)
                {
                    return Answer::error(&refused);
                }
                let context = ModernResult {
                    method: &self.call.method,
                    cache: None,
                    server_info: self
                        .described
                        .server_info
                        .as_ref()
                        .unwrap_or(&self.relay.settings.server_info),
                };
                Answer::Result(match shape::members_for_modern(&result, object, &context) {
                    Cow::Owned(shaped) => shaped,
                    Cow::Borrowed(_) => result,
                })
            }
            Answer::Error(error) => {
                let questions = match self.described.version.era() {
                    Era::Modern => None,
                    Era::Legacy => self.url_elicitation(&error),
                };
                // Modern servers too send codes they may not, and some that
                // are about our request and not the client's.
                questions
                    .unwrap_or_else(|| Answer::Error(shape::error_for_modern(&error).into_owned()))
            }
        }
    }

    /// Whether a result that asks for input asks for something, in answer to a
    /// request that may be answered so, and nothing the client did not declare.
    fn may_ask(&self, result: &Raw) -> Result<(), RpcError> {
        let required = InputRequired::parse(result)
            .map_err(|error| RpcError::internal(format!("the server sent {error}")))?;
        let Some(required) = required else {
            return Ok(());
        };
        let method = &self.call.method;
        if !method::allows_input_required(method) {
            let message = format!("the server asked for input, which {method} does not allow");
            return Err(RpcError::internal(message));
        }
        let undeclared = required.questions.iter().find_map(|question| {
            let kind = InputKind::of(&question.method, question.params.as_deref());
            (!self.call.capabilities.allows(kind)).then_some(kind)
        });
        match undeclared {
            Some(kind) => Err(RpcError::missing_capability(&kind.required())),
            None => Ok(()),
        }
    }

    /// A 2025-11-25 server's "visit these URLs first" as questions; the retry
    /// sends the call again.
    fn url_elicitation(&self, error: &Raw) -> Option<Answer> {
        let mut required = InputRequired::from_url_error(error)?;
        if !self.call.capabilities.allows(InputKind::ElicitUrl) {
            return Some(Answer::error(&RpcError::missing_capability(
                &InputKind::ElicitUrl.required(),
            )));
        }
        let digest = ask::digest(
            &self.call.server.id,
            &self.call.method,
            self.call.params.as_deref(),
        );
        for question in &mut required.questions {
            let params = question.params.take();
            question.params = params
                .map(|params| shape::question_for_modern(&question.method, &params).into_owned());
        }
        required.state =
            Some(State::SendAgain { digest }.seal(&self.relay.sealer, &self.call.principal));
        Some(Answer::Result(required.to_raw()))
    }
}

enum Resume {
    /// An ordinary call.
    AsIs,
    /// The call again, with these parameters.
    SendAgain(Option<Box<Raw>>),
    /// A parked call.
    Claim {
        holder: String,
        round: u32,
        answers: Vec<(String, Box<Raw>)>,
    },
}
