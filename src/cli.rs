//! The command line: arguments, and the commands that talk to a node.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config;

/// A gateway cluster for the Model Context Protocol.
#[derive(Debug, Parser)]
#[command(name = "mcp-fleet", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node.
    Serve(ServeArgs),
    /// Validate a configuration, say what is wrong and where.
    Check(ConfigArgs),
}

/// Where configuration comes from.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file (.toml, .yaml or .json).
    #[arg(long, value_name = "FILE", env = "MCP_FLEET_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Shape of a command's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Runs a command other than `serve`.
pub fn run(command: Command) -> ExitCode {
    todo!("{command:?}")
}

impl ServeArgs {
    /// Where the node's configuration comes from.
    #[must_use]
    pub fn sources(self, environment: Vec<(String, String)>) -> config::Sources {
        config::Sources {
            file: self.config.config,
            environment,
            flags: config::Overrides::default(),
        }
    }
}
