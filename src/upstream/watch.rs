//! Change notifications of a replica: a modern `subscriptions/listen`, or a
//! legacy session whose messages outside of calls are read.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::json;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::Instant,
};
use tracing::debug;

use super::{
    Change, Event, Exchange, Outgoing, Resources, SessionUse, Shared, UpstreamError, Upstreams,
    changes::changes_in,
    incoming::ended,
    peer::{Peer, Speaks},
    pool::{Need, SlotKey},
    request::simple_request,
    session::{Lease, Session},
};
use crate::{
    mcp::{
        capabilities::{ClientCapabilities, ServerCapabilities},
        envelope::TraceContext,
        json,
        message::Answer,
        method::{self, ListKind},
    },
    servers::Replica,
};

/// How long a listen stream is read on after its successor was acknowledged:
/// what the replica told only the old one may still be under way.
const HANDOVER: Duration = Duration::from_secs(1);

/// Reports changes until the stream ends or nobody listens.
pub(super) async fn watch(
    upstreams: &Arc<Upstreams>,
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    replica: &Arc<Replica>,
    resources: Resources,
    to: mpsc::Sender<Change>,
) -> Result<(), UpstreamError> {
    let deadline = Instant::now() + shared.settings.probe_timeout;
    let description = upstreams.describe(replica, deadline).await?;
    let watching = async {
        match peer.verdict(shared, deadline).await?.speaks {
            Speaks::Demo => Err(UpstreamError::NotOffered("changes")),
            Speaks::ModernHttp(_) => {
                let capabilities = &description.capabilities;
                listen(upstreams, shared, replica, capabilities, resources, &to).await
            }
            Speaks::LegacyHttp { .. } | Speaks::LegacySse => {
                // Servers tell the session in which something changed: the one
                // that calls use is watched, not one of its own.
                let nobody = Arc::clone(ClientCapabilities::none().fingerprint());
                let watch = open(peer, shared, &SlotKey::Capabilities(nobody)).await?;
                follow(peer, shared, watch, resources, &to).await
            }
        }
    };
    tokio::select! {
        outcome = watching => outcome,
        () = to.closed() => Ok(()),
    }
}

/// Watches a modern replica.
async fn listen(
    upstreams: &Arc<Upstreams>,
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    capabilities: &ServerCapabilities,
    mut resources: Resources,
    to: &mpsc::Sender<Change>,
) -> Result<(), UpstreamError> {
    let mut announced = false;
    // Held until the next stream is acknowledged, so that nothing is missed between.
    let mut current: Option<Exchange> = None;
    loop {
        let wanted = resources.wanted.borrow_and_update().clone();
        resources.only(&wanted);
        let Some(filter) = filter(capabilities, &wanted) else {
            // Nothing to listen to before somebody subscribes to a resource.
            if !capabilities.has_subscribe() {
                return Err(UpstreamError::NotOffered("changes"));
            }
            current = None;
            resources.wanted.changed().await.map_err(|_| ended())?;
            continue;
        };
        let mut stream = open_listen(upstreams, shared, replica, &filter).await?;
        let mut replaced = current.take().map(|stream| Replaced {
            stream,
            until: Instant::now() + HANDOVER,
        });
        if !announced {
            announced = true;
            if to.send(Change::Watching).await.is_err() {
                return Ok(());
            }
        }
        resources.confirm(wanted);
        loop {
            tokio::select! {
                message = last_words(&mut replaced) => {
                    if report(&message, to).await.is_err() {
                        return Ok(());
                    }
                }
                event = stream.next() => match event? {
                    Event::Notification(message) => {
                        if report(&message, to).await.is_err() {
                            return Ok(());
                        }
                    }
                    Event::Ask(_) | Event::Paused { .. } => {}
                    // The graceful end, or a refusal after the fact.
                    Event::Done(_) => return Ok(()),
                },
                changed = resources.wanted.changed() => {
                    changed.map_err(|_| ended())?;
                    break;
                }
            }
        }
        current = Some(stream);
    }
}

/// A listen stream that has a successor.
struct Replaced {
    stream: Exchange,
    until: Instant,
}

/// What a replaced stream still says, while it is kept. Cancel safe.
async fn last_words(replaced: &mut Option<Replaced>) -> Bytes {
    while let Some(Replaced { stream, until }) = replaced {
        match tokio::time::timeout_at(*until, stream.next()).await {
            Ok(Ok(Event::Notification(message))) => return message,
            Ok(Ok(Event::Ask(_) | Event::Paused { .. })) => {}
            Ok(Ok(Event::Done(_)) | Err(_)) | Err(_) => *replaced = None,
        }
    }
    std::future::pending().await
}

/// Passes on what a message says; fails when nobody wants to hear it.
async fn report(
    message: &Bytes,
    to: &mpsc::Sender<Change>,
) -> Result<(), mpsc::error::SendError<Change>> {
    for change in changes_in(message) {
        to.send(change).await?;
    }
    Ok(())
}

/// What to ask for; `None` when there is nothing to ask for.
fn filter(capabilities: &ServerCapabilities, uris: &BTreeSet<String>) -> Option<serde_json::Value> {
    let mut filter = serde_json::Map::new();
    let lists = [
        (ListKind::Tools, "toolsListChanged"),
        (ListKind::Prompts, "promptsListChanged"),
        (ListKind::Resources, "resourcesListChanged"),
    ];
    for (kind, member) in lists {
        if capabilities.has_list_changed(kind) {
            filter.insert(member.into(), json!(true));
        }
    }
    if capabilities.has_subscribe() && !uris.is_empty() {
        filter.insert("resourceSubscriptions".into(), json!(uris));
    }
    (!filter.is_empty()).then_some(serde_json::Value::Object(filter))
}

/// Opens a listen stream and waits for its acknowledgement.
async fn open_listen(
    upstreams: &Arc<Upstreams>,
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    filter: &serde_json::Value,
) -> Result<Exchange, UpstreamError> {
    let params = json::raw(&json!({"notifications": filter}));
    let request = Outgoing {
        method: method::LISTEN,
        params: Some(&params),
        capabilities: &ClientCapabilities::none(),
        log_level: None,
        progress_token: None,
        trace: TraceContext::default(),
        headers: Vec::new(),
    };
    let deadline = Instant::now() + shared.settings.probe_timeout;
    let mut stream = upstreams
        .call(replica, request, SessionUse::Pooled, deadline)
        .await?;
    // The acknowledgement is the first message.
    match stream.next().await? {
        Event::Done(Answer::Error(error)) => {
            debug!(replica = %replica.id, error = error.get(), "listening was refused");
            Err(UpstreamError::NotOffered("changes"))
        }
        Event::Done(Answer::Result(_)) => Err(ended()),
        Event::Notification(_) | Event::Ask(_) | Event::Paused { .. } => {
            stream.set_deadline(None);
            Ok(stream)
        }
    }
}

async fn open(
    peer: &Arc<Peer>,
    shared: &Arc<Shared>,
    key: &SlotKey,
) -> Result<Lease, UpstreamError> {
    let deadline = Instant::now() + shared.settings.probe_timeout;
    let need = Need {
        key,
        capabilities: &ClientCapabilities::none(),
        client: None,
        alone: false,
    };
    peer.slots.lease(peer, shared, need, deadline).await
}

/// Watches a legacy replica on a session.
async fn follow(
    peer: &Arc<Peer>,
    shared: &Arc<Shared>,
    lease: Lease,
    mut resources: Resources,
    to: &mpsc::Sender<Change>,
) -> Result<(), UpstreamError> {
    let session = Arc::clone(&lease.session);
    let mut changes = peer.changes.subscribe();
    // Belongs to no client, so nothing but the end is heard here.
    let mut until_end = session.link.router.listen()?;
    let deadline = Instant::now() + shared.settings.probe_timeout;
    session.link.read_standalone(shared, deadline).await?;
    let can_subscribe = session.terms.description.capabilities.has_subscribe();
    let mut subscribed = BTreeSet::new();
    if can_subscribe {
        subscribe(peer, shared, &session, &mut subscribed, &mut resources).await?;
    }
    if to.send(Change::Watching).await.is_err() {
        return Ok(());
    }
    loop {
        tokio::select! {
            change = changes.recv() => {
                let change = match change {
                    Ok(change) => change,
                    // Too many to keep count: everything may have changed.
                    Err(RecvError::Lagged(_)) => Change::Watching,
                    Err(RecvError::Closed) => return Err(ended()),
                };
                if to.send(change).await.is_err() {
                    return Ok(());
                }
            }
            changed = resources.wanted.changed(), if can_subscribe => {
                changed.map_err(|_| ended())?;
                subscribe(peer, shared, &session, &mut subscribed, &mut resources).await?;
            }
            message = until_end.next() => {
                message?;
            }
        }
    }
}

/// Makes the replica's subscriptions what is wanted.
async fn subscribe(
    peer: &Arc<Peer>,
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    subscribed: &mut BTreeSet<String>,
    resources: &mut Resources,
) -> Result<(), UpstreamError> {
    let wanted = resources.wanted.borrow_and_update().clone();
    resources.only(&wanted);
    let new = wanted
        .difference(subscribed)
        .map(|uri| (method::RESOURCES_SUBSCRIBE, uri));
    let gone = subscribed
        .difference(&wanted)
        .map(|uri| (method::RESOURCES_UNSUBSCRIBE, uri));
    for (method, uri) in new.chain(gone) {
        let params = json::raw(&json!({"uri": uri}));
        let Some(lease) = session.lease(shared) else {
            return Err(UpstreamError::SessionLost);
        };
        let deadline = Instant::now() + shared.settings.probe_timeout;
        let answer = simple_request(peer, shared, lease, method, &params, deadline).await;
        if let Answer::Error(error) = answer.map_err(super::request::Failure::into_error)? {
            debug!(replica = %peer.id, method, error = error.get(), "refused");
        }
    }
    resources.confirm(wanted.clone());
    *subscribed = wanted;
    Ok(())
}
