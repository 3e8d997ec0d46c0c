//! Every key and channel in Redis, and the only code that formats one.
//! `docs/redis-keys.md` is the same list for operators.
//!
//! Keys that one script touches share a `{hash tag}`, so that they are in one
//! slot of a cluster. Texts that come from outside (session digests, call ids)
//! are hex or URL-safe Base64 by contract and contain no braces.

use crate::ids::ReplicaId;

use super::super::{
    Channel, EntryKey, RecordKey, StreamKey, SubjectKey, leases::Duty, rates::RateKey,
    registry::Which, rosters::RosterKey,
};

/// A key. All but [`RecordKey::Secret`] and [`Key::Registry`] have a time to live.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key<'a> {
    /// Hash `generation`, `fetched`, `payload`: a cache entry. Lives until it may
    /// not be served any more (`max_stale`). Bound: one per slot. Written by
    /// `entry_write.lua`.
    Entry(&'a EntryKey),
    /// String, the holder's token: the lock that guards the refresh of an entry.
    /// Lives for the lock's TTL. Written by `lock.lua`, `lock_extend.lua`.
    Lock(&'a EntryKey),
    /// String, a number: the last fence of a server and method. Lives for
    /// [`FENCE_TTL_MS`](super::scripts::FENCE_TTL_MS); losing it does no harm, fences go on from the clock.
    /// Written by `lock.lua`, `invalidate.lua`.
    Fence(&'a SubjectKey),
    /// String, a fence: the last invalidation of a subject. Outlives every
    /// entry it is about. Bound: one per server and method, and one per
    /// resource that changed lately. Written by `invalidate.lua`.
    Epoch(&'a SubjectKey),
    /// String: a record, see [`RecordKey`]. Lives as long as its writer says.
    Record(&'a RecordKey),
    /// Stream, field `p`, ids `0-n`: see [`StreamKey`]. Lives for its bounds'
    /// TTL after the last append; capped by its bounds. Written by
    /// `stream_open.lua`, `stream_append.lua`.
    Stream(&'a StreamKey),
    /// String, the holder: a lease. Lives for the lease's TTL. Bound: one per
    /// duty. Written by `lease_acquire.lua`, `lease_renew.lua`.
    Lease(&'a Duty),
    /// String, a number: the last fence of a duty. Outlives the lease; losing
    /// it does no harm, fences go on from the clock. Written by
    /// `lease_acquire.lua`.
    LeaseFence(&'a Duty),
    /// String, a node: whose turn a lease is. Lives as long as the lease.
    /// Written by `lease_acquire.lua`.
    LeaseWanted(&'a Duty),
    /// Hash, one field per node: see [`RosterKey`]. Lives as long as its
    /// youngest line may. Written by `roster.lua`.
    Roster(&'a RosterKey),
    /// Hash, holder to `until held wanted`: who may have how many calls in
    /// flight to a replica. Lives as long as its youngest line. Bound: one per
    /// replica with `max_in_flight`, one line per node. Written by `permits.lua`.
    Permits(&'a ReplicaId),
    /// Hash, one field per registered server or deployment and `:edition`. Lives
    /// for ever: what was registered is served, and what was deployed runs, until
    /// it is taken out. Bound: `limits.registered_servers`, `limits.deployments`.
    /// Written by `registry_change.lua`, `registry_restore.lua`.
    Registry(Which),
    /// String, a time in microseconds: until when the tokens taken of a rate limit
    /// are spread. Lives until then. Bound: one per client, server and tool
    /// that is limited and was used lately. Written by `rate_take.lua`.
    Rate(&'a RateKey),
}

/// A pub/sub channel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Topic<'a> {
    /// `written SLOT GENERATION`, `released SLOT`, `invalidated SUBJECT EPOCH`.
    Cache,
    /// Messages of [`Store::publish`](super::Store::publish).
    Of(Channel),
    /// Empty messages: the stream has grown or ended. Subscribed to by nodes
    /// that watch it.
    Wake(&'a StreamKey),
}

/// Formats keys under one prefix.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// `None` when `prefix` has characters with a meaning in keys.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let valid = !prefix.is_empty() && prefix.chars().all(good);
        valid.then(|| Self {
            prefix: prefix.to_owned(),
        })
    }

    pub(super) fn key(&self, key: Key<'_>) -> String {
        let prefix = &self.prefix;
        match key {
            Key::Entry(entry) => {
                let tag = subject_tag(&entry.subject);
                format!("{prefix}:cache:{tag}:entry:{}", entry.slot)
            }
            Key::Lock(entry) => {
                let tag = subject_tag(&entry.subject);
                format!("{prefix}:cache:{tag}:lock:{}", entry.slot)
            }
            Key::Fence(subject) => format!("{prefix}:cache:{}:fence", subject_tag(subject)),
            Key::Epoch(subject) => {
                let tag = subject_tag(subject);
                match subject.part {
                    Some(part) => format!("{prefix}:cache:{tag}:epoch:{part}"),
                    None => format!("{prefix}:cache:{tag}:epoch"),
                }
            }
            Key::Record(record) => self.record(record),
            Key::Stream(stream) => self.stream(stream),
            Key::Lease(duty) => format!("{prefix}:lease:{}", duty_tag(duty)),
            Key::LeaseFence(duty) => format!("{prefix}:lease:{}:fence", duty_tag(duty)),
            Key::LeaseWanted(duty) => format!("{prefix}:lease:{}:wanted", duty_tag(duty)),
            Key::Roster(RosterKey::Members) => format!("{prefix}:members"),
            Key::Roster(RosterKey::Load) => format!("{prefix}:load"),
            Key::Roster(RosterKey::Interest(server)) => format!("{prefix}:interest:{{{server}}}"),
            Key::Permits(replica) => format!("{prefix}:permits:{{{replica}}}"),
            Key::Registry(Which::Servers) => format!("{prefix}:servers"),
            Key::Registry(Which::Deployments) => format!("{prefix}:deployments"),
            Key::Rate(RateKey(limit)) => format!("{prefix}:rate:{limit}"),
        }
    }

    pub(super) fn topic(&self, topic: Topic<'_>) -> String {
        let prefix = &self.prefix;
        match topic {
            Topic::Cache => format!("{prefix}:on:cache"),
            Topic::Of(Channel::Fleet) => format!("{prefix}:on:fleet"),
            Topic::Of(Channel::Health) => format!("{prefix}:on:health"),
            Topic::Of(Channel::Deployments) => format!("{prefix}:on:deployments"),
            Topic::Wake(stream) => format!("{prefix}:on:{}", self.stream(stream)),
        }
    }

    fn record(&self, record: &RecordKey) -> String {
        let prefix = &self.prefix;
        match record {
            RecordKey::Secret => format!("{prefix}:secret"),
            RecordKey::Session(session) => format!("{prefix}:session:{{{session}}}"),
            RecordKey::Revoked(session) => format!("{prefix}:session:{{{session}}}:revoked"),
            RecordKey::UpstreamSession { session, server } => {
                format!("{prefix}:session:{{{session}}}:upstream:{server}")
            }
            RecordKey::Stream(stream) => format!("{prefix}:sse:{{{stream}}}"),
            RecordKey::Health(replica) => format!("{prefix}:health:{{{replica}}}"),
            RecordKey::Deployment(name) => format!("{prefix}:deployment:{{{name}}}"),
        }
    }

    fn stream(&self, stream: &StreamKey) -> String {
        let prefix = &self.prefix;
        match stream {
            StreamKey::Events { session, stream } => {
                format!("{prefix}:session:{{{session}}}:events:{stream}")
            }
            StreamKey::Mailbox(call) => format!("{prefix}:call:{{{call}}}:mailbox"),
        }
    }
}

/// What the keys of a server and method have in common: their slot.
fn subject_tag(subject: &SubjectKey) -> String {
    format!("{{{}:{}}}", subject.server, subject.method)
}

/// What the keys of a duty have in common: their slot.
fn duty_tag(duty: &Duty) -> String {
    format!("{{{}:{}}}", duty.kind.as_str(), duty.subject)
}

#[cfg(test)]
mod document;
#[cfg(test)]
mod documented;

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::{
        ids::{ReplicaId, ServerId, hex},
        store::{ShortDigest, leases::DutyKind},
    };

    #[test]
    fn keys_are_these() {
        let keys = Keys::new("mcp-fleet").expect("good prefix");
        let server = ServerId::try_from("demo").expect("good name");
        let whole = SubjectKey {
            server: server.clone(),
            method: "resources/read",
            part: None,
        };
        let part = SubjectKey {
            part: Some(ShortDigest::of(&[b"file:///a"])),
            ..whole.clone()
        };
        let entry = EntryKey {
            subject: part.clone(),
            slot: ShortDigest::of(&[b"slot"]),
        };
        let events = StreamKey::Events {
            session: "5e55".into(),
            stream: "get".into(),
        };
        let upstream = RecordKey::UpstreamSession {
            session: "5e55".into(),
            server: server.clone(),
        };
        let probe = Duty::new(DutyKind::Probe, "demo/0a1b2c3d4e5f");
        let replica = ReplicaId::new(&server, "http://127.0.0.1:1/mcp");
        let health = RecordKey::Health(replica.clone());
        let mailbox = StreamKey::Mailbox("ca11".into());
        let deployed = server.clone();
        let formatted = [
            keys.key(Key::Entry(&entry)),
            keys.key(Key::Lock(&entry)),
            keys.key(Key::Fence(&part)),
            keys.key(Key::Epoch(&whole)),
            keys.key(Key::Epoch(&part)),
            keys.key(Key::Record(&RecordKey::Secret)),
            keys.key(Key::Record(&RecordKey::Session("5e55".into()))),
            keys.key(Key::Record(&RecordKey::Revoked("5e55".into()))),
            keys.key(Key::Record(&upstream)),
            keys.key(Key::Record(&RecordKey::Stream("ca11".into()))),
            keys.key(Key::Stream(&events)),
            keys.key(Key::Stream(&mailbox)),
            keys.key(Key::Lease(&probe)),
            keys.key(Key::LeaseFence(&probe)),
            keys.key(Key::LeaseWanted(&probe)),
            keys.key(Key::Roster(&RosterKey::Members)),
            keys.key(Key::Roster(&RosterKey::Load)),
            keys.key(Key::Roster(&RosterKey::Interest(server.clone()))),
            keys.key(Key::Record(&health)),
            keys.key(Key::Permits(&replica)),
            keys.key(Key::Registry(Which::Servers)),
            keys.key(Key::Registry(Which::Deployments)),
            keys.key(Key::Record(&RecordKey::Deployment(deployed))),
            keys.key(Key::Rate(&RateKey(ShortDigest::of(&[b"slot"])))),
            keys.topic(Topic::Cache),
            keys.topic(Topic::Of(Channel::Fleet)),
            keys.topic(Topic::Of(Channel::Health)),
            keys.topic(Topic::Of(Channel::Deployments)),
            keys.topic(Topic::Wake(&events)),
            keys.topic(Topic::Wake(&mailbox)),
        ];
        let expected = [
            "mcp-fleet:cache:{demo:resources/read}:entry:SLOT",
            "mcp-fleet:cache:{demo:resources/read}:lock:SLOT",
            "mcp-fleet:cache:{demo:resources/read}:fence",
            "mcp-fleet:cache:{demo:resources/read}:epoch",
            "mcp-fleet:cache:{demo:resources/read}:epoch:PART",
            "mcp-fleet:secret",
            "mcp-fleet:session:{5e55}",
            "mcp-fleet:session:{5e55}:revoked",
            "mcp-fleet:session:{5e55}:upstream:demo",
            "mcp-fleet:sse:{ca11}",
            "mcp-fleet:session:{5e55}:events:get",
            "mcp-fleet:call:{ca11}:mailbox",
            "mcp-fleet:lease:{probe:demo/0a1b2c3d4e5f}",
            "mcp-fleet:lease:{probe:demo/0a1b2c3d4e5f}:fence",
            "mcp-fleet:lease:{probe:demo/0a1b2c3d4e5f}:wanted",
            "mcp-fleet:members",
            "mcp-fleet:load",
            "mcp-fleet:interest:{demo}",
            "mcp-fleet:health:{demo/REPLICA}",
            "mcp-fleet:permits:{demo/REPLICA}",
            "mcp-fleet:servers",
            "mcp-fleet:deployments",
            "mcp-fleet:deployment:{demo}",
            "mcp-fleet:rate:SLOT",
            "mcp-fleet:on:cache",
            "mcp-fleet:on:fleet",
            "mcp-fleet:on:health",
            "mcp-fleet:on:deployments",
            "mcp-fleet:on:mcp-fleet:session:{5e55}:events:get",
            "mcp-fleet:on:mcp-fleet:call:{ca11}:mailbox",
        ];
        let digests = |text: &str| {
            text.replace("SLOT", &ShortDigest::of(&[b"slot"]).to_string())
                .replace("PART", &ShortDigest::of(&[b"file:///a"]).to_string())
                .replace(
                    "REPLICA",
                    &hex(&Sha256::digest("http://127.0.0.1:1/mcp")[..6]),
                )
        };
        assert_eq!(formatted.map(String::from), expected.map(digests));
        documented::as_listed(&expected);
    }

    #[test]
    fn prefixes_cannot_break_hash_tags() {
        for bad in ["", "a{b", "a}b", "a b", "a*", "ä"] {
            assert!(Keys::new(bad).is_none(), "{bad:?} was accepted");
        }
        for good in ["mcp-fleet", "prod:mcp.1_x"] {
            assert!(Keys::new(good).is_some());
        }
    }
}
