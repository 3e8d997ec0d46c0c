//! What the nodes tell each other of their requests in flight, so that a
//! replica that is busy with one node's calls looks busy to all.
//!
//! At a fixed tick a node with traffic writes one line with its counts and
//! reads the others' in the same command. What that costs depends on nodes and
//! ticks, not on requests; a node without traffic says and asks nothing. Lines
//! age: a node that died is forgotten after a few ticks, and while the store
//! is away each node goes by its own counts. Servers of one replica have
//! nothing to choose and are left out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::Incarnation,
    lifecycle::Tasks,
    servers::{Replica, Server, Servers},
    store::{
        Store, StoreError,
        rosters::{RosterChange, RosterKey, RosterLine},
    },
};

/// Time between two lines of a node. Shorter shows more of what lasts shorter
/// than that, which power-of-two choices hardly needs.
const TICK: Duration = Duration::from_millis(500);
/// A line older than this counts as nothing.
const KEPT: Duration = Duration::from_secs(2);
/// Replicas in a line: the busiest ones.
const LONGEST_LINE: usize = 4096;

/// A node's line: replicas and how many requests it has in flight to each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line(Vec<(String, u32)>);

/// This node's part in the exchange.
#[derive(Debug)]
pub struct Loads {
    servers: Arc<Servers>,
    store: Arc<dyn Store>,
    me: Incarnation,
    said: Option<(Instant, Line)>,
    heard: Option<Instant>,
    calls: usize,
}

impl Loads {
    /// A node that has not said anything yet.
    #[must_use]
    pub fn new(servers: Arc<Servers>, store: Arc<dyn Store>, me: Incarnation) -> Self {
        Self {
            servers,
            store,
            me,
            said: None,
            heard: None,
            calls: 0,
        }
    }

    /// Tells and listens until the node stops, then takes its line out.
    pub async fn run(mut self, tasks: Tasks) {
        let stopping = tasks.stopping().clone();
        loop {
            let pause = TICK.mul_f64(rand::rng().random_range(0.9..1.1));
            tokio::select! {
                () = stopping.cancelled() => break,
                () = sleep(pause) => {}
            }
            self.tick(Instant::now()).await;
        }
        if self.said.is_some()
            && let Err(error) = self.exchange(RosterChange::Remove).await
        {
            tracing::debug!(%error, "this node's load is left to age");
        }
    }

    /// One exchange, if there is anything to say or to ask.
    pub async fn tick(&mut self, now: Instant) {
        let servers = self.servers.all();
        let shared: Vec<_> = servers.iter().filter(|server| is_shared(server)).collect();
        let line = own_line(&shared);
        let calls = shared.iter().map(|server| server.calls());
        let calls = calls.fold(0, usize::wrapping_add);
        let has_traffic = !line.0.is_empty() || calls != self.calls;
        self.calls = calls;
        let change = match (&self.said, line.0.is_empty()) {
            (None, true) if !has_traffic => return self.forget_others(&shared),
            (None, true) => RosterChange::Keep,
            (Some(_), true) => RosterChange::Remove,
            (Some((at, said)), false) if *said == line && now - *at < KEPT / 2 => {
                RosterChange::Keep
            }
            (_, false) => match rmp_serde::to_vec(&line) {
                Ok(bytes) => RosterChange::Put(Bytes::from(bytes)),
                Err(error) => return tracing::error!(%error, "a load could not be encoded"),
            },
        };
        let put = matches!(change, RosterChange::Put(_));
        let removed = matches!(change, RosterChange::Remove);
        match self.exchange(change).await {
            Ok(lines) => {
                self.heard = Some(now);
                tell_replicas(&shared, &self.of_others(lines));
                if put {
                    self.said = Some((now, line));
                } else if removed {
                    self.said = None;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "loads were not exchanged");
                if self.heard.is_some_and(|heard| now - heard > KEPT) {
                    self.forget_others(&shared);
                }
            }
        }
    }

    async fn exchange(&self, change: RosterChange) -> Result<Vec<RosterLine>, StoreError> {
        let me = self.me.as_str();
        self.store.roster(&RosterKey::Load, me, change, KEPT).await
    }

    /// What the other nodes have in flight, by replica.
    fn of_others(&self, lines: Vec<RosterLine>) -> HashMap<String, u32> {
        let mut counts: HashMap<String, u32> = HashMap::new();
        for line in lines {
            if line.writer == self.me.as_str() {
                continue;
            }
            match rmp_serde::from_slice::<Line>(&line.payload) {
                Ok(Line(replicas)) => {
                    for (replica, count) in replicas {
                        let sum = counts.entry(replica).or_default();
                        *sum = sum.saturating_add(count);
                    }
                }
                Err(error) => {
                    tracing::debug!(writer = %line.writer, %error, "a node's load was not understood");
                }
            }
        }
        counts
    }

    fn forget_others(&mut self, shared: &[&Arc<Server>]) {
        if self.heard.take().is_some() {
            tell_replicas(shared, &HashMap::new());
        }
    }
}

fn is_shared(server: &Server) -> bool {
    server.replicas.len() > 1
}

fn own_line(shared: &[&Arc<Server>]) -> Line {
    let busy = |replica: &Arc<Replica>| {
        let count = replica.in_flight();
        (count > 0).then(|| (replica.id.to_string(), count))
    };
    let replicas = shared.iter().flat_map(|server| &server.replicas);
    let mut counts: Vec<_> = replicas.filter_map(busy).collect();
    if counts.len() > LONGEST_LINE {
        counts.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.truncate(LONGEST_LINE);
    }
    Line(counts)
}

fn tell_replicas(shared: &[&Arc<Server>], others: &HashMap<String, u32>) {
    for replica in shared.iter().flat_map(|server| &server.replicas) {
        let count = others.get(replica.id.as_str()).copied();
        replica.set_others(count.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        balance::Policy,
        ids::{NodeId, ServerId},
        servers::Endpoint,
        store::memory::MemoryStore,
    };

    fn node(name: &str, store: &Arc<MemoryStore>) -> (Loads, Arc<Server>) {
        let id = ServerId::try_from("up").expect("a good name");
        let replica = |port: u16| {
            let uri = format!("http://127.0.0.1:{port}/mcp");
            let endpoint = Endpoint::Http(uri.parse().expect("a URI"));
            Arc::new(Replica::new(id.clone(), endpoint, 1))
        };
        let replicas = vec![replica(1), replica(2)];
        let timeout = Duration::from_secs(1);
        let server = Arc::new(Server::new(
            id.clone(),
            replicas,
            Policy::P2c,
            timeout,
            "config",
        ));
        let servers = Arc::new(Servers::new(vec![Arc::clone(&server)]));
        let me = Incarnation::of(&NodeId::named(name));
        (Loads::new(servers, store.clone(), me), server)
    }

    async fn lines(store: &MemoryStore) -> usize {
        let key = RosterKey::Load;
        let lines =
            crate::store::rosters::Rosters::roster(store, &key, "test", RosterChange::Keep, KEPT);
        lines.await.expect("it answers").len()
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_know_of_each_others_calls_for_as_long_as_they_last() {
        let store = Arc::new(MemoryStore::new());
        let ((mut a, at_a), (mut b, at_b)) = (node("a", &store), node("b", &store));
        let busy: Vec<_> = (0..3).map(|_| at_a.replicas[0].begin()).collect();
        a.tick(Instant::now()).await;
        b.tick(Instant::now()).await;
        assert_eq!(
            at_b.replicas[0].load().others,
            0,
            "without traffic it does not ask"
        );
        let _mine = at_b.replicas[1].begin();
        b.tick(Instant::now()).await;
        a.tick(Instant::now()).await;
        assert_eq!(at_b.replicas[0].load().others, 3);
        assert_eq!(at_b.replicas[1].load().others, 0);
        assert_eq!(at_a.replicas[1].load().others, 1);
        drop(busy);
        a.tick(Instant::now()).await;
        b.tick(Instant::now()).await;
        assert_eq!(at_b.replicas[0].load().others, 0);
        a.tick(Instant::now()).await;
        assert_eq!(
            at_a.replicas[1].load().others,
            0,
            "who has no traffic forgets"
        );
        assert_eq!(lines(&store).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_nodes_calls_are_forgotten_after_a_few_ticks() {
        let store = Arc::new(MemoryStore::new());
        let ((mut a, at_a), (mut b, at_b)) = (node("a", &store), node("b", &store));
        let _busy = (at_a.replicas[0].begin(), at_b.replicas[0].begin());
        a.tick(Instant::now()).await;
        b.tick(Instant::now()).await;
        assert_eq!(at_b.replicas[0].load().others, 1);
        drop(a);
        tokio::time::advance(KEPT + TICK).await;
        b.tick(Instant::now()).await;
        assert_eq!(at_b.replicas[0].load().others, 0);
        assert_eq!(lines(&store).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_end_between_two_ticks_count_as_traffic() {
        let store = Arc::new(MemoryStore::new());
        let ((mut a, at_a), (mut b, at_b)) = (node("a", &store), node("b", &store));
        let _busy = at_a.replicas[0].begin();
        a.tick(Instant::now()).await;
        at_b.count_call(0.0);
        b.tick(Instant::now()).await;
        assert_eq!(at_b.replicas[0].load().others, 1);
        b.tick(Instant::now()).await;
        assert_eq!(at_b.replicas[0].load().others, 0);
    }
}
