//! What clients reach over HTTP: the MCP endpoints, the plain REST ones, readiness.
//!
//! [`router`] names every path and the middleware around it; [`listener`]
//! accepts connections. Errors become statuses in [`error`] and nowhere else.

pub(crate) mod body;
pub mod error;
pub(crate) mod guard;
pub mod listener;
pub(crate) mod mcp;
mod record;
pub mod router;
mod sse;
