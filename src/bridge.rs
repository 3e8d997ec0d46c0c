//! HTTP in front of a stdio server, inside its container.

pub mod door;
pub mod fair;
pub mod nodes;
pub mod outbox;
pub mod signer;
pub mod splice;
pub mod token;
