//! The integration tests: real nodes, a real Redis, real sockets.
#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn tasks and measure time as they like"
)]

mod cli;
mod drain;
mod fidelity;
mod redis;
mod requirements;
mod safety;
mod store;
mod support;
