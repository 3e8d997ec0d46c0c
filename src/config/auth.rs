//! `[auth]`: who may call. So far only that nobody is asked.

use super::{section::Section, values};

/// Who may call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Auth {
    /// How callers are told apart. `None`: not written down, which permits a
    /// loopback listener only.
    pub mode: Option<AuthMode>,
}

/// How callers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// They are not: everyone who reaches the port may call everything.
    None,
}

impl Auth {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let modes = [("none", AuthMode::None)];
        let auth = Self {
            mode: section.optional("mode", values::choice(&modes)),
        };
        section.finish();
        auth
    }
}
