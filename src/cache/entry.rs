//! What a slot holds in the store: one byte of format version, then
//! MessagePack. An unknown version is a miss, so old and new nodes can share a
//! store while a fleet is updated.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Scope, freshness::Lifetimes};
use crate::ids::Principal;

/// Raised when the layout changes in a way that old nodes cannot read.
const FORMAT: u8 = 1;

/// The content of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// An answer.
    Answer(Answer),
    /// In a base slot: answers are private, look into the principal's own slot.
    PerPrincipal {
        /// For how long that is believed.
        max_age: Duration,
    },
}

/// An answer as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) scope: Scope,
    /// Whose it is, when it is private.
    pub(super) owner: Option<[u8; 16]>,
    pub(super) lifetimes: Lifetimes,
    /// How long the fetch took.
    pub(super) took: Duration,
    pub(super) is_empty: bool,
    /// Of the payload: changes only when the content does.
    pub(super) digest: u64,
    pub(super) payload: Bytes,
}

impl Answer {
    /// Whether `principal` may be served it.
    pub(super) fn is_for(&self, principal: Principal) -> bool {
        match self.scope {
            Scope::Public | Scope::Fleet => true,
            Scope::Private => self.owner.as_ref() == Some(principal.as_bytes()),
        }
    }
}

/// The first 8 bytes of the payload's SHA-256.
pub(super) fn digest(payload: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Sha256::digest(payload)[..8]);
    u64::from_be_bytes(first)
}

/// The layout in the store. Fields may be added at the end with a default.
#[derive(Serialize, Deserialize)]
enum Stored<'a> {
    Answer {
        scope: Scope,
        owner: Option<[u8; 16]>,
        fresh_ms: u64,
        stale_ms: u64,
        max_stale_ms: u64,
        took_ms: u64,
        is_empty: bool,
        digest: u64,
        #[serde(borrow, with = "serde_bytes")]
        payload: &'a [u8],
    },
    PerPrincipal {
        max_age_ms: u64,
    },
}

/// `content` as the store keeps it.
pub(super) fn encode(content: &Content) -> Bytes {
    let (stored, size) = match content {
        Content::Answer(answer) => {
            let stored = Stored::Answer {
                scope: answer.scope,
                owner: answer.owner,
                fresh_ms: millis(answer.lifetimes.fresh),
                stale_ms: millis(answer.lifetimes.stale),
                max_stale_ms: millis(answer.lifetimes.max_stale),
                took_ms: millis(answer.took),
                is_empty: answer.is_empty,
                digest: answer.digest,
                payload: &answer.payload,
            };
            (stored, answer.payload.len())
        }
        Content::PerPrincipal { max_age } => {
            let max_age_ms = millis(*max_age);
            (Stored::PerPrincipal { max_age_ms }, 0)
        }
    };
    let mut bytes = Vec::with_capacity(size + 128);
    bytes.push(FORMAT);
    // Writing our own plain types into memory cannot fail; if it did, the
    // entry would be one that nobody can read: a miss.
    rmp_serde::encode::write(&mut bytes, &stored).ok();
    bytes.into()
}

/// Reads what [`encode`] wrote; `None` for anything else. The payload shares
/// the memory of `bytes`.
pub(super) fn decode(bytes: &Bytes) -> Option<Content> {
    let (&format, rest) = bytes.split_first()?;
    if format != FORMAT {
        return None;
    }
    Some(match rmp_serde::from_slice(rest).ok()? {
        Stored::Answer {
            scope,
            owner,
            fresh_ms,
            stale_ms,
            max_stale_ms,
            took_ms,
            is_empty,
            digest,
            payload,
        } => Content::Answer(Answer {
            scope,
            owner,
            lifetimes: Lifetimes {
                fresh: Duration::from_millis(fresh_ms),
                stale: Duration::from_millis(stale_ms),
                max_stale: Duration::from_millis(max_stale_ms),
            },
            took: Duration::from_millis(took_ms),
            is_empty,
            digest,
            payload: bytes.slice_ref(payload),
        }),
        Stored::PerPrincipal { max_age_ms } => Content::PerPrincipal {
            max_age: Duration::from_millis(max_age_ms),
        },
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            payload in any::<Vec<u8>>(),
            owner in proptest::option::of(any::<[u8; 16]>()),
            ms in any::<[u32; 4]>(),
            is_empty: bool,
        ) {
            let duration = |at: usize| Duration::from_millis(ms[at].into());
            let content = Content::Answer(Answer {
                scope: if owner.is_some() { Scope::Private } else { Scope::Public },
                owner,
                lifetimes: Lifetimes {
                    fresh: duration(0),
                    stale: duration(1),
                    max_stale: duration(2),
                },
                took: duration(3),
                is_empty,
                digest: digest(&payload),
                payload: payload.into(),
            });
            prop_assert_eq!(decode(&encode(&content)), Some(content));
        }

        #[test]
        fn anything_else_is_a_miss(bytes in any::<Vec<u8>>()) {
            // Does not panic; an unknown version is never read.
            let read = decode(&Bytes::from(bytes.clone()));
            prop_assert!(read.is_none() || bytes[0] == FORMAT);
        }
    }

    #[test]
    fn another_version_is_a_miss() {
        let content = Content::PerPrincipal {
            max_age: Duration::from_secs(1),
        };
        let bytes = encode(&content);
        assert_eq!(decode(&bytes), Some(content));
        let mut newer = bytes.to_vec();
        newer[0] = FORMAT + 1;
        assert_eq!(decode(&newer.into()), None);
        assert_eq!(decode(&Bytes::new()), None);
    }

    #[test]
    fn a_private_answer_is_for_its_owner_only() {
        let mut answer = Answer {
            scope: Scope::Private,
            owner: Some(*Principal::from_credential(b"a").as_bytes()),
            lifetimes: Lifetimes {
                fresh: Duration::ZERO,
                stale: Duration::ZERO,
                max_stale: Duration::ZERO,
            },
            took: Duration::ZERO,
            is_empty: false,
            digest: 0,
            payload: Bytes::new(),
        };
        assert!(answer.is_for(Principal::from_credential(b"a")));
        assert!(!answer.is_for(Principal::from_credential(b"b")));
        assert!(!answer.is_for(Principal::ANONYMOUS));
        answer.owner = None;
        assert!(!answer.is_for(Principal::ANONYMOUS));
    }
}
