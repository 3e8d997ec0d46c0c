//! From a plan, and what is known of the containers, to the record that all
//! nodes see. Pure.

use std::collections::BTreeMap;

use super::{
    definition::{Definition, SpecHash},
    history::History,
    naming::Found,
    plan::{Goal, Life, Plan, Seen},
    record::{Phase, PinnedImage, Record, ReplicaRecord, ReplicaState},
};
use crate::engine::{Exit, State};

/// Failures in a row after which trying again is not expected to help soon.
const HOPELESS: u32 = 2;

/// The engine may say later than it says that a container ended.
fn is_limit_met(trouble: Option<&Trouble>) -> bool {
    let exit = trouble.and_then(|trouble| trouble.exit.as_ref());
    exit.is_some_and(|exit| exit.oom_killed)
}

/// What went wrong with a container last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// For people.
    pub reason: String,
    /// Whether trying again without a change by people is of no use.
    pub is_final: bool,
    /// Whether it is taken for failed, however often it was tried.
    pub is_failure: bool,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// The last lines before it did.
    pub log: Vec<String>,
}

/// What a record is made from.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The deployment.
    pub name: &'a str,
    /// What it is to be, where that is known.
    pub definition: Option<&'a Definition>,
    /// What it is to come to.
    pub goal: &'a Goal,
    /// What is to be done next.
    pub plan: &'a Plan,
    /// Its containers.
    pub found: &'a [Found],
    /// What is remembered of them.
    pub history: &'a History,
    /// What went wrong, by container.
    pub troubles: &'a BTreeMap<String, Trouble>,
    /// What is told of containers that have come to their bounds.
    pub pressed: &'a BTreeMap<String, String>,
    /// How far the pull of its image is.
    pub pull: Option<&'a str>,
    /// What replicas are made from.
    pub image: Option<&'a PinnedImage>,
    /// What was told last.
    pub before: Option<&'a Record>,
    /// Names the containers of replicas.
    pub fleet: &'a str,
}

impl Situation<'_> {
    /// What is told now; times and authorship are the caller's to add.
    #[must_use]
    pub fn record(&self) -> Record {
        let mut replicas: Vec<_> = self.found.iter().map(|found| self.replica(found)).collect();
        replicas.extend(self.missing());
        replicas.sort_by(|one, other| {
            (one.ordinal, &one.container).cmp(&(other.ordinal, &other.container))
        });
        let wanted = self.wanted();
        let spec = wanted.map(|(spec, _)| spec.to_string());
        let (phase, culprit) = self.phase(&replicas);
        let trouble = culprit.and_then(|name| self.troubles.get(&name));
        Record {
            name: self.name.to_owned(),
            phase,
            reason: trouble
                .map(|trouble| trouble.reason.clone())
                .or_else(|| self.pressed.values().next().cloned()),
            is_final: trouble.is_some_and(|trouble| trouble.is_final),
            spec: spec.unwrap_or_default(),
            attempt: self.definition.map_or(0, |known| known.attempt),
            template: self.template(),
            engine: self.engine(),
            replicas,
            pull: self.pull.map(ToOwned::to_owned),
            image: self.image.cloned(),
            timeout_ms: self.timeout_ms(),
            ..Record::default()
        }
    }

    fn wanted(&self) -> Option<(&SpecHash, u32)> {
        match self.goal {
            Goal::Run { spec, replicas } => Some((spec, *replicas)),
            Goal::Stopped | Goal::Gone => None,
        }
    }

    fn is_wanted(&self, seen: &Seen) -> bool {
        self.wanted()
            .is_none_or(|(spec, replicas)| seen.spec == *spec && seen.ordinal < replicas)
    }

    fn template(&self) -> String {
        let of_label = || self.found.iter().find_map(Found::definition);
        let template = self.definition.map(|known| known.spec.template.clone());
        template
            .or_else(|| of_label().map(|known| known.spec.template))
            .unwrap_or_default()
    }

    fn engine(&self) -> String {
        let engine = self.definition.map(|known| known.engine.to_string());
        engine
            .or_else(|| self.before.map(|before| before.engine.clone()))
            .unwrap_or_default()
    }

    fn timeout_ms(&self) -> Option<u64> {
        let of_label = || self.found.iter().find_map(Found::definition);
        let timeout = match self.definition {
            Some(known) => known.spec.timeout,
            None => of_label().and_then(|known| known.spec.timeout),
        }?;
        u64::try_from(timeout.as_millis()).ok()
    }

    /// What was told of a container last.
    fn before_of(&self, container: &str) -> Option<&ReplicaRecord> {
        let replicas = self.before?.replicas.iter();
        replicas.into_iter().find(|one| one.container == container)
    }

    fn replica(&self, found: &Found) -> ReplicaRecord {
        let seen = &found.seen;
        let past = self.history.of(&seen.name);
        let before = self.before_of(&seen.name);
        let trouble = self.troubles.get(&seen.name);
        let url = found
            .url()
            .or_else(|| before.and_then(|before| before.url.clone()));
        let exit = match &found.container.state {
            State::Exited(exit) => Some(exit),
            State::Created | State::Running { .. } | State::Paused | State::Going => {
                trouble.and_then(|trouble| trouble.exit.as_ref())
            }
        };
        ReplicaRecord {
            container: seen.name.clone(),
            id: found.container.id.clone(),
            ordinal: seen.ordinal,
            spec: seen.spec.to_string(),
            state: self.state(seen),
            routed: self.plan.routed.contains(&seen.name) && url.is_some(),
            url,
            audience: found.audience(),
            served: past.served,
            told_to_stop: past.told_to_stop,
            ready: past.ready.map(|(life, _)| life),
            restarts: past.restarts,
            failures: past.failures,
            reason: trouble
                .map(|trouble| trouble.reason.clone())
                .or_else(|| self.pressed.get(&seen.name).cloned()),
            exit_code: exit.map(|exit| exit.code),
            oom: exit.is_some_and(|exit| exit.oom_killed) || is_limit_met(trouble),
            log: trouble
                .map(|trouble| trouble.log.clone())
                .unwrap_or_default(),
        }
    }

    fn state(&self, seen: &Seen) -> ReplicaState {
        let is_routed = self.plan.routed.contains(&seen.name);
        let is_in_use = is_routed || self.is_wanted(seen);
        match (seen.life, self.goal) {
            (Life::Running(_) | Life::Paused, Goal::Stopped | Goal::Gone) | (Life::Going, _) => {
                ReplicaState::Draining
            }
            (Life::Running(_), Goal::Run { .. }) if !is_in_use => ReplicaState::Draining,
            (Life::Running(since), Goal::Run { .. }) => {
                match self.history.of(&seen.name).is_ready(since) {
                    true => ReplicaState::Ready,
                    false => ReplicaState::Starting,
                }
            }
            (Life::Paused, Goal::Run { .. }) => ReplicaState::Paused,
            (Life::Created, Goal::Run { .. }) => ReplicaState::Starting,
            (Life::Exited(_), Goal::Run { .. }) if !self.history.of(&seen.name).told_to_stop => {
                ReplicaState::Crashed
            }
            (Life::Created, Goal::Stopped | Goal::Gone) | (Life::Exited(_), _) => {
                ReplicaState::Stopped
            }
        }
    }

    /// Replicas that could not be made, and those that are being made again
    /// while nobody else serves.
    fn missing(&self) -> Vec<ReplicaRecord> {
        let Some((spec, replicas)) = self.wanted() else {
            return Vec::new();
        };
        let name = |ordinal| super::naming::container_name(self.fleet, self.name, spec, ordinal);
        let is_there = |name: &str| self.found.iter().any(|found| found.seen.name == name);
        (0..replicas)
            .map(|ordinal| (ordinal, name(ordinal)))
            .filter(|(_, name)| !is_there(name))
            .filter_map(|(ordinal, container)| {
                let trouble = self.troubles.get(&container);
                let before = self.before_of(&container);
                let url = before.and_then(|before| before.url.clone());
                let routed = self.plan.routed.contains(&container) && url.is_some();
                if trouble.is_none() && !routed {
                    return None;
                }
                let past = self.history.of(&container);
                Some(ReplicaRecord {
                    ordinal,
                    spec: spec.to_string(),
                    state: match trouble {
                        Some(_) => ReplicaState::Crashed,
                        None => ReplicaState::Starting,
                    },
                    routed,
                    url,
                    audience: before.and_then(|before| before.audience.clone()),
                    served: past.served,
                    failures: past.failures,
                    reason: trouble.map(|trouble| trouble.reason.clone()),
                    log: trouble
                        .map(|trouble| trouble.log.clone())
                        .unwrap_or_default(),
                    container,
                    ..ReplicaRecord::default()
                })
            })
            .collect()
    }

    /// How far it is, and the container that says why it is no further.
    fn phase(&self, replicas: &[ReplicaRecord]) -> (Phase, Option<String>) {
        let Some((spec, count)) = self.wanted() else {
            let any = |state| replicas.iter().any(|one| one.state == state);
            let phase = match self.goal {
                Goal::Gone => Phase::Removing,
                Goal::Stopped if any(ReplicaState::Draining) => Phase::Stopping,
                Goal::Stopped | Goal::Run { .. } => Phase::Stopped,
            };
            let culprit = replicas.iter().find(|one| one.reason.is_some());
            return (phase, culprit.map(|one| one.container.clone()));
        };
        let is_wanted = |one: &&ReplicaRecord| one.spec == spec.as_str() && one.ordinal < count;
        let is_ready = |one: &&ReplicaRecord| one.state == ReplicaState::Ready;
        let ready = replicas.iter().filter(is_wanted).filter(is_ready).count();
        if ready == count as usize {
            return (Phase::Ready, None);
        }
        let behind = replicas
            .iter()
            .filter(is_wanted)
            .filter(|one| !is_ready(one));
        let trouble = |one: &ReplicaRecord| self.troubles.get(&one.container);
        let culprit = behind.max_by_key(|one| {
            let trouble = trouble(one);
            let is_final = trouble.is_some_and(|trouble| trouble.is_final);
            (is_final, trouble.is_some(), one.failures)
        });
        let has_failed = culprit.is_some_and(|one| {
            let trouble = trouble(one);
            let is_failure = trouble.is_some_and(|trouble| trouble.is_final || trouble.is_failure);
            is_failure || (one.failures >= HOPELESS && trouble.is_some())
        });
        let others_serve = replicas
            .iter()
            .any(|one| !is_wanted(&one) && is_ready(&one));
        let is_hurt = culprit.is_some_and(|one| {
            one.state == ReplicaState::Crashed || trouble(one).is_some() || one.served
        });
        let phase = if has_failed && ready == 0 {
            Phase::Failing
        } else if has_failed || (ready > 0 && is_hurt && !others_serve) {
            Phase::Degraded
        } else if others_serve {
            Phase::Updating
        } else if self.pull.is_some() {
            Phase::Pulling
        } else {
            Phase::Starting
        };
        (phase, culprit.map(|one| one.container.clone()))
    }
}
