//! The fleet's secret: the configured one, or one that nodes share through the
//! store. It seals tokens, and the key that nodes prove themselves to bridges
//! with is derived from it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    bridge::signer::Signer,
    config::{Config, Secret},
    ids::NodeId,
    lifecycle::Tasks,
    mcp::seal::Sealer,
    store::{Event, RecordKey, Store, StoreError},
};

/// A node that has no shared key yet tries again after this, heard or not
/// that the store is back.
const SHARE_KEY_AFTER: Duration = Duration::from_secs(30);

/// What seals and what signs: by the configured secret, or one that the first
/// node made and the store keeps. Until the store answers for the first time, a
/// node without a configured secret makes tokens that only itself can open, and
/// is a fleet of its own to bridges.
pub(super) async fn keys(
    config: &Config,
    node: &NodeId,
    store: &Arc<dyn Store>,
    tasks: &Tasks,
) -> (Sealer, Signer) {
    let previous = config.node.previous_secret.as_ref().map(key_of);
    if let Some(secret) = &config.node.secret {
        let key = key_of(secret);
        let sealer = Sealer::new(&key).with_previous(previous.iter());
        return (sealer, Signer::new(node.clone(), &key));
    }
    // Subscribed to first: the store may begin to answer right after the attempt.
    let feed = store.subscribe();
    let own: [u8; 32] = rand::random();
    let shared = shared_key(&**store, &own).await.inspect_err(|error| {
        tracing::warn!(%error, "sessions of this node are its own until the store answers: set node.secret to share them always");
    });
    let key = *shared.as_ref().unwrap_or(&own);
    let sealer = Sealer::new(&key).with_previous(previous.iter());
    let signer = Signer::new(node.clone(), &key);
    let users = (sealer.clone(), signer.clone());
    let keeping = keep_key_shared(Arc::clone(store), feed, key, shared.is_ok(), users);
    let ending = tasks.ending().clone();
    tasks.spawn("shared-key", async move {
        tokio::select! {
            () = ending.cancelled() => {}
            () = keeping => {}
        }
    });
    (sealer, signer)
}

/// Compares with the store whenever it comes back: it may answer for the
/// first time, or have lost the key, which the first node to notice puts back.
async fn keep_key_shared(
    store: Arc<dyn Store>,
    mut feed: broadcast::Receiver<Event>,
    mut key: [u8; 32],
    mut is_shared: bool,
    (sealer, signer): (Sealer, Signer),
) {
    loop {
        let is_back = async {
            loop {
                match feed.recv().await {
                    Ok(Event::Gap) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                    Ok(_news) => {}
                }
            }
        };
        if is_shared {
            is_back.await;
        } else {
            // Tried again in any case.
            tokio::time::timeout(SHARE_KEY_AFTER, is_back).await.ok();
        }
        match shared_key(&*store, &key).await {
            Ok(kept) => {
                if kept != key {
                    sealer.adopt(&kept);
                    signer.adopt(&kept);
                    key = kept;
                }
                if !is_shared {
                    tracing::info!("sessions are shared with the other nodes now");
                }
                is_shared = true;
            }
            Err(error) => {
                tracing::debug!(%error, "the shared key cannot be compared now");
                is_shared = false;
            }
        }
    }
}

fn key_of(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.reveal()).into()
}

/// The key that the store keeps; `own` if it has none.
async fn shared_key(store: &dyn Store, own: &[u8; 32]) -> Result<[u8; 32], StoreError> {
    let own = Bytes::copy_from_slice(own);
    let kept = store.put_if_absent(&RecordKey::Secret, own, None).await?;
    Ok(<[u8; 32]>::try_from(&*kept).unwrap_or_else(|_| Sha256::digest(&kept).into()))
}
