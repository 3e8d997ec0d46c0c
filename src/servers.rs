//! The servers this node knows and the replicas that can be dialled.
//!
//! A snapshot that readers take without a lock; whoever changes the set swaps
//! in a new one. Which replica a call goes to is decided in [`crate::balance`].

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, Uri};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::{
    balance::{self, Candidate, Policy},
    ids::{ReplicaId, ServerId},
    rates::ServerRates,
    store::registry::Edition,
};

/// A server and its replicas, immutable once published.
#[derive(Debug)]
pub struct Server {
    /// The name clients use in the path.
    pub id: ServerId,
    /// Where it can be dialled; never empty.
    pub replicas: Vec<Arc<Replica>>,
    /// How a replica is chosen.
    pub balance: Policy,
    /// How long one request to it may take.
    pub timeout: Duration,
    /// Where the definition came from, for people: `config`, `--server`, `api`, `built-in`.
    pub origin: &'static str,
    /// Which of the servers that had this name, one after the other: what one
    /// said is not what the next says. Zero when it comes from configuration.
    pub edition: Edition,
    /// How fast clients may call it.
    pub rates: ServerRates,
    turn: AtomicUsize,
}

impl Server {
    /// A server nobody has called yet.
    #[must_use]
    pub fn new(
        id: ServerId,
        replicas: Vec<Arc<Replica>>,
        balance: Policy,
        timeout: Duration,
        origin: &'static str,
    ) -> Self {
        Self {
            id,
            replicas,
            balance,
            timeout,
            origin,
            edition: Edition::default(),
            rates: ServerRates::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The same server with limits on how fast clients may call it.
    #[must_use]
    pub fn limited_to(mut self, rates: ServerRates) -> Self {
        self.rates = rates;
        self
    }

    /// The same server as it was registered at that time.
    #[must_use]
    pub fn of_edition(mut self, edition: Edition) -> Self {
        self.edition = edition;
        self
    }

    /// The replica the next request goes to, leaving out those already `tried`.
    #[must_use]
    pub fn pick(&self, tried: &[ReplicaId]) -> Option<Arc<Replica>> {
        if tried.is_empty() && self.replicas.len() == 1 {
            return self.replicas.first().cloned();
        }
        let open: Vec<_> = self
            .replicas
            .iter()
            .filter(|replica| !tried.contains(&replica.id))
            .collect();
        let candidates: Vec<_> = open
            .iter()
            .map(|replica| Candidate {
                in_flight: replica.in_flight(),
                weight: replica.weight,
            })
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let choice = balance::pick(self.balance, &candidates, turn, &mut rand::rng())?;
        Some(Arc::clone(open[choice]))
    }

    /// The replica a client session lives on, leaving out those already
    /// `tried`: the same on every node (rendezvous hashing, Thaler and
    /// Ravishankar, "A Name-Based Mapping Scheme for Rendezvous").
    #[must_use]
    pub fn home_of(&self, session: &str, tried: &[ReplicaId]) -> Option<Arc<Replica>> {
        let open = self
            .replicas
            .iter()
            .filter(|replica| !tried.contains(&replica.id));
        let score = |replica: &&Arc<Replica>| {
            let mut hash = Sha256::new();
            hash.update(session);
            hash.update(replica.id.as_str());
            <[u8; 32]>::from(hash.finalize())
        };
        open.max_by_key(score).cloned()
    }

    /// The replica of that id, if it is still there.
    #[must_use]
    pub fn replica(&self, id: &str) -> Option<&Arc<Replica>> {
        self.replicas
            .iter()
            .find(|replica| replica.id.as_str() == id)
    }
}

/// One running copy of a server.
#[derive(Debug)]
pub struct Replica {
    /// Stable across nodes.
    pub id: ReplicaId,
    /// The server it is a copy of.
    pub server: ServerId,
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Share of the traffic under the `weighted` policy.
    pub weight: u32,
    /// Header lines sent with every request, the fleet's own credential among them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    in_flight: AtomicU32,
    unhealthy: AtomicBool,
}

/// How a replica is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Streamable HTTP, or HTTP+SSE when probing finds that.
    Http(Uri),
    /// A local child process that speaks over its standard streams.
    Stdio(StdioCommand),
    /// The demo server inside this process.
    Demo,
}

/// The command of a stdio server; from operator configuration only. `Debug`
/// names its variables without their values.
#[derive(Clone, PartialEq, Eq)]
pub struct StdioCommand {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// Variables added to a minimal environment. Values may be secrets.
    pub env: BTreeMap<String, String>,
    /// Working directory, the node's own when absent.
    pub directory: Option<String>,
}

impl std::fmt::Debug for StdioCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdioCommand")
            .field("argv", &self.argv)
            .field("env", &self.env.keys())
            .field("directory", &self.directory)
            .finish()
    }
}

impl Replica {
    /// A replica nobody is calling yet.
    #[must_use]
    pub fn new(server: ServerId, endpoint: Endpoint, weight: u32) -> Self {
        let address = endpoint.to_string();
        Self {
            id: ReplicaId::new(&server, &address),
            server,
            endpoint,
            weight,
            headers: Vec::new(),
            in_flight: AtomicU32::new(0),
            unhealthy: AtomicBool::new(false),
        }
    }

    /// The same replica, sent these header lines with every request.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        self.headers = headers;
        self
    }

    /// Requests this node has in flight to the replica.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether probes found it fit for traffic; true until they found otherwise.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    /// What probes found.
    pub fn set_healthy(&self, healthy: bool) {
        self.unhealthy.store(!healthy, Ordering::Relaxed);
    }

    /// Counts one request until the guard is dropped, also when it is cancelled.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// One counted request; dropping it ends the count.
#[derive(Debug)]
pub struct InFlight(Arc<Replica>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Display for Endpoint {
    /// The address for people and for [`ReplicaId`]; never the environment.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(uri) => write!(f, "{uri}"),
            Self::Stdio(command) => write!(f, "stdio:{}", command.argv.join(" ")),
            Self::Demo => f.write_str("built-in"),
        }
    }
}

/// The servers known now, in configured order.
#[derive(Debug)]
pub struct Servers {
    snapshot: ArcSwap<Vec<Arc<Server>>>,
    generation: watch::Sender<u64>,
}

impl Servers {
    /// Starts with `servers`, in the order lists are merged in.
    #[must_use]
    pub fn new(servers: Vec<Arc<Server>>) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(servers),
            generation: watch::Sender::new(0),
        }
    }

    /// Makes these the servers that are known.
    pub fn replace(&self, servers: Vec<Arc<Server>>) {
        self.snapshot.store(Arc::new(servers));
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Changes whenever the set of servers does.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// All servers, in configured order.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<Server>>> {
        self.snapshot.load_full()
    }

    /// The server of that name.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Server>> {
        self.snapshot
            .load()
            .iter()
            .find(|server| server.id.as_str() == id)
            .cloned()
    }
}
