//! Names and labels of containers: by these the fleet knows its own, also
//! without a store.

use std::collections::BTreeMap;

use super::{
    definition::{Definition, SpecHash},
    plan::{Life, Seen},
};
use crate::{
    engine::{Container, State, labels},
    store::Fence,
};

/// Path of the endpoint that the bridge offers.
const BRIDGE_PATH: &str = "/mcp";

/// The name of a replica's container. The engine gives a name once only: of
/// two nodes that make the same replica, one does.
#[must_use]
pub fn container_name(fleet: &str, server: &str, spec: &SpecHash, ordinal: u32) -> String {
    format!("mcp-fleet-{fleet}-{server}-{spec}-{ordinal}")
}

/// The labels of a replica's container.
#[must_use]
pub fn container_labels(
    fleet: &str,
    definition: &Definition,
    ordinal: u32,
    fence: Fence,
    owner: Option<&str>,
) -> BTreeMap<String, String> {
    let spec = &definition.spec;
    let template = match &spec.template_version {
        Some(version) => format!("{} {version}", spec.template),
        None => spec.template.clone(),
    };
    let shown = definition.without_secrets().encode().unwrap_or_default();
    let given = [
        (labels::FLEET, fleet.to_owned()),
        (labels::SERVER, definition.name.clone()),
        (labels::REPLICA, ordinal.to_string()),
        (labels::SPEC, definition.hash().to_string()),
        (labels::FENCE, fence.0.to_string()),
        (labels::TEMPLATE, template),
        (
            labels::DEFINITION,
            String::from_utf8(shown).unwrap_or_default(),
        ),
    ];
    let given = given
        .into_iter()
        .chain(owner.map(|owner| (labels::OWNER, owner.to_owned())));
    given
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// A container of the fleet, read from its labels.
#[derive(Debug, Clone)]
pub struct Found {
    /// The server it is a replica of.
    pub server: String,
    /// What a plan needs to know.
    pub seen: Seen,
    /// All that the engine says.
    pub container: Container,
}

impl Found {
    /// `None` for a container whose labels or name are not as this fleet
    /// makes them: somebody else's, whatever it claims.
    #[must_use]
    pub fn of(fleet: &str, container: Container) -> Option<Self> {
        let label = |name: &str| container.labels.get(name).map(String::as_str);
        if label(labels::FLEET) != Some(fleet) {
            return None;
        }
        let server = label(labels::SERVER)?.to_owned();
        let spec = SpecHash::named(label(labels::SPEC)?);
        let ordinal = label(labels::REPLICA)?.parse().ok()?;
        if container.name != container_name(fleet, &server, &spec, ordinal) {
            return None;
        }
        let life = match &container.state {
            State::Created => Life::Created,
            State::Running { since } => Life::Running(*since),
            State::Paused => Life::Paused,
            // Whole seconds: a start and an end tell more than an end.
            State::Exited(exit) => Life::Exited(exit.finished ^ exit.started.rotate_left(32)),
            State::Going => Life::Going,
        };
        let seen = Seen {
            name: container.name.clone(),
            spec,
            ordinal,
            life,
        };
        Some(Self {
            server,
            seen,
            container,
        })
    }

    /// The address of its endpoint, while it has one.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let address = self.container.address?;
        let transport = self.container.labels.get(labels::TRANSPORT)?;
        let (kind, rest) = transport.split_once(':')?;
        let path = match kind {
            "stdio" => BRIDGE_PATH,
            _ => rest.split_once(':')?.1,
        };
        Some(format!("http://{address}{path}"))
    }

    /// Whom tokens for it are made for; none for one that takes none.
    #[must_use]
    pub fn audience(&self) -> Option<String> {
        let transport = self.container.labels.get(labels::TRANSPORT)?;
        let is_bridge = transport.starts_with("stdio:");
        is_bridge.then(|| self.container.name.clone())
    }

    /// The definition as its label tells it: without secrets.
    #[must_use]
    pub fn definition(&self) -> Option<Definition> {
        let text = self.container.labels.get(labels::DEFINITION)?;
        Definition::decode(text.as_bytes()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployments::definition::tests::definition;

    fn container(fleet: &str) -> Container {
        let definition = definition("notes");
        let mut labels = container_labels(fleet, &definition, 1, Fence(7), Some("here"));
        labels.insert(labels::TRANSPORT.to_owned(), "stdio:8765".to_owned());
        Container {
            name: container_name(fleet, "notes", &definition.hash(), 1),
            id: "id".to_owned(),
            labels,
            image: String::new(),
            state: State::Running { since: 5 },
            address: Some(([10, 0, 0, 2], 8765).into()),
            created: 0,
        }
    }

    #[test]
    fn a_container_is_known_by_its_labels() {
        let found = Found::of("0a1b2c3d", container("0a1b2c3d")).expect("ours");
        assert_eq!((found.server.as_str(), found.seen.ordinal), ("notes", 1));
        assert_eq!(found.url().as_deref(), Some("http://10.0.0.2:8765/mcp"));
        assert_eq!(found.audience().as_deref(), Some(&*found.container.name));
        let told = found.definition().expect("a definition");
        assert_eq!(told.spec.image, "example/notes:1");
        let text = format!("{:?}", found.container.labels);
        assert!(!text.contains("s3cr3t"), "{text}");
        let mut http = container("0a1b2c3d");
        let transport = "http:8765:/other/mcp".to_owned();
        http.labels.insert(labels::TRANSPORT.to_owned(), transport);
        let http = Found::of("0a1b2c3d", http).expect("ours");
        assert_eq!(
            http.url().as_deref(),
            Some("http://10.0.0.2:8765/other/mcp")
        );
        assert_eq!(http.audience(), None);
    }

    #[test]
    fn strangers_are_not_ours_whatever_they_claim() {
        assert!(Found::of("0a1b2c3d", container("ffffffff")).is_none());
        let mut renamed = container("0a1b2c3d");
        renamed.name = "postgres".to_owned();
        assert!(Found::of("0a1b2c3d", renamed).is_none());
        let mut bare = container("0a1b2c3d");
        bare.labels.clear();
        assert!(Found::of("0a1b2c3d", bare).is_none());
    }
}
