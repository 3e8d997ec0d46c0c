//! What happens to the fleet's containers, as long as somebody listens.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bollard::{
    errors::Error,
    models::{EventMessage, SystemInfo},
    query_parameters::EventsOptionsBuilder,
};
use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::time::{sleep, timeout};

use super::{Cause, Docker, EngineError, Operation, labels};
use crate::engine::{Action, EngineEvent, unix_time};

/// Pauses between attempts to connect: they double from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(10);

impl Docker {
    /// What happens to a fleet's containers, without end. It connects by
    /// itself, and again with growing pauses when the engine goes away:
    /// [`EngineEvent::Connected`] and [`EngineEvent::Lost`] say so, and
    /// availability follows. Whatever happens after `Connected` is told.
    pub fn events(self: &Arc<Self>, fleet: &str) -> impl Stream<Item = EngineEvent> + Send + use<> {
        let listening = Listening {
            docker: Arc::clone(self),
            fleet: fleet.to_owned(),
            state: Listen::Apart {
                pause: Duration::ZERO,
            },
        };
        stream::unfold(listening, |mut listening| async move {
            let event = listening.next().await;
            Some((event, listening))
        })
    }
}

impl Docker {
    /// Whether a container that ended then had met its memory limit, as far
    /// as the engine remembers (some hundred events).
    pub(super) async fn had_no_memory(&self, id: &str, finished: u64) -> bool {
        let about = self.about_engine(Operation::Watch);
        let filters = HashMap::from([
            ("container", vec![id.to_owned()]),
            ("event", vec!["oom".to_owned()]),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&finished.saturating_sub(60).to_string())
            // The end is known before its reason: the next second too.
            .until(&(finished + 1).to_string())
            .filters(&filters)
            .build();
        let told = async |client: bollard::Docker| {
            let mut told = client.events(Some(options)).boxed();
            Ok(told.next().await.is_some_and(|event| event.is_ok()))
        };
        // It may wait for a second to pass, so it takes nobody's turn.
        let limit = self.settings.timeout;
        self.bounded(limit, &about, told).await.unwrap_or(false)
    }
}

struct Listening {
    docker: Arc<Docker>,
    fleet: String,
    state: Listen,
}

enum Listen {
    Apart { pause: Duration },
    Connected(BoxStream<'static, Result<EventMessage, Error>>),
}

impl Listening {
    async fn next(&mut self) -> EngineEvent {
        loop {
            match &mut self.state {
                Listen::Apart { pause } => {
                    let pause = *pause;
                    // Spread, as all nodes lose an engine at the same time.
                    sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                    match self.connect().await {
                        Ok(events) => {
                            self.state = Listen::Connected(events);
                            return EngineEvent::Connected;
                        }
                        Err(error) => {
                            let next = (pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
                            self.state = Listen::Apart { pause: next };
                            if pause.is_zero() {
                                return EngineEvent::Lost(error);
                            }
                        }
                    }
                }
                Listen::Connected(events) => {
                    // Nothing happens for hours: a sign of life tells that
                    // from an engine that hangs.
                    let heard = timeout(self.docker.settings.fresh, events.next()).await;
                    match heard {
                        Ok(Some(Ok(message))) => {
                            if let Some(event) = event(message) {
                                return event;
                            }
                        }
                        Ok(Some(Err(error))) => {
                            let about = self.docker.about_engine(Operation::Watch);
                            let cause = self.docker.meaning(&about, error);
                            return self.lose(cause);
                        }
                        Ok(None) => {
                            let host = self.docker.settings.host.clone();
                            let why = "it closed the connection".to_owned();
                            return self.lose(Cause::Unreachable { host, why });
                        }
                        Err(_) => {
                            if let Err(error) = self.docker.ping().await {
                                return self.lose(error.cause);
                            }
                        }
                    }
                }
            }
        }
    }

    fn lose(&mut self, cause: Cause) -> EngineEvent {
        let error = self.docker.about_engine(Operation::Watch).error(cause);
        self.docker.note_failure(&error);
        self.state = Listen::Apart { pause: FIRST_PAUSE };
        EngineEvent::Lost(error)
    }

    /// Events from this moment of the engine's clock on. The request is sent
    /// when the stream is first read, which may be later: nothing in between
    /// is lost.
    async fn connect(
        &mut self,
    ) -> Result<BoxStream<'static, Result<EventMessage, Error>>, EngineError> {
        let about = self.docker.about_engine(Operation::Watch);
        let limit = self.docker.settings.timeout;
        // As a sign of life it waits for no turn.
        let info = async |client: bollard::Docker| client.info().await;
        let now = self.docker.bounded(limit, &about, info).await?;
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("label", vec![format!("{}={}", labels::FLEET, self.fleet)]),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&since(&now))
            .filters(&filters)
            .build();
        Ok(self.docker.client(&about)?.events(Some(options)).boxed())
    }
}

fn since(info: &SystemInfo) -> String {
    let now = info.system_time.as_deref().map(unix_time);
    now.unwrap_or_default().to_string()
}

fn event(message: EventMessage) -> Option<EngineEvent> {
    let attributes = message.actor?.attributes?;
    if attributes.contains_key(labels::HELPER) {
        return None;
    }
    let action = message.action?;
    let action = match action.as_str() {
        "create" => Action::Created,
        "start" => Action::Started,
        "die" => {
            let code = attributes
                .get("exitCode")
                .and_then(|code| code.parse().ok());
            Action::Died(code.unwrap_or_default())
        }
        "oom" => Action::OutOfMemory,
        "destroy" => Action::Removed,
        // What people do by hand, or what is told by another event as well.
        other if other.starts_with("exec") || other.starts_with("attach") => return None,
        "kill" | "stop" | "top" | "resize" | "archive-path" | "extract-to-dir" | "export"
        | "copy" | "commit" | "detach" => return None,
        _ => Action::Changed,
    };
    let name = attributes.get("name")?.clone();
    Some(EngineEvent::Container { name, action })
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn told(action: &str, attributes: &[(&str, &str)]) -> Option<Action> {
        let attributes = attributes.iter().chain(&[("name", "c")]);
        let message = EventMessage {
            action: Some(action.into()),
            actor: Some(EventActor {
                id: Some("id".into()),
                attributes: Some(
                    attributes
                        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                        .collect(),
                ),
            }),
            ..EventMessage::default()
        };
        match event(message)? {
            EngineEvent::Container { name, action } => {
                assert_eq!(name, "c");
                Some(action)
            }
            EngineEvent::Connected | EngineEvent::Lost(_) => None,
        }
    }

    #[test]
    fn what_matters_is_told_and_the_rest_is_not() {
        assert_eq!(told("die", &[("exitCode", "137")]), Some(Action::Died(137)));
        assert_eq!(told("oom", &[]), Some(Action::OutOfMemory));
        assert_eq!(told("health_status: unhealthy", &[]), Some(Action::Changed));
        assert_eq!(told("pause", &[]), Some(Action::Changed));
        assert_eq!(told("exec_create: sh", &[]), None);
        assert_eq!(told("kill", &[]), None);
        assert_eq!(told("create", &[(labels::HELPER, "bridge")]), None);
    }
}
