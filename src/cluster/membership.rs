//! Who lives. Every node beats: it writes its line of the members' roster and
//! reads the others'. Whoever reads, trims; ages are on the store's clock. A
//! clean shutdown takes the line out, a killed node's line expires.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Incarnation, Settings};
use crate::store::{
    Store, StoreError,
    rosters::{RosterChange, RosterKey, RosterLine},
};

/// What a node says of itself. Fields are named on the wire and may be missing:
/// nodes of different versions share a fleet while it is upgraded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Its version.
    pub version: String,
    /// Where other nodes reach it, without scheme; the address it listens on,
    /// where that says nothing to them.
    pub address: String,
    /// The same to put a path behind: `http://10.0.0.5:8080`. Empty when they
    /// cannot reach it.
    pub url: String,
    /// When it started: milliseconds since 1970 on its own clock, for display.
    pub started_at: u64,
    /// For how long it has run, in milliseconds.
    pub uptime: u64,
    /// Requests in work.
    pub requests: u64,
    /// Requests answered since it started.
    pub answered: u64,
    /// Client connections.
    pub connections: u64,
    /// Event streams open.
    pub streams: u64,
    /// Duties it holds.
    pub duties: u64,
    /// Container engines that it has and that answer, as `kind/id`.
    pub engines: Vec<String>,
    /// Whether it is about to stop: it takes no duties.
    pub draining: bool,
}

/// A node that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which life of which node.
    pub incarnation: Incarnation,
    /// How old its word is.
    pub age: Duration,
    /// Its word.
    pub about: About,
}

/// The fleet as one node saw it last.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// All that live, this node included, by name.
    pub members: Vec<Member>,
}

impl View {
    /// How many nodes there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members.len().max(1)
    }

    /// Those that take duties.
    pub(super) fn working(&self) -> Vec<Worker> {
        let working = self.members.iter().filter(|member| !member.about.draining);
        working
            .map(|member| Worker {
                incarnation: member.incarnation.clone(),
                engines: member.about.engines.clone(),
            })
            .collect()
    }
}

/// A node that takes duties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) incarnation: Incarnation,
    /// The engines it can look after.
    pub(super) engines: Vec<String>,
}

/// Tells what a node says of itself now.
pub type Describe = Box<dyn Fn() -> About + Send + Sync>;

/// This node's place among the others.
pub struct Membership {
    me: Incarnation,
    store: Arc<dyn Store>,
    settings: Settings,
    describe: Describe,
    view: watch::Sender<Arc<View>>,
    beaten: CancellationToken,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("me", &self.me)
            .field("view", &self.view.borrow())
            .finish_non_exhaustive()
    }
}

impl Membership {
    /// Alone until [`run`](Self::run) has beaten once.
    #[must_use]
    pub fn new(
        me: Incarnation,
        store: Arc<dyn Store>,
        settings: Settings,
        describe: Describe,
    ) -> Self {
        let alone = Member {
            incarnation: me.clone(),
            age: Duration::ZERO,
            about: describe(),
        };
        let members = vec![alone];
        Self {
            me,
            store,
            settings,
            describe,
            view: watch::Sender::new(Arc::new(View { members })),
            beaten: CancellationToken::new(),
        }
    }

    /// This life of this node.
    #[must_use]
    pub fn me(&self) -> &Incarnation {
        &self.me
    }

    /// What this node says of itself now.
    #[must_use]
    pub fn about_me(&self) -> About {
        (self.describe)()
    }

    /// The fleet as it was seen last. While the store is away that stays.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Where a node can be reached that lived a moment ago: `None` when it has
    /// left. One that is not known yet is looked for.
    ///
    /// # Errors
    /// When the store cannot be asked who lives.
    pub async fn find(&self, node: &Incarnation) -> Result<Option<Member>, StoreError> {
        let known = |view: &View| {
            let mut members = view.members.iter();
            members.find(|member| member.incarnation == *node).cloned()
        };
        if let Some(member) = known(&self.view()) {
            return Ok(Some(member));
        }
        self.look().await?;
        Ok(known(&self.view()))
    }

    /// Changes when nodes join, leave or begin to drain.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Completes once the others have been heard of.
    pub(super) async fn beaten(&self) {
        self.beaten.cancelled().await;
    }

    /// Beats until `stopping`, then once more to say so, and goes on until
    /// `ending`, when the node takes its line out.
    pub async fn run(&self, stopping: CancellationToken, ending: CancellationToken) {
        loop {
            self.beat().await;
            let pause = self
                .settings
                .tick()
                .mul_f64(rand::rng().random_range(0.9..1.1));
            tokio::select! {
                () = ending.cancelled() => break,
                () = stopping.cancelled(), if !stopping.is_cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Err(error) = self.write(RosterChange::Remove).await {
            tracing::debug!(%error, "this node leaves by silence");
        }
    }

    /// Says that this node lives and learns who else does.
    pub(super) async fn beat(&self) {
        if let Err(error) = self.look().await {
            tracing::debug!(%error, "the other nodes could not be asked");
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let about = (self.describe)();
        let line = match rmp_serde::to_vec_named(&about) {
            Ok(line) => Bytes::from(line),
            Err(error) => {
                tracing::error!(%error, "a node's line could not be encoded");
                return Ok(());
            }
        };
        let lines = self.write(RosterChange::Put(line)).await?;
        self.see(lines);
        self.beaten.cancel();
        Ok(())
    }

    async fn write(&self, change: RosterChange) -> Result<Vec<RosterLine>, StoreError> {
        let ttl = self.settings.lease_ttl;
        self.store
            .roster(&RosterKey::Members, self.me.as_str(), change, ttl)
            .await
    }

    fn see(&self, lines: Vec<RosterLine>) {
        let mut members: Vec<_> = lines.into_iter().map(member).collect();
        members.sort_by(|one, other| one.incarnation.cmp(&other.incarnation));
        let before = self.view();
        self.tell_changes(&before, &members);
        let now = Arc::new(View { members });
        self.view.send_if_modified(|view| {
            let is_other = view.working() != now.working() || view.count() != now.count();
            *view = now;
            is_other
        });
    }

    fn tell_changes(&self, before: &View, now: &[Member]) {
        let is_in = |members: &[Member], one: &Member| {
            members
                .iter()
                .any(|member| member.incarnation == one.incarnation)
        };
        for joined in now.iter().filter(|member| !is_in(&before.members, member)) {
            let name = joined.incarnation.node();
            tracing::info!(node = name, "a node joined");
            if name == self.me.node()
                && joined.incarnation != self.me
                && joined.age < self.settings.tick()
            {
                tracing::warn!(
                    node = name,
                    "another process has this node's name; unless it is about to end, give each its own node.name"
                );
            }
        }
        for left in before.members.iter().filter(|member| !is_in(now, member)) {
            tracing::info!(node = left.incarnation.node(), "a node left");
        }
    }
}

/// A line that is not understood is still a node that lives.
fn member(line: RosterLine) -> Member {
    let about = rmp_serde::from_slice(&line.payload).unwrap_or_else(|error| {
        tracing::debug!(writer = %line.writer, %error, "a node's line was not understood");
        About::default()
    });
    Member {
        incarnation: Incarnation::named(&line.writer),
        age: line.age,
        about,
    }
}
