//! The command line: arguments, and the commands other than `serve`.
//!
//! Exit codes: 0 done, 1 failed (also a tool that says `isError`, and a
//! configuration that is wrong), 2 wrong usage.

use std::{
    io::{Write as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::config::{Overrides, Sources, parse_duration};

mod call;
mod check;
mod client;
mod cluster;
mod deployments;
mod doctor;
mod output;
mod templates;
mod top;
mod views;
mod welcome;

pub use self::{
    deployments::{DeployArgs, LogsArgs, OneArgs, ScaleArgs, StopArgs},
    welcome::{Welcome, welcome},
};

/// A gateway cluster for the Model Context Protocol.
#[derive(Debug, Parser)]
#[command(
    name = "mcp-fleet",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed (also a tool that reports an error), 2 wrong usage"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    ///
    /// Without any argument: an embedded store, http://127.0.0.1:8080 and a
    /// built-in server named `demo`. Flags outrank the environment, which
    /// outranks the file.
    Serve(ServeArgs),
    /// Validate configuration, say what is wrong and where
    Check(CheckArgs),
    /// What the fleet is doing
    Status(NodeArgs),
    /// The servers a node knows
    Servers(NodeArgs),
    /// The nodes of the fleet and which duties each holds
    Nodes(NodeArgs),
    /// Load of nodes and servers, refreshed on a terminal
    Top(TopArgs),
    /// The tools of a server (`*` for all servers)
    Tools(ToolsArgs),
    /// Call a tool
    Call(CallArgs),
    /// Check this machine: Redis, engine, port, limits, with a cure for each finding
    Doctor(DoctorArgs),
    /// Recipes for servers: list them, or make some from files you have
    Templates(TemplatesArgs),
    /// One template: its settings, limits and tools
    Template(TemplateArgs),
    /// Run a server from a template, or change one that runs
    Deploy(deployments::DeployArgs),
    /// The deployments of the fleet
    List(NodeArgs),
    /// What the containers of a deployment print
    Logs(deployments::LogsArgs),
    /// Stop a deployment; its containers stay
    Stop(deployments::StopArgs),
    /// Replace the replicas of a deployment, one by one
    Restart(deployments::OneArgs),
    /// Remove a deployment with all its containers
    Rm(deployments::OneArgs),
    /// Change the number of replicas of a deployment
    Scale(deployments::ScaleArgs),
    /// Print completions for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file (.toml, .yaml or .json)
    #[arg(long, value_name = "FILE", env = "MCP_FLEET_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Redis that nodes share
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// A server and its address; may be repeated
    #[arg(long = "server", value_name = "NAME=URL")]
    pub servers: Vec<String>,
    /// Servers from a desktop client's `mcpServers` file or a registry's server.json; may be repeated
    #[arg(long, value_name = "FILE")]
    pub mcp_json: Vec<PathBuf>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file (.toml, .yaml or .json)
    #[arg(long, value_name = "FILE", env = "MCP_FLEET_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Configuration file (.toml, .yaml or .json)
    #[arg(long, value_name = "FILE", env = "MCP_FLEET_CONFIG")]
    pub config: Option<PathBuf>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of all commands that talk to a node.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Node to talk to
    #[arg(
        long,
        value_name = "URL",
        env = "MCP_FLEET_URL",
        default_value = DEFAULT_NODE
    )]
    pub node: String,
    /// Shape of the answer
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Pause between two looks, such as 500ms or 2s
    #[arg(long, default_value = "2s", value_parser = pause)]
    pub interval: Duration,
    /// How many looks; without it: one, and on a terminal until Ctrl-C
    #[arg(long, value_name = "N")]
    pub iterations: Option<u64>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `tools`.
#[derive(Debug, Args)]
pub struct ToolsArgs {
    /// Name of the server
    pub server: String,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `call`.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// Name of the server
    pub server: String,
    /// Name of the tool
    pub tool: String,
    /// Arguments of the tool: a JSON object, `-` to read it from standard input
    #[arg(value_name = "JSON")]
    pub arguments: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `templates`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TemplatesArgs {
    /// What to do instead of listing.
    #[command(subcommand)]
    pub action: Option<TemplatesAction>,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// What can be done with templates.
#[derive(Debug, Subcommand)]
pub enum TemplatesAction {
    /// Write templates from a registry's server.json or a client's `mcpServers` file
    Import {
        /// The file; `-` reads standard input
        file: PathBuf,
        /// Directory that gets a directory per template
        #[arg(long, value_name = "DIR", default_value = "templates")]
        directory: PathBuf,
        /// Write over templates that are there
        #[arg(long)]
        force: bool,
    },
}

/// Arguments of `template`.
#[derive(Debug, Args)]
pub struct TemplateArgs {
    /// Name of the template
    pub name: String,
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Where a node is looked for.
pub const DEFAULT_NODE: &str = "http://127.0.0.1:8080";

/// Shape of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// JSON as the node gives it
    Json,
    /// The same as YAML
    Yaml,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command line cannot mean anything.
    #[error("{0}")]
    Usage(String),
    /// It was tried and went wrong.
    #[error("{0}")]
    Failed(String),
    /// What went wrong has been printed already.
    #[error("failed")]
    Told,
}

/// A pause with its unit.
fn pause(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|pause| (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(pause))
        .ok_or_else(|| "expected a duration from 100ms to 1h with its unit, such as 2s".to_owned())
}

/// Runs a command other than `serve`.
#[must_use]
pub fn run(command: Command, environment: Vec<(String, String)>) -> ExitCode {
    let outcome = match command {
        Command::Serve(_) => Err(Failure::Usage("a node is not run from here".into())),
        Command::Check(args) => check::check(args, environment),
        Command::Status(args) => client::run(cluster::status(args)),
        Command::Nodes(args) => client::run(cluster::nodes(args)),
        Command::Top(args) => client::run(top::top(args)),
        Command::Servers(args) => client::run(views::servers(args)),
        Command::Tools(args) => client::run(views::tools(args)),
        Command::Doctor(args) => client::run(doctor::doctor(args, environment)),
        Command::Call(args) => client::run(call::call(args)),
        Command::Templates(args) => templates::templates(args),
        Command::Template(args) => client::run(templates::template(args)),
        Command::Deploy(args) => client::run(deployments::deploy(args)),
        Command::List(args) => client::run(deployments::list(args)),
        Command::Logs(args) => client::run(deployments::logs(args)),
        Command::Stop(args) => client::run(deployments::stop(args)),
        Command::Restart(args) => client::run(deployments::restart(args)),
        Command::Rm(args) => client::run(deployments::remove(args)),
        Command::Scale(args) => client::run(deployments::scale(args)),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mcp-fleet", &mut stdout());
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Told) {
                say_error(&failure);
            }
            ExitCode::from(if matches!(failure, Failure::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

/// Prints to standard output; a reader who went away is no error.
fn say(text: &str) {
    writeln!(stdout(), "{text}").ok();
}

fn say_error(error: &impl std::fmt::Display) {
    writeln!(stderr(), "error: {error}").ok();
}

impl ServeArgs {
    /// Where the node's configuration comes from.
    #[must_use]
    pub fn sources(self, environment: Vec<(String, String)>) -> Sources {
        Sources {
            file: self.config,
            environment,
            flags: Overrides {
                listen: self.listen,
                redis: self.redis,
                servers: self.servers,
                mcp_json: self.mcp_json,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_overrides() {
        let cli = Cli::parse_from([
            "mcp-fleet",
            "serve",
            "--listen",
            "127.0.0.1:1",
            "--server",
            "a=http://a/",
            "--server",
            "b=http://b/",
            "--mcp-json",
            "x.json",
            "--redis",
            "redis://h",
        ]);
        let Command::Serve(args) = cli.command else {
            panic!("not serve");
        };
        let flags = args.sources(Vec::new()).flags;
        assert_eq!(flags.servers, ["a=http://a/", "b=http://b/"]);
        assert_eq!(flags.listen.as_deref(), Some("127.0.0.1:1"));
        assert_eq!(flags.mcp_json, [PathBuf::from("x.json")]);
    }
}
