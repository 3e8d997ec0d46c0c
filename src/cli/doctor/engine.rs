//! The engine: reachable, new enough, able to enforce limits; and the bridge.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Finding, redis::clock};
use crate::{
    config::Config,
    engine::{
        EngineInfo,
        docker::{Docker, bridge_path, inspect_program},
    },
};

/// How long anything is waited for here.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The oldest API it is tested with (Docker 20.10).
const OLDEST_API: (u32, u32) = (1, 41);

/// `is_wanted`: whether the configuration speaks of an engine.
pub(super) async fn look(config: &Config, is_wanted: bool) -> Vec<Finding> {
    let Some(docker) = connect(config) else {
        return Vec::new();
    };
    let mut findings = match docker.info().await {
        Ok(info) => judge(&config.engine.docker.host, &info),
        Err(error) => {
            let cure = error.cure();
            let found = error.cause.to_string();
            if !is_wanted {
                let cure = format!("{cure}; without an engine nothing can be deployed");
                return vec![Finding::warning("engine", found, cure)];
            }
            vec![Finding::wrong("engine", found, cure)]
        }
    };
    findings.push(bridge(config));
    findings
}

/// The engine, with a short time-out.
pub(super) fn connect(config: &Config) -> Option<std::sync::Arc<Docker>> {
    let mut settings = config.engine.docker.settings(config.cache.engines.fresh);
    settings.timeout = settings.timeout.min(PATIENCE);
    Docker::connect(settings).ok()
}

fn judge(host: &str, info: &EngineInfo) -> Vec<Finding> {
    let (version, api) = (&info.version, &info.api);
    let found = format!("{host} is {version} (API {api}, {})", info.platform);
    let mut findings = vec![if is_old(api) {
        Finding::wrong("engine", found, "use Docker 20.10 or newer")
    } else {
        Finding::good("engine", found)
    }];
    findings.push(if info.missing_limits.is_empty() {
        let found = format!("all can be enforced (control groups v{})", info.cgroups);
        Finding::good("engine limits", found)
    } else {
        let found = format!("not enforced: {}", info.missing_limits.join(", "));
        let cure = "enable these control groups in the kernel of the engine's machine \
                    (cgroup_enable=memory swapaccount=1 where they are off by default)";
        Finding::wrong("engine limits", found, cure)
    });
    if info.clock > 0 {
        let off = now().abs_diff(Duration::from_secs(info.clock));
        findings.push(clock("engine clock", host, off));
    }
    findings
}

fn is_old(api: &str) -> bool {
    let Some((major, minor)) = api.split_once('.') else {
        return false;
    };
    match (major.parse::<u32>(), minor.parse::<u32>()) {
        (Ok(major), Ok(minor)) => (major, minor) < OLDEST_API,
        // What does not look like a version is none to be judged.
        _ => false,
    }
}

fn bridge(config: &Config) -> Finding {
    let path = bridge_path(config.engine.docker.bridge.as_deref());
    let cure = "build it with `cargo bridge`, put it beside mcp-fleet, or name it in engine.docker.bridge; \
                without it no stdio server can be deployed";
    let shown = path.display();
    match inspect_program(&path) {
        Ok(program) if program.is_static => {
            let architecture = program.architecture.unwrap_or("another processor");
            let found = format!("{shown} is static, for {architecture}");
            Finding::good("bridge", found)
        }
        Ok(_) => Finding::wrong("bridge", format!("{shown} is not linked statically"), cure),
        Err(error) if config.engine.docker.bridge.is_some() => {
            Finding::wrong("bridge", format!("{shown}: {error}"), cure)
        }
        Err(error) => Finding::warning("bridge", format!("{shown}: {error}"), cure),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock itself is what is looked at"
)]
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn an_engine_that_cannot_enforce_limits_is_wrong() {
        let info = EngineInfo {
            id: "id".into(),
            version: "20.10.24".into(),
            api: "1.41".into(),
            platform: "linux/x86_64".into(),
            operating_system: "Debian".into(),
            cgroups: "1".into(),
            missing_limits: Vec::new(),
            warnings: Vec::new(),
            clock: now().as_secs(),
        };
        let results = |info: &EngineInfo| {
            let findings = judge("unix:///s", info);
            findings.iter().map(|it| it.result).collect::<Vec<_>>()
        };
        assert_eq!(results(&info), [Verdict::Good; 3]);
        let weak = EngineInfo {
            api: "1.40".into(),
            missing_limits: vec!["memory", "pids"],
            clock: 1,
            ..info
        };
        assert_eq!(
            results(&weak),
            [Verdict::Wrong, Verdict::Wrong, Verdict::Warning]
        );
        assert!(!is_old("1.53") && !is_old("2.0") && !is_old("new"));
    }
}
