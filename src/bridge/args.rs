//! What a bridge is told when it is started. Nothing of it is a secret.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    net::IpAddr,
    time::Duration,
};

use clap::Parser;

use super::{backend::Mode, token::PublicKey};
use crate::{
    config::{parse_duration, parse_size},
    secrets::Secrets,
};

/// What its environment variables begin with; the server does not see them.
pub const PREFIX: &str = "MCP_FLEET_BRIDGE_";

/// Runs a stdio MCP server and speaks streamable HTTP for it.
#[derive(Debug, Clone, Parser)]
#[command(name = "mcp-fleet-bridge", version, about)]
pub struct Args {
    /// Where to listen.
    #[arg(long, env = "MCP_FLEET_BRIDGE_ADDRESS", default_value = "0.0.0.0")]
    pub address: IpAddr,
    /// The port to listen on; 0 takes any.
    #[arg(long, env = "MCP_FLEET_BRIDGE_PORT", default_value_t = 8765)]
    pub port: u16,
    /// The fleet's public key, in Base64.
    #[arg(long, env = "MCP_FLEET_BRIDGE_PUBLIC_KEY", value_name = "BASE64")]
    pub public_key: PublicKey,
    /// The name that tokens for this bridge are made for.
    #[arg(long, env = "MCP_FLEET_BRIDGE_AUDIENCE", value_name = "NAME")]
    pub audience: String,
    /// How processes are shared: shared, per-session or per-call.
    #[arg(long, env = "MCP_FLEET_BRIDGE_MODE", default_value = "shared")]
    pub mode: Mode,
    /// Longest message in either direction.
    #[arg(long, env = "MCP_FLEET_BRIDGE_MAX_LINE", default_value = "16MiB", value_parser = size)]
    pub max_line: usize,
    /// Processes at once, where there may be several.
    #[arg(long, env = "MCP_FLEET_BRIDGE_MAX_PROCESSES", default_value_t = 16)]
    pub max_processes: usize,
    /// An unused session is ended after this.
    #[arg(long, env = "MCP_FLEET_BRIDGE_SESSION_IDLE", default_value = "30m", value_parser = duration)]
    pub session_idle: Duration,
    /// Ends when no node of the fleet was there for this long.
    #[arg(long, env = "MCP_FLEET_BRIDGE_IDLE_EXIT", default_value = "10m", value_parser = duration)]
    pub idle_exit: Duration,
    /// How long requests in flight may take after SIGTERM.
    #[arg(long, env = "MCP_FLEET_BRIDGE_GRACE", default_value = "10s", value_parser = duration)]
    pub grace: Duration,
    /// Variables of the server whose values are shown nowhere.
    #[arg(
        long,
        env = "MCP_FLEET_BRIDGE_SECRET_VARIABLES",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub secret_variables: Vec<String>,
    /// Words of the command that are shown nowhere; the program is number 0.
    #[arg(
        long,
        env = "MCP_FLEET_BRIDGE_SECRET_WORDS",
        value_name = "NUMBERS",
        value_delimiter = ','
    )]
    pub secret_words: Vec<usize>,
    /// Logs details.
    #[arg(long, env = "MCP_FLEET_BRIDGE_VERBOSE")]
    pub verbose: bool,
    /// The server's command and its arguments.
    #[arg(last = true, required = true, num_args = 1..)]
    pub command: Vec<OsString>,
}

impl Args {
    /// What must never be shown of what the server is given.
    #[must_use]
    pub fn secrets(&self, environment: &BTreeMap<OsString, OsString>) -> Secrets {
        let variables = self.secret_variables.iter();
        let variables = variables.filter_map(|name| environment.get(OsStr::new(name)));
        let words = self.secret_words.iter();
        let words = words.filter_map(|number| self.command.get(*number));
        Secrets::new(variables.chain(words).map(|value| value.to_string_lossy()))
    }
}

fn size(text: &str) -> Result<usize, String> {
    parse_size(text)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| (1024..=1 << 30).contains(bytes))
        .ok_or_else(|| "expected a size from 1KiB to 1GiB, such as 16MiB".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a duration such as 10m or 30s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::token::SigningKey;

    #[test]
    fn the_documented_command_line_is_understood() {
        let key = SigningKey::derive(&[7; 32]).public();
        let line = format!(
            "mcp-fleet-bridge --port 8765 --public-key {key} --audience NAME --mode per-session \
             --max-line 16MiB --idle-exit 10m -- command --mode x args"
        );
        let args = Args::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(args.public_key, key);
        assert_eq!((args.mode, args.max_line), (Mode::PerSession, 16 << 20));
        assert_eq!(args.idle_exit, Duration::from_secs(600));
        assert_eq!(args.command, ["command", "--mode", "x", "args"]);
    }

    #[test]
    fn what_is_secret_is_told_by_name_and_number() {
        let key = SigningKey::derive(&[7; 32]).public();
        let line = format!(
            "b --public-key {key} --audience a --secret-variables KEY,GONE --secret-words 2,9 -- \
             run --password hunter2 fast"
        );
        let args = Args::try_parse_from(line.split_whitespace()).unwrap();
        let environment = [("KEY", "s3cr3t"), ("MODE", "open")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let secrets = args.secrets(&environment.into());
        let shown = secrets.hide("s3cr3t open hunter2 fast --password");
        assert_eq!(shown, "*** open *** fast --password");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let key = SigningKey::derive(&[7; 32]).public().to_string();
        let parse = |more: &[&str]| {
            let all = ["b", "--public-key", &key, "--audience", "a"];
            Args::try_parse_from(all.iter().chain(more)).is_ok()
        };
        assert!(parse(&["--", "x"]));
        assert!(!parse(&[]));
        assert!(!parse(&["--mode", "some", "--", "x"]));
        assert!(!parse(&["--max-line", "10", "--", "x"]));
        assert!(!parse(&["--idle-exit", "0", "--", "x"]));
        assert!(!parse(&["--public-key", "AAAA", "--", "x"]));
    }
}
