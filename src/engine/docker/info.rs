//! What the engine says of itself.

use bollard::models::{SystemInfo, SystemVersion};

use super::{Docker, EngineError, EngineInfo, Operation};
use crate::engine::unix_time;

impl Docker {
    /// What the engine says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn info(&self) -> Result<EngineInfo, EngineError> {
        let about = self.about_engine(Operation::Inspect);
        let ask = async |client: bollard::Docker| {
            // Lowers the version that the client asks for to what the engine
            // has, for all its clones.
            let client = client.negotiate_version().await?;
            Ok((client.info().await?, client.version().await?))
        };
        let (info, version) = self.ask(&about, ask).await?;
        Ok(engine_info(info, version))
    }
}

fn engine_info(info: SystemInfo, version: SystemVersion) -> EngineInfo {
    let limits = [
        ("memory", info.memory_limit),
        ("swap", info.swap_limit),
        ("pids", info.pids_limit),
        ("cpus", info.cpu_cfs_quota),
    ];
    let os = info.os_type.unwrap_or_default();
    EngineInfo {
        id: info.id.unwrap_or_default(),
        version: version.version.unwrap_or_default(),
        api: version.api_version.unwrap_or_default(),
        platform: format!("{os}/{}", info.architecture.unwrap_or_default()),
        operating_system: info.operating_system.unwrap_or_default(),
        cgroups: info
            .cgroup_version
            .map(|version| version.to_string())
            .unwrap_or_default(),
        missing_limits: limits
            .into_iter()
            .filter(|(_, is_there)| *is_there == Some(false))
            .map(|(name, _)| name)
            .collect(),
        warnings: info.warnings.unwrap_or_default(),
        clock: info
            .system_time
            .as_deref()
            .map(unix_time)
            .unwrap_or_default(),
    }
}
