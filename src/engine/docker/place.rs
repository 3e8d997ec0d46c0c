//! Where this node runs, as seen from the engine, and so how it reaches
//! containers.

use std::path::Path;

use bollard::models::ContainerInspectResponse;

use super::{Docker, EngineError, Operation, call::About};
use crate::engine::Reach;

/// How this node reaches the engine's containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// It is on the engine's machine: their addresses are reachable.
    Machine,
    /// It runs in this container of the engine, and joins their networks.
    Container(String),
    /// It is somewhere else: through published ports.
    Elsewhere,
}

impl Docker {
    /// How this node reaches containers; found out once.
    pub(super) async fn place(&self) -> Result<&Place, EngineError> {
        self.place.get_or_try_init(|| self.find_place()).await
    }

    async fn find_place(&self) -> Result<Place, EngineError> {
        let place = match self.settings.reach {
            Reach::Publish => Place::Elsewhere,
            Reach::Network | Reach::Auto => match self.own_container().await? {
                Some(id) => Place::Container(id),
                None if self.settings.reach == Reach::Network => Place::Machine,
                None if is_remote(&self.settings.host) => Place::Elsewhere,
                // Its containers are in a virtual machine.
                None if self.info().await?.operating_system == "Docker Desktop" => Place::Elsewhere,
                None => Place::Machine,
            },
        };
        tracing::debug!(?place, "how containers are reached is known");
        Ok(place)
    }

    /// The container of this engine that this process runs in.
    async fn own_container(&self) -> Result<Option<String>, EngineError> {
        let read = |path: &'static str| async move {
            let text = tokio::fs::read_to_string(Path::new(path)).await;
            text.unwrap_or_default()
        };
        let mounts = read("/proc/self/mountinfo").await;
        let hostname = read("/proc/sys/kernel/hostname").await;
        let hostname = hostname.trim();
        for candidate in [mounted_by(&mounts), short_id(hostname)]
            .into_iter()
            .flatten()
        {
            let about = About::container(Operation::Inspect, candidate);
            match self.inspect_raw(&about, candidate).await {
                Ok(container) => {
                    if let Some(id) = own_id(container, hostname) {
                        return Ok(Some(id));
                    }
                }
                Err(error) if error.cause == super::Cause::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The id, when it is really this process's container and has a network.
fn own_id(container: ContainerInspectResponse, hostname: &str) -> Option<String> {
    let named = container.config.and_then(|config| config.hostname);
    let mode = container.host_config.and_then(|host| host.network_mode);
    // On the machine's own network it is as good as on the machine.
    let is_apart = mode.as_deref() != Some("host");
    (named.as_deref() == Some(hostname) && is_apart)
        .then_some(container.id)
        .flatten()
}

/// The container whose files the engine mounted here. Other containers' mounts
/// are seen too on the engine's machine, but not at this place.
fn mounted_by(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (source, target) = (fields.next()?, fields.next()?);
        let (directory, file) = source.rsplit_once('/')?;
        let id = directory.rsplit('/').next()?;
        let is_it = target == "/etc/hostname" && file == "hostname" && is_id(id, 64);
        is_it.then_some(id)
    })
}

/// What the engine names a container's host when nothing else is said.
fn short_id(hostname: &str) -> Option<&str> {
    is_id(hostname, 12).then_some(hostname)
}

fn is_id(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether the engine is on another machine than the one that is spoken to by
/// a file or the loopback interface.
pub(super) fn is_remote(host: &str) -> bool {
    let Some((scheme, rest)) = host.split_once("://") else {
        return false;
    };
    let local = ["127.", "localhost", "[::1]"];
    scheme != "unix" && !local.iter().any(|name| rest.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_process_in_a_container_finds_its_id_among_the_mounts() {
        let inside = format!(
            "611 600 0:50 / / rw - overlay overlay rw\n\
             700 611 254:0 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw\n\
             701 611 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw\n"
        );
        assert_eq!(mounted_by(&inside), Some(ID));
        let machine =
            format!("90 24 0:45 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n");
        assert_eq!(mounted_by(&machine), None);
        assert_eq!(mounted_by(""), None);
    }

    #[test]
    fn an_engine_by_file_or_loopback_is_here() {
        assert!(!is_remote("unix:///var/run/docker.sock"));
        assert!(!is_remote("tcp://127.0.0.1:2375"));
        assert!(!is_remote("tcp://localhost:2375"));
        assert!(is_remote("tcp://10.0.0.7:2375"));
        assert!(is_remote("http://docker:2375"));
    }
}
