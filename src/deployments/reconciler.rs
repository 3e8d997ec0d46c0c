//! The duty of bringing an engine's containers in line with what is wanted of it.
//!
//! Woken by the engine's events, by changes of what is wanted, by steps that
//! are done, and by time. Each look lists everything, plans every deployment
//! and begins the steps that are not under way; then it tells all nodes what
//! changed, under its fence. Whoever takes the duty over continues from the
//! engine's list and the records.
//!
//! Without a fence (the store is away, every node with the engine looks after
//! it) nothing is made or removed: what ended is started again, and what is
//! found out stays on this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, join_all},
};
use tokio::{
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    Deployments, Wanted,
    definition::{Definition, EngineRef, Secrets, Wish},
    history::History,
    jobs::{Done, Jobs, Outcome, probe},
    naming::{Found, container_name},
    plan::{Action, Goal, Life, Plan, plan},
    record::{Phase, Record},
    status::{Situation, Trouble},
};
use crate::{
    cluster::duties::{Grant, Work},
    engine::{Action as Happened, EngineError, EngineEvent, State},
    fleet::{Heard, Listener, News},
    ids::ServerId,
    store::{
        Channel, Fence, RecordKey, StoreError,
        registry::{Change, Changed, Edition},
    },
};

/// Time between two looks at everything when nothing happens.
const FULL_LIST: Duration = Duration::from_secs(30);
/// Time between two looks at most of what happens at once.
const BREATH: Duration = Duration::from_millis(60);
/// Pause after a write that did not reach the store, or an engine that is away.
const SOON: Duration = Duration::from_secs(1);
/// A record outlives its last write by a day.
const RECORD_TTL: Duration = Duration::from_secs(24 * 3600);
/// One that has not changed is written again after this.
const REPEAT: Duration = Duration::from_secs(600);
/// How long a running server may not answer before that is a failure.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The same for one that answers something else than a server does.
const WRONG_LIMIT: Duration = Duration::from_secs(4);

/// Looks after one engine for as long as this node has leave to.
pub(super) struct Reconciler {
    pub(super) engine: EngineRef,
    node: Weak<Deployments>,
}

impl Reconciler {
    pub(super) fn new(engine: EngineRef, node: &Arc<Deployments>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            node: Arc::downgrade(node),
        })
    }
}

impl Work for Reconciler {
    fn run(self: Arc<Self>, grant: Grant) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Some(node) = self.node.upgrade() else {
                return;
            };
            let mut watch = Watch::new(node, self.engine.clone(), grant);
            watch.run().await;
        })
    }
}

/// What is remembered of one deployment.
#[derive(Debug, Default)]
struct Memory {
    history: History,
    troubles: BTreeMap<String, Trouble>,
    /// What is told of containers that have come to their bounds.
    pressed: BTreeMap<String, String>,
    /// Since when containers run without an answer.
    silent: BTreeMap<String, Instant>,
    /// What was written last, and when.
    told: Option<(Record, Instant)>,
    is_remembered: bool,
}

/// The state of [`Reconciler::run`].
struct Watch {
    node: Arc<Deployments>,
    engine: EngineRef,
    grant: Grant,
    jobs: Jobs,
    /// Tasks of their own: a look waits for turns at the engine that a step
    /// may hold. They end with this.
    running: JoinSet<Done>,
    /// Steps under way, by container.
    busy: BTreeMap<String, Busy>,
    memories: BTreeMap<String, Memory>,
    /// Something was removed: networks and volumes may be of no use any more.
    is_untidy: bool,
    is_tidying: bool,
    again: Instant,
    looked: Option<Instant>,
    /// When it is next looked what containers use.
    weigh: Instant,
}

/// A step under way.
struct Busy {
    deployment: String,
    /// Only what makes a container may be given up half done.
    is_creation: bool,
    handle: AbortHandle,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    /// Another node does it by now.
    Over,
}

impl Watch {
    fn new(node: Arc<Deployments>, engine: EngineRef, grant: Grant) -> Self {
        let jobs = Jobs::new(&node);
        Self {
            node,
            engine,
            grant,
            jobs,
            running: JoinSet::new(),
            busy: BTreeMap::new(),
            memories: BTreeMap::new(),
            is_untidy: true,
            is_tidying: false,
            again: Instant::now(),
            looked: None,
            weigh: Instant::now() + FULL_LIST,
        }
    }

    async fn run(&mut self) {
        let node = Arc::clone(&self.node);
        let docker = Arc::clone(&node.parts.engine.docker);
        let fleet = self.jobs.fleet().to_owned();
        let pulls = Arc::clone(&self.jobs.pulls);
        let mut events = Box::pin(docker.events(&fleet));
        let mut news = node.parts.fleet.listen();
        if self.grant.fence().is_some()
            && let Err(error) = node.remove_leftovers(&fleet).await
        {
            tracing::warn!(%error, "what an earlier life of this node left cannot be removed now");
        }
        loop {
            // The node learned the fleet's key: its containers are others.
            if node.parts.signer.fleet_id() != fleet || self.look().await == Next::Over {
                return;
            }
            tokio::select! {
                Some(done) = self.running.join_next_with_id() => self.note_task(done),
                Some(event) = events.next() => self.heard(&event),
                () = node.wake.notified() => {}
                () = pulls.changed.notified() => {}
                // Records may be lost with the store.
                () = gap(&mut news) => self.tell_again(),
                () = sleep_until(self.again) => {}
            }
            // What happens together is looked at together.
            if let Some(looked) = self.looked {
                sleep_until(looked + BREATH).await;
            }
            while let Some(done) = self.running.try_join_next_with_id() {
                self.note_task(done);
            }
        }
    }

    /// Lists everything and does what is to be done.
    async fn look(&mut self) -> Next {
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

    /// Puts what runs, and nothing says why, back into the table: the store has
    /// lost it, and no node was there to put it back. Whether that was done.
    async fn adopt(&mut self, name: &str, found: &[Found], fence: Option<Fence>) -> bool {
        let is_removed = self.node.known().removed.contains(name);
        if fence.is_none() || is_removed || !self.node.table.is_read() {
            return false;
        }
        let Goal::Run { spec, replicas } = as_it_is(found) else {
            return false;
        };
        let mut of_spec = found.iter().filter(|found| found.seen.spec == spec);
        let Some(told) = of_spec.find_map(Found::definition) else {
            return false;
        };
        if self.node.parts.registry.taken(name).is_some() || told.name != name {
            return false;
        }
        let adopted = Definition {
            replicas,
            engine: self.engine.clone(),
            wish: Wish::Run,
            adopted: Some(spec),
            ..told
        };
        let Ok(encoded) = adopted.encode() else {
            return false;
        };
        let change = Change::Put {
            name: name.to_owned(),
            definition: encoded.into(),
            most: self.node.settings.most,
            // Somebody may know it after all.
            over: Some(Edition(0)),
        };
        let node = Arc::clone(&self.node);
        match node.table.change(&change, |table| node.apply(table)).await {
            Ok(Changed::Created) => {
                tracing::warn!(
                    deployment = name,
                    "the store had lost a deployment whose containers run; it goes on as it runs"
                );
                node.parts.fleet.tell(News::DeploymentsChanged {}).await;
                self.again = Instant::now();
                true
            }
            Ok(Changed::Moved) => {
                if let Err(error) = node.look().await {
                    tracing::debug!(%error, "deployments cannot be looked up now");
                }
                self.again = Instant::now();
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(deployment = name, %error, "what runs is not in the table yet");
                false
            }
        }
    }

    /// Takes over what was published of deployments not looked at yet.
    async fn remember(
        &mut self,
        wanted: &BTreeMap<String, Wanted>,
        found: &BTreeMap<String, Vec<Found>>,
    ) -> Result<(), StoreError> {
        let names = wanted.keys().chain(found.keys());
        let new: Vec<_> = names
            .filter(|name| {
                !self
                    .memories
                    .get(*name)
                    .is_some_and(|memory| memory.is_remembered)
            })
            .cloned()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let known: Vec<_> = {
            let known = self.node.known();
            new.iter()
                .filter_map(|name| known.records.get(name))
                .cloned()
                .collect()
        };
        let stored = match self.grant.fence() {
            Some(_) => self.node.stored(&new).await?,
            None => known,
        };
        for record in stored {
            if record.phase == Phase::Removed {
                self.node.known().removed.insert(record.name.clone());
                continue;
            }
            let memory = self.memories.entry(record.name.clone()).or_default();
            record.remember(&mut memory.history, now);
            // Written again in any case: it is another node's.
            memory.told = Some((record, now));
        }
        for name in new {
            self.memories.entry(name).or_default().is_remembered = true;
        }
        Ok(())
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
                let fleet = self.jobs.fleet();
                let name = container_name(fleet, deployment, &definition.hash(), *ordinal);
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
                let definition = Arc::clone(definition);
                let job = self.jobs.create(definition, *ordinal, &name, fence);
                (name, job)
            }
            Action::Start(name) => (name.clone(), self.jobs.start(deployment, name)),
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
                    _ => Duration::from_secs(10),
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

    /// A step's task is over.
    fn note_task(&mut self, done: Result<(Id, Done), JoinError>) {
        match done {
            Ok((_, done)) => self.note(done),
            // Given up, or it panicked; what it left is found by the next look.
            Err(error) => {
                self.busy.retain(|_, busy| busy.handle.id() != error.id());
                self.is_tidying &= !error.is_panic();
            }
        }
    }

    /// Ends the making of containers that are not wanted any more.
    fn give_up(&self, deployment: &str, wanted: &BTreeSet<String>) {
        for (name, busy) in &self.busy {
            if busy.deployment == deployment && busy.is_creation && !wanted.contains(name) {
                busy.handle.abort();
            }
        }
    }

    /// A container was found to have ended.
    fn note_end(
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

    fn heard(&mut self, event: &EngineEvent) {
        match event {
            EngineEvent::Container {
                name,
                action: Happened::Died(_) | Happened::Started,
            } => {
                for memory in self.memories.values_mut() {
                    // A start of ours is told by its step.
                    if memory.history.is_known(name) && !self.busy.contains_key(name) {
                        memory.history.entry(name).interrupted();
                    }
                }
            }
            EngineEvent::Container { .. } | EngineEvent::Connected | EngineEvent::Lost(_) => {}
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
            Outcome::Created => {
                past.started();
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

    /// What must not be told of a deployment.
    fn secrets(&self, deployment: &str) -> Secrets {
        let known = self.node.known();
        let wanted = known.wanted.get(deployment);
        let definition = wanted.and_then(|wanted| wanted.definition.as_ref().ok());
        definition.map(|known| known.secrets()).unwrap_or_default()
    }

    /// Everything is told once more.
    fn tell_again(&mut self) {
        for memory in self.memories.values_mut() {
            if let Some((_, at)) = &mut memory.told {
                *at = Instant::now() - REPEAT;
            }
        }
    }

    /// Tells all nodes what has changed.
    async fn publish(&mut self, records: Vec<Record>, fence: Option<Fence>) -> Next {
        let now = Instant::now();
        let (node, time) = (Arc::clone(&self.node), self.grant.store_time(now));
        let mut changed = Vec::new();
        for mut record in records {
            let memory = self.memories.entry(record.name.clone()).or_default();
            let before = memory.told.as_ref();
            let is_due = before.is_none_or(|(told, at)| {
                let is_anothers = fence.is_some_and(|fence| told.fence != fence.0);
                is_anothers || record.differs(told) || now.duration_since(*at) >= REPEAT
            });
            if !is_due {
                continue;
            }
            let time = time.map_or(0, |time| time.0);
            let told = before.map(|(told, _)| told);
            record.at = time;
            record.since = match told {
                Some(told) if told.phase == record.phase => told.since,
                Some(_) | None => time,
            };
            record.node = node.parts.node.to_string();
            let last = told.map_or((0, 0), |told| (told.fence, told.serial));
            record.fence = fence.map_or(last.0, |fence| fence.0);
            record.serial = last.1 + 1;
            changed.push(record);
        }
        let written = changed
            .iter()
            .map(|record| write(&node, record, fence, RECORD_TTL));
        let written = join_all(written).await;
        for (record, written) in changed.into_iter().zip(written) {
            match written {
                Written::Done => {
                    let memory = self.memories.entry(record.name.clone()).or_default();
                    let is_routed = |name: &str| {
                        let mut replicas = record.replicas.iter();
                        replicas.any(|one| one.container == name && one.routed)
                    };
                    memory.history.published(is_routed, now);
                    memory.told = Some((record.clone(), now));
                    node.learn(record);
                    // What follows from that is planned at once.
                    self.again = now;
                }
                Written::TooLate => return Next::Over,
                Written::NotNow => self.again = self.again.min(now + SOON),
            }
        }
        Next::GoOn
    }

    /// Nothing of a deployment is left, and nobody wants it.
    async fn bury(&mut self, name: &str, edition: Option<Edition>, fence: Option<Fence>) -> Next {
        let Some(fence) = fence else {
            return Next::GoOn;
        };
        let memory = self.memories.remove(name).unwrap_or_default();
        let serial = memory.told.map_or(0, |(told, _)| told.serial);
        let removed = Record {
            name: name.to_owned(),
            phase: Phase::Removed,
            engine: self.engine.to_string(),
            node: self.node.parts.node.to_string(),
            fence: fence.0,
            serial: serial + 1,
            ..Record::default()
        };
        // First what tells that its containers are nobody's, should one turn up.
        match write(&self.node, &removed, Some(fence), RECORD_TTL).await {
            Written::Done => {}
            Written::TooLate => return Next::Over,
            Written::NotNow => {
                self.again = self.again.min(Instant::now() + SOON);
                return Next::GoOn;
            }
        }
        if let Some(edition) = edition {
            let change = Change::Remove {
                name: name.to_owned(),
                over: Some(edition),
            };
            let node = &self.node;
            let change = node.table.change(&change, |table| node.apply(table));
            match change.await {
                Ok(Changed::Removed) => {
                    node.parts.fleet.tell(News::DeploymentsChanged {}).await;
                }
                // Somebody wants it again.
                Ok(_) => self.again = Instant::now(),
                Err(error) => {
                    tracing::debug!(%error, "what was removed is still in the table");
                    self.again = self.again.min(Instant::now() + SOON);
                    return Next::GoOn;
                }
            }
        }
        self.node.learn(removed);
        tracing::info!(deployment = name, "a deployment was removed");
        Next::GoOn
    }

    fn tidy(&mut self, fence: Option<Fence>) {
        if self.is_untidy && fence.is_some() && self.busy.is_empty() && !self.is_tidying {
            self.is_untidy = false;
            self.is_tidying = true;
            self.running.spawn(self.jobs.tidy());
        }
    }

    /// The engine does not answer: what was known stays, and says so.
    async fn engine_is_away(&mut self, error: &EngineError) -> Next {
        self.again = Instant::now() + SOON;
        let engine = self.engine.to_string();
        let known = self.node.known().records.clone();
        let records = known.into_values().filter(|record| record.engine == engine);
        let records = records.map(|record| Record {
            phase: Phase::EngineAway,
            reason: Some(error.to_string()),
            ..record
        });
        let records: Vec<_> = records.collect();
        for record in &records {
            let memory = self.memories.entry(record.name.clone()).or_default();
            if memory.told.is_none() {
                let known = self.node.known().records.get(&record.name).cloned();
                memory.told = known.map(|known| (known, Instant::now()));
            }
        }
        let again = self.again;
        let next = self.publish(records, self.grant.fence()).await;
        self.again = again;
        next
    }
}

/// What came of looking at one deployment.
enum Outlook {
    Record(Box<Record>),
    /// Nothing of it is left, as it should be.
    Gone,
}

enum Written {
    Done,
    TooLate,
    NotNow,
}

async fn write(
    node: &Deployments,
    record: &Record,
    fence: Option<Fence>,
    ttl: Duration,
) -> Written {
    let Some(fence) = fence else {
        // For this node alone.
        return Written::Done;
    };
    let (Ok(name), Some(value)) = (ServerId::try_from(record.name.as_str()), record.encode())
    else {
        return Written::NotNow;
    };
    let key = RecordKey::Deployment(name);
    let value = Bytes::from(value);
    let store = &node.parts.store;
    let written = store.put_fenced(&key, fence, value, ttl, Channel::Deployments);
    match written.await {
        Ok(true) => Written::Done,
        Ok(false) => {
            tracing::info!(
                deployment = record.name,
                "another node looks after this engine by now"
            );
            Written::TooLate
        }
        Err(StoreError::Unreachable(_)) => Written::NotNow,
        Err(error) => {
            tracing::warn!(deployment = record.name, %error, "a deployment's record was not written");
            Written::NotNow
        }
    }
}

/// Completes when what was told may have been lost. What changes otherwise
/// wakes the reconciler by itself.
async fn gap(news: &mut Listener) {
    loop {
        match news.next().await {
            Some(Heard::Gap) => return,
            Some(Heard::News(_)) => {}
            // The node is gone, and this with it.
            None => std::future::pending().await,
        }
    }
}

/// What keeps running what runs, where nothing says what should.
fn as_it_is(found: &[Found]) -> Goal {
    let is_running = |found: &&Found| matches!(found.seen.life, Life::Running(_));
    let newest = found
        .iter()
        .max_by_key(|one| (is_running(one), one.container.created));
    let Some(newest) = newest else {
        return Goal::Gone;
    };
    let spec = newest.seen.spec.clone();
    let of_it = found.iter().filter(|one| one.seen.spec == spec);
    let last = of_it.map(|one| one.seen.ordinal).max().unwrap_or_default();
    Goal::Run {
        spec,
        replicas: last + 1,
    }
}

fn names_of(
    goal: &Goal,
    name: impl Fn(&super::definition::SpecHash, u32) -> String,
) -> BTreeSet<String> {
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

/// Serves what the engine's labels tell, when nobody else tells anything.
pub(super) async fn routes_from_labels(node: &Arc<Deployments>) {
    let Some(engine) = node.parts.engine.identify().await else {
        return;
    };
    let grantless = Instant::now();
    let fleet = node.parts.signer.fleet_id();
    let Ok(containers) = node.parts.engine.docker.list(&fleet).await else {
        return;
    };
    let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for one in containers
        .into_iter()
        .filter_map(|one| Found::of(&fleet, one))
    {
        found.entry(one.server.clone()).or_default().push(one);
    }
    for (name, found) in found {
        let mut history = History::default();
        let mut plan = Plan::default();
        for one in &found {
            if let Life::Running(since) = one.seen.life {
                // Believed until a probe says otherwise.
                history.entry(&one.seen.name).answered(since, grantless);
                plan.routed.insert(one.seen.name.clone());
            }
        }
        let goal = as_it_is(&found);
        let situation = Situation {
            name: &name,
            definition: None,
            goal: &goal,
            plan: &plan,
            found: &found,
            history: &history,
            troubles: &BTreeMap::new(),
            pressed: &BTreeMap::new(),
            pull: None,
            before: None,
            fleet: &fleet,
        };
        let mut record = situation.record();
        record.engine = engine.to_string();
        node.learn(record);
    }
}

/// Removes all containers of this node's own fleet.
pub(super) async fn remove_all(node: &Deployments) -> Result<(), EngineError> {
    let docker = &node.parts.engine.docker;
    let fleet = node.parts.signer.fleet_id();
    let containers = docker.list(&fleet).await?;
    if containers.is_empty() {
        return Ok(());
    }
    tracing::info!(
        containers = containers.len(),
        "containers end with this node"
    );
    let removing = containers.iter().map(|one| docker.remove(&one.name));
    for removed in join_all(removing).await {
        removed?;
    }
    docker.remove_unused(&fleet).await
}
