//! What users ask of deployments. Everything is checked before anything is
//! stored; what is stored, a node that has the engine brings about.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Deployments, View,
    definition::{Definition, EngineRef, MAX_REPLICAS, Wish},
    record::{Phase, Record},
};
use crate::{
    fleet::News,
    ids::{BadServerId, ServerId},
    registry::MAX_DEFINITION,
    store::{
        Channel, Fence, RecordKey, StoreError,
        registry::{Change, Changed, Edition},
    },
    templates::{Settings, SettingsErrors, TemplateError, spec::ServerSpec},
};

/// Attempts at a change that others change at the same time.
const ATTEMPTS: usize = 5;
/// Longest time a server may be given to end by itself, in seconds.
pub const MAX_GRACE: u32 = 600;

/// What is to be deployed.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The template.
    pub template: String,
    /// The name; the template's when absent.
    pub name: Option<String>,
    /// How many replicas; as many as there were, or one, when absent.
    pub replicas: Option<u32>,
    /// What the template is given.
    pub settings: Settings,
    /// The kind of engine; any when absent.
    pub engine: Option<String>,
}

/// What a deployment would be, or has become.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What it is to be. Its nonce is that of before, or a fresh one.
    pub definition: Definition,
    /// What it was, if it was.
    pub before: Option<(Edition, Arc<Definition>)>,
}

/// Why a deployment was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// There is no such template, or it cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The settings do not fit the template.
    #[error("{0}")]
    Settings(SettingsErrors),
    /// The name cannot be a server's.
    #[error(transparent)]
    Name(#[from] BadServerId),
    /// Something else has the name.
    #[error("{name:?} is taken by {by}; choose another with --name")]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        by: String,
    },
    /// That many replicas are not run.
    #[error(
        "a deployment has from 1 to {MAX_REPLICAS} replicas, not {0}; `mcp-fleet stop` stops one"
    )]
    Replicas(u32),
    /// That kind of engine is not known.
    #[error("there is no engine of kind {0:?}; there is `docker`")]
    Kind(String),
    /// No node of the fleet has an engine.
    #[error("no node of the fleet has a container engine that answers{}; `mcp-fleet doctor` says what this node's needs", why(.0.as_deref()))]
    NoEngine(Option<String>),
    /// What is to be deployed is too long.
    #[error("a deployment may have at most {MAX_DEFINITION} bytes of settings")]
    TooLong,
    /// There is none of that name.
    #[error("no deployment {name:?}{}", there_are(known))]
    Unknown {
        /// The name.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// It is on its way out.
    #[error("deployment {0} is being removed")]
    Removing(String),
    /// It was found running after the store had lost it.
    #[error(
        "the store had lost deployment {0}; it was found running, but its secrets are not known any \
         more: deploy it again with them"
    )]
    SecretsLost(String),
    /// This node does not understand what it is.
    #[error("deployment {name}: {problem}; ask a node of the newest version")]
    NotUnderstood {
        /// The name.
        name: String,
        /// Why not.
        problem: String,
    },
    /// There are as many as there may be.
    #[error("{most} deployments are wanted, more are not taken (limits.deployments)")]
    Full {
        /// The bound.
        most: u32,
    },
    /// The store did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn why(trouble: Option<&str>) -> String {
    trouble
        .map(|trouble| format!(" ({trouble})"))
        .unwrap_or_default()
}

fn there_are(known: &[String]) -> String {
    match known {
        [] => "; there are none".to_owned(),
        known => format!("; there are {}", known.join(", ")),
    }
}

impl From<SettingsErrors> for DeployError {
    fn from(errors: SettingsErrors) -> Self {
        Self::Settings(errors)
    }
}

impl Deployments {
    /// What a request comes to. Stores nothing and asks no engine.
    ///
    /// # Errors
    /// Whatever is wrong with the request.
    pub async fn prepare(&self, request: &Request) -> Result<Prepared, DeployError> {
        let template = self.parts.catalogue.get(&request.template).await?;
        let name = request.name.as_deref().unwrap_or(template.name.as_str());
        let name = ServerId::try_from(name)?.to_string();
        if let Some(kind) = request.engine.as_deref().filter(|kind| *kind != "docker") {
            return Err(DeployError::Kind(kind.to_owned()));
        }
        let spec: ServerSpec = template.resolve(&request.settings)?;
        if let Some(by) = self.parts.registry.taken(&name) {
            return Err(DeployError::Taken { name, by });
        }
        let before = self.defined(&name)?;
        let last = before.as_ref().map(|(_, definition)| definition);
        if last.is_some_and(|last| last.wish == Wish::Remove) {
            return Err(DeployError::Removing(name));
        }
        let replicas = request.replicas.or(last.map(|last| last.replicas));
        let definition = Definition {
            replicas: checked(replicas.unwrap_or(1))?,
            engine: match last {
                Some(last) => last.engine.clone(),
                None => self.choose_engine()?,
            },
            wish: Wish::Run,
            generation_nonce: last
                .filter(|last| last.adopted.is_none())
                .map_or_else(Definition::nonce, |last| last.generation_nonce.clone()),
            attempt: last.map_or(0, |last| last.attempt),
            adopted: None,
            spec,
            name,
        };
        Ok(Prepared { definition, before })
    }

    /// Deploys, or changes what is deployed. Doing it again changes nothing:
    /// what failed is tried anew.
    ///
    /// # Errors
    /// Nothing was changed; after [`StoreError::Unreachable`] it may have been.
    pub async fn deploy(&self, request: &Request) -> Result<(View, Changed), DeployError> {
        for _ in 0..ATTEMPTS {
            let Prepared {
                mut definition,
                before,
            } = self.prepare(request).await?;
            let is_same = before
                .as_ref()
                .is_some_and(|(_, last)| **last == definition);
            let is_retry = is_same && self.has_failed(&definition.name);
            if is_retry {
                definition.attempt = definition.attempt.wrapping_add(1);
            }
            let over = before.map_or(Edition(0), |(edition, _)| edition);
            if let Some(changed) = self.put(&definition, Some(over)).await? {
                let changed = if is_retry {
                    Changed::Unchanged
                } else {
                    changed
                };
                let view = self.one(&definition.name);
                let view = view.unwrap_or(View {
                    name: definition.name,
                    wanted: None,
                    record: None,
                });
                return Ok((view, changed));
            }
        }
        Err(too_busy().into())
    }

    /// Whether replicas of it do not come up.
    fn has_failed(&self, name: &str) -> bool {
        let view = self.one(name);
        let phase = view.map(|view| view.state().0);
        matches!(phase, Some(Phase::Failing | Phase::Degraded))
    }

    /// Stops a deployment; its containers stay. `grace`: seconds its servers
    /// have to end by themselves, the usual time when absent.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    pub async fn stop(&self, name: &str, grace: Option<u32>) -> Result<View, DeployError> {
        let usual = self.settings.grace.as_millis().div_ceil(1000);
        let usual = u32::try_from(usual).unwrap_or(MAX_GRACE);
        let grace = grace.unwrap_or(usual).min(MAX_GRACE);
        let stop = |definition: &mut Definition| definition.wish = Wish::Stop { grace };
        self.change(name, stop).await
    }

    /// Replaces all replicas, one by one; one that was stopped runs again.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    pub async fn restart(&self, name: &str) -> Result<View, DeployError> {
        let restart = |definition: &mut Definition| {
            definition.wish = Wish::Run;
            definition.generation_nonce = Definition::nonce();
            definition.adopted = None;
        };
        self.change(name, restart).await
    }

    /// Changes the number of replicas.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    pub async fn scale(&self, name: &str, replicas: u32) -> Result<View, DeployError> {
        let replicas = checked(replicas)?;
        self.change(name, |definition| definition.replicas = replicas)
            .await
    }

    /// Removes a deployment with everything that belongs to it. What is on an
    /// engine that no node has any more is removed when the engine comes back
    /// within a day. `None`: it is gone already.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    pub async fn remove(&self, name: &str) -> Result<Option<View>, DeployError> {
        let view = self.one(name).ok_or_else(|| self.unknown(name))?;
        let is_orphan = view.wanted.is_none();
        let definition = match view.wanted {
            Some(wanted) => wanted.definition,
            None => Ok(Arc::new(self.of_orphan(name, view.record.as_ref())?)),
        };
        let engine = definition.as_ref().map(|known| known.engine.clone());
        let is_anywhere = engine.as_ref().is_ok_and(|engine| self.is_anywhere(engine));
        if is_anywhere {
            let definition = definition.map_err(|problem| not_understood(name, &problem))?;
            for _ in 0..ATTEMPTS {
                let over = self.known().wanted.get(name).map(|wanted| wanted.edition);
                let removed = Definition {
                    wish: Wish::Remove,
                    ..(*definition).clone()
                };
                if self.put(&removed, over).await?.is_some() {
                    return Ok(self.one(name));
                }
            }
            return Err(too_busy().into());
        }
        self.entomb(name, view.record).await?;
        let change = Change::Remove {
            name: name.to_owned(),
            over: None,
        };
        let changed = self
            .table
            .change(&change, |table| self.apply(table))
            .await?;
        self.parts.fleet.tell(News::DeploymentsChanged {}).await;
        if changed == Changed::Unknown && !is_orphan {
            // Another node was told before.
            return Err(self.unknown(name));
        }
        Ok(None)
    }

    /// Has its containers removed should its engine come back.
    async fn entomb(&self, name: &str, record: Option<Record>) -> Result<(), DeployError> {
        let known = record.unwrap_or_default();
        let removed = Record {
            name: name.to_owned(),
            phase: Phase::Removed,
            node: self.parts.node.to_string(),
            engine: known.engine,
            fence: known.fence,
            serial: known.serial + 1,
            ..Record::default()
        };
        let (key, Some(value)) = (
            RecordKey::Deployment(ServerId::try_from(name)?),
            removed.encode(),
        ) else {
            return Ok(());
        };
        let day = std::time::Duration::from_secs(24 * 3600);
        let fence = Fence(removed.fence);
        self.parts
            .store
            .put_fenced(&key, fence, Bytes::from(value), day, Channel::Deployments)
            .await?;
        self.learn(removed);
        Ok(())
    }

    async fn change(
        &self,
        name: &str,
        step: impl Fn(&mut Definition),
    ) -> Result<View, DeployError> {
        for _ in 0..ATTEMPTS {
            let Some((edition, before)) = self.defined(name)? else {
                return Err(self.unknown(name));
            };
            if before.wish == Wish::Remove {
                return Err(DeployError::Removing(name.to_owned()));
            }
            let mut definition = (*before).clone();
            step(&mut definition);
            let is_more =
                definition.hash() != before.hash() || definition.replicas > before.replicas;
            if before.has_lost_secrets() && is_more {
                return Err(DeployError::SecretsLost(name.to_owned()));
            }
            if self.put(&definition, Some(edition)).await?.is_some() {
                return self.one(name).ok_or_else(|| self.unknown(name));
            }
        }
        Err(too_busy().into())
    }

    /// Stores a definition; `None` when somebody else changed it meanwhile.
    async fn put(
        &self,
        definition: &Definition,
        over: Option<Edition>,
    ) -> Result<Option<Changed>, DeployError> {
        let encoded = definition
            .encode()
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        if encoded.len() > MAX_DEFINITION {
            return Err(DeployError::TooLong);
        }
        let most = self.settings.most;
        let change = Change::Put {
            name: definition.name.clone(),
            definition: encoded.into(),
            most,
            over,
        };
        let changed = self
            .table
            .change(&change, |table| self.apply(table))
            .await?;
        match changed {
            Changed::Full => Err(DeployError::Full { most }),
            Changed::Moved => {
                self.look().await?;
                Ok(None)
            }
            Changed::Unchanged => Ok(Some(changed)),
            Changed::Created
            | Changed::Replaced
            | Changed::Removed
            | Changed::Unknown
            | Changed::Behind => {
                self.parts.fleet.tell(News::DeploymentsChanged {}).await;
                Ok(Some(changed))
            }
        }
    }

    /// What a deployment is to be, as this node knows it.
    fn defined(&self, name: &str) -> Result<Option<(Edition, Arc<Definition>)>, DeployError> {
        let Some(wanted) = self.known().wanted.get(name).cloned() else {
            return Ok(None);
        };
        match wanted.definition {
            Ok(definition) => Ok(Some((wanted.edition, definition))),
            Err(problem) => Err(not_understood(name, &problem)),
        }
    }

    /// What stands in for the definition of containers that have none, so that
    /// they can be removed.
    fn of_orphan(&self, name: &str, record: Option<&Record>) -> Result<Definition, DeployError> {
        let record = record.ok_or_else(|| self.unknown(name))?;
        let (kind, id) = record.engine.split_once('/').unwrap_or_default();
        Ok(Definition {
            name: name.to_owned(),
            spec: ServerSpec {
                template: record.template.clone(),
                template_version: None,
                image: String::new(),
                transport: crate::templates::spec::Transport::Http {
                    port: 1,
                    path: "/".to_owned(),
                },
                entrypoint: None,
                command: None,
                arguments: Vec::new(),
                env: std::collections::BTreeMap::new(),
                volumes: Vec::new(),
                isolation: crate::templates::spec::Isolation::default(),
                timeout: None,
            },
            replicas: 1,
            engine: EngineRef {
                kind: kind.to_owned(),
                id: id.to_owned(),
            },
            wish: Wish::Remove,
            generation_nonce: Definition::nonce(),
            attempt: 0,
            adopted: None,
        })
    }

    /// The refusal of a name that no deployment has.
    #[must_use]
    pub fn unknown(&self, name: &str) -> DeployError {
        DeployError::Unknown {
            name: name.chars().take(64).collect(),
            known: self.all().into_iter().map(|view| view.name).collect(),
        }
    }

    /// This node's own engine if it answers, else another node's.
    fn choose_engine(&self) -> Result<EngineRef, DeployError> {
        let own = &self.parts.engine;
        if let Some(own) = own
            .offered()
            .first()
            .and_then(|name| EngineRef::parse(name))
        {
            return Ok(own);
        }
        let view = self.parts.membership.view();
        let working = view.members.iter().filter(|member| !member.about.draining);
        let offered = working.flat_map(|member| &member.about.engines);
        offered
            .min()
            .and_then(|name| EngineRef::parse(name))
            .ok_or_else(|| DeployError::NoEngine(own.trouble()))
    }

    /// Why nothing happens to a deployment: nobody has its engine.
    #[must_use]
    pub fn is_out_of_reach(&self, view: &View) -> Option<String> {
        let engine = view.engine().filter(|engine| !engine.is_empty())?;
        let is_there = EngineRef::parse(&engine).is_some_and(|engine| self.is_anywhere(&engine));
        (!is_there).then(|| {
            let own = self.parts.engine.trouble();
            let own = own.map(|trouble| format!(" (this node's: {trouble})"));
            format!(
                "no node has its engine {engine} now{}; what ran there is still called, and looked \
                 after again when the engine is back",
                own.unwrap_or_default()
            )
        })
    }

    /// Whether a node of the fleet has that engine.
    fn is_anywhere(&self, engine: &EngineRef) -> bool {
        let name = engine.to_string();
        let view = self.parts.membership.view();
        let mut others = view.members.iter();
        self.parts.engine.offered().contains(&name)
            || others.any(|member| member.about.engines.contains(&name))
    }
}

fn checked(replicas: u32) -> Result<u32, DeployError> {
    if (1..=MAX_REPLICAS).contains(&replicas) {
        Ok(replicas)
    } else {
        Err(DeployError::Replicas(replicas))
    }
}

fn not_understood(name: &str, problem: &str) -> DeployError {
    DeployError::NotUnderstood {
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}

fn too_busy() -> StoreError {
    StoreError::Refused("the deployment is changed by others at the same time".to_owned())
}
