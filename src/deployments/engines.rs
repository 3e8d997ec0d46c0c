//! The engine this node has: which one it is, whether it answers, and whether
//! looking after it is this node's to offer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::definition::EngineRef;
use crate::{
    cluster::membership::View,
    engine::{Availability, docker::Docker},
};

/// Pause between two questions to an engine that did not answer.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(3);

/// This node's engine.
#[derive(Debug)]
pub struct OwnEngine {
    /// The way to it.
    pub docker: Arc<Docker>,
    identity: Mutex<Option<EngineRef>>,
}

impl OwnEngine {
    /// Which engine it is has to be asked first: [`identify`](Self::identify).
    #[must_use]
    pub fn new(docker: Arc<Docker>) -> Self {
        Self {
            docker,
            identity: Mutex::default(),
        }
    }

    /// Which engine it is, as soon as it has answered once.
    #[must_use]
    pub fn identity(&self) -> Option<EngineRef> {
        self.lock().clone()
    }

    /// Which engines this node offers the others now.
    #[must_use]
    pub fn offered(&self) -> Vec<String> {
        let is_there = self.docker.availability().is_available();
        let identity = self.identity().filter(|_| is_there);
        identity.iter().map(ToString::to_string).collect()
    }

    /// Why it does not answer, for people.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match self.docker.availability() {
            Availability::Unavailable(error) => Some(error.to_string()),
            Availability::Unknown | Availability::Available => None,
        }
    }

    /// Asks the engine whether it answers and, the first time, which it is.
    /// Another one at the same address is another engine.
    pub async fn identify(&self) -> Option<EngineRef> {
        let known = self.identity();
        let was_there = self.docker.availability().is_available();
        if known.is_some() && was_there {
            self.docker.check().await;
            return known;
        }
        let info = self.docker.info().await.ok()?;
        let found = EngineRef::docker(&info.id);
        if known.as_ref() != Some(&found) {
            tracing::info!(engine = %found, version = info.version, "this node has an engine");
            *self.lock() = Some(found.clone());
        }
        Some(found)
    }

    /// Whether this node takes part in looking after it: also while it does not
    /// answer, unless it answers others.
    pub(super) fn is_ours(&self, identity: &EngineRef, me: &str, view: &View) -> bool {
        let name = identity.to_string();
        let others = view.members.iter();
        let mut others = others.filter(|member| member.incarnation.as_str() != me);
        self.docker.availability().is_available()
            || !others.any(|member| member.about.engines.contains(&name))
    }

    fn lock(&self) -> MutexGuard<'_, Option<EngineRef>> {
        // Replaced whole: a panic cannot leave one in between.
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
