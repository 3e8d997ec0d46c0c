//! `[engine.*]`: where containers run. Accepted and checked; nothing runs yet.

/// Where containers run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Engine {
    /// The Docker engine.
    pub docker: Docker,
}

/// The Docker engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Docker {
    /// Its address. Default `unix:///var/run/docker.sock`.
    pub host: String,
    /// Registry that images are pulled through. Default: none.
    pub registry_mirror: Option<String>,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            host: "unix:///var/run/docker.sock".into(),
            registry_mirror: None,
        }
    }
}
