//! What a deployment is to be: kept in the store's table, with its secrets.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    ids::{ServerId, hex},
    secrets::Secrets,
    templates::spec::ServerSpec,
};

/// Replicas one deployment may have.
pub const MAX_REPLICAS: u32 = 100;

/// What a deployment is to be. `Debug` shows no secrets, the JSON has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The name, and that of the server it runs.
    pub name: String,
    /// What runs.
    pub spec: ServerSpec,
    /// How many of it.
    pub replicas: u32,
    /// Where it runs.
    pub engine: EngineRef,
    /// Whether it is to run at all.
    #[serde(default, skip_serializing_if = "Wish::is_run")]
    pub wish: Wish,
    /// Drawn at random: another one makes all replicas new, though nothing else
    /// has changed. Part of the hash of the spec, which tells nothing of the
    /// secrets in it that way.
    pub generation_nonce: String,
    /// How often it was deployed again, unchanged, because it had failed: the
    /// same is tried anew, at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// It was read from the labels of containers that nothing else said
    /// anything of: the hash of what they run. Its secrets are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<SpecHash>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(attempt: &u32) -> bool {
    *attempt == 0
}

/// An engine of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EngineRef {
    /// `docker`
    pub kind: String,
    /// Twelve hex digits of a digest of the engine's own identity.
    pub id: String,
}

impl EngineRef {
    /// A Docker engine by what it calls itself, which may be anything.
    #[must_use]
    pub fn docker(identity: &str) -> Self {
        Self {
            kind: "docker".to_owned(),
            id: hex(&Sha256::digest(identity)[..6]),
        }
    }
}

impl EngineRef {
    /// Reads what `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once('/')?;
        Some(Self {
            kind: kind.to_owned(),
            id: id.to_owned(),
        })
    }
}

impl fmt::Display for EngineRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

/// What is to become of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Wish {
    /// It runs.
    #[default]
    Run,
    /// It stands still; its containers stay.
    Stop {
        /// Seconds its servers have to end by themselves.
        grace: u32,
    },
    /// It is removed, with everything that belongs to it.
    Remove,
}

impl Wish {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_run(&self) -> bool {
        *self == Self::Run
    }
}

/// Eight hex digits that change with what a replica runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpecHash(String);

impl SpecHash {
    /// One that was read from a label.
    #[must_use]
    pub fn named(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Definition {
    /// Reads what [`encode`](Self::encode) wrote. The error says nothing of
    /// the content, which may be secret.
    ///
    /// # Errors
    /// When this node does not understand it, for people.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = serde_json::from_slice(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!(
                "this node does not understand its definition (line {line}, column {column}): a \
                 newer node may have written it"
            )
        })?;
        if ServerId::try_from(read.name.as_str()).is_err() {
            return Err("its definition names no server".to_owned());
        }
        Ok(read)
    }

    /// As the store keeps it.
    ///
    /// # Errors
    /// Never for what was checked: texts and finite numbers.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// What tells replicas of this from replicas of what it was before.
    #[must_use]
    pub fn hash(&self) -> SpecHash {
        if let Some(hash) = &self.adopted {
            return hash.clone();
        }
        let mut hasher = Sha256::new();
        // Members in the order of the struct, maps in that of their keys.
        hasher.update(serde_json::to_vec(&self.spec).unwrap_or_default());
        hasher.update([0]);
        hasher.update(&self.generation_nonce);
        SpecHash(hex(&hasher.finalize()[..4]))
    }

    /// Whether no more of it can be run than runs already.
    #[must_use]
    pub fn has_lost_secrets(&self) -> bool {
        self.adopted.is_some() && self.secret_values().next().is_some()
    }

    /// A fresh nonce.
    #[must_use]
    pub fn nonce() -> String {
        hex(&rand::random::<[u8; 8]>())
    }

    /// Values that must never be shown.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets::new(self.secret_values())
    }

    fn secret_values(&self) -> impl Iterator<Item = &str> {
        let values = self.spec.env.values().chain(&self.spec.arguments);
        values
            .filter(|value| value.sensitive)
            .map(|value| value.value.as_str())
    }

    /// The same without secrets, as labels and answers may have it.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        Self {
            spec: shown(&self.spec),
            generation_nonce: String::new(),
            ..self.clone()
        }
    }
}

/// A spec with `***` for every secret.
#[must_use]
pub fn shown(spec: &ServerSpec) -> ServerSpec {
    let mut spec = spec.clone();
    for value in spec.env.values_mut().chain(&mut spec.arguments) {
        value.value = value.shown().to_owned();
    }
    spec
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::templates::spec::{Isolation, StdioMode, Transport, Value};

    pub(in crate::deployments) fn definition(name: &str) -> Definition {
        let env = [("MODE", "fast", false), ("API_KEY", "s3cr3t-value", true)];
        let env = env.map(|(name, value, sensitive)| {
            let value = value.to_owned();
            (name.to_owned(), Value { value, sensitive })
        });
        Definition {
            name: name.to_owned(),
            spec: ServerSpec {
                template: "notes".to_owned(),
                template_version: None,
                image: "example/notes:1".to_owned(),
                transport: Transport::Stdio {
                    mode: StdioMode::Shared,
                },
                entrypoint: None,
                command: None,
                arguments: Vec::new(),
                env: BTreeMap::from(env),
                volumes: Vec::new(),
                isolation: Isolation::default(),
                timeout: None,
            },
            replicas: 2,
            engine: EngineRef {
                kind: "docker".to_owned(),
                id: "E1".to_owned(),
            },
            wish: Wish::Run,
            generation_nonce: "0011223344556677".to_owned(),
            attempt: 0,
            adopted: None,
        }
    }

    #[test]
    fn a_definition_is_read_as_written() {
        let mut definition = definition("notes");
        for wish in [Wish::Run, Wish::Stop { grace: 5 }, Wish::Remove] {
            definition.wish = wish;
            let bytes = definition.encode().expect("encodes");
            assert_eq!(Definition::decode(&bytes), Ok(definition.clone()));
        }
        let error = Definition::decode(br#"{"name":"s3cr3t"}"#).expect_err("incomplete");
        assert!(!error.contains("s3cr3t"), "{error}");
    }

    #[test]
    fn the_hash_changes_with_what_runs_and_with_nothing_else() {
        let before = definition("notes");
        let mut after = before.clone();
        after.replicas = 7;
        after.wish = Wish::Stop { grace: 1 };
        after.attempt = 3;
        assert_eq!(before.hash(), after.hash());
        assert_eq!(before.hash().as_str().len(), 8);
        after.generation_nonce = Definition::nonce();
        assert_ne!(before.hash(), after.hash());
        let mut after = before.clone();
        after.spec.env.insert(
            "API_KEY".to_owned(),
            Value {
                value: "other".to_owned(),
                sensitive: true,
            },
        );
        assert_ne!(before.hash(), after.hash());
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        let definition = definition("notes");
        assert!(!format!("{definition:?}").contains("s3cr3t"));
        let shown = definition.without_secrets().encode().expect("encodes");
        let shown = String::from_utf8(shown).expect("text");
        assert!(
            !shown.contains("s3cr3t") && shown.contains("***"),
            "{shown}"
        );
        assert!(shown.contains("fast"), "{shown}");
        let hidden = definition.secrets().hide("key=s3cr3t-value mode=fast");
        assert_eq!(hidden, "key=*** mode=fast");
    }
}
