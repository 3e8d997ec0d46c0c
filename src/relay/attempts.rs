//! One call and the replicas it is tried at: which one first, and what may be
//! sent again.
//!
//! A call goes to another replica when it certainly did not run, or when its
//! tool says that running twice does no harm; never after the client was sent
//! any part of the answer. All attempts share the call's deadline, the number
//! of retries is bounded per call (`upstream.retries`) and as a share of a
//! server's calls (`upstream.retry_budget`).

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::{BoxFuture, select_ok};
use tokio::time::Instant;

use super::{Call, Relay, RelayError, comeback::Comeback};
use crate::{
    breaker::{Failure, Told},
    ids::{ReplicaId, ServerId},
    mcp::{
        message::{Answer, RequestId},
        version::Era,
    },
    servers::{InFlight, Place, Replica, Server, Turned},
    telemetry::metrics::{QueueWait, Retry},
    upstream::{ClientSession, Event, Exchange, Outgoing, SessionUse, UpstreamError},
};

/// What was tried for a call so far.
#[derive(Debug, Default)]
struct Attempts {
    tried: Vec<ReplicaId>,
    retries: u32,
    comeback: Comeback,
}

/// A replica that was chosen for a call.
struct Chosen {
    replica: Arc<Replica>,
    /// Whether the client's session has begun there.
    bound: bool,
}

impl Relay {
    /// Sends the call to a replica, or to several until one has taken it.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        call: &Call,
        deadline: Instant,
    ) -> Result<Begun, RelayError> {
        call.server.count_call(self.settings.retry_budget);
        self.attempt(call, Attempts::default(), deadline).await
    }

    async fn attempt(
        self: &Arc<Self>,
        call: &Call,
        mut attempts: Attempts,
        deadline: Instant,
    ) -> Result<Begun, RelayError> {
        // Its server is another one when it had to be waited for.
        let mut call = Cow::Borrowed(call);
        let Some(mut chosen) = self.choose(&call, &attempts.tried).await else {
            let server = call.server.id.clone();
            return Err(RelayError::NoReplica { server });
        };
        loop {
            let place = self
                .pass_gate(&call, &mut chosen, &attempts.tried, deadline)
                .await?;
            let in_flight = chosen.replica.begin();
            let error = match self.send(&call, &chosen.replica, deadline).await {
                Ok(exchange) => {
                    return Ok(Begun {
                        exchange,
                        server: call.server.id.clone(),
                        in_flight,
                        _place: place,
                        again: Again::new(self, &call, attempts),
                    });
                }
                Err(error) => error,
            };
            in_flight.tells(error.tells());
            drop((in_flight, place));
            tracing::info!(
                replica = %chosen.replica.id,
                error = &error as &dyn std::error::Error,
                "a replica did not take a call"
            );
            let mut next = self
                .another(&call, &mut attempts, &chosen, &error, deadline)
                .await;
            if next.is_none() {
                next = self
                    .once_back(&mut call, &mut attempts, &chosen, &error, deadline)
                    .await;
            }
            let Some(next) = next else {
                return Err(RelayError::Upstream {
                    server: call.server.id.clone(),
                    source: error,
                });
            };
            chosen = next;
        }
    }

    /// The replica to try when nobody else can be: once the server is back.
    async fn once_back(
        &self,
        call: &mut Cow<'_, Call>,
        attempts: &mut Attempts,
        failed: &Chosen,
        error: &UpstreamError,
        deadline: Instant,
    ) -> Option<Chosen> {
        let comeback = &mut attempts.comeback;
        let server = self
            .comeback(comeback, &call.server, error, deadline)
            .await?;
        self.unbind_if_gone(call, failed, error);
        if !Arc::ptr_eq(&server, &call.server) {
            call.to_mut().server = server;
        }
        attempts.tried.clear();
        let next = self.choose(call, &[]).await?;
        self.metrics.retry(&call.server.id, Retry::NotSent);
        Some(next)
    }

    /// A session that has begun at a replica which is gone may begin elsewhere.
    fn unbind_if_gone(&self, call: &Call, failed: &Chosen, error: &UpstreamError) {
        if let Some(session) = &call.session
            && is_gone(error)
        {
            self.upstreams.unbind(&session.key, &failed.replica.id);
        }
    }

    /// Waits for a place where replicas take so many calls only: at the chosen
    /// one, and while it has none also at others, unless the call belongs there.
    async fn pass_gate(
        &self,
        call: &Call,
        chosen: &mut Chosen,
        tried: &[ReplicaId],
        deadline: Instant,
    ) -> Result<Option<Place>, RelayError> {
        let Some(gate) = chosen.replica.gate() else {
            return Ok(None);
        };
        if let Some(place) = gate.try_enter() {
            return Ok(Some(place));
        }
        let begun = Instant::now();
        let queues = match call.session {
            Some(_) => vec![Arc::clone(&chosen.replica)],
            None => call.server.queues(&chosen.replica, tried),
        };
        let entering = queues.into_iter().filter_map(|replica| {
            let gate = Arc::clone(replica.gate()?);
            Some(Box::pin(async move {
                gate.enter(deadline).await.map(|place| (replica, place))
            }))
        });
        let entered = select_ok(entering).await;
        let (how, passed) = match entered {
            Ok(((replica, place), _others)) => {
                chosen.replica = replica;
                (QueueWait::Passed, Ok(Some(place)))
            }
            Err(Turned::QueueFull) => (
                QueueWait::Full,
                Err("too many calls wait for the server (max_in_flight, queue)"),
            ),
            Err(Turned::WaitedTooLong) => (
                QueueWait::TooLong,
                Err("the server is busy (max_in_flight, queue_timeout)"),
            ),
        };
        let server = &call.server.id;
        self.metrics.queue_wait(server, how, begun.elapsed());
        passed.map_err(|why| RelayError::Upstream {
            server: server.clone(),
            source: UpstreamError::Busy(why),
        })
    }

    async fn send(
        &self,
        call: &Call,
        replica: &Arc<Replica>,
        deadline: Instant,
    ) -> Result<Exchange, UpstreamError> {
        let outgoing = Outgoing {
            method: &call.method,
            params: call.params.as_deref(),
            capabilities: &call.capabilities,
            log_level: call.log_level,
            progress_token: call.progress_token.clone(),
            trace: call.trace.clone(),
            headers: call.headers.clone(),
        };
        let session = call
            .session
            .clone()
            .map_or(SessionUse::Pooled, SessionUse::Dedicated);
        self.upstreams
            .call(replica, outgoing, session, deadline)
            .await
    }

    /// The replica to try after one failed, if the call may and can be sent
    /// again; then the retry is paid for.
    async fn another(
        &self,
        call: &Call,
        attempts: &mut Attempts,
        failed: &Chosen,
        error: &UpstreamError,
        deadline: Instant,
    ) -> Option<Chosen> {
        let why = reason(call, error)?;
        // A session that has begun is known to its replica only. It is moved,
        // and made anew, when that one is gone; nothing is guessed before.
        if failed.bound && !is_gone(error)
            || attempts.retries >= self.settings.retries
            || Instant::now() >= deadline
        {
            return None;
        }
        self.unbind_if_gone(call, failed, error);
        attempts.tried.push(failed.replica.id.clone());
        let next = self.choose(call, &attempts.tried).await?;
        if !call.server.spend_retry() {
            tracing::debug!(server = %call.server.id, "no retries are left for now");
            return None;
        }
        attempts.retries += 1;
        self.metrics.retry(&call.server.id, why);
        Some(next)
    }

    async fn choose(&self, call: &Call, tried: &[ReplicaId]) -> Option<Chosen> {
        let Some(session) = &call.session else {
            let replica = call.server.pick(tried)?;
            return Some(Chosen {
                replica,
                bound: false,
            });
        };
        self.home(&call.server, session, tried).await
    }

    /// The replica of a client's session: the one where it has begun, which
    /// all nodes know, else the one where all nodes begin it.
    async fn home(
        &self,
        server: &Server,
        session: &ClientSession,
        tried: &[ReplicaId],
    ) -> Option<Chosen> {
        let bound = match server.replicas.len() {
            0 | 1 => None,
            _ => self.upstreams.bound_replica(&session.key, server).await,
        };
        let bound = bound.filter(|bound| !tried.contains(bound));
        if let Some(replica) = bound.and_then(|bound| server.replica(bound.as_str()).cloned()) {
            let bound = true;
            return Some(Chosen { replica, bound });
        }
        let replica = server.home_of(&session.key, tried)?;
        let bound = false;
        Some(Chosen { replica, bound })
    }

    /// The replica that what belongs to a client's session is sent to.
    pub(crate) async fn home_of(
        &self,
        server: &Server,
        session: &ClientSession,
    ) -> Option<Arc<Replica>> {
        Some(self.home(server, session, &[]).await?.replica)
    }
}

fn is_gone(error: &UpstreamError) -> bool {
    error.tells() == Told::Failed(Failure::Unreachable)
}

/// Why a failed call may be sent again; `None`: it may not.
fn reason(call: &Call, error: &UpstreamError) -> Option<Retry> {
    if error.is_safe_to_retry() {
        Some(Retry::NotSent)
    } else if call.repeatable && error.is_worth_repeating() {
        Some(Retry::Idempotent)
    } else {
        None
    }
}

/// A call a replica has taken; counted as in flight until dropped.
#[derive(Debug)]
pub(crate) struct Begun {
    exchange: Exchange,
    server: ServerId,
    in_flight: InFlight,
    _place: Option<Place>,
    /// Until the replica has said something, for calls that can be repeated.
    again: Option<Box<Again>>,
}

/// What it takes to send a call again.
struct Again {
    relay: Arc<Relay>,
    call: Call,
    attempts: Attempts,
    /// The attempt under way; kept here so that whoever waits may stop
    /// waiting. Never locked: the mutex makes it `Sync`.
    trying: Option<Mutex<BoxFuture<'static, Result<Begun, RelayError>>>>,
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Again")
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

impl Again {
    fn new(relay: &Arc<Relay>, call: &Call, attempts: Attempts) -> Option<Box<Self>> {
        let can_be_repeated = call.repeatable
            && call.server.replicas.len() > 1
            && attempts.retries < relay.settings.retries;
        can_be_repeated.then(|| {
            Box::new(Self {
                relay: Arc::clone(relay),
                call: call.clone(),
                attempts,
                trying: None,
            })
        })
    }
}

impl Begun {
    /// What the replica says next, at the latest at `deadline`. Cancel safe.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Event, RelayError> {
        loop {
            if let Some(again) = &mut self.again
                && let Some(trying) = &mut again.trying
            {
                let trying = trying.get_mut();
                let outcome = trying.unwrap_or_else(PoisonError::into_inner).await;
                again.trying = None;
                *self = outcome?;
            }
            self.exchange.set_deadline(Some(deadline));
            let error = match self.exchange.next().await {
                Ok(event) => {
                    self.in_flight.heard();
                    self.again = None;
                    return Ok(event);
                }
                Err(error) => error,
            };
            self.in_flight.tells(error.tells());
            if !self.try_again(&error, deadline) {
                return Err(self.failed(error));
            }
        }
    }

    /// Begins another attempt, if there may be one.
    fn try_again(&mut self, error: &UpstreamError, deadline: Instant) -> bool {
        let Some(again) = &mut self.again else {
            return false;
        };
        if reason(&again.call, error).is_none() || Instant::now() >= deadline {
            self.again = None;
            return false;
        }
        let (relay, call) = (Arc::clone(&again.relay), again.call.clone());
        let mut attempts = std::mem::take(&mut again.attempts);
        let failed = Chosen {
            replica: Arc::clone(self.in_flight.replica()),
            bound: call.session.is_some(),
        };
        let error = error.clone();
        let trying: BoxFuture<'static, _> = Box::pin(async move {
            let another = relay
                .another(&call, &mut attempts, &failed, &error, deadline)
                .await;
            match another {
                Some(_) => relay.attempt(&call, attempts, deadline).await,
                None => Err(RelayError::Upstream {
                    server: call.server.id.clone(),
                    source: error,
                }),
            }
        });
        again.trying = Some(Mutex::new(trying));
        true
    }

    /// Answers a question of the replica.
    pub(crate) async fn answer(
        &mut self,
        key: &RequestId,
        answer: &Answer,
    ) -> Result<(), RelayError> {
        self.exchange
            .answer(key, answer)
            .await
            .map_err(|source| self.failed(source))
    }

    /// The era spoken with the replica.
    pub(crate) fn era(&self) -> Era {
        self.exchange.upstream_version().era()
    }

    fn failed(&self, source: UpstreamError) -> RelayError {
        RelayError::Upstream {
            server: self.server.clone(),
            source,
        }
    }
}
