//! What a client has asked its session to remember: the log level and the
//! subscribed resources. When the session is lost, or its process dies, the
//! new one is told again, so that the client need not know.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;
use tracing::debug;

use super::{Shared, peer::Peer, request::simple_request, session::Session};
use crate::mcp::{Raw, json::RawObject, method};

/// Subscriptions remembered per session; later ones are not told again.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// What a session has to be told again.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    level: Option<Box<Raw>>,
    /// By URI.
    subscriptions: BTreeMap<String, Box<Raw>>,
}

impl Kept {
    /// Whether a request with this method changes anything here.
    pub(super) fn concerns(method: &str) -> bool {
        matches!(
            method,
            method::LOGGING_SET_LEVEL | method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE
        )
    }

    /// Notes a request of the client.
    pub(super) fn note(&mut self, method: &str, params: &Raw) {
        let object = RawObject::parse(params).ok();
        let uri = object.and_then(|object| Some(object.get_str("uri")?.into_owned()));
        match (method, uri) {
            (method::LOGGING_SET_LEVEL, _) => self.level = Some(params.to_owned()),
            (method::RESOURCES_SUBSCRIBE, Some(uri))
                if self.subscriptions.len() < MAX_SUBSCRIPTIONS =>
            {
                self.subscriptions.insert(uri, params.to_owned());
            }
            (method::RESOURCES_UNSUBSCRIBE, Some(uri)) => {
                self.subscriptions.remove(&uri);
            }
            _ => {}
        }
    }

    /// Tells a new session.
    pub(super) async fn tell(
        &self,
        peer: &Peer,
        shared: &Arc<Shared>,
        session: &Arc<Session>,
        deadline: Instant,
    ) {
        let level = self.level.iter().map(|p| (method::LOGGING_SET_LEVEL, p));
        let subscriptions = self.subscriptions.values();
        let subscriptions = subscriptions.map(|p| (method::RESOURCES_SUBSCRIBE, p));
        for (method, params) in level.chain(subscriptions) {
            let Some(lease) = session.lease(shared) else {
                return;
            };
            let told = simple_request(peer, shared, lease, method, params, deadline).await;
            if let Err(failure) = told {
                let error = failure.into_error();
                debug!(replica = %peer.id, method, %error, "a new session could not be told");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mcp::json::raw;

    #[test]
    fn the_last_level_and_the_open_subscriptions_are_kept() {
        let mut kept = Kept::default();
        for level in ["info", "error"] {
            kept.note(method::LOGGING_SET_LEVEL, &raw(&json!({"level": level})));
        }
        for uri in ["a://1", "a://2", "a://1"] {
            kept.note(method::RESOURCES_SUBSCRIBE, &raw(&json!({"uri": uri})));
        }
        kept.note(
            method::RESOURCES_UNSUBSCRIBE,
            &raw(&json!({"uri": "a://2"})),
        );
        kept.note(method::TOOLS_CALL, &raw(&json!({"uri": "a://3"})));
        assert_eq!(kept.level.unwrap().get(), r#"{"level":"error"}"#);
        assert_eq!(kept.subscriptions.keys().collect::<Vec<_>>(), ["a://1"]);
    }

    #[test]
    fn subscriptions_are_bounded() {
        let mut kept = Kept::default();
        for n in 0..MAX_SUBSCRIPTIONS + 10 {
            let params = raw(&json!({"uri": format!("a://{n}")}));
            kept.note(method::RESOURCES_SUBSCRIBE, &params);
        }
        assert_eq!(kept.subscriptions.len(), MAX_SUBSCRIPTIONS);
    }
}
