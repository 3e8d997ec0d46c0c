//! How a node proves to a bridge that it belongs to the fleet: a short-lived
//! token, signed for one bridge only.
//!
//! All nodes derive the same key pair from the fleet's secret. A bridge holds
//! the public half, which a hostile server inside its container may read. Pure:
//! what the time is, the caller says; caching is done where tokens are used.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    hkdf,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::hex;

/// The scheme of the `Authorization` header.
pub const SCHEME: &str = "MCP-Fleet-Node";
/// How long a token is valid from when it is made.
pub const LIFETIME: Duration = Duration::from_secs(60);
/// How far the clocks of a node and of a bridge may differ.
pub const SKEW: Duration = Duration::from_secs(5);
/// Longest token that is looked at, in characters.
pub const MAX_TOKEN: usize = 1024;

/// What is signed begins with this, so that no other signature of the key,
/// now or later, passes for a token.
const PREFIX: &[u8] = b"mcp-fleet bridge token v1\n";
const DERIVED_FOR: &[u8] = b"mcp-fleet bridge v1";

/// The fleet's key pair, the same on every node.
#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

impl SigningKey {
    /// The key pair that belongs to the fleet's secret.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "lengths are fixed: 32 bytes can be derived, and each is a seed"
    )]
    pub fn derive(secret: &[u8; 32]) -> Self {
        let mut seed = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(secret)
            .expand(&[DERIVED_FOR], hkdf::HKDF_SHA256)
            .and_then(|derived| derived.fill(&mut seed))
            .expect("as long as the digest");
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed is any 32 bytes");
        Self(Arc::new(pair))
    }

    /// The half that bridges are given.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// What tells this fleet's containers from those of others: 8 hexadecimal digits.
    #[must_use]
    pub fn fleet_id(&self) -> String {
        self.public().fleet_id()
    }

    /// A token with which `node` is let in by the bridge `audience` until `expires`.
    #[must_use]
    pub fn sign(&self, node: &str, audience: &str, expires: SystemTime) -> String {
        let claims = Claims {
            node: node.into(),
            audience: audience.into(),
            expires: unix_seconds(expires),
        };
        // Text and a number: writing them as JSON cannot fail.
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap_or_default());
        let signature = self.0.sign(&signed_bytes(&payload));
        format!("{payload}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl fmt::Debug for SigningKey {
    /// The public half only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

/// The public half of the fleet's key pair.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// What tells this fleet's containers from those of others: 8 hexadecimal digits.
    #[must_use]
    pub fn fleet_id(&self) -> String {
        hex(&Sha256::digest(self.0)[..4])
    }

    /// Whether the token lets its bearer in at `now`; what it says if so.
    ///
    /// # Errors
    /// When it is not a token of this fleet, for another bridge, or too old.
    pub fn verify(
        &self,
        token: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (payload, signature) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::Malformed)?;
        // Nothing of it is looked at before it is known whose it is.
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(&signed_bytes(payload), &signature)
            .map_err(|_| TokenError::Forged)?;
        let claims = URL_SAFE_NO_PAD
            .decode(payload)
            .ok()
            .and_then(|payload| serde_json::from_slice::<Claims>(&payload).ok())
            .ok_or(TokenError::Malformed)?;
        if claims.audience != audience {
            return Err(TokenError::OtherAudience);
        }
        if !claims.is_current(now) {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

impl fmt::Display for PublicKey {
    /// Base64, as the bridge's `--public-key` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for PublicKey {
    type Err = BadPublicKey;

    fn from_str(text: &str) -> Result<Self, BadPublicKey> {
        let bytes = STANDARD.decode(text).map_err(|_| BadPublicKey)?;
        Ok(Self(bytes.try_into().map_err(|_| BadPublicKey)?))
    }
}

/// A text is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the Base64 of a 32-byte public key")]
pub struct BadPublicKey;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The node it was made by.
    pub node: String,
    /// The bridge it was made for.
    pub audience: String,
    /// Until when it is valid, in seconds since 1970.
    pub expires: u64,
}

impl Claims {
    /// Whether it is valid at `now`, give or take what clocks differ. One that
    /// is valid for longer than tokens are made for is none of ours.
    #[must_use]
    pub fn is_current(&self, now: SystemTime) -> bool {
        let now = unix_seconds(now);
        let latest = now.saturating_add((LIFETIME + SKEW).as_secs());
        self.expires.saturating_add(SKEW.as_secs()) >= now && self.expires <= latest
    }
}

/// Why a token does not let its bearer in. For the bridge's own log: whoever
/// sent it is told nothing but 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one.
    #[error("not a token")]
    Malformed,
    /// Its signature is not this fleet's.
    #[error("not signed by this fleet")]
    Forged,
    /// It was made for another bridge.
    #[error("made for another bridge")]
    OtherAudience,
    /// It is too old, or from a clock that is far ahead.
    #[error("expired, or the clocks differ by more than {} seconds", SKEW.as_secs())]
    Expired,
}

fn signed_bytes(payload: &str) -> Vec<u8> {
    [PREFIX, payload.as_bytes()].concat()
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: SystemTime = UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn the_key_follows_from_the_secret_and_never_changes() {
        let key = SigningKey::derive(&[7; 32]);
        assert_eq!(
            key.public().to_string(),
            "yFoob5UugSxcLe3EQ5sSpM/iqKeHhnzeMhlDzVTEVQ8=",
            "containers that run were given this key"
        );
        assert_eq!(key.fleet_id(), "b870fba2");
        assert_eq!(key.public(), SigningKey::derive(&[7; 32]).public());
        assert_ne!(key.public(), SigningKey::derive(&[8; 32]).public());
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        assert_eq!("AAAA".parse::<PublicKey>(), Err(BadPublicKey));
    }

    #[test]
    fn a_token_opens_one_bridge_for_a_while() {
        let key = SigningKey::derive(&[7; 32]);
        let public = key.public();
        let token = key.sign("node-a", "bridge-1", at(60));
        let claims = public.verify(&token, "bridge-1", at(0)).expect("ours");
        assert_eq!(claims.node, "node-a");
        let other = public.verify(&token, "bridge-2", at(0));
        assert_eq!(other, Err(TokenError::OtherAudience));
        let stranger = SigningKey::derive(&[8; 32]).public();
        let forged = stranger.verify(&token, "bridge-1", at(0));
        assert_eq!(forged, Err(TokenError::Forged));
    }

    #[test]
    fn clocks_may_differ_by_five_seconds_both_ways() {
        let key = SigningKey::derive(&[7; 32]);
        let public = key.public();
        let outcome = |expires, now| {
            let token = key.sign("n", "b", at(expires));
            public.verify(&token, "b", at(now)).map(drop)
        };
        assert_eq!(outcome(60, 65), Ok(()));
        assert_eq!(outcome(60, 66), Err(TokenError::Expired));
        assert_eq!(outcome(65, 0), Ok(()));
        assert_eq!(outcome(66, 0), Err(TokenError::Expired));
    }

    #[test]
    fn nothing_but_the_public_key_is_printed() {
        let key = SigningKey::derive(&[7; 32]);
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.public()));
    }

    proptest! {
        #[test]
        fn names_of_any_kind_pass(node: String, audience in "[^\0]{0,100}") {
            prop_assume!(node.len() < 100);
            let key = SigningKey::derive(&[7; 32]);
            let token = key.sign(&node, &audience, at(30));
            prop_assert!(token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
            if token.len() <= MAX_TOKEN {
                let claims = key.public().verify(&token, &audience, at(0)).expect("ours");
                prop_assert_eq!(claims.node, node);
            }
        }

        #[test]
        fn every_altered_character_is_noticed(at_index in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
            let key = SigningKey::derive(&[7; 32]);
            let token = key.sign("node", "bridge", at(30));
            let index = at_index.index(token.len());
            let mut altered = token.clone();
            altered.replace_range(index..=index, &to);
            prop_assume!(altered != token);
            prop_assert!(key.public().verify(&altered, "bridge", at(0)).is_err());
        }

        #[test]
        fn any_text_is_refused_calmly(text: String) {
            let public = SigningKey::derive(&[7; 32]).public();
            prop_assert!(public.verify(&text, "bridge", at(0)).is_err());
        }
    }
}
