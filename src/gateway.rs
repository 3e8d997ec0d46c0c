//! What a node is made of, and the one function that builds it.

use std::{net::SocketAddr, sync::Arc};

use crate::{config::Config, telemetry::metrics::Metrics};

/// A node.
#[derive(Debug)]
pub struct Gateway {
    listener: tokio::net::TcpListener,
    /// What the node is told.
    pub config: Arc<Config>,
    /// Its name.
    pub node: crate::ids::NodeId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The servers it knows.
    pub servers: Arc<crate::servers::Servers>,
    /// Their lists.
    pub lists: Arc<crate::lists::Lists>,
    /// Carries calls.
    pub relay: Arc<crate::relay::Relay>,
    /// What nodes share.
    pub store: Arc<dyn crate::store::Store>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What runs.
    pub tasks: crate::lifecycle::Tasks,
    /// When it started.
    pub started: tokio::time::Instant,
    /// The same for display.
    pub started_at: std::time::SystemTime,
}

impl Gateway {
    /// Builds a node and binds its port.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn build(config: Config, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        metrics.store_reachable(true);
        let listener = tokio::net::TcpListener::bind(config.node.listen).await?;
        drop(listener);
        todo!("the lead writes this")
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// When a task ends early.
    pub async fn run(self) -> anyhow::Result<()> {
        tokio::signal::ctrl_c().await?;
        Ok(())
    }
}
