//! HTTP+SSE of 2024-11-05: one GET carries everything the server says, each
//! message to it is a POST to the address that the first event names.

use std::{collections::VecDeque, sync::Arc};

use http::{HeaderMap, Uri};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{
    Shared, UpstreamError,
    changes::Changes,
    client::{Target, same_origin},
    incoming::{self, EventReader, ended},
    link::{Channel, Link},
    resume::Origin,
    router::{Kind, Owner, Router},
};
use crate::ids::ReplicaId;

/// Opens the stream and learns where to POST.
pub(super) async fn connect(
    shared: &Arc<Shared>,
    replica: &ReplicaId,
    target: &Target,
    changes: &Changes,
    owner: Owner,
    deadline: Instant,
) -> Result<Arc<Link>, UpstreamError> {
    let origin = Origin {
        http: shared.http.clone(),
        target: target.clone(),
        headers: HeaderMap::new(),
        max_message_bytes: shared.settings.max_message_bytes,
    };
    let mut events = origin.open(None, deadline).await?;
    let first = timeout_at(deadline, events.next())
        .await
        .map_err(|_| UpstreamError::TimedOut { sent: true })??;
    let endpoint = first
        .filter(|event| event.event.as_deref() == Some("endpoint"))
        .ok_or_else(|| {
            UpstreamError::Malformed("the stream does not begin with `endpoint`".into())
        })?;
    let messages = target.at(address(target.uri(), &endpoint.data)?);
    let link = Link::new(
        replica.clone(),
        Channel::Sse { messages },
        Router::new(owner, Kind::Shared, changes.clone()),
        shared.closing.child_token(),
    );
    let (reader, shared_too) = (Arc::clone(&link), Arc::clone(shared));
    shared.tasks.spawn_brief(async move {
        tokio::select! {
            () = reader.end.cancelled() => {}
            error = follow(&reader, &shared_too, events) => {
                debug!(replica = %reader.replica, %error, "an HTTP+SSE stream ended");
            }
        }
        // Losing the stream ends the session.
        reader.mark_lost();
        reader.router.close(&ended());
        reader.end.cancel();
    });
    Ok(link)
}

async fn follow(link: &Arc<Link>, shared: &Arc<Shared>, mut events: EventReader) -> UpstreamError {
    let mut messages = VecDeque::new();
    loop {
        let event = match events.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return ended(),
            Err(error) => return error,
        };
        if !event.is_message() {
            continue;
        }
        if let Err(error) = incoming::read(&event.data, &mut messages) {
            debug!(replica = %link.replica, %error, "an event is skipped");
        }
        for message in messages.drain(..) {
            link.route(shared, message);
        }
    }
}

/// The address to POST to.
fn address(base: &Uri, endpoint: &[u8]) -> Result<Uri, UpstreamError> {
    let endpoint = std::str::from_utf8(endpoint).map_err(UpstreamError::malformed)?;
    same_origin(base, endpoint).ok_or_else(|| {
        UpstreamError::Malformed("the endpoint event names no address of this origin".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_resolved_within_the_origin() {
        let base: Uri = "http://host:8000/sse?x=1".parse().unwrap();
        let good = [
            (
                "/messages?sessionId=1",
                "http://host:8000/messages?sessionId=1",
            ),
            ("messages", "http://host:8000/messages"),
            ("http://host:8000/m", "http://host:8000/m"),
            ("?s=1\n", "http://host:8000/sse?s=1"),
        ];
        for (endpoint, expected) in good {
            let resolved = address(&base, endpoint.as_bytes()).unwrap();
            assert_eq!(resolved.to_string(), expected);
        }
        for bad in [
            "http://other:8000/m",
            "//other/m",
            "https://host:8000/m",
            "http://host/m",
        ] {
            assert!(address(&base, bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
