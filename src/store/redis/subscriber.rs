//! What other nodes publish, turned into [`Event`]s and wake-ups.
//!
//! One task owns the subscriptions. Pub/sub has no replay: after every
//! (re)connect it subscribes anew and then announces a [`Event::Gap`].

use std::{collections::HashSet, sync::Arc, time::Duration};

use fred::{interfaces::PubsubInterface, types::Message};
use tokio::{
    sync::{broadcast, broadcast::error::RecvError, mpsc, oneshot},
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    check,
    client::Connections,
    keys::{Keys, Topic},
};
use crate::store::{Channel, Event, Fence, ShortDigest, wake::Wakers};

/// How often subscriptions nobody needs any more are given up.
const CLEAN_EVERY: Duration = Duration::from_secs(5);

/// Waits before a subscription that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Asks for a channel; answered when it is subscribed to.
pub(super) struct Subscribe {
    pub(super) topic: String,
    pub(super) done: oneshot::Sender<()>,
}

/// The task's state.
pub(super) struct Subscriber {
    pub(super) connections: Arc<Connections>,
    pub(super) cache_topic: String,
    /// Channels whose messages are passed on as they are.
    pub(super) passed: [(String, Channel); 3],
    /// Keyed by the channel on which a stream's wake-ups come.
    pub(super) wakers: Arc<Wakers<String>>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) requests: mpsc::Receiver<Subscribe>,
    subscribed: HashSet<String>,
}

impl Subscriber {
    pub(super) fn new(
        connections: Arc<Connections>,
        keys: &Keys,
        wakers: Arc<Wakers<String>>,
        events: broadcast::Sender<Event>,
        requests: mpsc::Receiver<Subscribe>,
    ) -> Self {
        Self {
            connections,
            cache_topic: keys.topic(Topic::Cache),
            passed: [Channel::Fleet, Channel::Health, Channel::Deployments]
                .map(|channel| (keys.topic(Topic::Of(channel)), channel)),
            wakers,
            events,
            requests,
            subscribed: HashSet::new(),
        }
    }

    /// Runs until `stop`. `connected` and `messages` were taken before the
    /// client began to connect, so that nothing is missed.
    pub(super) async fn run(
        mut self,
        mut connected: broadcast::Receiver<fred::types::config::Server>,
        mut messages: broadcast::Receiver<Message>,
        stop: CancellationToken,
    ) {
        let mut clean = tokio::time::interval(CLEAN_EVERY);
        clean.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut resubscribe = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // Lagging is a reconnect too: one of those missed.
                event = connected.recv() => match event {
                    Ok(_) | Err(RecvError::Lagged(_)) => resubscribe = true,
                    Err(RecvError::Closed) => return,
                },
                message = messages.recv() => match message {
                    Ok(message) => self.deliver(message),
                    Err(RecvError::Lagged(missed)) => {
                        warn!(missed, "messages from redis came too fast");
                        self.announce_gap();
                    }
                    Err(RecvError::Closed) => return,
                },
                Some(request) = self.requests.recv() => self.add(request).await,
                _ = clean.tick() => self.clean().await,
                () = tokio::time::sleep(RETRY), if resubscribe => {
                    // Reconnecting in between is noticed by the next `connected`.
                }
            }
            if resubscribe && self.subscribe_all().await {
                resubscribe = false;
                self.announce_gap();
            }
        }
    }

    fn announce_gap(&self) {
        self.events.send(Event::Gap).ok();
        self.wakers.wake_all();
    }

    fn deliver(&self, message: Message) {
        let channel: &str = &message.channel;
        if channel == self.cache_topic {
            match message.value.as_str().and_then(|text| parse(&text)) {
                Some(event) => drop(self.events.send(event)),
                None => debug!("a message of the cache was not understood"),
            }
        } else if let Some((_, channel)) = self.passed.iter().find(|(topic, _)| topic == channel) {
            let payload = message.value.into_bytes().unwrap_or_default();
            let channel = *channel;
            self.events.send(Event::Message { channel, payload }).ok();
        } else {
            self.wakers.wake(&channel.to_owned());
        }
    }

    /// Subscribes to everything that is needed now.
    async fn subscribe_all(&mut self) -> bool {
        let mut topics = self.wakers.live();
        self.subscribed = topics.iter().cloned().collect();
        topics.push(self.cache_topic.clone());
        topics.extend(self.passed.iter().map(|(topic, _)| topic.clone()));
        self.subscribe(topics).await
    }

    async fn add(&mut self, request: Subscribe) {
        if !self.subscribed.contains(&request.topic)
            && self.subscribe(vec![request.topic.clone()]).await
        {
            self.subscribed.insert(request.topic);
        }
        // The caller may have stopped waiting.
        request.done.send(()).ok();
    }

    async fn clean(&mut self) {
        let live: HashSet<String> = self.wakers.live().into_iter().collect();
        let needless: Vec<String> = self.subscribed.difference(&live).cloned().collect();
        if needless.is_empty() {
            return;
        }
        let limit = self.connections.command_timeout();
        let client = &self.connections.subscriber;
        // One that stays subscribed by failure costs a few ignored messages
        // until the next reconnect.
        timeout(limit, client.unsubscribe(needless)).await.ok();
        self.subscribed.retain(|topic| live.contains(topic));
    }

    /// True when Redis has done it: nothing published from now on is missed.
    async fn subscribe(&self, topics: Vec<String>) -> bool {
        let limit = self.connections.command_timeout();
        let client = &self.connections.subscriber;
        let subscribed = async {
            client.subscribe(topics).await?;
            check::caught_up(client, limit).await
        };
        match timeout(limit, subscribed).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                // A user of Redis 7 may use no channels unless told so.
                self.connections.advice.on(&error);
                false
            }
            Err(_) => false,
        }
    }
}

/// Reads what the scripts publish about the cache.
fn parse(text: &str) -> Option<Event> {
    let mut words = text.split(' ');
    let kind = words.next()?;
    let digest = ShortDigest::parse(words.next()?)?;
    let mut fence = || words.next()?.parse().ok().map(Fence);
    match kind {
        "written" => Some(Event::Written {
            slot: digest,
            generation: fence()?,
        }),
        "released" => Some(Event::Released { slot: digest }),
        "invalidated" => Some(Event::Invalidated {
            subject: digest,
            epoch: fence()?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_cache_are_read() {
        let slot = ShortDigest::of(&[b"x"]);
        let event = parse(&format!("written {slot} 17"));
        assert!(
            matches!(event, Some(Event::Written { generation: Fence(17), slot: s }) if s == slot)
        );
        assert!(matches!(
            parse(&format!("released {slot}")),
            Some(Event::Released { .. })
        ));
        assert!(matches!(
            parse(&format!("invalidated {slot} 18")),
            Some(Event::Invalidated {
                epoch: Fence(18),
                ..
            })
        ));
        for bad in [
            "",
            "written",
            "written x 1",
            &format!("written {slot}"),
            &format!("other {slot} 1"),
        ] {
            assert!(parse(bad).is_none(), "{bad:?} was understood");
        }
    }
}
