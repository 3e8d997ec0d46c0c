//! The integration tests: real nodes, a real Redis, real sockets.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "tests spawn tasks, measure time and fail as they like, helpers included"
)]

mod balancing;
mod bridge;
mod cache;
mod cli;
mod cluster;
mod deployments;
mod doctor;
mod drain;
mod engine;
mod faults;
mod fidelity;
mod isolation;
mod local_servers;
mod model;
mod rate_limits;
mod redis;
mod redis_cost;
mod redis_faults;
mod redis_keys;
mod redis_kinds;
mod registry;
mod requirements;
mod rmcp_client;
mod safety;
mod store;
mod streams;
mod subscriptions;
mod support;
mod tls;
mod upstream;
mod views;
