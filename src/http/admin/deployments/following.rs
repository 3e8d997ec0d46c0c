//! The output of a deployment as it comes, also that of containers which are
//! started or made later: one that takes the place of another is heard from
//! its beginning on.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use tokio::time::{Instant, sleep_until};

use super::logs::json_line;
use crate::{
    deployments::definition::Definition,
    engine::{LogLine, State},
    gateway::Gateway,
    secrets::Secrets,
};

/// Time between two looks for containers that are new.
const LOOK: Duration = Duration::from_millis(500);

/// What a deployment's containers print, until it is gone.
pub(super) struct Following {
    gateway: Arc<Gateway>,
    deployment: String,
    /// Lines of the past that are told of those there are now.
    tail: Option<u32>,
    /// Since when the containers run that are listened to, or were.
    heard: BTreeMap<String, u64>,
    /// Those that are listened to.
    open: BTreeSet<String>,
    outputs: SelectAll<BoxStream<'static, Heard>>,
    look: Instant,
}

enum Heard {
    Line(Bytes),
    End(String),
}

impl Following {
    /// Of a deployment that is there.
    pub(super) fn new(gateway: &Arc<Gateway>, deployment: &str, tail: u32) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            deployment: deployment.to_owned(),
            tail: Some(tail),
            heard: BTreeMap::new(),
            open: BTreeSet::new(),
            outputs: SelectAll::new(),
            look: Instant::now(),
        }
    }

    /// Line by line, as JSON.
    pub(super) fn lines(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut this| async move {
            let line = this.next().await?;
            Some((line, this))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if Instant::now() >= self.look {
                self.look_for_more().await?;
                self.look = Instant::now() + LOOK;
            }
            tokio::select! {
                Some(heard) = self.outputs.next() => match heard {
                    Heard::Line(line) => return Some(line),
                    Heard::End(container) => {
                        self.open.remove(&container);
                    }
                },
                () = sleep_until(self.look) => {}
            }
        }
    }

    /// Listens to what runs and is not listened to; `None` when the deployment
    /// is gone.
    async fn look_for_more(&mut self) -> Option<()> {
        let view = self.gateway.deployments.one(&self.deployment)?;
        let secrets = view.definition().map(Definition::secrets);
        let secrets = secrets.unwrap_or_default();
        let tail = self.tail.take();
        for one in view.record.iter().flat_map(|record| &record.replicas) {
            if !one.id.is_empty() && !self.open.contains(&one.container) {
                self.listen(&one.container, one.ordinal, &secrets, tail)
                    .await;
            }
        }
        Some(())
    }

    async fn listen(&mut self, name: &str, ordinal: u32, secrets: &Secrets, tail: Option<u32>) {
        let docker = &self.gateway.deployments.engine().docker;
        let Ok(Some(container)) = docker.glance(name).await else {
            return;
        };
        let since = match (&container.state, tail) {
            (State::Running { since }, _) => *since,
            // What one printed before it ended is told in the beginning.
            (_, Some(_)) => 0,
            (_, None) => return,
        };
        if tail.is_none() && self.heard.get(name) == Some(&since) {
            return;
        }
        let output = match tail {
            Some(tail) => {
                let output = docker.logs(name, Some(tail), true).await;
                output.map(|lines| lines.boxed())
            }
            None => docker
                .logs_since(name, since)
                .await
                .map(|lines| lines.boxed()),
        };
        // It went away, or the engine did: the next look tells.
        let Ok(output) = output else { return };
        self.heard.insert(name.to_owned(), since);
        self.open.insert(name.to_owned());
        let (secrets, container) = (secrets.clone(), name.to_owned());
        let lines = output.filter_map(move |line| {
            let line = line.ok().map(|line: LogLine| {
                let text = secrets.hide(&line.text);
                Heard::Line(json_line(&container, ordinal, line.stream, &text))
            });
            ready(line)
        });
        let end = ready(Heard::End(name.to_owned())).into_stream();
        self.outputs.push(lines.chain(end).boxed());
    }
}
