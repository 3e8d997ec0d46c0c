//! Who is let in: nodes of the fleet, by their tokens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use sha2::{Digest as _, Sha256};

use super::{
    signer::Signer,
    token::{Claims, PublicKey, SCHEME, TokenError},
};

/// Tokens that are remembered: each node sends the same for half a minute.
const REMEMBERED: usize = 512;

/// Checks tokens for one bridge.
#[derive(Debug)]
pub struct Door {
    key: Key,
    audience: Arc<str>,
    /// By digest: comparing digests tells nothing of a token by how long it takes.
    known: Mutex<HashMap<[u8; 32], Known>>,
}

/// A token that was checked.
#[derive(Debug)]
struct Known {
    claims: Claims,
    node: Arc<str>,
    key: PublicKey,
}

/// Whose tokens are taken.
#[derive(Debug)]
enum Key {
    /// Those of the fleet that a bridge was given the key of.
    Given(PublicKey),
    /// Those of the fleet that a node belongs to, which may learn its key late.
    Own(Signer),
}

impl Key {
    fn public(&self) -> PublicKey {
        match self {
            Self::Given(key) => *key,
            Self::Own(signer) => signer.public(),
        }
    }
}

impl Door {
    /// Lets in whoever has a token of the fleet for `audience`.
    #[must_use]
    pub fn new(key: PublicKey, audience: &str) -> Self {
        Self::of(Key::Given(key), audience)
    }

    /// Lets in whoever has a token of the signer's own fleet for `audience`.
    #[must_use]
    pub fn of_signer(signer: Signer, audience: &str) -> Self {
        Self::of(Key::Own(signer), audience)
    }

    fn of(key: Key, audience: &str) -> Self {
        Self {
            key,
            audience: audience.into(),
            known: Mutex::default(),
        }
    }

    /// The node that sends the request.
    ///
    /// # Errors
    /// When it does not prove to be one.
    pub fn node_of(&self, headers: &HeaderMap, now: SystemTime) -> Result<Arc<str>, TokenError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let token = match (values.next(), values.next()) {
            (Some(value), None) => token(value).ok_or(TokenError::Malformed)?,
            _ => return Err(TokenError::Malformed),
        };
        let digest: [u8; 32] = Sha256::digest(token).into();
        let key = self.key.public();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = known.get(&digest).filter(|known| known.key == key) {
                let is_current = known.claims.is_current(now);
                let current = is_current.then(|| Arc::clone(&known.node));
                return current.ok_or(TokenError::Expired);
            }
        }
        let claims = key.verify(token, &self.audience, now)?;
        let node: Arc<str> = claims.node.as_str().into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, known| known.claims.is_current(now));
        }
        if known.len() < REMEMBERED {
            let node = Arc::clone(&node);
            known.insert(digest, Known { claims, node, key });
        }
        Ok(node)
    }
}

fn token(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{bridge::token::SigningKey, ids::NodeId};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| {
            let value = HeaderValue::from_str(value).unwrap();
            (AUTHORIZATION, value)
        });
        values.collect()
    }

    #[test]
    fn a_remembered_token_still_expires() {
        let key = SigningKey::derive(&[7; 32]);
        let door = Door::new(key.public(), "b");
        let header = headers(&[&format!("{SCHEME} {}", key.sign("n", "b", at(60)))]);
        for now in [0, 30, 65] {
            assert_eq!(door.node_of(&header, at(now)).as_deref(), Ok("n"));
        }
        assert_eq!(door.known.lock().unwrap().len(), 1);
        assert_eq!(door.node_of(&header, at(66)), Err(TokenError::Expired));
    }

    #[test]
    fn a_node_takes_the_tokens_of_its_fleet_from_when_it_knows_it() {
        let signer = Signer::new(NodeId::named("n"), &[1; 32]);
        let door = Door::of_signer(signer.clone(), "b");
        let token = |secret| SigningKey::derive(secret).sign("m", "b", at(60));
        let header = |secret| headers(&[&format!("{SCHEME} {}", token(secret))]);
        let before = header(&[1; 32]);
        assert!(door.node_of(&before, at(0)).is_ok());
        signer.adopt(&[2; 32]);
        let refused = door.node_of(&before, at(0));
        assert_eq!(refused, Err(TokenError::Forged), "remembered or not");
        assert!(door.node_of(&header(&[2; 32]), at(0)).is_ok());
    }

    #[test]
    fn exactly_one_token_of_our_scheme_is_taken() {
        let key = SigningKey::derive(&[7; 32]);
        let door = Door::new(key.public(), "b");
        let good = format!("{SCHEME} {}", key.sign("n", "b", at(60)));
        let lower = good.replacen(SCHEME, &SCHEME.to_lowercase(), 1);
        assert!(door.node_of(&headers(&[&lower]), at(0)).is_ok());
        let bearer = good.replacen(SCHEME, "Bearer", 1);
        for bad in [&[][..], &[&*good, &*good], &[&*bearer], &["x"], &[SCHEME]] {
            let refused = door.node_of(&headers(bad), at(0));
            assert_eq!(refused, Err(TokenError::Malformed), "{bad:?}");
        }
        let other = Door::new(key.public(), "c");
        let refused = other.node_of(&headers(&[&good]), at(0));
        assert_eq!(refused, Err(TokenError::OtherAudience));
        assert!(other.known.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let key = SigningKey::derive(&[7; 32]);
        let door = Door::new(key.public(), "b");
        for n in 0..REMEMBERED + 5 {
            let token = key.sign(&n.to_string(), "b", at(60));
            let header = headers(&[&format!("{SCHEME} {token}")]);
            assert!(door.node_of(&header, at(0)).is_ok());
        }
        assert_eq!(door.known.lock().unwrap().len(), REMEMBERED);
    }
}
