//! What an operator can do about an error of Redis, said in the log.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fred::error::{Error, ErrorKind};
use tokio::time::Instant;
use tracing::error;

/// The same advice is not said again for so long.
const AGAIN: Duration = Duration::from_secs(300);

/// What to do about `error`, where only an operator can do something.
pub(super) fn cure(error: &Error) -> Option<&'static str> {
    let details = error.details();
    let says = |words: &[&str]| words.iter().any(|word| details.contains(word));
    if *error.kind() == ErrorKind::Auth || says(&["WRONGPASS", "NOAUTH"]) {
        Some("check user and password in redis.url, redis.url_file or redis.password")
    } else if says(&["AUTH called without any password", "AUTH <password> called"]) {
        Some("this Redis has no password: leave it out of redis.url")
    } else if says(&[
        "NOPERM",
        "The user executing the script can't",
        "ACL failure in script",
    ]) {
        Some("give the user the rights that docs/redis.md lists")
    } else if says(&["DENIED Redis is running in protected mode"]) {
        Some("give Redis a password, or bind it to an address that only the fleet reaches")
    } else if says(&["OOM "]) {
        Some("give Redis more memory (maxmemory)")
    } else if says(&["MISCONF"]) {
        Some("Redis cannot save to its disk and refuses writes: see its log")
    } else if says(&["cluster support disabled"]) {
        Some("this Redis is no cluster: write redis:// instead of redis-cluster://")
    } else if says(&["MOVED "]) {
        Some("this Redis is a cluster: write redis-cluster:// instead of redis://")
    } else if says(&["unknown command 'SENTINEL'"]) {
        Some("this is no sentinel: write redis:// or the sentinels' addresses in redis.url")
    } else if says(&["Missing primary address"]) {
        Some("the sentinels know no such master: check sentinelServiceName in redis.url")
    } else if *error.kind() == ErrorKind::Tls || says(&["InvalidCertificate"]) {
        Some("check redis.ca_file, and that Redis's certificate names the host of redis.url")
    } else {
        None
    }
}

/// Says each advice once in a while, however often its cause comes back.
#[derive(Debug, Default)]
pub(super) struct Advice {
    said: Mutex<HashMap<&'static str, Instant>>,
}

impl Advice {
    /// Logs `error` with its cure, if there is one.
    pub(super) fn on(&self, error: &Error) {
        if let Some(cure) = cure(error) {
            self.say(error.details(), cure);
        }
    }

    /// Logs a `cause` with its cure.
    pub(super) fn say(&self, cause: &str, cure: &'static str) {
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(cure).is_some_and(|&last| now < last + AGAIN) {
            return;
        }
        said.insert(cure, now);
        error!(cause, cure, "redis cannot be used as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_only_an_operator_can_mend_have_a_cure() {
        for (kind, details, word) in [
            (ErrorKind::Auth, "WRONGPASS invalid username", "password"),
            // Found out by way of a sentinel, fred says it is of another kind.
            (ErrorKind::Sentinel, "NOAUTH required", "password"),
            (ErrorKind::Unknown, "NOPERM no permissions", "docs/redis.md"),
            (
                ErrorKind::Unknown,
                "OOM command not allowed when",
                "maxmemory",
            ),
            (
                ErrorKind::Config,
                "ERR This instance has cluster support disabled",
                "redis://",
            ),
            (
                ErrorKind::Cluster,
                "MOVED 1234 10.0.0.1:6379",
                "redis-cluster://",
            ),
            (
                ErrorKind::IO,
                "Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) }",
                "ca_file",
            ),
        ] {
            let cure = cure(&Error::new(kind, details)).expect(details);
            assert!(cure.contains(word), "{details}: {cure}");
        }
        for transient in ["Connection refused (os error 111)", "LOADING", "READONLY"] {
            assert_eq!(cure(&Error::new(ErrorKind::IO, transient)), None);
        }
    }
}
