//! What clients reach over HTTP: the MCP endpoints, the plain REST ones, readiness.
//!
//! [`router`] names every path and the middleware around it; [`listener`]
//! accepts connections. Errors become statuses in [`error`] and nowhere else.

pub mod admin;
pub mod batch;
pub mod body;
mod bridge;
pub mod caller;
pub mod error;
pub mod guard;
pub mod listener;
pub(crate) mod mcp;
pub mod readiness;
mod record;
pub mod rest;
pub mod router;
mod source;
mod sse;
pub mod tls;
