//! Why there is no template, and what does not fit one.

use http::StatusCode;

use super::{Blame, RestError};
use crate::templates::{SettingsErrors, TemplateError};

impl From<TemplateError> for RestError {
    fn from(error: TemplateError) -> Self {
        let (status, code) = match &error {
            TemplateError::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown_template"),
            TemplateError::Broken { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "broken_template"),
            TemplateError::Unavailable { .. } => {
                super::log(&error);
                let blame = Blame {
                    code: "templates_unavailable",
                    ..Blame::busy()
                };
                return Self::blamed(&blame, error.to_string());
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<SettingsErrors> for RestError {
    fn from(errors: SettingsErrors) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_settings",
            errors.to_string(),
        )
    }
}
