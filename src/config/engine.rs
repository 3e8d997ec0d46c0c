//! `[engine.*]`: where containers run. Accepted and checked; nothing runs yet.

use super::{section::Section, tree::Located, values};

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
    fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let docker = Self {
            host: section.read("host", defaults.host, engine_address),
            // An empty text says that there is none, as the documentation shows it.
            registry_mirror: section.read("registry_mirror", None, |located| {
                let mirror = values::text(located)?;
                Ok(Some(mirror).filter(|mirror| !mirror.trim().is_empty()))
            }),
        };
        section.finish();
        docker
    }
}

fn engine_address(located: &Located) -> Result<String, values::Problem> {
    let host = values::some_text(located)?;
    let known = ["unix:///", "tcp://", "http://", "https://"];
    if known
        .iter()
        .any(|scheme| host.starts_with(scheme) && host.len() > scheme.len())
    {
        Ok(host)
    } else {
        Err(values::Problem::new(format!(
            "expected an address such as \"unix:///var/run/docker.sock\" or \"tcp://host:2376\", found \
             {host:?}"
        )))
    }
}
