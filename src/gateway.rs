//! What a node is made of, and the one function that builds it.
