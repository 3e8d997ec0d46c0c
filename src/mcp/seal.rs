//! Tokens that any node can open and nobody else can read or make.
//!
//! XChaCha20-Poly1305 with a random nonce; what the token is for and whose it
//! is are authenticated with it. A token is Base64 (URL alphabet, no padding)
//! of `key id (4) | nonce (24) | ciphertext and tag`. Expiry and single use
//! are the business of whoever chooses the content.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use sha2::{Digest, Sha256};

use crate::ids::Principal;

/// Longest token that is opened, in characters.
pub const MAX_TOKEN: usize = 256 * 1024;

/// Former keys that are kept when keys are adopted.
pub const MAX_PREVIOUS: usize = 8;

const KEY_ID_LEN: usize = 4;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

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

impl Purpose {
    /// Never reuse a number: old tokens would change their meaning.
    fn code(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Cursor => 2,
            Self::RequestState => 3,
        }
    }
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

/// Makes and opens tokens. Clones share their keys.
#[derive(Clone)]
pub struct Sealer(Arc<ArcSwap<Keys>>);

#[derive(Clone)]
struct Keys {
    current: Key,
    previous: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: [u8; KEY_ID_LEN],
    cipher: XChaCha20Poly1305,
}

impl Key {
    fn new(key: &[u8; 32]) -> Self {
        let digest = Sha256::new()
            .chain_update(b"mcp-fleet key id")
            .chain_update(key)
            .finalize();
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest[..KEY_ID_LEN]);
        Self {
            id,
            cipher: XChaCha20Poly1305::new(key.into()),
        }
    }
}

impl Sealer {
    /// Seals with `key`, which all nodes share.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Keys {
            current: Key::new(key),
            previous: Vec::new(),
        })))
    }

    /// Also opens what was sealed with `keys`.
    #[must_use]
    pub fn with_previous<'k>(self, keys: impl IntoIterator<Item = &'k [u8; 32]>) -> Self {
        let mut all = Keys::clone(&self.0.load());
        all.previous.extend(keys.into_iter().map(Key::new));
        self.0.store(Arc::new(all));
        self
    }

    /// Seals with `key` from now on, and still opens what it could open before;
    /// of many former keys, with the latest [`MAX_PREVIOUS`].
    pub fn adopt(&self, key: &[u8; 32]) {
        let key = Key::new(key);
        self.0.rcu(|keys| {
            let former = std::iter::once(&keys.current).chain(&keys.previous);
            Keys {
                current: key.clone(),
                previous: former
                    .filter(|former| former.id != key.id)
                    .take(MAX_PREVIOUS)
                    .cloned()
                    .collect(),
            }
        });
    }

    /// Seals `plain` for `principal`; printable ASCII, fit for a header.
    /// Content of more than about 190 KiB makes a token that is too long to open.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, principal: &Principal, plain: &[u8]) -> String {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let about = associated_data(purpose, principal);
        let payload = Payload {
            msg: plain,
            aad: &about,
        };
        let current = &self.0.load().current;
        // Fails only beyond 256 GiB. No token at all would then be the answer.
        let sealed = current
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .unwrap_or_default();
        let mut token = Vec::with_capacity(KEY_ID_LEN + NONCE_LEN + sealed.len());
        token.extend_from_slice(&current.id);
        token.extend_from_slice(&nonce);
        token.extend_from_slice(&sealed);
        URL_SAFE_NO_PAD.encode(token)
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
        if token.len() > MAX_TOKEN {
            return Err(Unsealed::Malformed);
        }
        let token = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| Unsealed::Malformed)?;
        let (id, rest) = token
            .split_first_chunk::<KEY_ID_LEN>()
            .ok_or(Unsealed::Malformed)?;
        let (nonce, sealed) = rest
            .split_first_chunk::<NONCE_LEN>()
            .filter(|(_, sealed)| sealed.len() >= TAG_LEN)
            .ok_or(Unsealed::Malformed)?;
        let about = associated_data(purpose, principal);
        let mut outcome = Err(Unsealed::UnknownKey);
        let keys = self.0.load();
        for key in std::iter::once(&keys.current).chain(&keys.previous) {
            if key.id != *id {
                continue;
            }
            let payload = Payload {
                msg: sealed,
                aad: &about,
            };
            match key.cipher.decrypt(&XNonce::from(*nonce), payload) {
                Ok(plain) => return Ok(plain),
                Err(_) => outcome = Err(Unsealed::Forged),
            }
        }
        outcome
    }
}

fn associated_data(purpose: Purpose, principal: &Principal) -> [u8; 17] {
    let mut data = [purpose.code(); 17];
    data[1..].copy_from_slice(principal.as_bytes());
    data
}

impl std::fmt::Debug for Sealer {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const ME: Principal = Principal::ANONYMOUS;

    #[test]
    fn tokens_open_for_their_purpose_and_principal_only() {
        let sealer = Sealer::new(&[7; 32]);
        let token = sealer.seal(Purpose::Session, &ME, b"content");
        assert_eq!(
            sealer.open(Purpose::Session, &ME, &token).expect("ours"),
            b"content"
        );
        for purpose in [Purpose::Cursor, Purpose::RequestState] {
            assert_eq!(sealer.open(purpose, &ME, &token), Err(Unsealed::Forged));
        }
        let other = Principal::from_credential(b"Bearer x");
        assert_eq!(
            sealer.open(Purpose::Session, &other, &token),
            Err(Unsealed::Forged)
        );
    }

    #[test]
    fn keys_rotate() {
        let (old, new) = ([1; 32], [2; 32]);
        let token = Sealer::new(&old).seal(Purpose::Cursor, &ME, b"x");
        let open = |sealer: Sealer| sealer.open(Purpose::Cursor, &ME, &token);
        assert_eq!(open(Sealer::new(&new)), Err(Unsealed::UnknownKey));
        assert_eq!(
            open(Sealer::new(&new).with_previous([&[3; 32], &old])),
            Ok(b"x".to_vec())
        );
        let sealer = Sealer::new(&new).with_previous([&old]);
        let fresh = sealer.seal(Purpose::Cursor, &ME, b"y");
        assert_eq!(
            Sealer::new(&new).open(Purpose::Cursor, &ME, &fresh),
            Ok(b"y".to_vec())
        );
    }

    #[test]
    fn an_adopted_key_seals_in_all_clones_and_the_old_one_still_opens() {
        let (own, shared) = ([1; 32], [2; 32]);
        let sealer = Sealer::new(&own).with_previous([&[3; 32]]);
        let clone = sealer.clone();
        let before = clone.seal(Purpose::Session, &ME, b"before");
        sealer.adopt(&shared);
        let after = clone.seal(Purpose::Session, &ME, b"after");
        let theirs = Sealer::new(&shared);
        assert_eq!(
            theirs.open(Purpose::Session, &ME, &after),
            Ok(b"after".to_vec())
        );
        assert_eq!(
            theirs.open(Purpose::Session, &ME, &before),
            Err(Unsealed::UnknownKey)
        );
        let oldest = Sealer::new(&[3; 32]).seal(Purpose::Session, &ME, b"oldest");
        for (token, plain) in [(before, "before"), (after, "after"), (oldest, "oldest")] {
            let opened = clone.open(Purpose::Session, &ME, &token);
            assert_eq!(opened, Ok(plain.as_bytes().to_vec()));
        }
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        let sealer = Sealer::new(&[7; 32]);
        let long = "A".repeat(MAX_TOKEN + 1);
        for text in ["", "?", "AAAA", "a b", "ü", &*long, &"A".repeat(58)] {
            assert_eq!(
                sealer.open(Purpose::Cursor, &ME, text),
                Err(Unsealed::Malformed)
            );
        }
        assert_eq!(
            sealer.open(Purpose::Cursor, &ME, &"A".repeat(59)),
            Err(Unsealed::UnknownKey)
        );
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", Sealer::new(&[7; 32])), "Sealer { .. }");
    }

    proptest! {
        #[test]
        fn tokens_are_visible_ascii_and_read_back(plain in vec(any::<u8>(), 0..200)) {
            let sealer = Sealer::new(&[7; 32]);
            let token = sealer.seal(Purpose::RequestState, &ME, &plain);
            prop_assert!(token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
            prop_assert_ne!(&token, &sealer.seal(Purpose::RequestState, &ME, &plain));
            prop_assert_eq!(sealer.open(Purpose::RequestState, &ME, &token), Ok(plain));
        }

        #[test]
        fn every_altered_bit_is_noticed(plain in vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>(), bit in 0..8) {
            let sealer = Sealer::new(&[7; 32]);
            let token = sealer.seal(Purpose::Session, &ME, &plain);
            let mut bytes = URL_SAFE_NO_PAD.decode(token).expect("own token");
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let outcome = sealer.open(Purpose::Session, &ME, &URL_SAFE_NO_PAD.encode(bytes));
            let expected = if at < KEY_ID_LEN { Unsealed::UnknownKey } else { Unsealed::Forged };
            prop_assert_eq!(outcome, Err(expected));
        }

        #[test]
        fn any_text_is_refused_calmly(text in any::<String>()) {
            prop_assert!(Sealer::new(&[7; 32]).open(Purpose::Session, &ME, &text).is_err());
        }
    }
}
