//! One running copy of a server: where it is, and all that this node knows of
//! it, so that nothing is left when it goes.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use http::{HeaderName, HeaderValue, Uri};
use tokio::time::Instant;

use super::{
    condition::Condition,
    gate::{Gate, InFlightLimit},
    traffic::{InFlight, Traffic},
};
use crate::{
    balance::Load,
    breaker::{Breaker, Told},
    bridge::backend::Mode,
    ids::{ReplicaId, ServerId},
};

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
    /// The bridge it is reached through, to which nodes prove themselves.
    pub audience: Option<Arc<str>>,
    pub(super) traffic: Traffic,
    pub(super) condition: Condition,
    /// Where calls in flight are limited.
    gate: Option<Arc<Gate>>,
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
/// names its variables without their values and counts its arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct StdioCommand {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// Variables added to a minimal environment. Values may be secrets.
    pub env: BTreeMap<String, String>,
    /// Working directory, the node's own when absent.
    pub directory: Option<String>,
    /// How its processes are shared.
    pub mode: Mode,
    /// Processes of it that a node may run, where there may be several.
    pub max_processes: NonZeroUsize,
}

impl Default for StdioCommand {
    /// What the bridge does when nobody says how; the command is missing.
    fn default() -> Self {
        Self {
            argv: Vec::new(),
            env: BTreeMap::new(),
            directory: None,
            mode: Mode::default(),
            max_processes: const { NonZeroUsize::new(16).unwrap() },
        }
    }
}

impl std::fmt::Debug for StdioCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdioCommand")
            .field("command", &format_args!("{self}"))
            .field("env", &self.env.keys())
            .field("directory", &self.directory)
            .field("mode", &self.mode)
            .field("max_processes", &self.max_processes)
            .finish()
    }
}

impl Replica {
    /// A replica nobody is calling yet.
    #[must_use]
    pub fn new(server: ServerId, endpoint: Endpoint, weight: u32) -> Self {
        Self {
            id: ReplicaId::new(&server, &endpoint.address()),
            server,
            endpoint,
            weight,
            headers: Vec::new(),
            audience: None,
            traffic: Traffic::new(),
            condition: Condition::default(),
            gate: None,
        }
    }

    /// The same replica, sent these header lines with every request.
    #[must_use]
    pub fn with_headers(mut self, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        self.headers = headers;
        self
    }

    /// The same replica, reached through a bridge: requests to it carry a
    /// token that is signed for `audience`.
    #[must_use]
    pub fn signed(mut self, audience: &str) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// The same replica, taking so many calls at once.
    #[must_use]
    pub fn limited(mut self, limit: Option<InFlightLimit>) -> Self {
        self.gate = limit.map(Gate::new);
        self
    }

    /// What calls pass where those in flight are limited.
    #[must_use]
    pub fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }

    /// Whether a call would have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.is_full())
    }

    /// Requests this node has in flight to the replica.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.traffic.own()
    }

    /// What is known of its load.
    #[must_use]
    pub fn load(&self) -> Load {
        self.traffic.load(Some(Instant::now()))
    }

    /// Requests the other nodes have in flight, as they told.
    pub fn set_others(&self, others: u32) {
        self.traffic.set_others(others);
    }

    /// Whether probes found it fit for traffic; true until they found otherwise.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.condition.is_healthy()
    }

    /// What probes found.
    pub fn set_healthy(&self, healthy: bool) {
        self.condition.set_healthy(healthy);
    }

    /// What the calls of this node say of it.
    #[must_use]
    pub fn breaker(&self) -> Breaker {
        self.condition.breaker()
    }

    /// When a trial of it is due; `None` while its breaker is closed.
    pub(crate) fn trial_due(&self) -> Option<Instant> {
        if !self.condition.is_open() {
            return None;
        }
        self.breaker().trial_due()
    }

    /// Whether calls go there rather than elsewhere: probes pass and the
    /// breaker is closed.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_healthy() && !self.condition.is_open()
    }

    /// Counts one request until the guard is dropped, also when it is cancelled.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        InFlight::new(self)
    }

    /// A request that began at `begun` told this of the replica.
    pub fn learn(&self, told: Told, begun: Instant, now: Instant) {
        match told {
            Told::Nothing => {}
            Told::Alive if !self.condition.is_troubled() => {}
            Told::Alive => self.change_breaker(|breaker| breaker.after_success(begun, now)),
            Told::Failed(failure) => {
                let jitter = rand::random();
                self.change_breaker(|breaker| breaker.after_failure(failure, begun, now, jitter));
            }
        }
    }

    /// Changes the breaker.
    pub(crate) fn change_breaker(&self, step: impl FnOnce(Breaker) -> Breaker) {
        if self.condition.change_breaker(step) {
            let state = if self.condition.is_open() {
                "open"
            } else {
                "closed"
            };
            tracing::info!(replica = %self.id, state, "a circuit breaker turned");
        }
    }
}

impl Endpoint {
    /// What a [`ReplicaId`] is made of. It may hold secrets.
    fn address(&self) -> String {
        match self {
            Self::Http(uri) => uri.to_string(),
            Self::Stdio(command) => format!("stdio:{}", command.argv.join(" ")),
            Self::Demo => "built-in".to_owned(),
        }
    }
}

impl std::fmt::Display for Endpoint {
    /// The address for people: of a command its program alone, because
    /// arguments may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(uri) => write!(f, "{uri}"),
            Self::Stdio(command) => write!(f, "stdio:{command}"),
            Self::Demo => f.write_str("built-in"),
        }
    }
}

impl std::fmt::Display for StdioCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.argv.first().map_or("", String::as_str))?;
        match self.argv.len().saturating_sub(1) {
            0 => Ok(()),
            1 => f.write_str(" (1 argument)"),
            more => write!(f, " ({more} arguments)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_arguments_are_counted_and_not_shown() {
        let replica = |argv: &[&str]| {
            let command = StdioCommand {
                argv: argv.iter().map(ToString::to_string).collect(),
                ..StdioCommand::default()
            };
            let server = ServerId::try_from("s").expect("an id");
            Replica::new(server, Endpoint::Stdio(command), 1)
        };
        let shown = |argv: &[&str]| replica(argv).endpoint.to_string();
        assert_eq!(shown(&["/bin/run"]), "stdio:/bin/run");
        assert_eq!(shown(&["npx", "--key=s3cr3t"]), "stdio:npx (1 argument)");
        assert_eq!(shown(&["npx", "-y", "s3cr3t"]), "stdio:npx (2 arguments)");
        let (one, other) = (replica(&["npx", "s3cr3t"]), replica(&["npx", "other"]));
        assert_ne!(one.id, other.id);
        assert!(!format!("{one:?}").contains("s3cr3t"));
    }
}
