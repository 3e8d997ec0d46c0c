//! What a node is made of, and the one function that builds it.

use std::{net::SocketAddr, sync::Arc};

use crate::{config::Config, telemetry::metrics::Metrics};

/// A node.
#[derive(Debug)]
pub struct Gateway {
    listener: tokio::net::TcpListener,
}

impl Gateway {
    /// Builds a node and binds its port.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn build(config: Config, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        metrics.store_reachable(true);
        let listener = tokio::net::TcpListener::bind(config.node.listen).await?;
        Ok(Self { listener })
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
