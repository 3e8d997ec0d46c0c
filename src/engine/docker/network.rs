//! The fleet's networks: one without a way out, one with.
//!
//! Containers of one network cannot reach each other where the engine can
//! forbid it: everywhere but in networks that a node has joined because it
//! runs in a container itself. Published ports need a network that is not
//! internal; without masquerading its containers get no answer from outside.

use std::collections::HashMap;

use bollard::{
    models::{self, NetworkConnectRequest, NetworkCreateRequest},
    query_parameters::ListNetworksOptionsBuilder,
};

use super::{
    Cause, Docker, EngineError, Operation,
    call::About,
    container::of_fleet,
    labels,
    place::{Place, is_remote},
};
use crate::{config, templates::spec::Network};

impl Docker {
    /// The fleet's network of this kind, made when there is none; this node
    /// joins it when it runs in a container. Its id: two nodes may make
    /// networks of one name at the same time.
    ///
    /// # Errors
    /// When the engine does not answer or cannot make it.
    pub async fn ensure_network(
        &self,
        fleet: &str,
        network: Network,
    ) -> Result<String, EngineError> {
        let place = self.place().await?;
        let request = request(fleet, network, place);
        let name = request.name.clone();
        let id = match self.oldest(fleet, &name).await? {
            Some(id) => id,
            None => self.make(fleet, request).await?,
        };
        if let Place::Container(own) = place {
            self.join(own, &id, &name).await?;
        }
        Ok(id)
    }

    /// Learns of the fleet's networks that there are, and joins them when this
    /// node runs in a container: other nodes make them as well.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn join_networks(&self, fleet: &str) -> Result<(), EngineError> {
        let networks = self.networks(fleet).await?;
        let Place::Container(own) = self.place().await? else {
            return Ok(());
        };
        for network in networks {
            if let (Some(id), Some(name)) = (network.id, network.name) {
                self.join(own, &id, &name).await?;
            }
        }
        Ok(())
    }

    /// Old engines make several networks of one name. Whoever made one keeps
    /// to the oldest and takes its own away.
    async fn make(
        &self,
        fleet: &str,
        request: NetworkCreateRequest,
    ) -> Result<String, EngineError> {
        let name = request.name.clone();
        let about = About::network(Operation::Create, &name);
        let create = async |client: bollard::Docker| client.create_network(request).await;
        let made = match self.ask(&about, create).await {
            Ok(made) => Some(made.id),
            Err(EngineError {
                cause: Cause::Engine { status: 409, .. },
                ..
            }) => None,
            Err(error) => return Err(error),
        };
        let oldest = self.oldest(fleet, &name).await?;
        let oldest = oldest.ok_or_else(|| about.error(Cause::NotFound))?;
        if let Some(made) = made.filter(|made| *made != oldest) {
            self.remove_network(&made, &name).await?;
        }
        Ok(oldest)
    }

    async fn oldest(&self, fleet: &str, name: &str) -> Result<Option<String>, EngineError> {
        let found = self.networks(fleet).await?;
        let named = found
            .into_iter()
            .filter(|network| network.name.as_deref() == Some(name))
            .filter_map(|network| Some((network.created?, network.id?)));
        Ok(named.min().map(|(_, id)| id))
    }

    /// The fleet's networks; [`subnets`](Self::subnets) are those of the last look.
    pub(super) async fn networks(&self, fleet: &str) -> Result<Vec<models::Network>, EngineError> {
        let about = About::network(Operation::Inspect, &prefix(fleet));
        let options = ListNetworksOptionsBuilder::new()
            .filters(&of_fleet(fleet))
            .build();
        let list = async |client: bollard::Docker| client.list_networks(Some(options)).await;
        let networks = self.ask(&about, list).await?;
        // The networks of another machine may have addresses that are somebody
        // else's here.
        if !is_remote(&self.settings.host) {
            self.subnets
                .set(networks.iter().flat_map(subnets).collect());
        }
        Ok(networks)
    }

    pub(super) async fn remove_network(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let about = About::network(Operation::Remove, name);
        let id = id.to_owned();
        let remove = async move |client: bollard::Docker| client.remove_network(&id).await;
        self.ask(&about, remove).await
    }

    async fn join(&self, own: &str, network: &str, name: &str) -> Result<(), EngineError> {
        let about = About::network(Operation::Join, name);
        let inspected = self.inspect_raw(&about, own).await?;
        let joined = inspected.network_settings.and_then(|it| it.networks);
        let is_in = |joined: HashMap<String, models::EndpointSettings>| {
            joined
                .into_values()
                .any(|endpoint| endpoint.network_id.as_deref() == Some(network))
        };
        if joined.is_some_and(is_in) {
            return Ok(());
        }
        let request = NetworkConnectRequest {
            container: own.to_owned(),
            endpoint_config: None,
        };
        let network = network.to_owned();
        let connect =
            async move |client: bollard::Docker| client.connect_network(&network, request).await;
        self.ask(&about, connect).await
    }
}

fn subnets(network: &models::Network) -> Vec<config::Network> {
    let ipam = network.ipam.iter().flat_map(|ipam| &ipam.config);
    let configured = ipam.flatten().filter_map(|one| one.subnet.as_deref());
    configured.filter_map(config::Network::parse).collect()
}

fn prefix(fleet: &str) -> String {
    format!("mcp-fleet-{fleet}")
}

/// What makes the network that containers of this kind join.
fn request(fleet: &str, network: Network, place: &Place) -> NetworkCreateRequest {
    // Engines cannot change a network: another kind needs another name.
    let (kind, is_internal, masquerades) = match (network, place) {
        (Network::Egress, Place::Container(_)) => ("egress-joined", false, true),
        (Network::Egress, Place::Machine | Place::Elsewhere) => ("egress", false, true),
        (Network::Internal, Place::Container(_)) => ("internal-joined", true, false),
        (Network::Internal, Place::Machine) => ("internal", true, false),
        (Network::Internal, Place::Elsewhere) => ("published", false, false),
    };
    let is_joined = matches!(place, Place::Container(_));
    let option = |name: &str, is_on: bool| {
        let name = format!("com.docker.network.bridge.{name}");
        (name, is_on.to_string())
    };
    let label = (labels::FLEET.to_owned(), fleet.to_owned());
    NetworkCreateRequest {
        name: format!("{}-{kind}", prefix(fleet)),
        driver: Some("bridge".to_owned()),
        internal: Some(is_internal),
        enable_ipv6: Some(false),
        options: Some(HashMap::from([
            option("enable_icc", is_joined),
            option("enable_ip_masquerade", masquerades),
        ])),
        labels: Some(HashMap::from([label])),
        ..NetworkCreateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_network_that_a_node_joined_lets_containers_meet() {
        let icc = |network, place: &Place| {
            let options = request("f", network, place).options.expect("options");
            options["com.docker.network.bridge.enable_icc"].clone()
        };
        let joined = Place::Container("id".into());
        for network in [Network::Internal, Network::Egress] {
            assert_eq!(icc(network, &Place::Machine), "false");
            assert_eq!(icc(network, &Place::Elsewhere), "false");
            assert_eq!(icc(network, &joined), "true");
        }
    }

    #[test]
    fn different_networks_have_different_names() {
        let places = [
            Place::Machine,
            Place::Elsewhere,
            Place::Container("id".into()),
        ];
        let kinds = places.iter().flat_map(|place| {
            [Network::Internal, Network::Egress].map(|network| request("f", network, place))
        });
        let mut by_name = HashMap::new();
        for request in kinds {
            let seen = by_name
                .entry(request.name.clone())
                .or_insert(request.clone());
            assert_eq!(*seen, request);
        }
    }
}
