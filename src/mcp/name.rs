//! Names on the merged endpoint.

use crate::ids::ServerId;

/// Longest name that model APIs take.
pub const MAX_NAME: usize = 64;

/// The name under which the merged endpoint offers `name` of `server`.
#[must_use]
pub fn exposed(server: &ServerId, name: &str) -> String {
    let _ = (server, name);
    todo!()
}

/// The server of an exposed name, and what follows: the original name, or its
/// shortened form.
#[must_use]
pub fn split(exposed: &str) -> Option<(ServerId, &str)> {
    let _ = exposed;
    todo!()
}

/// Whether `exposed` is the name of `name` of `server`.
#[must_use]
pub fn matches(exposed: &str, server: &ServerId, name: &str) -> bool {
    let _ = (exposed, server, name);
    todo!()
}
