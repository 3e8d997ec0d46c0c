//! What people give a template, and what they are told when it does not fit.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// What is given to a template. `Debug` names keys and no values: any may be a secret.
#[derive(Clone, Default, PartialEq)]
pub struct Settings {
    /// `-c KEY=VALUE`: texts, which become what the schema says. Outrank the rest.
    pub config: BTreeMap<String, String>,
    /// `-e NAME=VALUE`: variables. One that a setting maps to is that setting.
    pub env: BTreeMap<String, String>,
    /// `-f FILE`: an object of settings with their own types.
    pub file: Option<Value>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().and_then(Value::as_object);
        let file: Vec<_> = file.map(|file| file.keys().collect()).unwrap_or_default();
        f.debug_struct("Settings")
            .field("config", &self.config.keys())
            .field("env", &self.env.keys())
            .field("file", &file)
            .finish()
    }
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// Its key; empty when several together are meant.
    pub key: String,
    /// What was expected, what was found, what to do. Nothing of a secret.
    pub message: String,
}

/// Everything that is wrong with the settings given to a template; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsErrors {
    /// The template.
    pub template: String,
    /// What is wrong.
    pub problems: Vec<SettingProblem>,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings do not fit template {}", self.template)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsErrors {}
