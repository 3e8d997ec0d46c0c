//! A node's way to prove itself to bridges: the fleet's key, which changes
//! when the node learns the shared secret, and a header per bridge that is
//! made again only now and then.

use std::{fmt, sync::Arc, time::SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use tokio::time::Instant;

use super::token::{LIFETIME, PublicKey, SCHEME, SigningKey};
use crate::ids::NodeId;

/// Signs in the name of a node. Clones share the key.
#[derive(Debug, Clone)]
pub struct Signer {
    node: NodeId,
    key: Arc<ArcSwap<SigningKey>>,
}

impl Signer {
    /// Signs for `node` with the key that belongs to the fleet's secret.
    #[must_use]
    pub fn new(node: NodeId, secret: &[u8; 32]) -> Self {
        let key = SigningKey::derive(secret);
        Self {
            node,
            key: Arc::new(ArcSwap::from_pointee(key)),
        }
    }

    /// Signs with the key of another secret from now on.
    pub fn adopt(&self, secret: &[u8; 32]) {
        self.key.store(Arc::new(SigningKey::derive(secret)));
    }

    /// The node it signs for.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// What bridges are given.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.load().public()
    }

    /// What tells this fleet's containers from those of others.
    #[must_use]
    pub fn fleet_id(&self) -> String {
        self.key.load().fleet_id()
    }

    /// Whose headers those of `audience` are.
    #[must_use]
    pub fn toward(&self, audience: &str) -> Signature {
        Signature {
            signer: self.clone(),
            audience: audience.into(),
            made: ArcSwapOption::empty(),
        }
    }
}

/// The `Authorization` header for one bridge, signed again at half its life.
pub struct Signature {
    signer: Signer,
    audience: Arc<str>,
    made: ArcSwapOption<Made>,
}

struct Made {
    header: HeaderValue,
    renew_at: Instant,
    key: Arc<SigningKey>,
}

impl Signature {
    /// The header to send now. Nothing is computed for nearly all requests.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let now = Instant::now();
        let key = self.signer.key.load();
        if let Some(made) = &*self.made.load()
            && now < made.renew_at
            && Arc::ptr_eq(&made.key, &key)
        {
            return made.header.clone();
        }
        let expires = wall_clock() + LIFETIME;
        let token = key.sign(self.signer.node.as_str(), &self.audience, expires);
        // Base64 and a point are fit for a header.
        let mut header = HeaderValue::from_str(&format!("{SCHEME} {token}"))
            .unwrap_or_else(|_| HeaderValue::from_static(SCHEME));
        header.set_sensitive(true);
        self.made.store(Some(Arc::new(Made {
            header: header.clone(),
            renew_at: now + LIFETIME / 2,
            key: Arc::clone(&key),
        })));
        header
    }
}

impl fmt::Debug for Signature {
    /// Without the header, which lets its bearer in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "bridges have no store to ask; clocks may differ by a few seconds"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(header: &HeaderValue) -> String {
        let text = header.to_str().expect("ASCII");
        let (scheme, token) = text.split_once(' ').expect("a scheme and a token");
        assert_eq!(scheme, SCHEME);
        token.to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_is_kept_for_half_its_life() {
        let signer = Signer::new(NodeId::named("n"), &[1; 32]);
        let signature = signer.toward("b");
        let first = signature.header();
        assert!(first.is_sensitive());
        let claims = signer.public().verify(&token(&first), "b", wall_clock());
        assert_eq!(claims.expect("ours").node, "n");
        tokio::time::advance(LIFETIME / 2 - Duration::from_secs(1)).await;
        let made = signature.made.load_full();
        assert_eq!(signature.header(), first);
        assert!(Arc::ptr_eq(
            &made.unwrap(),
            &signature.made.load_full().unwrap()
        ));
        let made = signature.made.load_full();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_ne!(signature.header().len(), 0);
        assert!(!Arc::ptr_eq(
            &made.unwrap(),
            &signature.made.load_full().unwrap()
        ));
    }

    #[tokio::test]
    async fn an_adopted_secret_is_signed_with_at_once() {
        let signer = Signer::new(NodeId::named("n"), &[1; 32]);
        let signature = signer.clone().toward("b");
        let before = token(&signature.header());
        signer.adopt(&[2; 32]);
        let after = token(&signature.header());
        let public = signer.public();
        assert_eq!(public, SigningKey::derive(&[2; 32]).public());
        assert!(public.verify(&after, "b", wall_clock()).is_ok());
        assert!(public.verify(&before, "b", wall_clock()).is_err());
    }

    #[test]
    fn the_header_is_not_printed() {
        let signature = Signer::new(NodeId::named("n"), &[1; 32]).toward("b");
        assert_eq!(
            format!("{signature:?}"),
            "Signature { audience: \"b\", .. }"
        );
    }
}
