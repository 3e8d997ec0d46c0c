//! HTTP in front of a stdio server, inside its container.

pub mod signer;
pub mod token;
