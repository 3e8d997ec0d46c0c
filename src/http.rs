//! What clients reach over HTTP: the MCP endpoints, the plain REST ones, readiness.
