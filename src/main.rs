//! The `mcp-fleet` program.

fn main() {}
