//! From a spec to what the engine is told: every limit a container has. Pure.

use std::{collections::HashMap, net::IpAddr};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    MountVolumeOptions, PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use super::{bridge::DIRECTORY, bridge::PROGRAM, labels};
use crate::{
    engine::NewContainer,
    templates::spec::{self, ServerSpec, StdioMode, Transport},
};

/// Files that each of its processes may have open. An engine that has less
/// itself could start nothing.
const OPEN_FILES: i64 = 16_384;

/// What the engine is told to make. `publish`: where its port is published.
pub(super) fn body(
    new: &NewContainer<'_>,
    publish: Option<IpAddr>,
) -> Result<ContainerCreateBody, String> {
    let port = port(new);
    let (entrypoint, command) = program(new)?;
    let environment = new.spec.env.iter();
    let exposed = format!("{port}/tcp");
    Ok(ContainerCreateBody {
        image: Some(new.image.id.clone()),
        user: Some(new.spec.isolation.user.clone()),
        env: Some(
            environment
                .map(|(name, value)| format!("{name}={}", value.value))
                .collect(),
        ),
        entrypoint: Some(entrypoint),
        cmd: Some(command),
        labels: Some(all_labels(new, port)),
        exposed_ports: Some(vec![exposed.clone()]),
        // An image's check asks for what listens without the bridge.
        healthcheck: new.bridge.map(|_| HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        open_stdin: Some(false),
        tty: Some(false),
        host_config: Some(HostConfig {
            port_bindings: publish.map(|address| {
                let binding = PortBinding {
                    host_ip: Some(address.to_string()),
                    // A free one; which one is read back.
                    host_port: Some(String::new()),
                };
                HashMap::from([(exposed, Some(vec![binding]))])
            }),
            network_mode: Some(new.network.to_owned()),
            mounts: Some(mounts(new)),
            // The bridge reaps children and passes signals on by itself.
            init: Some(new.bridge.is_none()),
            ..isolation(new.spec)
        }),
        ..ContainerCreateBody::default()
    })
}

/// The port that nodes speak to, in the container.
fn port(new: &NewContainer<'_>) -> u16 {
    match (&new.spec.transport, new.bridge) {
        (Transport::Http { port, .. }, None) => *port,
        (_, Some(bridge)) => bridge.port,
        (Transport::Stdio { .. }, None) => crate::engine::BRIDGE_PORT,
    }
}

/// Entry point and command, with the bridge before them where there is one.
fn program(new: &NewContainer<'_>) -> Result<(Vec<String>, Vec<String>), String> {
    let spec = new.spec;
    let entrypoint = spec.entrypoint.as_ref().unwrap_or(&new.image.entrypoint);
    // Another entry point means another program, which the image's command is not for.
    let command = match (&spec.command, &spec.entrypoint) {
        (Some(command), _) => command.as_slice(),
        (None, Some(_)) => &[],
        (None, None) => &new.image.command,
    };
    let arguments = spec.arguments.iter().map(|value| value.value.clone());
    let command: Vec<_> = command.iter().cloned().chain(arguments).collect();
    if entrypoint.is_empty() && command.is_empty() {
        return Err("neither the image nor the template says what to run".to_owned());
    }
    let Some(bridge) = new.bridge else {
        return Ok((entrypoint.clone(), command));
    };
    let mut before = vec![format!("{DIRECTORY}/{PROGRAM}")];
    let options = [
        ["--port", &bridge.port.to_string()],
        ["--public-key", &bridge.public_key],
        ["--audience", &bridge.audience],
        ["--mode", mode(spec)],
    ];
    before.extend(options.concat().into_iter().map(str::to_owned));
    before.extend(bridge.arguments.iter().cloned());
    let words = [entrypoint.clone(), command].concat();
    before.extend(secrets(spec, words.len()));
    before.push("--".to_owned());
    Ok((before, words))
}

/// What the bridge must not show: names of variables and numbers of words, of
/// which the arguments are the last.
fn secrets(spec: &ServerSpec, words: usize) -> Vec<String> {
    let first = words - spec.arguments.len();
    let variables = spec.env.iter().filter(|(_, value)| value.sensitive);
    let variables: Vec<_> = variables.map(|(name, _)| name.as_str()).collect();
    let arguments = (first..).zip(&spec.arguments);
    let arguments = arguments.filter(|(_, value)| value.sensitive);
    let arguments: Vec<_> = arguments.map(|(number, _)| number.to_string()).collect();
    let options = [
        ("--secret-variables", variables.join(",")),
        ("--secret-words", arguments.join(",")),
    ];
    let given = options.into_iter().filter(|(_, value)| !value.is_empty());
    given
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect()
}

fn mode(spec: &ServerSpec) -> &'static str {
    match spec.transport {
        Transport::Stdio { mode } => match mode {
            StdioMode::Shared => "shared",
            StdioMode::PerSession => "per-session",
            StdioMode::PerCall => "per-call",
        },
        Transport::Http { .. } => "shared",
    }
}

fn all_labels(new: &NewContainer<'_>, port: u16) -> HashMap<String, String> {
    let transport = match &new.spec.transport {
        Transport::Http { path, .. } => format!("http:{port}:{path}"),
        Transport::Stdio { .. } => format!("stdio:{port}"),
    };
    let given = new.labels.iter();
    given
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain([(labels::TRANSPORT.to_owned(), transport)])
        .collect()
}

fn mounts(new: &NewContainer<'_>) -> Vec<Mount> {
    let given = new.spec.volumes.iter().map(mount);
    let bridge = new.bridge.map(|bridge| Mount {
        read_only: Some(true),
        ..bridge_mount(&bridge.volume)
    });
    given.chain(bridge).collect()
}

fn mount(mount: &spec::Mount) -> Mount {
    let is_path = mount.source.starts_with('/');
    Mount {
        typ: Some(if is_path {
            MountType::BIND
        } else {
            MountType::VOLUME
        }),
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    }
}

/// The bridge's volume at its place, writable.
pub(super) fn bridge_mount(volume: &str) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(DIRECTORY.to_owned()),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

/// What every container is limited to.
fn isolation(spec: &ServerSpec) -> HostConfig {
    let isolation = &spec.isolation;
    let memory = i64::try_from(isolation.memory).unwrap_or(i64::MAX);
    let tmp = format!("rw,exec,nosuid,nodev,mode=1777,size={}", isolation.tmpfs);
    let log = [("max-size", "10m"), ("max-file", "3")];
    let log = log.map(|(key, value)| (key.to_owned(), value.to_owned()));
    HostConfig {
        memory: Some(memory),
        // Both together: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(nano(isolation.cpus)),
        pids_limit: Some(i64::from(isolation.pids)),
        readonly_rootfs: Some(isolation.read_only),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(isolation.capabilities.clone()),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        // An engine's default may be the machine's own.
        ipc_mode: Some("private".to_owned()),
        ulimits: Some(vec![ResourcesUlimits {
            name: Some("nofile".to_owned()),
            soft: Some(OPEN_FILES),
            hard: Some(OPEN_FILES),
        }]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log.into()),
        }),
        // Whoever holds the engine's duty restarts what should run.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        ..HostConfig::default()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a number of processors is far below 2^33"
)]
fn nano(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

#[cfg(test)]
mod tests;
