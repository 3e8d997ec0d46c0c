//! Deployments: what users want to run, and what runs of it.
