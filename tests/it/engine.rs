//! The Docker engine: a real one, and containers of a program that does what
//! the test wants (`support/workload.c`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use mcp_fleet::{
    engine::{
        Container, Created, EngineError, Exit, LogLine, NewContainer, ResolvedImage, Settings,
        State, docker::Docker, labels,
    },
    templates::spec::{Network, ServerSpec, Transport, Value},
};
use tokio::time::Instant;

use crate::support::dockerd::{Dockerd, IMAGE};

mod availability;
mod bridge;
mod events;
mod image;
mod isolation;
mod life;
mod network;
mod output;

/// A fleet of a test's own on an engine that others use too.
struct Fleet {
    engine: Arc<Dockerd>,
    docker: Arc<Docker>,
    id: String,
}

impl Fleet {
    /// `None`: tests of this kind are to be left out.
    fn new() -> Option<Self> {
        Dockerd::shared().map(Self::on)
    }

    fn on(engine: Arc<Dockerd>) -> Self {
        let settings = engine.settings();
        Self::with(engine, settings)
    }

    fn with(engine: Arc<Dockerd>, settings: Settings) -> Self {
        Self {
            docker: Docker::connect(settings).expect("good settings"),
            engine,
            id: format!("{:08x}", rand::random::<u32>()),
        }
    }

    fn name(&self, of: &str) -> String {
        format!("mcp-fleet-{}-{of}-0", self.id)
    }

    async fn image(&self) -> ResolvedImage {
        let image = self.docker.ensure_image(IMAGE, |_| {}).await;
        image.expect("it is there")
    }

    /// Makes a container without starting it.
    async fn create(&self, of: &str, spec: &ServerSpec) -> Result<Created, EngineError> {
        let image = self.image().await;
        let network = self
            .docker
            .ensure_network(&self.id, spec.isolation.network)
            .await?;
        let name = self.name(of);
        let new = NewContainer {
            name: &name,
            labels: &self.labels(of),
            spec,
            image: &image,
            network: &network,
            bridge: None,
        };
        self.docker.create(&new).await
    }

    fn labels(&self, of: &str) -> BTreeMap<String, String> {
        let labels = [(labels::FLEET, &*self.id), (labels::SERVER, of)];
        labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// Makes and starts a container; its name.
    async fn run(&self, of: &str, spec: &ServerSpec) -> String {
        let created = self.create(of, spec).await.expect("made");
        assert_eq!(created, Created::Created);
        let name = self.name(of);
        self.docker.start(&name).await.expect("started");
        name
    }

    async fn inspect(&self, name: &str) -> Container {
        let found = self.docker.inspect(name).await.expect("an answer");
        found.unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Waits until it has ended.
    async fn ended(&self, name: &str) -> Exit {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let State::Exited(exit) = self.inspect(name).await.state {
                return exit;
            }
            assert!(Instant::now() < deadline, "{name} goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its output from the beginning up to a line with this text.
    async fn output_until(&self, name: &str, text: &str) -> Vec<LogLine> {
        let lines = self.docker.logs(name, None, true).await.expect("logs");
        let mut lines = std::pin::pin!(lines);
        let mut seen = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), lines.next()).await;
            let Ok(Some(line)) = next else {
                panic!("no {text:?} in {seen:?}");
            };
            let line = line.expect("a line");
            let is_it = line.text.contains(text);
            seen.push(line);
            if is_it {
                return seen;
            }
        }
    }

    /// All that bears the fleet's label.
    fn left(&self) -> Vec<String> {
        let label = format!("label={}={}", labels::FLEET, self.id);
        let kinds = [
            ["ps", "--all", "--format", "{{.Names}}"],
            ["network", "ls", "--format", "{{.Name}}"],
            ["volume", "ls", "--format", "{{.Name}}"],
        ];
        kinds
            .iter()
            .flat_map(|kind| {
                let found = self
                    .engine
                    .docker(&[kind, &["--filter", &label][..]].concat());
                found.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // A test that failed leaves them; the network pool is not endless.
        let label = format!("label={}={}", labels::FLEET, self.id);
        let found = self
            .engine
            .try_docker(&["ps", "--all", "--quiet", "--filter", &label]);
        for container in found.unwrap_or_default().split_whitespace() {
            self.engine
                .try_docker(&["rm", "--force", "--volumes", container]);
        }
        self.engine
            .try_docker(&["network", "prune", "--force", "--filter", &label]);
    }
}

/// A server that speaks HTTP on port 9000, as far as the engine knows.
fn workload(arguments: &[&str]) -> ServerSpec {
    let value = |text: &&str| Value {
        value: (*text).to_owned(),
        sensitive: false,
    };
    ServerSpec {
        template: "workload".into(),
        template_version: None,
        image: IMAGE.into(),
        transport: Transport::Http {
            port: 9000,
            path: "/mcp".into(),
        },
        entrypoint: None,
        command: Some(Vec::new()),
        arguments: arguments.iter().map(value).collect(),
        env: BTreeMap::new(),
        volumes: Vec::new(),
        isolation: mcp_fleet::templates::spec::Isolation::default(),
        timeout: None,
    }
}

fn egress(arguments: &[&str]) -> ServerSpec {
    let mut spec = workload(arguments);
    spec.isolation.network = Network::Egress;
    spec
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}
