//! Names the slots of the cache: what was asked, and by whom where that matters.

use std::fmt;

use super::Subject;
use crate::{
    ids::{Principal, ServerId},
    store::{EntryKey, ShortDigest, SubjectKey},
};

/// What is asked of the cache.
///
/// There are two slots for it: the *base* slot, shared by all principals, and
/// one of the principal's own, used while the base slot says that answers are
/// private.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    base: EntryKey,
    principal: Principal,
}

impl CacheKey {
    /// The key of `method` at `server`, asked by `principal`.
    ///
    /// `uri` is the resource of a `resources/read`. `variant` tells apart what
    /// the server may answer differently for the same principal: the protocol
    /// version, the capabilities of a legacy session, the forwarded extensions.
    #[must_use]
    pub fn new(
        server: &ServerId,
        method: &'static str,
        uri: Option<&str>,
        variant: &str,
        principal: Principal,
    ) -> Self {
        let slot = ShortDigest::of(&[
            server.as_str().as_bytes(),
            method.as_bytes(),
            if uri.is_some() { b"uri" } else { b"" },
            uri.unwrap_or_default().as_bytes(),
            variant.as_bytes(),
        ]);
        let subject = SubjectKey {
            server: server.clone(),
            method,
            part: uri.map(part),
        };
        Self {
            base: EntryKey { subject, slot },
            principal,
        }
    }

    /// The same question, asked by another.
    #[must_use]
    pub fn asked_by(&self, principal: Principal) -> Self {
        Self {
            base: self.base.clone(),
            principal,
        }
    }

    /// The slot that all principals share.
    pub(super) fn base(&self) -> &EntryKey {
        &self.base
    }

    /// The slot of the principal.
    pub(super) fn own(&self) -> EntryKey {
        let slot = ShortDigest::of(&[
            self.base.slot.to_string().as_bytes(),
            self.principal.as_bytes(),
        ]);
        EntryKey {
            subject: self.base.subject.clone(),
            slot,
        }
    }

    pub(super) fn principal(&self) -> Principal {
        self.principal
    }
}

impl Subject {
    /// What the store calls it.
    pub(super) fn key(&self) -> SubjectKey {
        SubjectKey {
            server: self.server.clone(),
            method: self.method,
            part: self.uri.as_deref().map(part),
        }
    }
}

fn part(uri: &str) -> ShortDigest {
    ShortDigest::of(&[uri.as_bytes()])
}

impl fmt::Display for CacheKey {
    /// For people and errors: server and method, nothing of the principal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.base.subject;
        write!(f, "{} of server {}", subject.method, subject.server)
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.base.slot)
    }
}
