//! Containers that run for one question: which tools a template has that
//! nobody has deployed.
//!
//! Such a container is a helper by its label. It is removed when whoever asked
//! has the answer or no more patience, but not before the engine has made it:
//! removed while it is made, it would stay. One that outlives its node is
//! removed with other things nobody uses ([`Docker::remove_unused`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::{
    balance::Policy,
    bridge::signer::Signer,
    discovery::{Ephemeral, EphemeralSource},
    engine::{BRIDGE_PORT, BridgeLaunch, EngineError, NewContainer, docker::Docker, labels},
    ids::{ServerId, hex},
    lifecycle::Tasks,
    servers::{Endpoint, Replica, Server},
    templates::spec::{ServerSpec, Transport},
};

/// What the label of such a container says.
const PURPOSE: &str = "discovery";
/// Longest wait for the answer to one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Starts servers for a question.
#[derive(Debug, Clone)]
pub struct Containers {
    docker: Arc<Docker>,
    signer: Signer,
    tasks: Tasks,
}

impl Containers {
    /// On that engine.
    #[must_use]
    pub fn new(docker: Arc<Docker>, signer: Signer, tasks: Tasks) -> Self {
        Self {
            docker,
            signer,
            tasks,
        }
    }

    async fn run(&self, name: &str, spec: &ServerSpec) -> Result<String, EngineError> {
        let key = self.signer.public();
        let fleet = key.fleet_id();
        let image = self.docker.local_image(&spec.image).await?;
        let network = spec.isolation.network;
        let network = self.docker.ensure_network(&fleet, network).await?;
        let (bridge, path) = match &spec.transport {
            Transport::Http { path, .. } => (None, path.as_str()),
            Transport::Stdio { .. } => {
                let launch = BridgeLaunch {
                    volume: self.docker.ensure_bridge(&fleet, &image).await?,
                    public_key: key.to_string(),
                    audience: name.to_owned(),
                    port: BRIDGE_PORT,
                    arguments: Vec::new(),
                };
                (Some(launch), "/mcp")
            }
        };
        let labels = [(labels::FLEET, &*fleet), (labels::HELPER, PURPOSE)];
        let labels: BTreeMap<_, _> = labels
            .map(|(label, value)| (label.to_owned(), value.to_owned()))
            .into();
        let new = NewContainer {
            name,
            labels: &labels,
            spec,
            image: &image,
            network: &network,
            bridge: bridge.as_ref(),
        };
        self.docker.create(&new).await?;
        self.docker.start(name).await?;
        let address = match self.docker.inspect(name).await? {
            Some(container) => container.address,
            None => None,
        };
        Ok(address.map_or_else(String::new, |address| format!("http://{address}{path}")))
    }
}

#[async_trait]
impl EphemeralSource for Containers {
    fn is_there(&self) -> bool {
        self.docker.availability().is_available()
    }

    async fn start(&self, spec: &ServerSpec) -> Result<Ephemeral, String> {
        let name = format!(
            "mcp-fleet-{}-discovery-{}",
            self.signer.public().fleet_id(),
            hex(&rand::random::<[u8; 4]>())
        );
        let guard = Removed {
            docker: Arc::clone(&self.docker),
            tasks: self.tasks.clone(),
            name: name.clone(),
        };
        let (tell, told) = oneshot::channel();
        let (containers, made, of) = (self.clone(), name.clone(), spec.clone());
        self.tasks.spawn_brief(async move {
            let url = containers.run(&made, &of).await;
            // Where nobody waits any more, this drops the guard.
            tell.send((url, guard)).ok();
        });
        let ended = || "its container ended at once".to_owned();
        let (url, guard) = told.await.map_err(|_| "the node is stopping".to_owned())?;
        let url = url.map_err(|error| error.to_string())?;
        let uri = url.parse().map_err(|_| ended())?;
        let server = ServerId::try_from("discovery").map_err(|error| error.to_string())?;
        let replica = Replica::new(server.clone(), Endpoint::Http(uri), 1);
        let replica = match spec.transport {
            Transport::Http { .. } => replica,
            Transport::Stdio { .. } => replica.signed(&name),
        };
        let replicas = vec![Arc::new(replica)];
        let server = Server::new(server, replicas, Policy::default(), TIMEOUT, "discovery");
        Ok(Ephemeral {
            server: Arc::new(server),
            guard: Box::new(guard),
        })
    }
}

/// Removes a container when dropped, in the background.
struct Removed {
    docker: Arc<Docker>,
    tasks: Tasks,
    name: String,
}

impl Drop for Removed {
    fn drop(&mut self) {
        let (docker, name) = (Arc::clone(&self.docker), std::mem::take(&mut self.name));
        self.tasks.spawn_brief(async move {
            if let Err(error) = docker.remove(&name).await {
                tracing::debug!(container = name, %error, "a container stays until things nobody uses are removed");
            }
        });
    }
}
