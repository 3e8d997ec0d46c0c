//! Changes a replica reports, from whichever channel, for whoever watches it.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::broadcast;

use super::{
    Change,
    incoming::{self, Incoming, Notice},
};
use crate::mcp::{Raw, envelope, json::RawObject, method, method::ListKind};

/// Changes kept for a watcher that is busy; one that falls behind is told to
/// treat everything as changed.
const QUEUE: usize = 256;

/// What all channels of one replica report to.
#[derive(Debug, Clone)]
pub(super) struct Changes(broadcast::Sender<Change>);

impl Changes {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(QUEUE))
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }

    /// Tells the watchers if the notification is about a change.
    pub(super) fn report(&self, notice: &Notice) {
        if self.0.receiver_count() == 0 {
            return;
        }
        for change in changes_of(notice) {
            // Without watchers nobody needs to know.
            self.0.send(change).ok();
        }
    }
}

/// What a whole message says has changed.
pub(super) fn changes_in(message: &Bytes) -> Vec<Change> {
    let mut read = VecDeque::with_capacity(1);
    match incoming::read(message, &mut read).map(|()| read.pop_front()) {
        Ok(Some(Incoming::Notification(notice))) => changes_of(&notice),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// What a notification says has changed.
fn changes_of(notice: &Notice) -> Vec<Change> {
    if notice.method == method::RESOURCE_UPDATED {
        let uri = notice.text_param("uri");
        return uri
            .zip(notice.params.as_deref())
            .map(|(uri, params)| Change::Resource {
                uri,
                params: without_subscription(params),
            })
            .into_iter()
            .collect();
    }
    ListKind::ALL
        .into_iter()
        .filter(|kind| kind.changed_notification() == notice.method)
        .map(Change::List)
        .collect()
}

/// The parameters without the id of our own subscription.
fn without_subscription(params: &Raw) -> Box<Raw> {
    let Ok(mut object) = RawObject::parse(params) else {
        return params.to_owned();
    };
    let meta = object.get_object("_meta").map(|mut meta| {
        meta.remove(envelope::SUBSCRIPTION_ID);
        (meta.is_empty(), meta.to_raw())
    });
    match meta {
        None => {}
        Some((true, _)) => {
            object.remove("_meta");
        }
        Some((false, rest)) => object.set("_meta", rest),
    }
    object.to_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::json::raw;

    fn notice(method: &str, params: serde_json::Value) -> Notice {
        Notice {
            method: method.to_owned(),
            params: Some(raw(&params)),
            whole: Bytes::new(),
        }
    }

    #[test]
    fn a_change_of_the_resources_is_one_of_the_templates_too() {
        let changes = changes_of(&notice(method::RESOURCES_CHANGED, serde_json::json!({})));
        let kinds: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::List(kind) => *kind,
                Change::Watching | Change::Resource { .. } => panic!("not a list"),
            })
            .collect();
        assert_eq!(kinds, [ListKind::Resources, ListKind::ResourceTemplates]);
    }

    #[test]
    fn an_updated_resource_loses_only_our_subscription_id() {
        let changes = changes_of(&notice(
            method::RESOURCE_UPDATED,
            serde_json::json!({"uri": "a://b", "x": 1, "_meta": {envelope::SUBSCRIPTION_ID: 7}}),
        ));
        let [Change::Resource { uri, params }] = &changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!(uri, "a://b");
        assert_eq!(params.get(), r#"{"uri":"a://b","x":1}"#);
    }

    #[test]
    fn other_notifications_are_no_changes() {
        assert!(changes_of(&notice(method::PROGRESS, serde_json::json!({}))).is_empty());
    }
}
