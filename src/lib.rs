//! A node of mcp-fleet, the gateway cluster for the Model Context Protocol.
//!
//! In reading order: a request arrives in [`http`], is understood with
//! [`mcp`], answered from [`lists`] (over [`cache`]) or relayed by [`relay`]
//! to a replica chosen by [`balance`] and reached through [`upstream`].
//! [`breaker`], [`trials`] and [`load`] say which replicas are fit and how busy,
//! [`permits`] how many calls they take.
//! [`secrets`] are kept out of all that is shown.
//! [`session`] keeps what legacy clients expect to be remembered; [`store`] is
//! the state that nodes share. [`templates`] are recipes for servers, whose
//! tools [`discovery`] finds out. [`gateway`] puts the parts together,
//! [`lifecycle`] ends them in order.

pub mod balance;
pub mod breaker;
pub mod bridge;
pub mod cache;
pub mod certificates;
pub mod changes;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod deployments;
pub mod discovery;
pub mod engine;
pub mod fleet;
pub mod gateway;
pub mod health;
pub mod http;
pub mod ids;
pub mod lifecycle;
pub mod lists;
pub mod load;
pub mod mcp;
pub mod permits;
pub mod rates;
pub mod registry;
pub mod relay;
pub mod secrets;
pub mod servers;
pub mod session;
pub mod stdio;
pub mod store;
pub mod telemetry;
pub mod templates;
pub mod trials;
pub mod upstream;
