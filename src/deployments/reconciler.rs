//! The duty of bringing an engine's containers in line with what is wanted of it.
//!
//! Woken by the engine's events, by changes of what is wanted, by steps that
//! are done, and by time. Each look lists everything, plans every deployment
//! and begins the steps that are not under way; then it tells all nodes what
//! changed, under its fence. Whoever takes the duty over continues from the
//! engine's list and the records.
//!
//! `look` lists and plans, `note` remembers what came of it, `publish` tells the
//! others, `remember` is what was there before.
//!
//! Without a fence (the store is away, every node with the engine looks after
//! it) nothing is made or removed: what ended is started again, and what is
//! found out stays on this node.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, join_all},
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    Deployments,
    definition::EngineRef,
    history::History,
    jobs::{Done, Jobs},
    naming::Found,
    plan::{Goal, Life},
    record::{PinnedImage, Record},
    status::Trouble,
};
use crate::{
    cluster::duties::{Grant, Work},
    engine::EngineError,
    fleet::{Heard, Listener},
};

mod look;
mod note;
mod publish;
mod remember;

pub(super) use self::remember::routes_from_labels;

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
    /// What replicas are made from.
    image: Option<PinnedImage>,
    /// The attempt that all this is about.
    attempt: u32,
    /// What was written last, and when.
    told: Option<(Record, Instant)>,
    is_remembered: bool,
}

impl Memory {
    /// Somebody has mended what was wrong, and says so by another attempt.
    fn forgive(&mut self, attempt: u32) {
        if std::mem::replace(&mut self.attempt, attempt) != attempt {
            self.history.forgive();
            self.troubles.clear();
            self.silent.clear();
        }
    }
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
            while let Some(Some(event)) = events.next().now_or_never() {
                self.heard(&event);
            }
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
