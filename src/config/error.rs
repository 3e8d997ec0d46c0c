//! What is wrong with a configuration, and where.

use std::fmt;

use super::tree::Place;

/// One thing that is wrong (or, as a warning, surprising).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where: `fleet.toml:3:5`, `environment variable X`, `--listen`.
    pub place: String,
    /// Which key, e.g. `node.listen`; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong, what was expected, what may have been meant.
    pub message: String,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Finding>);

impl Finding {
    pub(super) fn new(place: &Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.to_string(),
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(finding, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
