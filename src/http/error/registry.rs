//! Why servers were not registered or taken out.

use http::StatusCode;

use super::{Blame, RestError};
use crate::{registry::RegistryError, store::StoreError};

impl From<RegistryError> for RestError {
    fn from(error: RegistryError) -> Self {
        let (status, code) = match &error {
            RegistryError::Store(store) => return not_stored(store),
            RegistryError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_server"),
            RegistryError::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            RegistryError::Configured { .. } => (StatusCode::CONFLICT, "configured"),
            RegistryError::Deployed { .. } => (StatusCode::CONFLICT, "deployed"),
            RegistryError::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown_server"),
            RegistryError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "too_many_servers"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// What was asked can be asked again: it does no harm to do it twice.
fn not_stored(error: &StoreError) -> RestError {
    super::log(error);
    let message = match error {
        StoreError::Unreachable(_) => {
            "the store of the fleet cannot be reached, so servers cannot be changed now (those \
             there are go on); ask again later"
        }
        StoreError::Refused(_) => "the store of the fleet refused the change",
    };
    let blame = Blame {
        code: "store_unavailable",
        ..Blame::busy()
    };
    RestError::blamed(&blame, message.to_owned())
}
