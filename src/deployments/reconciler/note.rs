//! What becomes of containers and steps, as far as it is remembered.

use std::collections::BTreeSet;

use tokio::{
    task::{Id, JoinError},
    time::Instant,
};

use super::{Memory, SOON, START_LIMIT, WRONG_LIMIT, Watch};
use crate::{
    deployments::{
        definition::Definition,
        jobs::{Done, Outcome},
        naming::Found,
        status::Trouble,
    },
    engine::{Action as Happened, EngineEvent, State},
    ids::ServerId,
    secrets::Secrets,
};

impl Watch {
    pub(super) fn heard(&mut self, event: &EngineEvent) {
        match event {
            // A start says nothing more: whatever ran before has died.
            EngineEvent::Container {
                name,
                action: Happened::Died(_),
            } => {
                for memory in self.memories.values_mut() {
                    // What comes of a step is told by the step.
                    if memory.history.is_known(name) && !self.busy.contains_key(name) {
                        memory.history.entry(name).interrupted();
                    }
                }
            }
            EngineEvent::Container { .. } | EngineEvent::Connected | EngineEvent::Lost(_) => {}
        }
    }

    /// A container was found to have ended.
    pub(super) fn note_end(
        &mut self,
        deployment: &str,
        name: &str,
        found: &[Found],
        definition: Option<&Definition>,
        memory: &mut Memory,
    ) {
        let one = found.iter().find(|found| found.seen.name == name);
        let Some(State::Exited(exit)) = one.map(|found| &found.container.state) else {
            return;
        };
        tracing::warn!(deployment, container = name, %exit, "a container ended");
        let trouble = Trouble {
            reason: format!("container {name} {exit}"),
            exit: Some(exit.clone()),
            ..Trouble::default()
        };
        memory.troubles.insert(name.to_owned(), trouble);
        let secrets = definition.map(Definition::secrets).unwrap_or_default();
        self.running
            .spawn(self.jobs.last_lines(deployment, name, secrets));
        if let Some(found) = one {
            let container = &found.container;
            self.running
                .spawn(self.jobs.killer(deployment, container, exit));
        }
    }

    /// A step's task is over.
    pub(super) fn note_task(&mut self, done: Result<(Id, Done), JoinError>) {
        match done {
            Ok((_, done)) => self.note(done),
            // Given up, or it panicked; what it left is found by the next look.
            Err(error) => {
                self.busy.retain(|_, busy| busy.handle.id() != error.id());
                self.is_tidying &= !error.is_panic();
            }
        }
    }

    /// What came of a step.
    fn note(&mut self, done: Done) {
        let Done {
            deployment,
            container,
            outcome,
        } = done;
        if let Outcome::Tidied(outcome) = outcome {
            self.is_tidying = false;
            if let Err(error) = outcome {
                tracing::debug!(%error, "what nobody uses is left for later");
            }
            return;
        }
        let (now, pace) = (Instant::now(), self.node.settings.pace);
        let secrets = self.secrets(&deployment);
        let memory = self.memories.entry(deployment.clone()).or_default();
        if let Outcome::Nothing = outcome {
            return;
        }
        if let Outcome::Pressed(words) = outcome {
            let before = match words {
                Some(words) => memory.pressed.insert(container.clone(), words),
                None => memory.pressed.remove(&container),
            };
            if before.is_none()
                && let Some(words) = memory.pressed.get(&container)
            {
                tracing::warn!(deployment, container, words, "a container is at its bounds");
            }
            return;
        }
        if let Outcome::MetItsLimit(exit) = outcome {
            tracing::warn!(deployment, container, %exit, "what killed a container is known");
            if let Some(trouble) = memory.troubles.get_mut(&container) {
                trouble.reason = format!("container {container} {exit}");
                trouble.exit = Some(exit);
            }
            return;
        }
        if let Outcome::Printed(log) = outcome {
            if let Some(trouble) = memory.troubles.get_mut(&container) {
                trouble.log = log;
                trouble.is_failure = memory.silent.contains_key(&container);
            }
            return;
        }
        self.busy.remove(&container);
        let past = memory.history.entry(&container);
        match outcome {
            Outcome::Created(image) => {
                past.started();
                memory.image = Some(image);
                memory.troubles.remove(&container);
            }
            Outcome::Started => {
                past.started();
                past.restarts += 1;
                let server = ServerId::try_from(deployment.as_str());
                if let Ok(server) = server {
                    self.node.parts.metrics.restarted(&server);
                }
            }
            Outcome::Answered(since) => {
                past.answered(since, now);
                memory.troubles.remove(&container);
                memory.silent.remove(&container);
            }
            Outcome::Silent(silence) => {
                let since = *memory.silent.entry(container.clone()).or_insert(now);
                let limit = if silence.is_wrong {
                    WRONG_LIMIT
                } else {
                    START_LIMIT
                };
                let trouble = memory.troubles.entry(container.clone()).or_default();
                trouble.reason = secrets.hide(&silence.reason);
                // Told as a failure together with what it printed.
                if now.duration_since(since) >= limit && !trouble.is_failure {
                    self.running
                        .spawn(self.jobs.last_lines(&deployment, &container, secrets));
                }
            }
            Outcome::Stopped => {}
            Outcome::Removed => self.is_untidy = true,
            Outcome::Failed(error) => {
                let shown = secrets.hide(&error.to_string());
                tracing::warn!(deployment, container, error = shown, "a step failed");
                if error.is_unavailable() {
                    // That is not the container's fault.
                    past.not_before = Some(now + SOON);
                    return;
                }
                past.failed(now, &pace);
                if !error.is_transient() {
                    // Nothing changes by itself, but people may change it.
                    past.not_before = Some(now + pace.backoff_cap);
                }
                let trouble = memory.troubles.entry(container).or_default();
                trouble.is_final = !error.is_transient();
                trouble.reason = secrets.hide(&error.to_string());
            }
            Outcome::Printed(_)
            | Outcome::MetItsLimit(_)
            | Outcome::Pressed(_)
            | Outcome::Nothing
            | Outcome::Tidied(_) => {}
        }
    }

    /// Ends the making of containers that are not wanted any more.
    pub(super) fn give_up(&self, deployment: &str, wanted: &BTreeSet<String>) {
        for (name, busy) in &self.busy {
            if busy.deployment == deployment && busy.is_creation && !wanted.contains(name) {
                busy.handle.abort();
            }
        }
    }

    /// What must not be told of a deployment.
    fn secrets(&self, deployment: &str) -> Secrets {
        let known = self.node.known();
        let wanted = known.wanted.get(deployment);
        let definition = wanted.and_then(|wanted| wanted.definition.as_ref().ok());
        definition.map(|known| known.secrets()).unwrap_or_default()
    }
}
