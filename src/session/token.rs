//! The session id: what is fixed about a session, sealed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Hello;
use crate::{
    ids::Principal,
    mcp::{
        Raw,
        seal::{Purpose, Sealer},
    },
};

/// Longer self-descriptions are left out of the token: the id has to fit in a header.
const MAX_CLIENT_INFO: usize = 1024;
/// Of longer capabilities only the kinds of questions are kept.
const MAX_CAPABILITIES: usize = 2048;

/// The content of a session id.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) random: [u8; 16],
    pub(super) endpoint: String,
    pub(super) version: String,
    pub(super) capabilities: Box<Raw>,
    pub(super) client_info: Option<Box<Raw>>,
    pub(super) issued: u64,
}

/// [`Token`] as MessagePack: short, and open to fields added later.
#[derive(Serialize, Deserialize)]
struct Packed {
    random: [u8; 16],
    endpoint: String,
    version: String,
    capabilities: String,
    client_info: Option<String>,
    issued: u64,
}

impl Token {
    pub(super) fn new(hello: Hello) -> Self {
        let capabilities = hello.capabilities.as_raw();
        let capabilities = if capabilities.get().len() <= MAX_CAPABILITIES {
            capabilities.to_owned()
        } else {
            hello.capabilities.questions_only()
        };
        Self {
            random: rand::random(),
            endpoint: hello.endpoint,
            version: hello.version.as_str().to_owned(),
            capabilities,
            client_info: hello
                .client_info
                .filter(|info| info.get().len() <= MAX_CLIENT_INFO),
            issued: unix_seconds(),
        }
    }

    pub(super) fn seal(&self, sealer: &Sealer, principal: &Principal) -> String {
        let packed = Packed {
            random: self.random,
            endpoint: self.endpoint.clone(),
            version: self.version.clone(),
            capabilities: self.capabilities.get().to_owned(),
            client_info: self.client_info.as_ref().map(|info| info.get().to_owned()),
            issued: self.issued,
        };
        // Plain data always encodes; an empty token would not open again.
        let bytes = rmp_serde::to_vec(&packed).unwrap_or_default();
        sealer.seal(Purpose::Session, principal, &bytes)
    }

    /// `None` when the id is not one of ours, was opened by another principal
    /// or is of a version we do not understand: for the client all the same.
    pub(super) fn open(id: &str, sealer: &Sealer, principal: &Principal) -> Option<Self> {
        let bytes = sealer.open(Purpose::Session, principal, id).ok()?;
        let packed: Packed = rmp_serde::from_slice(&bytes).ok()?;
        let raw = |text: String| Raw::from_string(text).ok();
        Some(Self {
            random: packed.random,
            endpoint: packed.endpoint,
            version: packed.version,
            capabilities: raw(packed.capabilities)?,
            client_info: packed.client_info.and_then(raw),
            issued: packed.issued,
        })
    }

    /// Time since it was issued, by this node's clock. Nodes' clocks may
    /// differ by minutes; the bound it is compared with is hours.
    pub(super) fn age(&self) -> Duration {
        age(self.issued, unix_seconds())
    }
}

/// The same at a time.
pub(super) fn age(issued: u64, now: u64) -> Duration {
    Duration::from_secs(now.saturating_sub(issued))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a bound of hours, for which nodes' clocks agree well enough"
)]
pub(super) fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
