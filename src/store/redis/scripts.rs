//! The scripts, loaded once. What a script takes and returns is written in its
//! header; the typed functions around them are in `redis.rs`.

use std::sync::LazyLock;

use fred::types::scripts::Script;

/// Time to live of a fence counter: longer than entries and epochs usually
/// live, though nothing depends on it while the clock does not go back.
pub(super) const FENCE_TTL_MS: u64 = 8 * 24 * 3600 * 1000;

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::from_lua(include_str!(concat!("scripts/", $file))));
    };
}

script!(ENTRY_READ, "entry_read.lua");
script!(ENTRY_WRITE, "entry_write.lua");
script!(INVALIDATE, "invalidate.lua");
script!(LOCK, "lock.lua");
script!(LOCK_EXTEND, "lock_extend.lua");
script!(LOCK_RELEASE, "lock_release.lua");
script!(STREAM_OPEN, "stream_open.lua");
script!(STREAM_APPEND, "stream_append.lua");
script!(STREAM_CLOSE, "stream_close.lua");
script!(STREAM_READ, "stream_read.lua");
script!(LEASE_ACQUIRE, "lease_acquire.lua");
script!(LEASE_RENEW, "lease_renew.lua");
script!(LEASE_RELEASE, "lease_release.lua");
script!(RECORD_FENCED, "record_fenced.lua");
script!(ROSTER, "roster.lua");
script!(RATE_TAKE, "rate_take.lua");
script!(PERMITS, "permits.lua");
script!(REGISTRY_CHANGE, "registry_change.lua");
script!(REGISTRY_RESTORE, "registry_restore.lua");
