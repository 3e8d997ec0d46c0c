//! What clients and servers declare they can do, and what of it is told on.

mod client;
mod input;
mod server;

use super::{Raw, json::RawObject};

pub use client::ClientCapabilities;
pub use input::InputKind;
pub use server::ServerCapabilities;

/// The extension whose results only a modern peer understands.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// A capability counts when it is there and neither `null` nor `false`.
fn is_offered(value: &Raw) -> bool {
    !matches!(value.get(), "null" | "false")
}

fn remove_extension(capabilities: &mut RawObject<'_>, id: &str) {
    let Some(mut extensions) = capabilities.get_object("extensions") else {
        return;
    };
    if extensions.remove(id).is_none() {
        return;
    }
    let left = (!extensions.is_empty()).then(|| extensions.to_raw());
    match left {
        Some(left) => capabilities.set("extensions", left),
        None => drop(capabilities.remove("extensions")),
    }
}

#[cfg(test)]
mod tests;
