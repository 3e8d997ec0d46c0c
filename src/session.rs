//! What legacy clients expect to be remembered, on any node.
