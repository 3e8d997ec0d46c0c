//! Containers: made, started, looked at, stopped, removed.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bollard::{
    errors::Error,
    models::{
        ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
        NetworkSettings,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RestartContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep;

use super::{
    Cause, Docker, EngineError, Operation, Subject, body, call::About, labels, place::Place,
};
use crate::engine::{Container, Created, Exit, NewContainer, State, unix_time};

/// Pause between two looks at something that is going away.
const LOOK: Duration = Duration::from_millis(100);

/// Exit code of what was ended by SIGKILL.
const KILLED: i64 = 137;

impl Docker {
    /// Makes a container; it is not started. Its name can be given only once,
    /// which decides between two nodes that make the same one.
    ///
    /// # Errors
    /// When the engine does not answer or refuses. After a time-out it may be there.
    pub async fn create(&self, new: &NewContainer<'_>) -> Result<Created, EngineError> {
        let about = About::container(Operation::Create, new.name);
        let publish = match self.place().await? {
            Place::Elsewhere => Some(self.settings.publish_address),
            Place::Machine | Place::Container(_) => None,
        };
        let body = body::body(new, publish).map_err(|why| about.error(Cause::Invalid { why }))?;
        let options = CreateContainerOptionsBuilder::new().name(new.name).build();
        let create =
            async |client: bollard::Docker| client.create_container(Some(options), body).await;
        match self.ask(&about, create).await {
            Ok(_) => Ok(Created::Created),
            Err(EngineError {
                cause: Cause::Engine { status: 409, .. },
                ..
            }) => Ok(Created::AlreadyThere),
            Err(error) if error.cause == Cause::NotFound => {
                let subject = Subject::Image(new.spec.image.clone());
                Err(EngineError { subject, ..error })
            }
            Err(error) => Err(without_secrets(error, new)),
        }
    }

    /// Starts a container; one that runs already is left alone. When a
    /// container that never ran cannot be started, it is removed.
    ///
    /// # Errors
    /// When the engine does not answer, or it cannot be started.
    pub async fn start(&self, name: &str) -> Result<(), EngineError> {
        let about = About::container(Operation::Start, name);
        let named = name.to_owned();
        let start = async move |client: bollard::Docker| client.start_container(&named, None).await;
        let Err(error) = self.ask(&about, start).await else {
            return Ok(());
        };
        if !error.is_unavailable() && error.cause != Cause::NotFound {
            self.remove_unstarted(name).await;
        }
        Err(error)
    }

    /// A container that could not be started is no use to anybody, and its
    /// name would be in the way.
    async fn remove_unstarted(&self, name: &str) {
        let state = self.inspect(name).await.ok().flatten();
        let never_ran = state.is_some_and(|container| match container.state {
            State::Created => true,
            State::Exited(exit) => exit.started == 0,
            State::Running { .. } | State::Paused | State::Going => false,
        });
        if never_ran && let Err(error) = self.remove(name).await {
            tracing::warn!(container = name, %error, "a container that did not start is left");
        }
    }

    /// A container of this name; `None` when there is none.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn inspect(&self, name: &str) -> Result<Option<Container>, EngineError> {
        let about = About::container(Operation::Inspect, name);
        match self.inspect_raw(&about, name).await {
            Ok(found) => {
                let mut found = container(found, self.settings.publish_address);
                if let State::Exited(exit) = &mut found.state {
                    exit.oom_killed = self.met_its_limit(&found.id, exit).await;
                }
                Ok(Some(found))
            }
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same as far as the engine knows it at once: not what killed it.
    async fn glance(&self, id: &str) -> Result<Option<Container>, EngineError> {
        let about = About::container(Operation::Inspect, id);
        match self.inspect_raw(&about, id).await {
            Ok(found) => Ok(Some(container(found, self.settings.publish_address))),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn inspect_raw(
        &self,
        about: &About,
        name: &str,
    ) -> Result<ContainerInspectResponse, EngineError> {
        let name = name.to_owned();
        let inspect =
            async move |client: bollard::Docker| client.inspect_container(&name, None).await;
        self.ask(about, inspect).await
    }

    /// Whether a container of that id ended so for want of memory. An engine
    /// that hears of the end of a process before it hears why does not write
    /// that down. It tells when asked what happened, which takes a second or
    /// two after the end.
    pub async fn met_its_limit(&self, id: &str, exit: &Exit) -> bool {
        exit.oom_killed || (exit.code == KILLED && self.had_no_memory(id, exit.finished).await)
    }

    /// The containers of a fleet that are replicas, by name. Whether those that
    /// were killed met their memory limit is not asked: [`met_its_limit`](Self::met_its_limit).
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list(&self, fleet: &str) -> Result<Vec<Container>, EngineError> {
        let found = self.summaries(fleet).await?;
        self.inspect_all(found).await
    }

    /// The containers of a node that takes them with it, of whatever fleet it
    /// was when it made them.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn owned(&self, owner: &str) -> Result<Vec<Container>, EngineError> {
        let label = format!("{}={owner}", labels::OWNER);
        let found = self.labelled(HashMap::from([("label", vec![label])]));
        self.inspect_all(found.await?).await
    }

    /// A summary tells neither exit codes nor times. What goes away in between
    /// is no longer one of them.
    async fn inspect_all(
        &self,
        found: Vec<ContainerSummary>,
    ) -> Result<Vec<Container>, EngineError> {
        let ids = found
            .into_iter()
            .filter(|summary| !is_helper(summary))
            .filter_map(|summary| summary.id);
        let mut containers: Vec<Container> = stream::iter(ids)
            .map(|id| async move { self.glance(&id).await })
            .buffer_unordered(self.settings.max_in_flight.max(1))
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .try_collect()
            .await
            .map_err(|error| self.about_engine(Operation::List).error(error.cause))?;
        containers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(containers)
    }

    /// Fleet and name of every container that is some fleet's replica.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn of_all_fleets(&self) -> Result<Vec<(String, String)>, EngineError> {
        let found = self
            .labelled(HashMap::from([("label", vec![labels::SERVER.to_owned()])]))
            .await?;
        let named = found.into_iter().filter_map(|summary| {
            let fleet = summary.labels?.remove(labels::FLEET)?;
            let name = summary.names?.into_iter().next()?;
            Some((fleet, name.trim_start_matches('/').to_owned()))
        });
        Ok(named.collect())
    }

    /// Everything of a fleet, helpers too, in few words.
    pub(super) async fn summaries(
        &self,
        fleet: &str,
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        self.labelled(of_fleet(fleet)).await
    }

    async fn labelled(
        &self,
        filters: HashMap<&'static str, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        let about = self.about_engine(Operation::List);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let list = async |client: bollard::Docker| client.list_containers(Some(options)).await;
        self.ask(&about, list).await
    }

    /// Asks a container's program to end, and ends it after `grace`.
    ///
    /// # Errors
    /// When there is no such container or the engine does not answer.
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let about = About::container(Operation::Stop, name);
        let options = StopContainerOptionsBuilder::new().t(seconds(grace)).build();
        let name = name.to_owned();
        let stop =
            async move |client: bollard::Docker| client.stop_container(&name, Some(options)).await;
        self.ask_patiently(grace, &about, stop).await
    }

    /// Stops a container as [`stop`](Self::stop) does and starts it again.
    ///
    /// # Errors
    /// When there is no such container or the engine does not answer.
    pub async fn restart(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let about = About::container(Operation::Restart, name);
        let options = RestartContainerOptionsBuilder::new()
            .t(seconds(grace))
            .build();
        let name = name.to_owned();
        let restart = async move |client: bollard::Docker| {
            client.restart_container(&name, Some(options)).await
        };
        self.ask_patiently(grace, &about, restart).await
    }

    /// Removes a container, running or not, with what nobody else can use. It
    /// is gone when this returns; nothing to remove is no error.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let about = About::container(Operation::Remove, name);
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let name = name.to_owned();
        let remove = async move |client: bollard::Docker| {
            loop {
                match client.remove_container(&name, Some(options.clone())).await {
                    Err(Error::DockerResponseServerError {
                        status_code: 404, ..
                    }) => return Ok(()),
                    // Somebody else is at it; its name is taken until it is done.
                    Err(Error::DockerResponseServerError {
                        status_code: 409, ..
                    }) => sleep(LOOK).await,
                    outcome => return outcome,
                }
            }
        };
        self.ask(&about, remove).await
    }
}

/// What has the fleet's label.
pub(super) fn of_fleet(fleet: &str) -> HashMap<&'static str, Vec<String>> {
    HashMap::from([("label", vec![format!("{}={fleet}", labels::FLEET)])])
}

fn is_helper(summary: &ContainerSummary) -> bool {
    let labels = summary.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(labels::HELPER))
}

fn seconds(grace: Duration) -> i32 {
    i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// The engine repeats settings it does not like.
fn without_secrets(mut error: EngineError, new: &NewContainer<'_>) -> EngineError {
    let secrets = new.spec.env.values().chain(&new.spec.arguments);
    if let Cause::Invalid { why } | Cause::Engine { why, .. } = &mut error.cause {
        for secret in secrets.filter(|value| value.sensitive && !value.value.is_empty()) {
            *why = why.replace(&secret.value, "***");
        }
    }
    error
}

fn container(found: ContainerInspectResponse, publish: IpAddr) -> Container {
    let state = state(found.state.unwrap_or_default());
    let labels = found.config.and_then(|config| config.labels);
    let labels: BTreeMap<_, _> = labels.unwrap_or_default().into_iter().collect();
    let is_running = matches!(state, State::Running { .. });
    let port = labels.get(labels::TRANSPORT).and_then(|text| port(text));
    let address = found
        .network_settings
        .filter(|_| is_running)
        .zip(port)
        .and_then(|(settings, port)| address(settings, port, publish));
    let name = found.name.unwrap_or_default();
    Container {
        name: name.trim_start_matches('/').to_owned(),
        id: found.id.unwrap_or_default(),
        labels,
        image: found.image.unwrap_or_default(),
        state,
        address,
        created: found.created.map(|at| unix_time(&at)).unwrap_or_default(),
    }
}

/// The port in `http:PORT:/path` and `stdio:PORT`.
fn port(transport: &str) -> Option<u16> {
    transport.split(':').nth(1)?.parse().ok()
}

/// Where nodes reach a running container: its published port, else its own.
fn address(settings: NetworkSettings, port: u16, publish: IpAddr) -> Option<SocketAddr> {
    let ports = settings.ports.unwrap_or_default();
    let bindings = ports.get(&format!("{port}/tcp")).cloned().flatten();
    if let Some(binding) = bindings.and_then(|bindings| bindings.into_iter().next()) {
        let at = binding.host_ip.and_then(|ip| ip.parse::<IpAddr>().ok());
        let at = at.filter(|ip| !ip.is_unspecified()).unwrap_or(publish);
        return Some(SocketAddr::new(at, binding.host_port?.parse().ok()?));
    }
    let networks = settings.networks.unwrap_or_default();
    let ip = networks
        .into_values()
        .find_map(|endpoint| endpoint.ip_address?.parse().ok());
    Some(SocketAddr::new(ip?, port))
}

fn state(state: ContainerState) -> State {
    use ContainerStateStatusEnum as Status;
    let at = |text: &Option<String>| text.as_deref().map(unix_time).unwrap_or_default();
    match state.status.unwrap_or(Status::EMPTY) {
        Status::CREATED => State::Created,
        Status::RUNNING | Status::RESTARTING | Status::STOPPING => State::Running {
            since: at(&state.started_at),
        },
        Status::PAUSED => State::Paused,
        Status::EXITED => State::Exited(Exit {
            code: state.exit_code.unwrap_or_default(),
            oom_killed: state.oom_killed.unwrap_or_default(),
            error: state.error.filter(|error| !error.is_empty()),
            started: at(&state.started_at),
            finished: at(&state.finished_at),
        }),
        Status::REMOVING | Status::DEAD | Status::EMPTY => State::Going,
    }
}
