//! The `mcp-fleet-bridge` program.

use std::process::ExitCode;

use clap::Parser as _;
use mcp_fleet::bridge::{args::Args, run::run};

fn main() -> ExitCode {
    let environment = std::env::vars_os().collect();
    run(Args::parse(), environment)
}
