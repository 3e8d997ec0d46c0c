//! Steps of a plan, done: each is one future that a reconciler may drop at any
//! point, since all that it leaves half done is found and finished later.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep},
};

use super::{
    Deployments,
    definition::Definition,
    naming::{Found, container_labels},
    pressure,
    record::{LOG_LINES, LOG_WIDTH, PinnedImage},
};
use crate::{
    bridge::token::PublicKey,
    engine::{
        BRIDGE_PORT, BridgeLaunch, Cause, Container, Created, EngineError, Exit, NewContainer,
        ResolvedImage, docker::Docker,
    },
    secrets::Secrets,
    store::Fence,
    templates::spec::Transport,
    upstream::UpstreamError,
};

/// Steps at once; the engine has a bound of its own.
const AT_ONCE: usize = 16;
/// How long a server is asked before that is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for one answer of a server that starts.
const ONE_PROBE: Duration = Duration::from_secs(3);
/// Time between two reports of a pull.
const PROGRESS: Duration = Duration::from_millis(500);
/// Pauses between two questions to it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// What came of a step.
#[derive(Debug)]
pub(super) struct Done {
    /// The deployment.
    pub(super) deployment: String,
    /// The container.
    pub(super) container: String,
    /// What came of it.
    pub(super) outcome: Outcome,
}

/// What came of a step.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was made from that image, and started.
    Created(PinnedImage),
    /// It was started again.
    Started,
    /// Its server answers, in this life of the container.
    Answered(u64),
    /// It does not answer yet, or not as a server should.
    Silent(Silence),
    /// It was stopped.
    Stopped,
    /// It is gone.
    Removed,
    /// What it printed before it ended.
    Printed(Vec<String>),
    /// It was killed because it used more memory than it may.
    MetItsLimit(Exit),
    /// It has come to the bounds it is kept in, or has not.
    Pressed(Option<String>),
    /// Nothing is to be noted.
    Nothing,
    /// Networks and volumes that nobody uses are gone, or not.
    Tidied(Result<(), EngineError>),
    /// The engine did not do it.
    Failed(EngineError),
}

/// How a server does not answer.
#[derive(Debug)]
pub(super) struct Silence {
    /// For people.
    pub(super) reason: String,
    /// Whether something answered that is no server, or not yet one: waiting
    /// is of less use than with one that only starts slowly.
    pub(super) is_wrong: bool,
}

/// A step under way.
pub(super) type Job = BoxFuture<'static, Done>;

/// How far images are that are being pulled, by deployment.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    told: Mutex<BTreeMap<String, String>>,
    last: Mutex<Option<Instant>>,
    /// There is news.
    pub(super) changed: Notify,
}

impl Pulls {
    /// All that are under way.
    pub(super) fn all(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    fn tell(&self, deployment: &str, progress: String) {
        let is_new = self
            .lock()
            .insert(deployment.to_owned(), progress)
            .is_none();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if is_new || last.is_none_or(|last| last.elapsed() >= PROGRESS) {
            *last = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    fn end(&self, deployment: &str) {
        self.lock().remove(deployment);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        // Changed in single steps: a panic cannot leave one in between.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what is told of a pull, also when the step is dropped.
struct Pulling<'a>(&'a Pulls, &'a str);

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

/// Makes steps of one engine.
#[derive(Clone)]
pub(super) struct Jobs {
    docker: Arc<Docker>,
    fleet: Arc<str>,
    key: PublicKey,
    owner: Option<Arc<str>>,
    /// Time a server has to end by itself before it is removed.
    grace: Duration,
    turns: Arc<Semaphore>,
    pub(super) pulls: Arc<Pulls>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("fleet", &self.fleet)
            .finish_non_exhaustive()
    }
}

impl Jobs {
    pub(super) fn new(node: &Deployments) -> Self {
        let key = node.parts.signer.public();
        Self {
            docker: Arc::clone(&node.parts.engine.docker),
            fleet: key.fleet_id().into(),
            key,
            owner: node.settings.owner.as_deref().map(Into::into),
            grace: node.settings.grace,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            pulls: Arc::default(),
        }
    }

    /// The fleet whose containers these are.
    pub(super) fn fleet(&self) -> &str {
        &self.fleet
    }

    fn job(
        &self,
        deployment: &str,
        container: &str,
        step: impl Future<Output = Result<Outcome, EngineError>> + Send + 'static,
    ) -> Job {
        let (deployment, container) = (deployment.to_owned(), container.to_owned());
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire().await.ok();
            Done {
                deployment,
                container,
                outcome: step.await.unwrap_or_else(Outcome::Failed),
            }
        })
    }

    /// Makes and starts a replica, with all that it needs, from that image if
    /// it still can be had.
    pub(super) fn create(
        &self,
        definition: Arc<Definition>,
        ordinal: u32,
        container: &str,
        image: Option<PinnedImage>,
        fence: Fence,
    ) -> Job {
        let (this, name) = (self.clone(), container.to_owned());
        // A pull takes minutes: nobody's turn, pulls have their own.
        Box::pin(async move {
            let image = match this.image(&definition, image.as_ref()).await {
                Ok(image) => image,
                Err(error) => {
                    return Done {
                        deployment: definition.name.clone(),
                        container: name,
                        outcome: Outcome::Failed(error),
                    };
                }
            };
            let (deployment, container) = (definition.name.clone(), name.clone());
            let making = this.clone();
            let making =
                async move { making.make(&definition, ordinal, &name, image, fence).await };
            this.job(&deployment, &container, making).await
        })
    }

    /// What replicas are made from, pulled when it is not there.
    async fn image(
        &self,
        definition: &Definition,
        pinned: Option<&PinnedImage>,
    ) -> Result<ResolvedImage, EngineError> {
        let image = &definition.spec.image;
        let _pulling = Pulling(&self.pulls, &definition.name);
        let tell = |progress| {
            self.pulls
                .tell(&definition.name, format!("{image}: {progress}"));
        };
        if let Some(PinnedImage { id, digest, .. }) = pinned {
            let same = self.docker.ensure_same(id, digest.as_deref(), tell);
            if let Some(same) = same.await? {
                return Ok(same);
            }
            let deployment = &definition.name;
            tracing::warn!(
                deployment,
                image,
                id,
                "an image is gone: its name is looked up anew"
            );
        }
        self.docker.ensure_image(image, tell).await
    }

    async fn make(
        &self,
        definition: &Definition,
        ordinal: u32,
        name: &str,
        image: ResolvedImage,
        fence: Fence,
    ) -> Result<Outcome, EngineError> {
        let spec = &definition.spec;
        let network = spec.isolation.network;
        let network = self.docker.ensure_network(&self.fleet, network).await?;
        let bridge = match &spec.transport {
            Transport::Http { .. } => None,
            Transport::Stdio { .. } => Some(BridgeLaunch {
                volume: self.docker.ensure_bridge(&self.fleet, &image).await?,
                public_key: self.key.to_string(),
                audience: name.to_owned(),
                port: BRIDGE_PORT,
                arguments: Vec::new(),
            }),
        };
        let labels = container_labels(
            &self.fleet,
            definition,
            ordinal,
            fence,
            self.owner.as_deref(),
        );
        let new = NewContainer {
            name,
            labels: &labels,
            spec,
            image: &image,
            network: &network,
            bridge: bridge.as_ref(),
        };
        match self.docker.create(&new).await? {
            Created::Created => {}
            Created::AlreadyThere => self.check_ours(name).await?,
        }
        self.docker.start(name).await?;
        Ok(Outcome::Created(PinnedImage {
            spec: definition.hash().to_string(),
            id: image.id,
            digest: image.digest,
        }))
    }

    /// Whoever has the name was made by us, or is left alone.
    async fn check_ours(&self, name: &str) -> Result<(), EngineError> {
        let there = self.docker.inspect(name).await?;
        let is_ours = there.is_none_or(|there| Found::of(&self.fleet, there).is_some());
        if is_ours {
            return Ok(());
        }
        Err(EngineError {
            operation: crate::engine::Operation::Create,
            subject: crate::engine::Subject::Container(name.to_owned()),
            cause: Cause::Invalid {
                why: "a container of that name is there, and it is not this fleet's".to_owned(),
            },
        })
    }

    /// Starts a container. One that cannot be, as its network is gone, is out
    /// of the way afterwards if another may be made, with its network.
    pub(super) fn start(&self, deployment: &str, container: &str, may_make: bool) -> Job {
        let (docker, name) = (Arc::clone(&self.docker), container.to_owned());
        self.job(deployment, container, async move {
            let started = docker.start(&name).await;
            let is_of_no_use = started
                .as_ref()
                .is_err_and(|error| matches!(error.cause, Cause::NetworkGone { .. }));
            if is_of_no_use && may_make {
                docker.remove(&name).await?;
            }
            started.map(|()| Outcome::Started)
        })
    }

    pub(super) fn stop(&self, deployment: &str, container: &str, grace: Duration) -> Job {
        let (docker, name) = (Arc::clone(&self.docker), container.to_owned());
        self.job(deployment, container, async move {
            docker.stop(&name, grace).await.map(|()| Outcome::Stopped)
        })
    }

    pub(super) fn remove(&self, deployment: &str, container: &str, is_running: bool) -> Job {
        let (docker, name) = (Arc::clone(&self.docker), container.to_owned());
        let grace = self.grace;
        self.job(deployment, container, async move {
            if is_running && let Err(error) = docker.stop(&name, grace).await {
                tracing::debug!(container = name, %error, "removed without a word");
            }
            docker.remove(&name).await.map(|()| Outcome::Removed)
        })
    }

    /// The last lines that a container printed.
    pub(super) fn last_lines(&self, deployment: &str, container: &str, secrets: Secrets) -> Job {
        let (docker, name) = (Arc::clone(&self.docker), container.to_owned());
        self.job(deployment, container, async move {
            let lines = docker.last_lines(&name, LOG_LINES).await;
            let lines = lines.unwrap_or_else(|error| {
                tracing::debug!(container = name, %error, "what it printed cannot be read");
                Vec::new()
            });
            let shown = lines.into_iter().map(|line| {
                let text = secrets.hide(&line.text);
                text.chars().take(LOG_WIDTH).collect()
            });
            Ok(Outcome::Printed(shown.collect()))
        })
    }

    /// What killed a container, where the engine does not know it at once.
    pub(super) fn killer(&self, deployment: &str, container: &Container, exit: &Exit) -> Job {
        let (docker, exit) = (Arc::clone(&self.docker), exit.clone());
        let (deployment, id) = (deployment.to_owned(), container.id.clone());
        let container = container.name.clone();
        // It mostly waits, so it takes nobody's turn.
        Box::pin(async move {
            let outcome = match !exit.oom_killed && docker.met_its_limit(&id, &exit).await {
                true => Outcome::MetItsLimit(Exit {
                    oom_killed: true,
                    ..exit
                }),
                false => Outcome::Nothing,
            };
            Done {
                deployment,
                container,
                outcome,
            }
        })
    }

    /// Whether a container has come to the bounds it is kept in.
    pub(super) fn pressure(&self, deployment: &str, container: &str) -> Job {
        let (docker, name) = (Arc::clone(&self.docker), container.to_owned());
        self.job(deployment, container, async move {
            Ok(match docker.usage(&name).await {
                Ok(usage) => Outcome::Pressed(pressure::words(&usage)),
                Err(error) => {
                    tracing::debug!(container = name, %error, "what it uses is not known");
                    Outcome::Nothing
                }
            })
        })
    }

    /// Removes what nobody uses any more.
    pub(super) fn tidy(&self) -> Job {
        let (docker, fleet) = (Arc::clone(&self.docker), Arc::clone(&self.fleet));
        self.job("", "", async move {
            Ok(Outcome::Tidied(docker.remove_unused(&fleet).await))
        })
    }
}

/// Asks a server that starts until it answers, or for a while.
pub(super) fn probe(node: &Arc<Deployments>, found: &Found, since: u64) -> Job {
    let (node, name) = (Arc::downgrade(node), found.seen.name.clone());
    let (server, url, audience) = (found.server.clone(), found.url(), found.audience());
    Box::pin(async move {
        let until = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let mut silence = Silence {
            reason: "its server does not answer".to_owned(),
            is_wrong: false,
        };
        let outcome = loop {
            let Some(node) = node.upgrade() else {
                break Outcome::Silent(silence);
            };
            let replica = url
                .as_deref()
                .and_then(|url| node.replica(&server, url, audience.as_deref()));
            let Some(replica) = replica else {
                sleep(LAST_PAUSE).await;
                silence.reason = "the engine tells no address of it".to_owned();
                break Outcome::Silent(silence);
            };
            let deadline = Instant::now() + ONE_PROBE;
            match node.parts.upstreams.describe(&replica, deadline).await {
                Ok(_) => break Outcome::Answered(since),
                Err(error) if is_refusal(&error) => break Outcome::Answered(since),
                Err(error) => {
                    silence = Silence {
                        reason: format!("its server does not answer: {}", told(&error)),
                        is_wrong: is_wrong(&error),
                    }
                }
            }
            drop(node);
            if Instant::now() >= until {
                break Outcome::Silent(silence);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        };
        Done {
            deployment: server,
            container: name,
            outcome,
        }
    })
}

/// An error with its causes.
fn told(error: &UpstreamError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Somebody answered, and not as a server that is about to be ready does.
fn is_wrong(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::NotReady(cause) => is_wrong(cause),
        UpstreamError::Http { .. }
        | UpstreamError::Refused { .. }
        | UpstreamError::Malformed(_)
        | UpstreamError::Incompatible(_)
        | UpstreamError::TooLarge { .. } => true,
        UpstreamError::ConnectFailed(_)
        | UpstreamError::SpawnFailed(_)
        | UpstreamError::Busy(_)
        | UpstreamError::NotTaken(..)
        | UpstreamError::Stopping
        | UpstreamError::TimedOut { .. }
        | UpstreamError::Closed { .. }
        | UpstreamError::SessionLost
        | UpstreamError::SessionGone
        | UpstreamError::NotOffered(_)
        | UpstreamError::NoSuchQuestion => false,
    }
}

/// It wants a credential that the fleet does not have: it lives.
fn is_refusal(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::NotReady(cause) => is_refusal(cause),
        error => {
            matches!(error, UpstreamError::Http { status, .. } if matches!(status.as_u16(), 401 | 403))
        }
    }
}
