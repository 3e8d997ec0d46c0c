//! A look at everything on the engine, and what it comes to: one plan for each
//! deployment, and the steps that are not under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{Busy, FULL_LIST, Memory, Next, SOON, Watch, as_it_is};
use crate::{
    deployments::{
        Wanted,
        definition::{Definition, SpecHash, Wish},
        history::History,
        jobs::probe,
        naming::{Found, container_name},
        plan::{Action, Goal, Life, Plan, plan},
        record::{Phase, PinnedImage, Record},
        status::{Situation, Trouble},
    },
    engine::State,
    store::Fence,
};

impl Watch {
    /// Lists everything and does what is to be done.
    pub(super) async fn look(&mut self) -> Next {
        let now = Instant::now();
        self.again = now + FULL_LIST.mul_f64(rand::random_range(0.9..1.1));
        let fence = self.grant.fence();
        let listed = self.node.parts.engine.docker.list(self.jobs.fleet()).await;
        self.looked = Some(Instant::now());
        let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        match listed {
            Ok(containers) => {
                let fleet = self.jobs.fleet();
                let ours = containers
                    .into_iter()
                    .filter_map(|container| Found::of(fleet, container));
                for one in ours {
                    found.entry(one.server.clone()).or_default().push(one);
                }
            }
            Err(error) => return self.engine_is_away(&error).await,
        }
        self.weigh(&found);
        let wanted = self.wanted();
        if self.remember(&wanted, &found).await.is_err() && fence.is_some() {
            // Without what the node before knew nothing is safe to do.
            self.again = now + SOON;
            return Next::GoOn;
        }
        let names: BTreeSet<_> = wanted.keys().chain(found.keys()).cloned().collect();
        self.memories.retain(|name, _| names.contains(name));
        let mut records = Vec::new();
        let mut gone = Vec::new();
        for name in names {
            let containers = found.remove(&name).unwrap_or_default();
            let wanted = wanted.get(&name);
            if wanted.is_none()
                && (self.is_wanted_elsewhere(&name) || self.adopt(&name, &containers, fence).await)
            {
                continue;
            }
            match self.one(&name, wanted, &containers, fence) {
                Outlook::Record(record) => records.push(*record),
                Outlook::Gone => gone.push((name, wanted.map(|wanted| wanted.edition))),
            }
        }
        if self.publish(records, fence).await == Next::Over {
            return Next::Over;
        }
        for (name, edition) in gone {
            if self.bury(&name, edition, fence).await == Next::Over {
                return Next::Over;
            }
        }
        self.tidy(fence);
        Next::GoOn
    }

    /// Looks, from time to time, what containers use of what they may.
    fn weigh(&mut self, found: &BTreeMap<String, Vec<Found>>) {
        let now = Instant::now();
        if now < self.weigh {
            return;
        }
        self.weigh = now + FULL_LIST.mul_f64(0.8);
        for (deployment, found) in found {
            for one in found {
                if let Life::Running(_) = one.seen.life {
                    let job = self.jobs.pressure(deployment, &one.seen.name);
                    self.running.spawn(job);
                }
            }
        }
    }

    /// What is wanted of this engine.
    fn wanted(&self) -> BTreeMap<String, Wanted> {
        let known = self.node.known();
        let is_here = |wanted: &Wanted| match &wanted.definition {
            Ok(definition) => definition.engine == self.engine,
            Err(_) => false,
        };
        let here = known.wanted.iter().filter(|(_, wanted)| is_here(wanted));
        here.map(|(name, wanted)| (name.clone(), wanted.clone()))
            .collect()
    }

    /// A deployment of that name that is not this engine's, or not understood.
    fn is_wanted_elsewhere(&self, name: &str) -> bool {
        self.node.known().wanted.contains_key(name)
    }

    fn goal(&self, name: &str, wanted: Option<&Wanted>, found: &[Found]) -> Goal {
        let definition = wanted.and_then(|wanted| wanted.definition.as_ref().ok());
        match definition {
            Some(definition) => match definition.wish {
                Wish::Run => Goal::Run {
                    spec: definition.hash(),
                    replicas: definition.replicas,
                },
                Wish::Stop { .. } => Goal::Stopped,
                Wish::Remove => Goal::Gone,
            },
            None if self.node.table.is_read() && self.node.known().removed.contains(name) => {
                Goal::Gone
            }
            None => as_it_is(found),
        }
    }

    /// Plans one deployment, begins its steps, and says how it is.
    fn one(
        &mut self,
        name: &str,
        wanted: Option<&Wanted>,
        found: &[Found],
        fence: Option<Fence>,
    ) -> Outlook {
        let now = Instant::now();
        let goal = self.goal(name, wanted, found);
        let definition = wanted.and_then(|wanted| wanted.definition.clone().ok());
        let (fleet, pace) = (self.jobs.fleet().to_owned(), self.node.settings.pace);
        let named = |spec: &_, ordinal| container_name(&fleet, name, spec, ordinal);
        let seen: Vec<_> = found.iter().map(|found| found.seen.clone()).collect();
        let mut memory = self.memories.remove(name).unwrap_or_default();
        if let Some(definition) = &definition {
            memory.forgive(definition.attempt);
        }
        let names = names_of(&goal, named);
        let ended = memory
            .history
            .notice(&seen, now, &pace, |name| names.contains(name));
        memory
            .troubles
            .retain(|name, _| names.contains(name) || seen.iter().any(|one| one.name == *name));
        memory
            .silent
            .retain(|name, _| seen.iter().any(|one| one.name == *name));
        memory
            .pressed
            .retain(|name, _| seen.iter().any(|one| one.name == *name) && !ended.contains(name));
        if let Goal::Stopped | Goal::Gone = goal {
            memory.history.rest(&seen);
        }
        for ended in ended {
            self.note_end(name, &ended, found, definition.as_deref(), &mut memory);
        }
        let mut next = plan(&goal, &seen, &memory.history, now, &pace, named);
        let may_change = fence.is_some() && (definition.is_some() || goal == Goal::Gone);
        if !may_change {
            restrict(&mut next, found, &memory.history);
        }
        self.give_up(name, &names);
        if let Some(again) = next.again {
            self.again = self.again.min(again);
        }
        for action in &next.actions {
            self.begin(name, action, definition.as_ref(), found, fence, &mut memory);
        }
        let is_busy = self.busy.values().any(|busy| busy.deployment == name);
        if goal == Goal::Gone && found.is_empty() && !is_busy {
            self.memories.insert(name.to_owned(), memory);
            return Outlook::Gone;
        }
        let pulls = self.jobs.pulls.all();
        let situation = Situation {
            name,
            definition: definition.as_deref(),
            goal: &goal,
            plan: &next,
            found,
            history: &memory.history,
            troubles: &memory.troubles,
            pressed: &memory.pressed,
            pull: pulls.get(name).map(String::as_str),
            image: memory.image.as_ref(),
            before: memory.told.as_ref().map(|(told, _)| told),
            fleet: &fleet,
        };
        let mut record = situation.record();
        if record.engine.is_empty() {
            record.engine = self.engine.to_string();
        }
        if definition.is_none() && goal != Goal::Gone && self.node.table.is_read() {
            record.phase = Phase::Orphaned;
            record.reason = Some(format!(
                "its containers run, and nothing says that they should (the store may have lost it): \
                 deploy it again, or remove it with `mcp-fleet rm {name}`"
            ));
        }
        self.memories.insert(name.to_owned(), memory);
        Outlook::Record(Box::new(record))
    }

    fn begin(
        &mut self,
        deployment: &str,
        action: &Action,
        definition: Option<&Arc<Definition>>,
        found: &[Found],
        fence: Option<Fence>,
        memory: &mut Memory,
    ) {
        let of = |name: &str| found.iter().find(|found| found.seen.name == name);
        let (name, job) = match action {
            Action::Create(ordinal) => {
                let (Some(definition), Some(fence)) = (definition, fence) else {
                    return;
                };
                let (fleet, spec) = (self.jobs.fleet(), definition.hash());
                let name = container_name(fleet, deployment, &spec, *ordinal);
                if definition.has_lost_secrets() {
                    let trouble = Trouble {
                        reason: "its container is gone, and its secrets were lost with the store: \
                                 deploy it again"
                            .to_owned(),
                        is_final: true,
                        ..Trouble::default()
                    };
                    memory.troubles.insert(name, trouble);
                    return;
                }
                if self.is_tidying || self.busy.contains_key(&name) {
                    return;
                }
                let image = pinned(&spec, memory.image.as_ref(), found);
                let definition = Arc::clone(definition);
                let job = self.jobs.create(definition, *ordinal, &name, image, fence);
                (name, job)
            }
            Action::Start(name) => {
                let is_known = definition.is_some_and(|known| !known.has_lost_secrets());
                let may_make = is_known && fence.is_some();
                (name.clone(), self.jobs.start(deployment, name, may_make))
            }
            Action::Probe(name) => {
                let Some(found) = of(name) else { return };
                let Life::Running(since) = found.seen.life else {
                    return;
                };
                let begun = Instant::now();
                memory.silent.entry(name.clone()).or_insert(begun);
                (name.clone(), probe(&self.node, found, since))
            }
            Action::Stop(name) => {
                let grace = match definition.map(|definition| definition.wish) {
                    Some(Wish::Stop { grace }) => Duration::from_secs(grace.into()),
                    _ => self.node.settings.grace,
                };
                (name.clone(), self.jobs.stop(deployment, name, grace))
            }
            Action::Remove(name) => {
                let is_running = of(name)
                    .is_some_and(|found| matches!(found.container.state, State::Running { .. }));
                (name.clone(), self.jobs.remove(deployment, name, is_running))
            }
        };
        if !self.busy.contains_key(&name) {
            if matches!(action, Action::Stop(_) | Action::Remove(_)) {
                memory.history.entry(&name).told_to_stop = true;
            }
            tracing::debug!(deployment, ?action, "a step begins");
            let busy = Busy {
                deployment: deployment.to_owned(),
                is_creation: matches!(action, Action::Create(_)),
                handle: self.running.spawn(job),
            };
            self.busy.insert(name, busy);
        }
    }
}

/// What came of looking at one deployment.
enum Outlook {
    Record(Box<Record>),
    /// Nothing of it is left, as it should be.
    Gone,
}

/// What another replica is made from: the same as those that there were, or are.
fn pinned(spec: &SpecHash, known: Option<&PinnedImage>, found: &[Found]) -> Option<PinnedImage> {
    if let Some(known) = known.filter(|known| known.spec == spec.as_str()) {
        return Some(known.clone());
    }
    let there = found.iter().find(|one| one.seen.spec == *spec)?;
    Some(PinnedImage {
        spec: spec.to_string(),
        id: there.container.image.clone(),
        digest: None,
    })
}

fn names_of(goal: &Goal, name: impl Fn(&SpecHash, u32) -> String) -> BTreeSet<String> {
    match goal {
        Goal::Run { spec, replicas } => (0..*replicas).map(|n| name(spec, n)).collect(),
        Goal::Stopped | Goal::Gone => BTreeSet::new(),
    }
}

/// Leaves out what this node may not do now: without a definition, or without
/// a fence, containers are started again and asked, and nothing else. Without
/// a fence nothing leaves routing either.
fn restrict(plan: &mut Plan, found: &[Found], history: &History) {
    let ended = |name: &String| {
        let mut found = found.iter();
        found.any(|one| one.seen.name == *name && matches!(one.seen.life, Life::Exited(_)))
    };
    plan.actions.retain(|action| match action {
        Action::Start(name) => ended(name),
        Action::Probe(_) => true,
        Action::Create(_) | Action::Stop(_) | Action::Remove(_) => false,
    });
    let still = found
        .iter()
        .filter(|found| history.of(&found.seen.name).routed);
    plan.routed
        .extend(still.map(|found| found.seen.name.clone()));
}
