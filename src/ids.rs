//! Names of the things a fleet knows: servers, replicas, nodes, callers.
//!
//! Ids are checked once, at the edge; past it a bad one cannot exist. This
//! file is not for protocol ids (request ids, sessions): see [`crate::mcp`].

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};

/// Longest server name, so that `{server}__{tool}` leaves room for the tool.
pub const MAX_SERVER_ID: usize = 32;

/// The name under which the fleet knows an MCP server: 1 to 32 letters,
/// digits, `_` or `-`, beginning with a letter or digit and without `__`,
/// which separates server and tool on the merged endpoint.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(Arc<str>);

/// Why a text is not a [`ServerId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a server name: use 1 to 32 letters, digits, `_` or `-`, beginning with a \
     letter or digit, without a double underscore"
)]
pub struct BadServerId {
    /// The refused text.
    pub name: String,
}

impl ServerId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ServerId {
    type Error = BadServerId;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let valid = starts_well
            && name.len() <= MAX_SERVER_ID
            && name.chars().all(good)
            && !name.contains("__")
            && !name.ends_with('_');
        if valid {
            Ok(Self(name.into()))
        } else {
            Err(BadServerId {
                name: name.to_owned(),
            })
        }
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One running copy of a server: a pure function of the server's name and the
/// replica's address, so that all nodes agree on it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(Arc<str>);

impl ReplicaId {
    /// `{server}/{12 hex digits of the address's SHA-256}`.
    #[must_use]
    pub fn new(server: &ServerId, address: &str) -> Self {
        let digest = Sha256::digest(address.as_bytes());
        Self(format!("{server}/{}", hex(&digest[..6])).into())
    }

    /// One that another node wrote.
    #[must_use]
    pub fn named(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One gateway process: `node-` and eight hex digits, or the configured name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A fresh random id for a process that was given no name.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("node-{:08x}", rand::random::<u32>()).into())
    }

    /// The configured name of a node. The configuration has checked that it
    /// can stand in a header.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The authorization context of a caller: what sessions, cursors, request
/// states and private cache entries are bound to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal([u8; 16]);

impl Principal {
    /// Everyone who presented no credential.
    pub const ANONYMOUS: Self = Self([0; 16]);

    /// The context of whoever presents `credential` (the `Authorization`
    /// header's value). Two credentials never share a context.
    #[must_use]
    pub fn from_credential(credential: &[u8]) -> Self {
        let digest = Sha256::digest(credential);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// The bytes that seals and keys are bound to.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANONYMOUS {
            f.write_str("anonymous")
        } else {
            f.write_str(&hex(&self.0))
        }
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lower-case hex of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_are_checked() {
        for good in [
            "demo",
            "a",
            "my-server",
            "my_server",
            "9lives",
            &"x".repeat(32),
        ] {
            assert_eq!(ServerId::try_from(good).expect("good name").as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "_a",
            "a_",
            "a__b",
            "a.b",
            "a b",
            "ä",
            "*",
            &"x".repeat(33),
        ] {
            assert!(ServerId::try_from(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn replica_ids_depend_on_server_and_address_only() {
        let demo = ServerId::try_from("demo").expect("good name");
        let first = ReplicaId::new(&demo, "http://127.0.0.1:1/mcp");
        assert_eq!(first, ReplicaId::new(&demo, "http://127.0.0.1:1/mcp"));
        assert_ne!(first, ReplicaId::new(&demo, "http://127.0.0.1:2/mcp"));
    }
}
