//! Tools of a template, from whoever answers in time.
//!
//! Asked in parallel under one deadline, best first: servers made from the
//! template, the endpoint it names, a container started for the question
//! ([`EphemeralSource`]), its own list. Each has a breaker. The best that
//! answered wins (`race`), and its answer goes into the shared cache, which
//! also sees to it that one node asks for all. The cache comes before
//! everybody.

mod breakers;
mod found;
mod race;
mod sources;

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::found::Found;
use self::{
    breakers::{Breakers, Went},
    race::{Runner, race},
};
use crate::{
    breaker,
    cache::{Cache, CacheKey, CacheStatus, Durations, Fetch, Fetched, Scope},
    ids::{Principal, ServerId},
    lists::Lists,
    servers::{Server, Servers},
    templates::{Template, ToolDiscovery, spec::ServerSpec},
};

/// The method under which the cache knows tools of templates.
const METHOD: &str = "templates/tools";
/// The list of a template itself stands in for so long when all others failed.
const STAND_IN: Duration = Duration::from_secs(10);

/// Who can tell the tools of a template; the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A server that was made from it.
    Servers,
    /// The endpoint it names.
    Endpoint,
    /// A container that was started to be asked.
    Ephemeral,
    /// Its own list.
    Static,
}

impl Source {
    /// Its name in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Servers => "servers",
            Self::Endpoint => "endpoint",
            Self::Ephemeral => "ephemeral",
            Self::Static => "static",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a source told nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silent {
    /// Which.
    pub source: Source,
    /// Why, in a few words.
    pub reason: String,
}

/// Nobody told the tools of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nobody told the tools of template {template}: {}", told(silent))]
pub struct DiscoveryError {
    /// The template.
    pub template: String,
    /// Who was asked.
    pub silent: Vec<Silent>,
}

/// The tools of a template.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// What was found, and who told it.
    pub found: Arc<Found>,
    /// How the answer was come by.
    pub status: CacheStatus,
    /// How long ago it was told.
    pub age: Duration,
}

/// Starts servers for a question. Implemented by whoever runs containers.
#[async_trait]
pub trait EphemeralSource: Send + Sync + fmt::Debug {
    /// Whether it can be asked now.
    fn is_there(&self) -> bool {
        true
    }

    /// Runs `spec` until what is returned is dropped, which must not block.
    /// Dropping the future ends what was begun.
    ///
    /// # Errors
    /// Why it does not run, in a few words for people.
    async fn start(&self, spec: &ServerSpec) -> Result<Ephemeral, String>;
}

/// A server that runs for a question.
pub struct Ephemeral {
    /// Where it can be asked.
    pub server: Arc<Server>,
    /// Ends it when dropped.
    pub guard: Box<dyn Send + Sync>,
}

/// The names of servers that were made from a template.
pub type MadeFrom = Box<dyn Fn(&str) -> Vec<ServerId> + Send + Sync>;

/// How tools are discovered.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest wait for an answer. Default 2 s.
    pub deadline: Duration,
    /// How long answers are kept.
    pub durations: Durations,
}

impl Settings {
    /// The usual deadline.
    #[must_use]
    pub fn new(durations: Durations) -> Self {
        Self {
            deadline: Duration::from_secs(2),
            durations,
        }
    }

    /// When the race ends, so that the answer is there at the deadline.
    fn race(&self) -> Duration {
        self.deadline.mul_f64(0.85)
    }
}

/// Finds out which tools templates have.
pub struct Discovery {
    settings: Settings,
    lists: Arc<Lists>,
    servers: Arc<Servers>,
    cache: Arc<Cache<Found>>,
    breakers: Breakers,
    made_from: ArcSwapOption<MadeFrom>,
    ephemeral: ArcSwapOption<Arc<dyn EphemeralSource>>,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Discovery {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        lists: Arc<Lists>,
        servers: Arc<Servers>,
        cache: Arc<Cache<Found>>,
    ) -> Self {
        Self {
            settings,
            lists,
            servers,
            cache,
            breakers: Breakers::new(),
            made_from: ArcSwapOption::empty(),
            ephemeral: ArcSwapOption::empty(),
        }
    }

    /// Says which servers were made from a template.
    pub fn knows_servers(&self, made_from: MadeFrom) {
        self.made_from.store(Some(Arc::new(made_from)));
    }

    /// Says who starts containers for a question.
    pub fn starts_by(&self, ephemeral: Arc<dyn EphemeralSource>) {
        self.ephemeral.store(Some(Arc::new(ephemeral)));
    }

    /// The tools of a template, within the deadline.
    ///
    /// # Errors
    /// When nobody told them.
    pub async fn tools(
        self: &Arc<Self>,
        template: &Arc<Template>,
    ) -> Result<Discovered, DiscoveryError> {
        let deadline = Instant::now() + self.settings.deadline;
        let servers = self.servers_of(template);
        let key = key(template, &servers);
        let served = self
            .cache
            .get(
                &key,
                &self.settings.durations,
                self.fetch(template, servers),
                deadline,
            )
            .await;
        match served {
            Ok(served) => Ok(Discovered {
                found: served.value,
                status: served.status,
                age: served.age,
            }),
            Err(crate::cache::CacheError::Fetch(error)) => Err(error),
            // Whoever asks for all nodes does not answer: the list at hand.
            Err(error) => {
                let silent = vec![Silent {
                    source: Source::Servers,
                    reason: error.to_string(),
                }];
                self.own_list(template, silent)
            }
        }
    }

    fn own_list(
        &self,
        template: &Template,
        silent: Vec<Silent>,
    ) -> Result<Discovered, DiscoveryError> {
        match sources::own_list(template) {
            Ok(tools) => Ok(Discovered {
                found: Arc::new(Found {
                    tools,
                    source: Source::Static,
                    server: None,
                    silent,
                }),
                status: CacheStatus::Bypass,
                age: Duration::ZERO,
            }),
            Err(_) => Err(DiscoveryError {
                template: template.name.to_string(),
                silent,
            }),
        }
    }

    /// Servers made from the template that are known here. Nobody has to say
    /// so of the built-in one.
    fn servers_of(&self, template: &Template) -> Vec<Arc<Server>> {
        let name = template.name.as_str();
        let told = self.made_from.load();
        let told = told.as_ref().map(|told| told(name));
        let told = told.unwrap_or_default();
        let made = told.iter().filter_map(|id| self.servers.get(id.as_str()));
        let built_in = self.servers.get(name);
        let built_in = built_in.filter(|server| server.origin == "built-in");
        made.chain(built_in).collect()
    }

    fn fetch(
        self: &Arc<Self>,
        template: &Arc<Template>,
        servers: Vec<Arc<Server>>,
    ) -> Fetch<DiscoveryError> {
        let (discovery, template) = (Arc::clone(self), Arc::clone(template));
        Arc::new(move || {
            let (discovery, template) = (Arc::clone(&discovery), Arc::clone(&template));
            let servers = servers.clone();
            Box::pin(async move { discovery.ask(&template, &servers).await })
        })
    }

    /// Asks everybody.
    async fn ask(
        &self,
        template: &Template,
        servers: &[Arc<Server>],
    ) -> Result<Fetched, DiscoveryError> {
        let begun = Instant::now();
        let deadline = begun + self.settings.race();
        let mut silent = Vec::new();
        let mut runners = Vec::new();
        for (source, answer) in self.sources(template, servers, deadline) {
            if source == Source::Static
                || self
                    .breakers
                    .admits(&template.name, source, self.settings.deadline)
            {
                runners.push(Runner {
                    priority: source as u8,
                    name: source,
                    answer,
                });
            } else {
                silent.push(Silent {
                    source,
                    reason: "failed lately and is left alone for a while".to_owned(),
                });
            }
        }
        let outcome = race(runners, deadline).await;
        let learn = |source, went| self.breakers.learn(&template.name, source, went, begun);
        for source in &outcome.silent {
            learn(*source, Went::Wrong(breaker::Failure::Broken));
            silent.push(Silent {
                source: *source,
                reason: "no answer in time".to_owned(),
            });
        }
        for (source, failure) in outcome.failed {
            learn(source, Went::Wrong(failure.kind));
            silent.push(Silent {
                source,
                reason: failure.reason,
            });
        }
        let failed = |silent| DiscoveryError {
            template: template.name.to_string(),
            silent,
        };
        let Some((source, answer)) = outcome.winner else {
            return Err(failed(silent));
        };
        if source != Source::Static {
            learn(source, Went::Well);
        }
        let found = Found {
            tools: answer.tools,
            source,
            server: answer.server,
            silent,
        };
        fetched(&found).map_err(|reason| failed(vec![Silent { source, reason }]))
    }

    /// Those who can be asked about this template.
    fn sources<'a>(
        &'a self,
        template: &'a Template,
        servers: &'a [Arc<Server>],
        deadline: Instant,
    ) -> Vec<(Source, BoxFuture<'a, sources::Asked>)> {
        let mut all: Vec<(Source, BoxFuture<'a, sources::Asked>)> = Vec::new();
        if !servers.is_empty() {
            let asked = sources::servers(&self.lists, servers, deadline);
            all.push((Source::Servers, Box::pin(asked)));
        }
        let only_its_own =
            template.tool_discovery == ToolDiscovery::Static && !template.tools.is_empty();
        if let Some(endpoint) = template.endpoint.as_ref().filter(|_| !only_its_own) {
            let asked = sources::endpoint(&self.lists, template, endpoint, deadline);
            all.push((Source::Endpoint, Box::pin(asked)));
        }
        let ephemeral = self
            .ephemeral
            .load_full()
            .filter(|source| source.is_there());
        if let Some(ephemeral) = ephemeral.filter(|_| !only_its_own) {
            let ephemeral = Arc::clone(&*ephemeral);
            let asked = sources::ephemeral(&self.lists, ephemeral, template, deadline);
            all.push((Source::Ephemeral, Box::pin(asked)));
        }
        if let Ok(tools) = sources::own_list(template) {
            let answer = sources::Answer {
                tools,
                server: None,
            };
            all.push((Source::Static, Box::pin(async { Ok(answer) })));
        }
        all
    }
}

/// How the cache is to keep an answer. A template's own list is at hand
/// anyway: it is kept only where others failed, for a moment.
fn fetched(found: &Found) -> Result<Fetched, String> {
    let is_stand_in = found.source == Source::Static;
    Ok(Fetched {
        payload: found.encode()?,
        ttl: is_stand_in.then_some(STAND_IN),
        scope: Scope::Fleet,
        storable: !is_stand_in || !found.silent.is_empty(),
        is_empty: false,
    })
}

/// Another version of the template, or other servers made from it, are
/// another question.
fn key(template: &Template, servers: &[Arc<Server>]) -> CacheKey {
    #[expect(clippy::expect_used, reason = "a valid name, as the tests see")]
    static SERVER: LazyLock<ServerId> =
        LazyLock::new(|| ServerId::try_from("templates").expect("a valid name"));
    let mut variant = format!("{} {}", template.name, template.digest);
    for server in servers {
        variant.push_str(&format!(" {}/{}", server.id, server.edition.0));
    }
    CacheKey::new(&SERVER, METHOD, None, &variant, Principal::ANONYMOUS)
}

fn told(silent: &[Silent]) -> String {
    if silent.is_empty() {
        return "there is nobody to ask: no server runs that was made from it, and it names neither \
                an endpoint nor its tools"
            .to_owned();
    }
    let told = silent.iter();
    let told: Vec<_> = told
        .map(|silent| format!("{}: {}", silent.source, silent.reason))
        .collect();
    told.join("; ")
}

#[cfg(test)]
mod tests;
