//! The `mcp-fleet` program.

use std::{
    io::{Write as _, stderr, stdout},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Parser as _;
use mcp_fleet::{
    cli::{self, Cli, Command, Welcome},
    config::{self, Config, Loaded},
    gateway::Gateway,
    ids::NodeId,
    telemetry::{self, metrics::Metrics},
};

/// Some hundred small allocations per request: glibc's allocator, and musl's
/// still more, take several times as long for each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    without_huge_pages();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let args = match Cli::parse().command {
        Command::Serve(args) => args,
        command => return cli::run(command, environment),
    };
    let outcome = config::load(&args.sources(environment))
        .map_err(anyhow::Error::from)
        .and_then(serve);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                writeln!(stderr(), "error: {line}").ok();
            }
            ExitCode::FAILURE
        }
    }
}

fn serve(loaded: Loaded) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(run(loaded))
}

/// The allocator asks for pages of 2 MiB, of which a node at rest fills the
/// smallest part. A system that refuses costs memory, nothing else.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_thp_disable(true).ok();
}

async fn run(loaded: Loaded) -> anyhow::Result<()> {
    let mut config = loaded.config;
    let name = config
        .node
        .name
        .get_or_insert_with(|| NodeId::random().to_string())
        .clone();
    let metrics = Arc::new(Metrics::new());
    let telemetry = telemetry::init(&config.telemetry, &name, &metrics)?;
    for warning in &loaded.warnings {
        tracing::warn!(
            place = warning.place,
            key = warning.key,
            "{}",
            warning.message
        );
    }
    let served = node(config, metrics).await;
    telemetry.shutdown().await;
    served
}

async fn node(config: Config, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let mut welcome = Welcome::of(&config);
    let gateway = Gateway::build(config, metrics).await?;
    welcome.address = gateway.gateway().listen;
    // Nobody may be reading.
    write!(stdout(), "{}", cli::welcome(&welcome)).ok();
    gateway.run().await
}
