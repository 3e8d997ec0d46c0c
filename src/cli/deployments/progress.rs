//! Waits for a deployment to come to what was asked, and says how far it is:
//! moving on a terminal, as plain lines elsewhere, on standard error.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use tokio::time::{Instant, sleep};

use super::tables::Deployment;
use crate::cli::{Failure, client::Node};
use crate::mcp::Raw;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long a deployment may take.
const LIMIT: Duration = Duration::from_secs(1200);
/// How long an engine may be away.
const AWAY_LIMIT: Duration = Duration::from_secs(30);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// All replicas answer.
    Ready,
    /// As many answer as are wanted: none of one that is stopped.
    Scaled,
    /// Nothing of it runs.
    Stopped,
    /// Nothing of it is left.
    Gone,
}

impl Until {
    fn is_reached(self, deployment: &Deployment) -> bool {
        match self {
            Self::Ready => deployment.phase == "ready",
            Self::Scaled => deployment.phase == "ready" || deployment.is_stopped(),
            Self::Stopped => deployment.phase == "stopped",
            Self::Gone => false,
        }
    }

    /// Whether waiting longer is not expected to help.
    fn is_hopeless(self, deployment: &Deployment) -> bool {
        let has_failed = deployment.phase == "failing"
            || (deployment.phase == "degraded" && deployment.is_final);
        matches!(self, Self::Ready | Self::Scaled) && has_failed
    }
}

/// Waits; what the deployment is then, if it still is.
pub(super) async fn wait(
    node: &Node,
    name: &str,
    until: Until,
) -> Result<Option<Box<Raw>>, Failure> {
    let path = format!("/api/deployments/{name}");
    let teller = Teller::new();
    let begun = Instant::now();
    let mut away_since = None;
    loop {
        let Some(raw) = node.find(&path).await? else {
            teller.end();
            return match until {
                Until::Gone => Ok(None),
                Until::Ready | Until::Scaled | Until::Stopped => {
                    Err(Failure::Failed(format!("{name} was removed meanwhile")))
                }
            };
        };
        let deployment = Deployment::parse(&raw)?;
        teller.tell(&deployment);
        if until.is_reached(&deployment) {
            teller.end();
            return Ok(Some(raw));
        }
        let is_away = deployment.is_without_engine();
        let since = away_since.get_or_insert_with(Instant::now);
        if !is_away {
            *since = Instant::now();
        }
        let has_waited = begun.elapsed() >= LIMIT || since.elapsed() >= AWAY_LIMIT;
        if until.is_hopeless(&deployment) || has_waited {
            teller.end();
            return Err(Failure::Failed(deployment.failure()));
        }
        if until == Until::Ready && deployment.is_stopped() {
            teller.end();
            let what =
                format!("{name} was stopped meanwhile: `mcp-fleet restart {name}` starts it");
            return Err(Failure::Failed(what));
        }
        sleep(LOOK).await;
    }
}

/// Says how far it is.
struct Teller {
    bar: Option<ProgressBar>,
    said: std::cell::RefCell<String>,
}

impl Teller {
    fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            bar,
            said: std::cell::RefCell::default(),
        }
    }

    fn tell(&self, deployment: &Deployment) {
        let text = deployment.progress();
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => {
                // A pull counts up: each layer is worth a line, each byte is not.
                let told = deployment.progress_in_lines();
                if *self.said.borrow() != told {
                    writeln!(stderr(), "{text}").ok();
                    self.said.replace(told);
                }
            }
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
