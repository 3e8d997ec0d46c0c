//! Waiting for a server that is about to be back, where nobody else can take
//! a call: one that a deployment runs and that is being started again, or one
//! whose bridge says that it did not give it the call.
//!
//! Nothing is sent in the meantime but a question whether it is back, with
//! growing pauses; that is no retry in the sense of `upstream.retries`, which
//! bounds what replicas that work are asked again.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::Relay;
use crate::{
    bridge::not_taken::Reason,
    registry::DEPLOYMENT,
    servers::{Server, Servers},
    upstream::UpstreamError,
};

/// Longest wait for a server to be back.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pauses between two attempts: they double from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(30);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// How long a call has waited for its server to be back.
#[derive(Debug, Default)]
pub(super) struct Comeback {
    until: Option<Instant>,
    attempts: u32,
}

impl Comeback {
    /// When to try again after `error`; `None`: not within the time there is.
    fn next(
        &mut self,
        server: &Server,
        error: &UpstreamError,
        now: Instant,
        deadline: Instant,
    ) -> Option<Instant> {
        let until = *self.until.get_or_insert(now + PATIENCE);
        let doublings = self.attempts.min(8);
        self.attempts += 1;
        let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LAST_PAUSE);
        let pause = pause.mul_f64(rand::random_range(0.7..=1.0));
        let at = now + pause.max(away(server, error)?);
        (at < until.min(deadline)).then_some(at)
    }
}

/// How long it is away at least; `None`: nothing says that it comes back.
fn away(server: &Server, error: &UpstreamError) -> Option<Duration> {
    // Whatever else it was: the call may have run, or will not run then either.
    if !error.is_safe_to_retry() {
        return None;
    }
    let is_deployed = server.origin == DEPLOYMENT;
    match error.root() {
        UpstreamError::NotTaken(not_taken, _) => match not_taken.reason {
            Reason::Busy => None,
            Reason::Down => Some(not_taken.after),
            // Another may be there sooner.
            Reason::Stopping => Some(Duration::ZERO),
        },
        UpstreamError::ConnectFailed(_) | UpstreamError::Closed { .. } if is_deployed => {
            Some(Duration::ZERO)
        }
        UpstreamError::ConnectFailed(_)
        | UpstreamError::SpawnFailed(_)
        | UpstreamError::NotReady(_)
        | UpstreamError::Busy(_)
        | UpstreamError::Stopping
        | UpstreamError::TimedOut { .. }
        | UpstreamError::Closed { .. }
        | UpstreamError::Http { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::TooLarge { .. }
        | UpstreamError::Malformed(_)
        | UpstreamError::Incompatible(_)
        | UpstreamError::SessionLost
        | UpstreamError::SessionGone
        | UpstreamError::NotOffered(_)
        | UpstreamError::NoSuchQuestion => None,
    }
}

impl Relay {
    /// Waits until it is worth trying the server again: it has other replicas
    /// by then, or a pause is over. `None` when it is gone, or will not be back
    /// in time.
    pub(super) async fn comeback(
        &self,
        comeback: &mut Comeback,
        server: &Arc<Server>,
        error: &UpstreamError,
        deadline: Instant,
    ) -> Option<Arc<Server>> {
        let at = comeback.next(server, error, Instant::now(), deadline)?;
        tokio::select! {
            () = sleep_until(at) => {}
            () = changed(&self.servers, server) => {}
        }
        self.servers.get(server.id.as_str())
    }
}

/// Completes when the server is another one, or none.
async fn changed(servers: &Servers, server: &Arc<Server>) {
    let mut changes = pin!(servers.watch());
    loop {
        let now = servers.get(server.id.as_str());
        if now.is_none_or(|now| !Arc::ptr_eq(&now, server)) || changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        balance::Policy,
        bridge::not_taken::NotTaken,
        ids::ServerId,
        servers::{Endpoint, Replica},
    };

    fn server(origin: &'static str) -> Server {
        let id = ServerId::try_from("notes").unwrap();
        let replica = Arc::new(Replica::new(id.clone(), Endpoint::Demo, 1));
        let timeout = Duration::from_secs(30);
        Server::new(id, vec![replica], Policy::default(), timeout, origin)
    }

    fn not_taken(reason: Reason, after_ms: u64) -> UpstreamError {
        let after = Duration::from_millis(after_ms);
        UpstreamError::NotTaken(NotTaken { reason, after }, "".into())
    }

    fn refused() -> UpstreamError {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        UpstreamError::ConnectFailed(Arc::new(refused))
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_about_to_be_back_is_waited_for() {
        let (deployed, other) = (server(DEPLOYMENT), server("config"));
        let now = Instant::now();
        let deadline = now + Duration::from_secs(20);
        let next = |server: &Server, error: &UpstreamError| {
            let at = Comeback::default().next(server, error, now, deadline);
            at.map(|at| (at - now).as_millis())
        };
        assert!(next(&deployed, &refused()).is_some_and(|ms| ms <= 30));
        assert!(next(&other, &refused()).is_none());
        let ended = UpstreamError::Closed {
            before_headers: true,
            cause: None,
        };
        // It may have run.
        assert!(next(&deployed, &ended).is_none());
        assert!(next(&deployed, &UpstreamError::NotReady(Box::new(ended))).is_some());
        for server in [&deployed, &other] {
            assert!(next(server, &not_taken(Reason::Stopping, 1000)).is_some_and(|ms| ms <= 30));
            assert_eq!(next(server, &not_taken(Reason::Down, 2500)), Some(2500));
            assert_eq!(next(server, &not_taken(Reason::Down, 30_000)), None);
            assert_eq!(next(server, &not_taken(Reason::Busy, 1)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end() {
        let server = server(DEPLOYMENT);
        let mut comeback = Comeback::default();
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(60);
        let mut attempts = 0;
        while let Some(at) = comeback.next(&server, &refused(), Instant::now(), deadline) {
            assert!(at - Instant::now() <= LAST_PAUSE);
            tokio::time::sleep_until(at).await;
            attempts += 1;
        }
        assert!(begun.elapsed() > PATIENCE - LAST_PAUSE && begun.elapsed() <= PATIENCE);
        assert!((30..60).contains(&attempts), "{attempts}");
    }
}
