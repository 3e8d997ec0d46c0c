//! Talking to replicas: connections, eras, sessions, exchanges.
//!
//! Callers see one interface whatever the replica speaks: [`Upstreams::call`]
//! sends a request and yields an [`Exchange`]. Which replica is called is not
//! decided here, and nothing here knows what a client looks like.
