//! HTTP in front of a stdio server, inside its container.
