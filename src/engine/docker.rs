//! A Docker engine, through its API: the only place that knows bollard.
//!
//! Every operation has a time limit and a turn: at most
//! `engine.docker.max_in_flight` at once, so that twenty deployments do not
//! become sixty requests to an engine that is slow already; pulls have turns
//! of their own. What is asked and answered here is told in the words of
//! [`crate::engine`].
//!
//! `call` is how anything is asked, `availability` what is known of the
//! engine as a whole; `image`, `network` and `bridge` prepare what containers
//! need, `body` turns a spec into what the engine is told, `container` looks
//! after them, `logs`, `stats` and `events` listen; `place` finds out where
//! this node runs, `leftovers` clears up.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use tokio::{
    sync::{OnceCell, Semaphore, watch},
    time::Instant,
};

use self::{image::Pulls, place::Place};
use super::{
    Availability, Cause, EngineError, EngineInfo, Operation, Settings, Subject, Subnets, labels,
};

mod availability;
mod body;
mod bridge;
mod call;
mod container;
mod elf;
mod events;
mod image;
mod info;
mod leftovers;
mod logs;
mod network;
mod place;
mod stats;

pub use self::{
    bridge::bridge_path,
    elf::{Program, inspect_program},
};

/// Containers that are being stopped at once.
const PATIENT: usize = 32;
/// Pulls at once: they share one line to the registry anyway.
const PULLS: usize = 2;

/// A Docker engine. Cheap to make: nothing is asked before it is needed.
pub struct Docker {
    settings: Settings,
    client: OnceLock<bollard::Docker>,
    turns: Arc<Semaphore>,
    patient_turns: Arc<Semaphore>,
    pull_turns: Semaphore,
    pulls: Pulls,
    place: OnceCell<Place>,
    subnets: Subnets,
    delivered: Mutex<Option<bridge::Delivered>>,
    availability: watch::Sender<Availability>,
    /// When the engine was last heard of, or found silent.
    heard: Mutex<Option<Instant>>,
}

impl Docker {
    /// An engine by its settings. Asks nothing yet.
    ///
    /// # Errors
    /// When the address is none that this program can use.
    pub fn connect(settings: Settings) -> Result<Arc<Self>, EngineError> {
        call::check_host(&settings.host)?;
        Ok(Arc::new(Self {
            turns: Arc::new(Semaphore::new(settings.max_in_flight.max(1))),
            patient_turns: Arc::new(Semaphore::new(PATIENT)),
            pull_turns: Semaphore::new(PULLS),
            settings,
            client: OnceLock::new(),
            pulls: Pulls::default(),
            place: OnceCell::new(),
            subnets: Subnets::default(),
            delivered: Mutex::default(),
            availability: watch::Sender::new(Availability::Unknown),
            heard: Mutex::default(),
        }))
    }

    /// The addresses of the fleet's servers, as far as this node may be
    /// dialled from there.
    #[must_use]
    pub fn subnets(&self) -> &Subnets {
        &self.subnets
    }

    /// The settings it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Docker")
            .field("host", &self.settings.host)
            .field("availability", &self.availability())
            .finish_non_exhaustive()
    }
}
