//! What is told of a deployment. Secrets are not among it.

use serde::Serialize;

use crate::{
    deployments::{
        View,
        commands::Prepared,
        definition::{Definition, Wish, shown},
        record::{Phase, ReplicaRecord},
    },
    gateway::Gateway,
    templates::spec::ServerSpec,
};

#[derive(Serialize)]
pub(super) struct Entry {
    name: String,
    /// `created`, `replaced`, `unchanged`: what a request came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// Where the server is served.
    path: String,
    template: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// `kind/id`
    engine: String,
    /// How far it is.
    phase: &'static str,
    /// Why it is no further.
    reason: Option<String>,
    /// Whether trying again without a change is of no use.
    #[serde(rename = "final")]
    is_final: bool,
    /// How far an image is that is being pulled.
    pull: Option<String>,
    /// `run`, `stop`, `remove`; `null` when nothing says what is wanted.
    wanted: Option<&'static str>,
    replicas: Option<u32>,
    /// How many of them answer.
    ready: usize,
    /// For how long it has been in that phase.
    since_s: Option<f64>,
    /// The node that looks after its engine.
    node: Option<String>,
    containers: Vec<ContainerEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<ServerSpec>,
}

#[derive(Serialize)]
struct ContainerEntry {
    name: String,
    replica: u32,
    /// `starting`, `ready`, `crashed`, `paused`, `draining`, `stopped`
    state: &'static str,
    /// Whether it runs what is wanted now.
    current: bool,
    /// Whether calls go there.
    routed: bool,
    endpoint: Option<String>,
    restarts: u32,
    reason: Option<String>,
    exit_code: Option<i64>,
    oom_killed: bool,
    /// What it printed before it ended.
    log: Vec<String>,
}

impl Entry {
    pub(super) fn new(gateway: &Gateway, view: &View) -> Self {
        let record = view.record.clone().unwrap_or_default();
        let definition = view.definition();
        let (phase, reason) = view.state();
        let now = gateway.health.store_now();
        let is_current = record.phase == phase && record.since > 0 && now >= record.since;
        let template = definition.map(|known| known.spec.template.clone());
        let engine = definition.map(|known| known.engine.to_string());
        let is_waiting = matches!(
            phase,
            Phase::Pending | Phase::EngineAway | Phase::Stopping | Phase::Removing
        );
        let away = gateway.deployments.is_out_of_reach(view);
        let away = away.filter(|_| is_waiting);
        Self {
            outcome: None,
            path: format!("/mcp/{}", view.name),
            template: template.unwrap_or(record.template),
            image: definition.map(|known| known.spec.image.clone()),
            engine: engine.unwrap_or(record.engine),
            phase: phase.as_str(),
            reason: reason.or(away),
            is_final: record.is_final && matches!(phase, Phase::Failing | Phase::Degraded),
            pull: record.pull.filter(|_| phase == Phase::Pulling),
            wanted: definition.map(|known| match known.wish {
                Wish::Run => "run",
                Wish::Stop { .. } => "stop",
                Wish::Remove => "remove",
            }),
            replicas: definition.map(|known| known.replicas),
            ready: view.ready(),
            since_s: is_current.then(|| {
                let millis = u32::try_from(now - record.since).unwrap_or(u32::MAX);
                f64::from(millis) / 1000.0
            }),
            node: Some(record.node).filter(|node| !node.is_empty()),
            containers: record
                .replicas
                .into_iter()
                .map(|one| ContainerEntry::new(one, &record.spec))
                .collect(),
            spec: None,
            name: view.name.clone(),
        }
    }

    /// With what runs, secrets shown as `***`.
    pub(super) fn in_detail(mut self, view: &View) -> Self {
        self.spec = view.definition().map(|known| shown(&known.spec));
        self
    }

    pub(super) fn with_outcome(mut self, outcome: Option<&'static str>) -> Self {
        self.outcome = outcome;
        self
    }
}

impl ContainerEntry {
    fn new(one: ReplicaRecord, spec: &str) -> Self {
        Self {
            name: one.container,
            replica: one.ordinal,
            state: one.state.as_str(),
            current: one.spec == spec,
            routed: one.routed,
            endpoint: one.url,
            restarts: one.restarts,
            reason: one.reason,
            exit_code: one.exit_code,
            oom_killed: one.oom,
            log: one.log,
        }
    }
}

/// What would be, without anything being changed.
#[derive(Serialize)]
pub(super) struct DryRun {
    dry_run: bool,
    name: String,
    path: String,
    engine: String,
    replicas: u32,
    /// `create`, `change`, `nothing`
    would: &'static str,
    /// Names of the containers, as far as they are known before.
    containers: Vec<String>,
    spec: ServerSpec,
}

impl DryRun {
    pub(super) fn new(gateway: &Gateway, prepared: &Prepared) -> Self {
        let Prepared { definition, before } = prepared;
        let is_same = |before: &Definition| before == definition;
        let would = match before {
            None => "create",
            Some((_, before)) if is_same(before) => "nothing",
            Some(_) => "change",
        };
        let fleet = gateway.signer.fleet_id();
        // The hash of a new one is salted when it is stored.
        let hash = match before {
            None => "*".to_owned(),
            Some(_) => definition.hash().to_string(),
        };
        let name = &definition.name;
        let container = |ordinal| format!("mcp-fleet-{fleet}-{name}-{hash}-{ordinal}");
        Self {
            dry_run: true,
            path: format!("/mcp/{name}"),
            name: name.clone(),
            engine: definition.engine.to_string(),
            replicas: definition.replicas,
            would,
            containers: (0..definition.replicas).map(container).collect(),
            spec: shown(&definition.spec),
        }
    }
}
