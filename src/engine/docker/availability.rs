//! Whether the engine can be used: what the last answer, or its absence, told.
//!
//! Every operation tells: nobody has to ask an engine that is in use anyway.
//! When nothing was asked for `cache.engines.fresh`, [`Docker::check`] asks;
//! the stream of events corrects what is known at once.

use tokio::{sync::watch, time::Instant};

use super::{Availability, Docker, EngineError, Operation, call::locked};

impl Docker {
    /// What is known of the engine, without asking it.
    #[must_use]
    pub fn availability(&self) -> Availability {
        self.availability.borrow().clone()
    }

    /// What is known of the engine; asks when nothing fresh is known. At most
    /// as long as one operation takes.
    pub async fn check(&self) -> Availability {
        let heard = *locked(&self.heard);
        if heard.is_none_or(|at| at.elapsed() >= self.settings.fresh) {
            // What it comes to is noted.
            self.ping().await.ok();
        }
        self.availability()
    }

    /// Hears when that changes.
    #[must_use]
    pub fn watch_availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    /// Asks the engine for a sign of life.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn ping(&self) -> Result<(), EngineError> {
        let about = self.about_engine(Operation::Reach);
        // Without a turn: whether the engine lives must not wait behind what
        // it is slow at.
        let limit = self.settings.timeout;
        let ping = async |client: bollard::Docker| client.ping().await;
        self.bounded(limit, &about, ping).await.map(drop)
    }

    /// The engine has answered, whatever it said.
    pub(super) fn note_answer(&self) {
        self.note(Availability::Available);
    }

    /// The engine has not answered.
    pub(super) fn note_failure(&self, error: &EngineError) {
        self.note(Availability::Unavailable(error.clone()));
    }

    fn note(&self, state: Availability) {
        let host = &self.settings.host;
        *locked(&self.heard) = Some(Instant::now());
        self.availability.send_if_modified(|known| {
            let is_change = std::mem::discriminant(known) != std::mem::discriminant(&state);
            match &state {
                // Most machines have none, and need none.
                Availability::Unavailable(error) if *known == Availability::Unknown => {
                    tracing::info!(engine = host, %error, "this node has no engine");
                }
                Availability::Unavailable(error) if is_change => {
                    tracing::warn!(engine = host, %error, "the engine is not available");
                }
                Availability::Available if is_change && *known != Availability::Unknown => {
                    tracing::info!(engine = host, "the engine is available again");
                }
                Availability::Unknown | Availability::Available | Availability::Unavailable(_) => {}
            }
            *known = state;
            is_change
        });
    }
}
