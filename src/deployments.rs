//! Deployments: what users want to run, and what runs of it.

pub mod definition;
pub mod history;
pub mod naming;
pub mod plan;
pub mod record;
pub mod routes;
