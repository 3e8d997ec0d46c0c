//! What clients reach over HTTP: the MCP endpoints, the plain REST ones, readiness.

pub mod admin;
pub mod batch;
pub mod body;
pub mod caller;
pub mod error;
pub mod guard;
pub mod listener;
pub mod readiness;
pub mod rest;
