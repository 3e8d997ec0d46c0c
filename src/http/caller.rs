//! On whose behalf a request is made.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::ids::Principal;

/// The authorization context of a request. Nobody is asked who they are yet;
/// whoever presents a credential all the same gets a context of their own.
#[must_use]
pub fn principal(headers: &HeaderMap) -> Principal {
    headers
        .get(AUTHORIZATION)
        .map_or(Principal::ANONYMOUS, |credential| {
            Principal::from_credential(credential.as_bytes())
        })
}
