//! What the fleet knows of a deployment: a record in the store, written under
//! a fence by the node that reconciles, seen by all. No secrets are in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::history::History;

/// Lines kept of what a container printed before it ended.
pub const LOG_LINES: u32 = 10;
/// Characters kept of each.
pub const LOG_WIDTH: usize = 400;

/// What runs of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub phase: Phase,
    /// Why it is no further, for people.
    pub reason: Option<String>,
    /// Whether trying again without a change by people is of no use.
    pub is_final: bool,
    /// Since when it is in that phase: milliseconds on the store's clock.
    pub since: u64,
    /// When this was written, on the same clock.
    pub at: u64,
    /// The hash of what is wanted.
    pub spec: String,
    /// Which attempt at it this is about.
    pub attempt: u32,
    /// The template it was made from.
    pub template: String,
    /// Where it runs, as `kind/id`.
    pub engine: String,
    /// The replicas there are, those on their way out too.
    pub replicas: Vec<ReplicaRecord>,
    /// How far an image is that is being pulled.
    pub pull: Option<String>,
    /// What replicas are made from, as soon as one was.
    pub image: Option<PinnedImage>,
    /// Longest wait for the answer to a call, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The node that reconciles.
    pub node: String,
    /// The fence it was written under, and its place among those.
    pub fence: u64,
    /// See `fence`.
    pub serial: u64,
}

/// What an image's name stood for when the first replica was made: the others
/// are made from the same, whatever the name stands for by then.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PinnedImage {
    /// The hash of what they run: something else is looked up anew.
    pub spec: String,
    /// The engine's id of it.
    pub id: String,
    /// By which the registry knows it; what never came from one has none.
    pub digest: Option<String>,
}

/// One container of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaRecord {
    /// The container's name.
    pub container: String,
    /// The engine's id of it.
    pub id: String,
    /// Which of the replicas.
    pub ordinal: u32,
    /// The hash of what it runs.
    pub spec: String,
    /// What it does.
    pub state: ReplicaState,
    /// The address of its endpoint, or the last it had.
    pub url: Option<String>,
    /// Whom tokens for it are made for; none for one that takes none.
    pub audience: Option<String>,
    /// Whether calls go there.
    pub routed: bool,
    /// Whether its server has ever answered.
    pub served: bool,
    /// It was told to end.
    pub told_to_stop: bool,
    /// The container's life in which it answered.
    pub ready: Option<u64>,
    /// How often it was started again.
    pub restarts: u32,
    /// Failures in a row.
    pub failures: u32,
    /// What went wrong last.
    pub reason: Option<String>,
    /// The last exit code.
    pub exit_code: Option<i64>,
    /// Whether it was killed for using too much memory.
    pub oom: bool,
    /// The last lines before it ended.
    pub log: Vec<String>,
}

/// How far a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody has begun.
    #[default]
    Pending,
    /// Its image is being pulled.
    Pulling,
    /// Replicas start and have not answered yet.
    Starting,
    /// All replicas that are wanted answer.
    Ready,
    /// Some do.
    Degraded,
    /// The replicas of before still serve, those that are wanted are on their way.
    Updating,
    /// None answers, and trying again has not helped.
    Failing,
    /// It is being stopped.
    Stopping,
    /// Its containers stand still.
    Stopped,
    /// It is being removed.
    Removing,
    /// Nothing is left.
    Removed,
    /// Its engine does not answer; what is told is what was known last.
    EngineAway,
    /// Its containers run, and nothing says that they should.
    Orphaned,
    /// What a newer node says, and this one does not understand.
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// All that are counted.
    pub const ALL: [Self; 13] = [
        Self::Pending,
        Self::Pulling,
        Self::Starting,
        Self::Ready,
        Self::Degraded,
        Self::Updating,
        Self::Failing,
        Self::Stopping,
        Self::Stopped,
        Self::Removing,
        Self::Removed,
        Self::EngineAway,
        Self::Orphaned,
    ];

    /// The word for people, metrics and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Updating => "updating",
            Self::Failing => "failing",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Removing => "removing",
            Self::Removed => "removed",
            Self::EngineAway => "engine_away",
            Self::Orphaned => "orphaned",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a replica does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Its container runs; its server has not answered yet.
    #[default]
    Starting,
    /// Its server answers.
    Ready,
    /// Its container ended; it is started again.
    Crashed,
    /// Somebody halted its container.
    Paused,
    /// Out of routing: calls under way may end.
    Draining,
    /// Its container stands still, as it should.
    Stopped,
    /// What a newer node says, and this one does not understand.
    #[serde(other)]
    Unknown,
}

impl ReplicaState {
    /// All that are counted.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Ready,
        Self::Crashed,
        Self::Paused,
        Self::Draining,
        Self::Stopped,
    ];

    /// The word for people, metrics and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Crashed => "crashed",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

impl Record {
    /// Reads what [`encode`](Self::encode) wrote; `None` for what a node of
    /// another version wrote and this one does not understand.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(bytes)
            .inspect_err(
                |error| tracing::debug!(%error, "a deployment's record was not understood"),
            )
            .ok()
    }

    /// As the store keeps it; fields are named, so that versions can differ.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        rmp_serde::to_vec_named(self)
            .inspect_err(
                |error| tracing::error!(%error, "a deployment's record could not be encoded"),
            )
            .ok()
    }

    /// Whether it says something else than `before`, times and authorship aside.
    #[must_use]
    pub fn differs(&self, before: &Self) -> bool {
        let timeless = Self {
            since: before.since,
            at: before.at,
            node: before.node.clone(),
            fence: before.fence,
            serial: before.serial,
            ..self.clone()
        };
        timeless != *before
    }

    /// Whether it was written after the other.
    #[must_use]
    pub fn is_newer(&self, other: &Self) -> bool {
        (self.fence, self.serial) >= (other.fence, other.serial)
    }

    /// How many replicas of what is wanted answer.
    #[must_use]
    pub fn ready(&self) -> usize {
        let ready = |one: &&ReplicaRecord| one.state == ReplicaState::Ready;
        self.replicas.iter().filter(ready).count()
    }

    /// What the next node has to remember of the containers.
    pub fn remember(&self, history: &mut History, now: tokio::time::Instant) {
        for one in &self.replicas {
            let past = history.entry(&one.container);
            past.served = one.served;
            past.routed = one.routed;
            past.ready = one.ready.map(|life| (life, now));
            past.failures = one.failures;
            past.restarts = one.restarts;
            past.told_to_stop = one.told_to_stop;
            let is_out = one.state == ReplicaState::Draining && !one.routed;
            past.withdrawn = is_out.then_some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            name: "notes".to_owned(),
            phase: Phase::Ready,
            replicas: vec![ReplicaRecord {
                container: "c-0".to_owned(),
                state: ReplicaState::Ready,
                url: Some("http://10.0.0.2:8765/mcp".to_owned()),
                routed: true,
                served: true,
                ready: Some(7),
                ..ReplicaRecord::default()
            }],
            fence: 3,
            serial: 1,
            ..Record::default()
        }
    }

    #[test]
    fn a_record_is_read_as_written_and_what_is_new_is_skipped() {
        let record = record();
        let bytes = record.encode().expect("encodes");
        assert_eq!(Record::decode(&bytes), Some(record));
        let newer = serde_json::json!({"name": "x", "phase": "dreaming", "mood": "good",
            "replicas": [{"state": "dancing"}]});
        let newer = rmp_serde::to_vec_named(&newer).expect("encodes");
        let read = Record::decode(&newer).expect("understood");
        assert_eq!(
            (read.phase, read.replicas[0].state),
            (Phase::Unknown, ReplicaState::Unknown)
        );
        assert_eq!(Record::decode(b"\xc1"), None);
    }

    #[test]
    fn times_make_no_difference_and_authorship_neither() {
        let before = record();
        let mut after = before.clone();
        after.at = 99;
        after.serial = 2;
        after.node = "b".to_owned();
        assert!(!after.differs(&before) && after.is_newer(&before) && !before.is_newer(&after));
        after.replicas[0].restarts = 1;
        assert!(after.differs(&before));
    }

    #[test]
    fn the_next_node_remembers_who_serves() {
        let mut history = History::default();
        let mut record = record();
        record.replicas.push(ReplicaRecord {
            container: "c-1".to_owned(),
            state: ReplicaState::Draining,
            told_to_stop: true,
            ..ReplicaRecord::default()
        });
        record.remember(&mut history, tokio::time::Instant::now());
        let (one, other) = (history.of("c-0"), history.of("c-1"));
        assert!(one.routed && one.is_ready(7) && one.withdrawn.is_none());
        assert!(!other.routed && other.withdrawn.is_some());
        assert!(!one.told_to_stop && other.told_to_stop);
    }
}
