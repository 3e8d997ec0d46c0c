//! [`EngineError`]: what was tried, on what, why it failed, what to do.

use std::{fmt, time::Duration};

/// Why an engine did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct EngineError {
    /// What was tried.
    pub operation: Operation,
    /// On what.
    pub subject: Subject,
    /// Why it failed.
    pub cause: Cause,
}

/// What can be asked of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Any answer at all.
    Reach,
    /// Looking at something.
    Inspect,
    /// Listing the fleet's containers.
    List,
    /// Pulling an image.
    Pull,
    /// Making a container, network or volume.
    Create,
    /// Joining a network.
    Join,
    /// Bringing the bridge into a volume.
    DeliverBridge,
    /// Starting a container.
    Start,
    /// Stopping a container.
    Stop,
    /// Stopping and starting a container.
    Restart,
    /// Removing something.
    Remove,
    /// Reading a container's output.
    ReadLogs,
    /// Reading what a container uses.
    ReadStats,
    /// Hearing what happens.
    Watch,
}

/// What an operation was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The engine, by its address.
    Engine(String),
    /// A container, by its name.
    Container(String),
    /// An image, by the name it was asked for.
    Image(String),
    /// A network, by its name.
    Network(String),
    /// A volume, by its name.
    Volume(String),
}

/// Why an operation failed, split by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// There is no connection to the engine.
    #[error("no connection to the Docker engine at {host}: {why}")]
    Unreachable {
        /// Its address.
        host: String,
        /// What the attempt met.
        why: String,
    },
    /// No answer in time; it may happen yet.
    #[error("no answer within {limit:?}")]
    TimedOut {
        /// How long was waited.
        limit: Duration,
    },
    /// It is not there.
    #[error("there is none")]
    NotFound,
    /// The container was made for a network that is gone.
    #[error("its network is gone: {why}")]
    NetworkGone {
        /// What the engine said.
        why: String,
    },
    /// The registry does not give the image.
    #[error("{from} does not give it: {why}")]
    ImageRefused {
        /// The registry that was asked.
        from: String,
        /// What it said.
        why: String,
    },
    /// The registry cannot be reached.
    #[error("{from} cannot be reached: {why}")]
    RegistryUnreachable {
        /// The registry that was asked.
        from: String,
        /// What the attempt met.
        why: String,
    },
    /// Somebody else has the port.
    #[error("the port is taken: {why}")]
    PortTaken {
        /// What the engine said.
        why: String,
    },
    /// The program could not be run in the image.
    #[error("its program cannot be run: {why}")]
    NotRunnable {
        /// What the engine said.
        why: String,
    },
    /// The engine has no init to put before a server that speaks HTTP.
    #[error("the engine has no docker-init: {why}")]
    NoInit {
        /// What the engine said.
        why: String,
    },
    /// The engine's disk is full.
    #[error("no space is left on the engine's disk: {why}")]
    NoSpace {
        /// What the engine said.
        why: String,
    },
    /// No more networks can be made.
    #[error("the engine has no addresses left for another network: {why}")]
    NoAddresses {
        /// What the engine said.
        why: String,
    },
    /// The bridge program is missing or unfit.
    #[error("the bridge program {path} {problem}")]
    Bridge {
        /// Where it was looked for.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What was asked for cannot be.
    #[error("the engine takes no such settings: {why}")]
    Invalid {
        /// What the engine said.
        why: String,
    },
    /// The engine refused or failed for another reason.
    #[error("the engine said: {why}")]
    Engine {
        /// Status of its answer.
        status: u16,
        /// What it said.
        why: String,
    },
    /// Its answer was not understood.
    #[error("the engine's answer is not understood: {why}")]
    Answer {
        /// What was wrong with it.
        why: String,
    },
}

impl EngineError {
    pub(crate) fn new(operation: Operation, subject: Subject, cause: Cause) -> Self {
        Self {
            operation,
            subject,
            cause,
        }
    }

    /// What people can do about it.
    #[must_use]
    pub fn cure(&self) -> &'static str {
        match &self.cause {
            Cause::Unreachable { .. } => {
                "start the engine, or correct engine.docker.host; the node's user has to be allowed \
                 to use its socket"
            }
            Cause::TimedOut { .. } if self.operation == Operation::Pull => {
                "look at the engine's connection to the registry, or raise \
                 engine.docker.pull_timeout"
            }
            Cause::TimedOut { .. } => {
                "look at the load of the engine's machine, or raise engine.docker.timeout"
            }
            Cause::NotFound => match self.subject {
                Subject::Image(_) => "it was removed meanwhile: deploy again",
                _ => "it was removed by somebody else",
            },
            Cause::NetworkGone { .. } => {
                "it is made anew; where its secrets were lost with the store, deploy it again"
            }
            Cause::ImageRefused { .. } => {
                "check the image's name and tag; for a private one, log the engine in to its \
                 registry and pull it there once"
            }
            Cause::RegistryUnreachable { .. } => {
                "look at the engine machine's network and name resolution, set \
                 engine.docker.registry_mirror, or load the image with `docker load`"
            }
            Cause::PortTaken { .. } => {
                "end what listens there, or set engine.docker.publish_address to another address"
            }
            Cause::NotRunnable { .. } => {
                "compare the template's entry point and command with what is in the image, and the \
                 image's architecture with the engine's"
            }
            Cause::NoInit { .. } => {
                "install tini on the engine's machine (Debian: apt-get install tini)"
            }
            Cause::NoSpace { .. } => "free space there, for example with `docker image prune`",
            Cause::NoAddresses { .. } => {
                "remove unused networks with `docker network prune`, or give the engine more \
                 addresses (default-address-pools)"
            }
            Cause::Bridge { .. } => {
                "build it with `cargo bridge`, put it beside mcp-fleet, or name it in \
                 engine.docker.bridge"
            }
            Cause::Invalid { .. } => "correct the deployment's settings or its template",
            Cause::Engine { .. } => "the engine's own log tells more",
            Cause::Answer { .. } => "is that address really a Docker engine?",
        }
    }

    /// Whether the engine as a whole is away, rather than this one thing wrong.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self.cause,
            Cause::Unreachable { .. } | Cause::TimedOut { .. }
        ) && self.operation != Operation::Pull
    }

    /// Whether trying again without a change by people makes sense soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.cause {
            Cause::Unreachable { .. }
            | Cause::TimedOut { .. }
            | Cause::NotFound
            | Cause::NetworkGone { .. }
            | Cause::RegistryUnreachable { .. }
            | Cause::PortTaken { .. }
            | Cause::NoSpace { .. }
            | Cause::NoAddresses { .. }
            | Cause::Engine { .. }
            | Cause::Answer { .. } => true,
            Cause::ImageRefused { .. }
            | Cause::NotRunnable { .. }
            | Cause::NoInit { .. }
            | Cause::Bridge { .. }
            | Cause::Invalid { .. } => false,
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            subject,
            cause,
        } = self;
        write!(f, "cannot {operation} {subject}: {cause}; {}", self.cure())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reach => "reach",
            Self::Inspect => "look at",
            Self::List => "list the containers of",
            Self::Pull => "pull",
            Self::Create => "make",
            Self::Join => "join",
            Self::DeliverBridge => "bring the bridge to",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Remove => "remove",
            Self::ReadLogs => "read the output of",
            Self::ReadStats => "read what is used by",
            Self::Watch => "watch",
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(host) => write!(f, "the engine {host}"),
            Self::Container(name) => write!(f, "container {name}"),
            Self::Image(name) => write!(f, "image {name}"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}
