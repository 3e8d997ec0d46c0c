//! Calls that wait at a legacy server for the answers of a modern client.
//!
//! A modern client's request ends with the question; its answers arrive with a
//! new request, on any node. Between the two the call is *parked*: a task on
//! the node that made it keeps the exchange open and has a mailbox.
//!
//! ```text
//!             question                     claim(round n)
//!   flow ───────────────► parked(round n) ───────────────► claimed ──► done
//!                            │     ▲                          │
//!                   too long │     └───── next question ──────┤ (round n+1)
//!                            ▼                                ▼
//!                          ended ◄──────────────── claimer went away
//! ```
//!
//! The holder is the one place that decides about claims, so a round is
//! claimed once, whichever nodes the claimers speak from; the others are
//! refused. A holder that died answers nobody, and the claimer's own short
//! deadline ends its wait: the call is never run again behind its back.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Begun, Call, Relay, RelayError,
    ask::State,
    mailbox::{Delivery, Letter, Mailbox},
};
use crate::{
    ids::hex,
    mcp::{
        Raw,
        error::RpcError,
        message::Answer,
        mrtr::{InputRequired, Question},
        shape,
    },
    upstream::{Ask, Event},
};

/// A holder that is alive answers a claim well within this.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);
/// Notifications kept while nobody listens; the oldest go first.
const MAX_KEPT: usize = 256;

/// Leaves the call with this node and answers the question in the client's place.
pub(crate) async fn park(
    relay: &Arc<Relay>,
    begun: Begun,
    call: &Call,
    digest: String,
    ask: Ask,
) -> Result<Answer, RelayError> {
    let permit = Arc::clone(&relay.parked)
        .try_acquire_owned()
        .map_err(|_| RelayError::TooManyParked)?;
    let address: Arc<str> = format!("call-{}", hex(&rand::random::<[u8; 16]>())).into();
    let mut holder = Holder {
        mailbox: relay.mailboxes.open(Arc::clone(&address)).await,
        address,
        relay: Arc::clone(relay),
        begun,
        call: call.clone(),
        digest,
        round: 0,
        questions: Vec::new(),
        kept: VecDeque::new(),
        claimer: None,
        call_ends: Instant::now() + relay.settings.max_duration,
        _permit: permit,
    };
    holder.questions.push((question_key(0, 0), ask));
    let answer = holder.input_required();
    relay.tasks.spawn_brief(holder.hold());
    Ok(answer)
}

fn question_key(round: u32, index: usize) -> String {
    format!("q{round}-{index}")
}

/// Keeps one parked call.
struct Holder {
    relay: Arc<Relay>,
    begun: Begun,
    call: Call,
    digest: String,
    address: Arc<str>,
    mailbox: Mailbox,
    round: u32,
    /// Asked and not yet answered.
    questions: Vec<(String, Ask)>,
    kept: VecDeque<Bytes>,
    /// The mailbox of whoever speaks with the client now.
    claimer: Option<String>,
    call_ends: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Holder {
    async fn hold(mut self) {
        let ending = self.relay.tasks.ending().clone();
        let mut give_up = self.deadline();
        loop {
            let ended = tokio::select! {
                () = ending.cancelled() => true,
                () = tokio::time::sleep_until(give_up) => true,
                letter = self.mailbox.next() => self.received(letter).await,
                event = self.begun.next(self.call_ends) => self.happened(event).await,
            };
            if ended {
                // Dropping the exchange cancels what still runs at the server.
                return self.refuse_the_rest().await;
            }
            give_up = self.deadline();
        }
    }

    /// Claims that came while the call ended came too late, and need not wait
    /// to find out.
    async fn refuse_the_rest(&mut self) {
        while let Some(letter) = self.mailbox.try_next().await {
            if let Letter::Claim { reply_to, .. } = letter {
                self.relay.tell(&reply_to, Letter::Refused).await;
            }
        }
    }

    /// While parked: until the client has to have answered. While claimed:
    /// until the server has to have said something.
    fn deadline(&self) -> Instant {
        let patience = if self.claimer.is_some() {
            self.call.server.timeout
        } else {
            self.relay.settings.answer_timeout
        };
        (Instant::now() + patience).min(self.call_ends)
    }

    /// `true` when the call is over.
    async fn received(&mut self, letter: Letter) -> bool {
        match letter {
            Letter::Claim {
                round,
                answers,
                reply_to,
            } => self.claimed(round, answers, reply_to).await,
            Letter::Abandoned => true,
            _not_for_holders => false,
        }
    }

    async fn claimed(
        &mut self,
        round: u32,
        answers: Vec<(String, Box<Raw>)>,
        reply_to: String,
    ) -> bool {
        if round != self.round || self.claimer.is_some() {
            self.relay.tell(&reply_to, Letter::Refused).await;
            return false;
        }
        self.relay.tell(&reply_to, Letter::Accepted).await;
        self.claimer = Some(reply_to);
        for (key, answer) in answers {
            // Answers to what was not asked are ignored.
            let Some(index) = self.questions.iter().position(|(asked, _)| *asked == key) else {
                continue;
            };
            let (_, ask) = self.questions.swap_remove(index);
            if let Err(error) = self.begun.answer(&ask.key, &Answer::Result(answer)).await {
                return self.finish(Answer::error(&internal(&error))).await;
            }
        }
        for message in std::mem::take(&mut self.kept) {
            self.say(Letter::Notification(message)).await;
        }
        if !self.questions.is_empty() {
            self.ask_client().await;
        }
        false
    }

    async fn happened(&mut self, event: Result<Event, RelayError>) -> bool {
        match event {
            Ok(Event::Notification(message)) => {
                if self.claimer.is_some() {
                    self.say(Letter::Notification(message)).await;
                } else {
                    if self.kept.len() == MAX_KEPT {
                        self.kept.pop_front();
                    }
                    self.kept.push_back(message);
                }
                false
            }
            Ok(Event::Paused { .. }) => false,
            Ok(Event::Ask(ask)) => {
                self.questions
                    .push((question_key(self.round, self.questions.len()), ask));
                if self.claimer.is_some() {
                    self.ask_client().await;
                }
                false
            }
            Ok(Event::Done(answer)) => self.finish(answer).await,
            Err(error) => self.finish(Answer::error(&internal(&error))).await,
        }
    }

    /// Ends the claimer's request with what is open; the call is parked again.
    async fn ask_client(&mut self) {
        self.round += 1;
        let round = self.round;
        for (index, (key, _)) in self.questions.iter_mut().enumerate() {
            *key = question_key(round, index);
        }
        let answer = if round >= self.relay.settings.max_rounds {
            Answer::error(&RpcError::internal(
                "the server asks more questions than this gateway passes on",
            ))
        } else {
            self.input_required()
        };
        self.say(Letter::Done(answer)).await;
        self.claimer = None;
    }

    /// Hands the answer to the claimer; without one, waits for the client to
    /// come and get it.
    async fn finish(&mut self, answer: Answer) -> bool {
        while self.claimer.is_none() {
            let give_up = self.deadline();
            let letter = tokio::select! {
                () = tokio::time::sleep_until(give_up) => return true,
                letter = self.mailbox.next() => letter,
            };
            match letter {
                Letter::Claim {
                    round, reply_to, ..
                } if round == self.round => {
                    self.relay.tell(&reply_to, Letter::Accepted).await;
                    self.claimer = Some(reply_to);
                    for message in std::mem::take(&mut self.kept) {
                        self.say(Letter::Notification(message)).await;
                    }
                }
                Letter::Claim { reply_to, .. } => self.relay.tell(&reply_to, Letter::Refused).await,
                Letter::Abandoned => return true,
                _not_for_holders => {}
            }
        }
        self.say(Letter::Done(answer)).await;
        true
    }

    async fn say(&self, letter: Letter) {
        if let Some(claimer) = &self.claimer {
            self.relay.tell(claimer, letter).await;
        }
    }

    fn input_required(&self) -> Answer {
        let questions = self.questions.iter().map(|(key, ask)| Question {
            key: key.clone(),
            method: ask.method.clone(),
            params: ask
                .params
                .as_deref()
                .map(|params| shape::question_for_modern(&ask.method, params).into_owned()),
        });
        let state = State::Parked {
            mailbox: self.address.to_string(),
            round: self.round,
            digest: self.digest.clone(),
        };
        let state = state.seal(&self.relay.sealer, &self.call.principal);
        let required = InputRequired {
            questions: questions.collect(),
            state: Some(state),
        };
        Answer::Result(required.to_raw())
    }
}

fn internal(error: &RelayError) -> RpcError {
    RpcError::internal(format!(
        "the call failed after its question was answered: {error}"
    ))
}

/// A parked call that was claimed: what it still says.
#[derive(Debug)]
pub(crate) struct Claimed {
    mailbox: Mailbox,
    holder: String,
    relay: Arc<Relay>,
    done: bool,
}

/// Takes a parked call over with the client's answers.
pub(crate) async fn claim(
    relay: &Arc<Relay>,
    holder: String,
    round: u32,
    answers: Vec<(String, Box<Raw>)>,
) -> Result<Claimed, RelayError> {
    let gone = || {
        RpcError::invalid_params("requestState has expired or was used before: send the call anew")
    };
    let address: Arc<str> = format!("claim-{}", hex(&rand::random::<[u8; 16]>())).into();
    let mut mailbox = relay.mailboxes.open(Arc::clone(&address)).await;
    let letter = Letter::Claim {
        round,
        answers,
        reply_to: address.to_string(),
    };
    match relay.mailboxes.send(&holder, letter).await {
        Ok(Delivery::Delivered) => {}
        Ok(Delivery::NobodyThere) => return Err(RelayError::Rpc(gone())),
        Err(error) => {
            tracing::warn!(%error, "a parked call cannot be claimed");
            return Err(RelayError::Unavailable);
        }
    }
    match tokio::time::timeout(CLAIM_TIMEOUT, mailbox.next()).await {
        Ok(Letter::Accepted) => Ok(Claimed {
            mailbox,
            holder,
            relay: Arc::clone(relay),
            done: false,
        }),
        Ok(_) => Err(RelayError::Rpc(gone())),
        Err(_elapsed) => {
            let lost = "the node that held this call is gone, and the call may have run: check before sending it anew";
            Err(RelayError::Rpc(RpcError::internal(lost)))
        }
    }
}

impl Claimed {
    /// What the call says next. Cancel safe.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Event, RelayError> {
        loop {
            let Ok(letter) = tokio::time::timeout_at(deadline, self.mailbox.next()).await else {
                return Err(RelayError::Rpc(RpcError::internal(
                    "the server did not go on in time",
                )));
            };
            match letter {
                Letter::Notification(message) => return Ok(Event::Notification(message)),
                Letter::Done(answer) => {
                    self.done = true;
                    return Ok(Event::Done(answer));
                }
                _not_for_claimers => {}
            }
        }
    }
}

impl Drop for Claimed {
    /// A client that goes away cancels the call, wherever it is held.
    fn drop(&mut self) {
        if !self.done {
            let (relay, holder) = (Arc::clone(&self.relay), std::mem::take(&mut self.holder));
            self.relay
                .tasks
                .spawn_brief(async move { relay.tell(&holder, Letter::Abandoned).await });
        }
    }
}

impl Relay {
    async fn tell(&self, address: &str, letter: Letter) {
        if let Err(error) = self.mailboxes.send(address, letter).await {
            tracing::warn!(%error, "a message about a call did not reach its node");
        }
    }
}
