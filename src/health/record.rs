//! What the fleet knows of a replica's health: a small record in the store,
//! written under a fence by the node that probes, seen by all.

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use crate::upstream::Stage;

/// What the last probe of a replica left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The replica's id.
    pub replica: String,
    /// Its state and how it came about.
    pub tally: Tally,
    /// Since when it is in that state: milliseconds on the store's clock.
    pub since: u64,
    /// When it was probed last, on the same clock.
    pub probed_at: u64,
    /// How long the last probe that passed took, in milliseconds.
    pub latency: Option<u64>,
    /// The last failure, also when it is over.
    pub failure: Option<Failure>,
    /// The node that probed.
    pub node: String,
}

/// A failed probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When: milliseconds on the store's clock.
    pub at: u64,
    /// How far the probe came.
    pub stage: Stage,
    /// What happened.
    pub message: String,
}

impl Record {
    /// Reads what [`encode`](Self::encode) wrote; `None` for what a node of
    /// another version wrote and this one does not understand.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(bytes)
            .inspect_err(|error| tracing::debug!(%error, "a health record was not understood"))
            .ok()
    }

    /// As the store keeps it; fields are named, so that versions can differ.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        rmp_serde::to_vec_named(self)
            .inspect_err(|error| tracing::error!(%error, "a health record could not be encoded"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_written_and_new_fields_are_skipped() {
        let record = Record {
            replica: "demo/0a1b".into(),
            tally: Tally::default(),
            since: 7,
            probed_at: 8,
            latency: None,
            failure: Some(Failure {
                at: 8,
                stage: Stage::Connect,
                message: "refused".into(),
            }),
            node: "a".into(),
        };
        let bytes = record.encode().expect("encodes");
        assert_eq!(Record::decode(&bytes), Some(record));
        let newer = rmp_serde::to_vec_named(&serde_json::json!({"replica": "x", "mood": "good"}));
        let read = Record::decode(&newer.expect("encodes")).expect("understood");
        assert_eq!(read.replica, "x");
        assert_eq!(Record::decode(b"\xc1"), None);
    }
}
