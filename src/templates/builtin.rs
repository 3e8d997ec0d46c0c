//! The templates that are part of the program.

use std::{collections::BTreeMap, sync::Arc};

use super::{format, template::Origin, template::Template};
use crate::ids::ServerId;

macro_rules! texts {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../config/templates/", $name, "/template.json")))),+]
    };
}

/// Names and texts.
pub(super) const TEXTS: [(&str, &str); 10] = texts![
    "demo",
    "everything",
    "fetch",
    "filesystem",
    "git",
    "github",
    "memory",
    "postgres",
    "sqlite",
    "time",
];

/// Reads them. A test sees to it that there is nothing wrong with them.
pub(super) fn templates() -> BTreeMap<ServerId, Arc<Template>> {
    let read = |(name, text): (&str, &str)| {
        let name = ServerId::try_from(name).ok()?;
        let path = format!("config/templates/{name}/template.json");
        let template = format::read(&name, Origin::BuiltIn, &path, text).ok()?;
        Some((name, Arc::new(template)))
    };
    TEXTS.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::templates::{
        settings::Settings,
        spec::{Network, ServerSpec, Transport},
    };

    fn resolved(name: &str, config: &[(&str, &str)]) -> ServerSpec {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let settings = Settings {
            config: config.iter().map(owned).collect(),
            ..Settings::default()
        };
        let name = ServerId::try_from(name).expect("a name");
        templates()[&name]
            .resolve(&settings)
            .unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn arguments(spec: &ServerSpec) -> Vec<&str> {
        spec.arguments
            .iter()
            .map(|one| one.value.as_str())
            .collect()
    }

    fn mounts(spec: &ServerSpec) -> Vec<String> {
        let shown = |mount: &crate::templates::spec::Mount| {
            let mode = if mount.read_only { ":ro" } else { "" };
            format!("{}:{}{mode}", mount.source, mount.target)
        };
        spec.volumes.iter().map(shown).collect()
    }

    #[test]
    fn nothing_is_wrong_with_them_and_they_know_their_tools() {
        for (name, text) in TEXTS {
            let id = ServerId::try_from(name).expect("a name");
            let template = format::read(&id, Origin::BuiltIn, name, text)
                .unwrap_or_else(|findings| panic!("{findings:?}"));
            assert!(template.warnings.is_empty(), "{:?}", template.warnings);
            assert!(
                !template.tools.is_empty() && template.version.is_some(),
                "{name}"
            );
            assert!(!template.description.is_empty(), "{name}");
            for property in &template.properties {
                assert!(property.description.is_some(), "{name}: {}", property.name);
            }
            for loosened in &template.isolation.loosened {
                assert!(loosened.reason.len() > 20, "{name}: {loosened:?}");
            }
            for tool in &template.tools {
                let tool: serde_json::Value = serde_json::from_str(tool.get()).expect("JSON");
                assert_eq!(tool["inputSchema"]["type"], "object", "{name}: {tool}");
            }
        }
        assert_eq!(templates().len(), TEXTS.len());
    }

    #[test]
    fn only_those_that_need_it_reach_other_machines() {
        let with_egress: Vec<_> = templates()
            .values()
            .filter(|template| template.isolation.network == Network::Egress)
            .map(|template| template.name.to_string())
            .collect();
        assert_eq!(with_egress, ["fetch", "github", "postgres"]);
        assert!(
            templates()
                .values()
                .all(|template| template.isolation.read_only)
        );
    }

    #[test]
    fn example_settings_come_to_what_the_images_take() {
        let demo = resolved("demo", &[("log_level", "info")]);
        let path = "/mcp/demo".to_owned();
        assert_eq!(demo.transport, Transport::Http { port: 8080, path });
        assert_eq!(demo.env["MCP_FLEET__TELEMETRY__LOG"].value, "info");
        assert_eq!(demo.env["MCP_FLEET__AUTH__MODE"].value, "none");

        let files = resolved("filesystem", &[("allowed_dirs", "/srv/a /srv/b:ro")]);
        assert_eq!(files.image, "mcp/filesystem:latest");
        assert_eq!(arguments(&files), ["/mnt/srv/a", "/mnt/srv/b"]);
        assert_eq!(
            mounts(&files),
            ["/srv/a:/mnt/srv/a", "/srv/b:/mnt/srv/b:ro"]
        );

        let proxy = "http://u:p@proxy:3128";
        let fetch = resolved(
            "fetch",
            &[("ignore_robots_txt", "true"), ("proxy_url", proxy)],
        );
        assert_eq!(
            arguments(&fetch),
            ["--ignore-robots-txt", "--proxy-url", proxy]
        );
        assert!(!format!("{fetch:?}").contains(proxy));

        let git = resolved("git", &[("repository", "/srv/code")]);
        assert_eq!(arguments(&git), ["--repository", "/repository"]);
        assert_eq!(mounts(&git), ["/srv/code:/repository"]);
        assert_eq!(git.env["GIT_CONFIG_VALUE_1"].value, "mcp-fleet");

        assert_eq!(mounts(&resolved("memory", &[])), ["mcp-memory:/data"]);
        let sqlite = resolved("sqlite", &[("storage", "/srv/db"), ("database", "x.db")]);
        assert_eq!(arguments(&sqlite), ["--db-path=/data/x.db"]);
        assert_eq!(mounts(&sqlite), ["/srv/db:/data"]);

        let time = resolved("time", &[("local_timezone", "Europe/Berlin")]);
        assert_eq!(arguments(&time), ["--local-timezone=Europe/Berlin"]);

        let github = resolved(
            "github",
            &[
                ("github_token", "ghp_x"),
                ("toolsets", "repos, issues"),
                ("read_only", "1"),
            ],
        );
        assert_eq!(github.image, "ghcr.io/github/github-mcp-server:latest");
        assert_eq!(github.command.as_deref(), Some(&["stdio".to_owned()][..]));
        assert_eq!(github.env["GITHUB_TOOLSETS"].value, "repos,issues");
        assert_eq!(github.env["GITHUB_READ_ONLY"].value, "true");
        assert!(github.env["GITHUB_PERSONAL_ACCESS_TOKEN"].sensitive);

        let url = "postgresql://me:hunter2@db/x";
        let postgres = resolved("postgres", &[("database_url", url)]);
        assert_eq!(arguments(&postgres), [url]);
        assert!(!format!("{postgres:?}").contains("hunter2"));

        let everything = resolved("everything", &[]);
        let path = "/mcp".to_owned();
        assert_eq!(everything.transport, Transport::Http { port: 3001, path });
    }
}
