//! The protocol modules alone. They are pure, so they compile without the
//! rest of the gateway, which makes fuzz builds small and their coverage
//! numbers about nothing else.

#[path = "../../src"]
mod gateway {
    pub mod ids;
    pub mod mcp;
}

pub use gateway::{ids, mcp};
