//! `[engine.*]`: where containers run, and how they are reached.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use super::{section::Section, tree::Located, values};
use crate::engine::{Reach, Settings};

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
    /// Registry that images without one of their own are pulled from. Default: none.
    pub registry_mirror: Option<String>,
    /// How nodes reach containers. Default: found out.
    pub reach: Reach,
    /// Address of the engine's machine that ports are published at, and that
    /// nodes connect to. Default 127.0.0.1.
    pub publish_address: IpAddr,
    /// The bridge program. Default: `mcp-fleet-bridge` beside this program.
    pub bridge: Option<PathBuf>,
    /// Longest one operation may take. Default 30 s.
    pub timeout: Duration,
    /// Longest one pull may take. Default 10 min.
    pub pull_timeout: Duration,
    /// How long a container may take to end by itself. Default 10 s.
    pub stop_timeout: Duration,
    /// Operations of one node at once. Default 4.
    pub max_in_flight: usize,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            host: "unix:///var/run/docker.sock".into(),
            registry_mirror: None,
            reach: Reach::Auto,
            publish_address: Ipv4Addr::LOCALHOST.into(),
            bridge: None,
            timeout: Duration::from_secs(30),
            pull_timeout: Duration::from_secs(600),
            stop_timeout: Duration::from_secs(10),
            max_in_flight: 4,
        }
    }
}

impl Engine {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let engine = Self {
            docker: Docker::read(section.section("docker")),
        };
        section.finish();
        engine
    }
}

impl Docker {
    /// What the engine's client is told. `fresh`: `cache.engines.fresh`.
    #[must_use]
    pub fn settings(&self, fresh: Duration) -> Settings {
        Settings {
            host: self.host.clone(),
            registry_mirror: self.registry_mirror.clone(),
            reach: self.reach,
            publish_address: self.publish_address,
            bridge: self.bridge.clone(),
            timeout: self.timeout,
            pull_timeout: self.pull_timeout,
            max_in_flight: self.max_in_flight,
            fresh,
        }
    }

    fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let second = Duration::from_secs(1);
        let docker = Self {
            host: section.read("host", defaults.host, engine_address),
            // An empty text says that there is none, as the documentation shows it.
            registry_mirror: section.read("registry_mirror", None, |located| {
                let mirror = values::text(located)?;
                Ok(Some(mirror).filter(|mirror| !mirror.trim().is_empty()))
            }),
            reach: section.read(
                "reach",
                defaults.reach,
                values::choice(&[
                    ("auto", Reach::Auto),
                    ("network", Reach::Network),
                    ("publish", Reach::Publish),
                ]),
            ),
            publish_address: section.read(
                "publish_address",
                defaults.publish_address,
                publish_address,
            ),
            bridge: section.optional("bridge", |located| {
                Ok(located.place.resolve(&values::some_text(located)?))
            }),
            timeout: section.read(
                "timeout",
                defaults.timeout,
                values::duration(second..=600 * second),
            ),
            pull_timeout: section.read(
                "pull_timeout",
                defaults.pull_timeout,
                values::duration(second..=7200 * second),
            ),
            stop_timeout: section.read(
                "stop_timeout",
                defaults.stop_timeout,
                values::duration(Duration::ZERO..=600 * second),
            ),
            max_in_flight: section.read(
                "max_in_flight",
                defaults.max_in_flight,
                values::count(1..=100),
            ),
        };
        section.finish();
        docker
    }
}

fn engine_address(located: &Located) -> Result<String, values::Problem> {
    let host = values::some_text(located)?;
    let known = ["unix:///", "tcp://", "http://"];
    if known
        .iter()
        .any(|scheme| host.starts_with(scheme) && host.len() > scheme.len())
    {
        Ok(host)
    } else {
        Err(values::Problem::new(format!(
            "expected an address such as \"unix:///var/run/docker.sock\" or \"tcp://host:2375\" (without TLS), \
             found {host:?}"
        )))
    }
}

/// Nodes connect to it: it has to be one address.
fn publish_address(located: &Located) -> Result<IpAddr, values::Problem> {
    let text = values::some_text(located)?;
    let address = text.trim().parse().ok();
    address
        .filter(|address: &IpAddr| !address.is_unspecified())
        .ok_or_else(|| {
            values::Problem::new(format!(
                "expected an address of the engine's machine such as \"127.0.0.1\" or \"10.0.0.7\", found {text:?}"
            ))
        })
}
