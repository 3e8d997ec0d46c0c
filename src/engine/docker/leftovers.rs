//! Clearing up what no container of the fleet uses any more.

use std::collections::{HashMap, HashSet};

use bollard::{
    models::NetworkDisconnectRequest,
    query_parameters::{InspectNetworkOptions, ListVolumesOptionsBuilder, RemoveVolumeOptions},
};

use super::{Cause, Docker, EngineError, Operation, bridge::helper_labels, call::About, labels};

impl Docker {
    /// Removes helpers, networks and bridge volumes of the fleet that nobody
    /// uses. Not while containers of the fleet are being made: for whoever
    /// holds the engine's duty.
    ///
    /// # Errors
    /// When the engine does not answer. What is in use after all stays.
    pub async fn remove_unused(&self, fleet: &str) -> Result<(), EngineError> {
        let mut networks = HashSet::new();
        let mut volumes = HashSet::new();
        for container in self.summaries(fleet).await? {
            let labels = container.labels.unwrap_or_default();
            if labels.contains_key(labels::HELPER) {
                self.remove(&container.id.unwrap_or_default()).await?;
                continue;
            }
            // A stopped container has no place in its networks and needs them
            // all the same.
            networks.extend(container.host_config.and_then(|host| host.network_mode));
            let mounts = container.mounts.unwrap_or_default();
            volumes.extend(mounts.into_iter().filter_map(|mount| mount.name));
        }
        self.remove_networks(fleet, &networks).await?;
        self.remove_volumes(fleet, &volumes).await
    }

    async fn remove_networks(
        &self,
        fleet: &str,
        used: &HashSet<String>,
    ) -> Result<(), EngineError> {
        for network in self.networks(fleet).await? {
            let (id, name) = (
                network.id.unwrap_or_default(),
                network.name.unwrap_or_default(),
            );
            if used.contains(&id) || used.contains(&name) {
                continue;
            }
            let about = About::network(Operation::Remove, &name);
            let inspected = id.clone();
            let inspect = async move |client: bollard::Docker| {
                let options = None::<InspectNetworkOptions>;
                client.inspect_network(&inspected, options).await
            };
            let found = self.ask(&about, inspect).await?;
            // Only nodes are left in it, which joined it to reach servers.
            for node in found.containers.unwrap_or_default().into_keys() {
                let request = NetworkDisconnectRequest {
                    container: node,
                    force: Some(true),
                };
                let left = id.clone();
                let leave = async move |client: bollard::Docker| {
                    client.disconnect_network(&left, request).await
                };
                // It may be about to leave by itself.
                self.ask(&about, leave).await.ok();
            }
            still_used(self.remove_network(&id, &name).await)?;
        }
        // Their addresses are free for others now.
        self.networks(fleet).await.map(drop)
    }

    async fn remove_volumes(&self, fleet: &str, used: &HashSet<String>) -> Result<(), EngineError> {
        let about = About::volume(Operation::Inspect, "of the bridge");
        let labels = helper_labels(fleet).map(|(key, value)| format!("{key}={value}"));
        let options = ListVolumesOptionsBuilder::new()
            .filters(&HashMap::from([("label", labels.to_vec())]))
            .build();
        let list = async |client: bollard::Docker| client.list_volumes(Some(options)).await;
        let found = self.ask(&about, list).await?;
        for volume in found.volumes.unwrap_or_default() {
            if used.contains(&volume.name) {
                continue;
            }
            let about = About::volume(Operation::Remove, &volume.name);
            let remove = async move |client: bollard::Docker| {
                let options = None::<RemoveVolumeOptions>;
                client.remove_volume(&volume.name, options).await
            };
            still_used(self.ask(&about, remove).await)?;
        }
        Ok(())
    }
}

/// What somebody uses after all stays, and what is gone is gone.
fn still_used(removed: Result<(), EngineError>) -> Result<(), EngineError> {
    match removed.map_err(|error| (error.cause.clone(), error)) {
        Ok(())
        | Err((Cause::NotFound, _))
        | Err((
            Cause::Engine {
                status: 403 | 409, ..
            },
            _,
        )) => Ok(()),
        Err((_, error)) => Err(error),
    }
}
