//! Why a deployment was not changed, and why its output cannot be read.

use http::StatusCode;

use super::{Blame, RestError};
use crate::{
    deployments::commands::DeployError,
    engine::{Cause, EngineError},
    store::StoreError,
};

impl From<DeployError> for RestError {
    fn from(error: DeployError) -> Self {
        let (status, code) = match error {
            DeployError::Template(error) => return error.into(),
            DeployError::Settings(errors) => return errors.into(),
            DeployError::Store(error) => return not_stored(&error),
            DeployError::Name(_) => (StatusCode::BAD_REQUEST, "invalid_name"),
            DeployError::Replicas(_) => (StatusCode::BAD_REQUEST, "invalid_replicas"),
            DeployError::Kind(_) => (StatusCode::BAD_REQUEST, "unknown_engine"),
            DeployError::Taken { .. } => (StatusCode::CONFLICT, "name_taken"),
            DeployError::Removing(_) => (StatusCode::CONFLICT, "removing"),
            DeployError::SecretsLost(_) => (StatusCode::CONFLICT, "secrets_lost"),
            DeployError::NotUnderstood { .. } => (StatusCode::CONFLICT, "not_understood"),
            DeployError::NoEngine(_) => (StatusCode::SERVICE_UNAVAILABLE, "no_engine"),
            DeployError::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            DeployError::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown_deployment"),
            DeployError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, "too_many_deployments"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<EngineError> for RestError {
    fn from(error: EngineError) -> Self {
        super::log(&error);
        let (status, code) = match error.cause {
            Cause::NotFound => (StatusCode::NOT_FOUND, "no_container"),
            _ if error.is_unavailable() => (StatusCode::SERVICE_UNAVAILABLE, "engine_unavailable"),
            _ => (StatusCode::BAD_GATEWAY, "engine_error"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// What was asked can be asked again: it does no harm to do it twice.
fn not_stored(error: &StoreError) -> RestError {
    super::log(error);
    let message = match error {
        StoreError::Unreachable(_) => {
            "the store of the fleet cannot be reached, so deployments cannot be changed now (those \
             that run go on running and being called); ask again later"
                .to_owned()
        }
        StoreError::Refused(why) => format!("the store of the fleet refused the change: {why}"),
    };
    let blame = Blame {
        code: "store_unavailable",
        ..Blame::busy()
    };
    RestError::blamed(&blame, message)
}
