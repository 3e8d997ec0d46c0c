//! Those who can be asked for the tools of a template.

use std::{sync::Arc, time::Duration};

use http::Uri;
use tokio::time::{Instant, sleep};

use super::EphemeralSource;
use crate::{
    balance::Policy,
    breaker::Failure,
    ids::Principal,
    lists::{Caller, Items, ListError, Lists, Target},
    mcp::{method::ListKind, version::Version},
    servers::{Endpoint, Replica, Server},
    templates::{Settings, Template},
    upstream::UpstreamError,
};

/// Pauses before a container that does not listen yet is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// What a source tells.
#[derive(Debug)]
pub(super) struct Answer {
    /// The tools.
    pub(super) tools: Items,
    /// The server that was asked, where it is one.
    pub(super) server: Option<String>,
}

/// Why a source tells nothing.
#[derive(Debug)]
pub(super) struct Failed {
    /// For its breaker.
    pub(super) kind: Failure,
    /// For people.
    pub(super) reason: String,
}

pub(super) type Asked = Result<Answer, Failed>;

/// Servers made from the template, one after the other: their lists are in
/// the cache as a rule.
pub(super) async fn servers(lists: &Lists, servers: &[Arc<Server>], deadline: Instant) -> Asked {
    let caller = Caller::plain(Principal::ANONYMOUS);
    let mut failed = Failed {
        kind: Failure::Broken,
        reason: "no server runs".to_owned(),
    };
    for server in servers {
        let target = Target::One(Arc::clone(server));
        let listed = lists.whole(&target, ListKind::Tools, &caller, deadline);
        match listed.await {
            Ok(page) => {
                let array = page.array(Version::LATEST_MODERN);
                let items: Vec<&serde_json::value::RawValue> =
                    serde_json::from_slice(&array).unwrap_or_default();
                let items: Vec<&str> = items.iter().map(|item| item.get()).collect();
                if let Ok(tools) = Items::join(&items) {
                    let server = Some(server.id.to_string());
                    return Ok(Answer { tools, server });
                }
            }
            Err(error) => failed = list_failed(&error),
        }
    }
    Err(failed)
}

/// The endpoint that the template names.
pub(super) async fn endpoint(
    lists: &Lists,
    template: &Template,
    endpoint: &Uri,
    deadline: Instant,
) -> Asked {
    let id = template.name.clone();
    let replica = Replica::new(id.clone(), Endpoint::Http(endpoint.clone()), 1);
    let timeout = deadline.saturating_duration_since(Instant::now());
    let replicas = vec![Arc::new(replica)];
    let server = Server::new(id, replicas, Policy::default(), timeout, "discovery");
    let server = Arc::new(server);
    told(lists.ask(&server, ListKind::Tools, deadline).await)
}

/// A container that runs as long as this future.
pub(super) async fn ephemeral(
    lists: &Lists,
    source: Arc<dyn EphemeralSource>,
    template: &Template,
    deadline: Instant,
) -> Asked {
    let broken = |reason: String| Failed {
        kind: Failure::Broken,
        reason,
    };
    let spec = template.resolve(&Settings::default()).map_err(|errors| {
        let keys: Vec<_> = errors.problems.iter().map(|one| one.key.as_str()).collect();
        broken(format!("it does not run without {}", keys.join(", ")))
    })?;
    let running = source.start(&spec).await.map_err(broken)?;
    let mut pause = FIRST_PAUSE;
    loop {
        let listed = lists.ask(&running.server, ListKind::Tools, deadline).await;
        match listed {
            Err(error) if is_not_up(&error) && Instant::now() + pause < deadline => {
                sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
            listed => return told(listed),
        }
    }
}

/// Whether a server that has just been started may answer if asked again.
fn is_not_up(error: &ListError) -> bool {
    let ListError::Upstream { error, .. } = error else {
        return false;
    };
    matches!(
        error.root(),
        UpstreamError::ConnectFailed(_)
            | UpstreamError::NotTaken(..)
            | UpstreamError::Closed {
                before_headers: true,
                ..
            }
    )
}

/// The list that is part of the template.
pub(super) fn own_list(template: &Template) -> Result<Items, String> {
    if template.tools.is_empty() {
        return Err("it names no tools".to_owned());
    }
    let tools: Vec<_> = template.tools.iter().map(|tool| tool.get()).collect();
    Items::join(&tools).map_err(|error| error.to_string())
}

fn told(listed: Result<Items, ListError>) -> Asked {
    listed
        .map(|tools| Answer {
            tools,
            server: None,
        })
        .map_err(|error| list_failed(&error))
}

fn list_failed(error: &ListError) -> Failed {
    let kind = match error {
        ListError::Upstream { error, .. } => match error.root() {
            UpstreamError::ConnectFailed(_) | UpstreamError::SpawnFailed(_) => Failure::Unreachable,
            _ => Failure::Broken,
        },
        _ => Failure::Broken,
    };
    Failed {
        kind,
        reason: error.reason(),
    }
}
