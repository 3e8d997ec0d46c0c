//! Tokens that any node can open and nobody else can read or make.

use crate::ids::Principal;

/// Longest token that is opened, in characters.
pub const MAX_TOKEN: usize = 256 * 1024;

/// What a token is for; one kind never passes for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A legacy session id.
    Session,
    /// A list cursor.
    Cursor,
    /// The `requestState` of a question in mid-call.
    RequestState,
}

/// Why a token does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// It is not one of ours, or too long.
    #[error("not a token of this fleet")]
    Malformed,
    /// Its key is not, or no longer, known.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// Altered, or made for another purpose or principal.
    #[error("altered, or meant for another purpose or caller")]
    Forged,
}

/// Makes and opens tokens.
#[derive(Clone)]
pub struct Sealer;

impl Sealer {
    /// Seals with `key`, which all nodes share.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let _ = key;
        todo!()
    }

    /// Also opens what was sealed with `keys`.
    #[must_use]
    pub fn with_previous<'k>(self, keys: impl IntoIterator<Item = &'k [u8; 32]>) -> Self {
        let _ = keys.into_iter();
        todo!()
    }

    /// Seals `plain` for `principal`; printable ASCII, fit for a header.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, principal: &Principal, plain: &[u8]) -> String {
        let _ = (purpose, principal, plain);
        todo!()
    }

    /// Opens a token.
    ///
    /// # Errors
    /// When it is not one of ours for this purpose and principal.
    pub fn open(
        &self,
        purpose: Purpose,
        principal: &Principal,
        token: &str,
    ) -> Result<Vec<u8>, Unsealed> {
        let _ = (purpose, principal, token);
        todo!()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}
