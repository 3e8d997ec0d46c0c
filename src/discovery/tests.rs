//! Through the parts of a real node.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::net::TcpListener;

use super::*;
use crate::{
    balance::Policy,
    config::Config,
    gateway::{Bound, Gateway},
    servers::{Endpoint, Replica},
    telemetry::metrics::Metrics,
};

const OWN: &str = r#""tools": [{"name": "own", "inputSchema": {"type": "object"}}]"#;

fn write(directory: &Path, name: &str, members: &str) {
    let directory = directory.join(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    let text = format!(r#"{{"docker_image": "x/y", {members}}}"#);
    std::fs::write(directory.join("template.json"), text).expect("a file");
}

async fn node(directory: &Path) -> Bound {
    let mut config = Config::default();
    config.node.listen = "127.0.0.1:0".parse().expect("an address");
    config.templates.directories = vec![directory.to_owned()];
    let node = Gateway::build(config, Arc::new(Metrics::new())).await;
    node.expect("a node")
}

struct Asking {
    node: Bound,
    _directory: tempfile::TempDir,
}

impl Asking {
    /// A node with one template of these members.
    async fn about(members: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), "sample", members);
        Self {
            node: node(directory.path()).await,
            _directory: directory,
        }
    }

    async fn tools(&self) -> Result<Discovered, DiscoveryError> {
        self.tools_of("sample").await
    }

    async fn tools_of(&self, name: &str) -> Result<Discovered, DiscoveryError> {
        let gateway = self.node.gateway();
        let template = gateway.catalogue.get(name).await.expect("a template");
        gateway.discovery.tools(&template).await
    }
}

fn names(discovered: &Discovered) -> Vec<String> {
    let tools = discovered.found.tools.iter();
    let name = |tool: &[u8]| {
        let tool: serde_json::Value = serde_json::from_slice(tool).expect("JSON");
        tool["name"].as_str().expect("a name").to_owned()
    };
    tools.map(name).collect()
}

/// Starts the demo server at once or after a while, or takes for ever.
#[derive(Debug, Default)]
struct Starts {
    hangs: bool,
    /// Connections are broken off at first, then refused, then served.
    listens_late: bool,
    begun: AtomicUsize,
    ended: Arc<AtomicUsize>,
}

struct Ends(Arc<AtomicUsize>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl EphemeralSource for Starts {
    async fn start(&self, spec: &ServerSpec) -> Result<Ephemeral, String> {
        assert_eq!(spec.image, "x/y:latest");
        self.begun.fetch_add(1, Ordering::Relaxed);
        let guard = Ends(Arc::clone(&self.ended));
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let id = ServerId::try_from("short-lived").expect("a name");
        let endpoint = match self.listens_late {
            true => Endpoint::Http(late_server().await.parse().expect("an address")),
            false => Endpoint::Demo,
        };
        let replica = Arc::new(Replica::new(id.clone(), endpoint, 1));
        let timeout = Duration::from_secs(5);
        let server = Server::new(id, vec![replica], Policy::default(), timeout, "test");
        Ok(Ephemeral {
            server: Arc::new(server),
            guard: Box::new(guard),
        })
    }
}

/// The address of a demo server that only listens once somebody has asked.
#[expect(clippy::disallowed_methods, reason = "ends with the test")]
async fn late_server() -> String {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let listen = port.local_addr().expect("an address");
    tokio::spawn(async move {
        drop(port.accept().await.expect("somebody asks"));
        drop(port);
        let mut config = Config::default();
        config.node.listen = listen;
        let node = Gateway::build(config, Arc::new(Metrics::new())).await;
        node.expect("a node").run().await.expect("it serves");
    });
    format!("http://{listen}/mcp/demo")
}

#[tokio::test]
async fn a_server_of_that_template_is_asked_and_its_answer_kept() {
    let asking = Asking::about(OWN).await;
    let first = asking.tools_of("demo").await.expect("tools");
    assert_eq!(first.found.source, Source::Servers);
    assert_eq!(first.found.server.as_deref(), Some("demo"));
    assert_eq!(
        names(&first),
        ["say_hello", "echo_message", "get_server_info"]
    );
    assert_eq!(first.status, CacheStatus::Miss);
    let begun = Instant::now();
    let second = asking.tools_of("demo").await.expect("tools");
    assert_eq!(second.status, CacheStatus::Hit);
    assert_eq!(names(&second), names(&first));
    assert!(begun.elapsed() < Duration::from_millis(50));
}

#[tokio::test]
async fn a_deployment_says_which_servers_are_made_from_a_template() {
    let asking = Asking::about(OWN).await;
    let before = asking.tools().await.expect("tools");
    assert_eq!(
        (before.found.source, names(&before)),
        (Source::Static, vec!["own".into()])
    );
    asking
        .node
        .gateway()
        .discovery
        .knows_servers(Box::new(|template| {
            let demo = ServerId::try_from("demo").ok();
            demo.into_iter().filter(|_| template == "sample").collect()
        }));
    let after = asking.tools().await.expect("tools");
    assert_eq!(after.found.source, Source::Servers);
}

#[tokio::test]
async fn a_black_hole_and_a_good_source_answer_within_the_deadline_and_then_at_once() {
    // Connections are taken and never answered.
    let hole = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = hole.local_addr().expect("an address");
    let asking = Asking::about(&format!(r#"{OWN}, "endpoint": "http://{address}/mcp""#)).await;
    let begun = Instant::now();
    let found = asking.tools().await.expect("tools");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(found.found.source, Source::Static);
    assert_eq!(found.found.silent[0].source, Source::Endpoint);
    let begun = Instant::now();
    let again = asking.tools().await.expect("tools");
    assert_eq!(again.status, CacheStatus::Hit);
    assert!(begun.elapsed() < Duration::from_millis(100));
}

#[tokio::test]
async fn an_endpoint_comes_before_a_container_and_both_before_the_own_list() {
    let other = Asking::about(OWN).await;
    let address = other.node.gateway().listen;
    let serving = async move { other.node.run().await };
    let asked = async {
        let members = format!(r#"{OWN}, "endpoint": "http://{address}/mcp/demo""#);
        let asking = Asking::about(&members).await;
        let starts = Arc::new(Starts::default());
        let discovery = &asking.node.gateway().discovery;
        discovery.starts_by(Arc::clone(&starts) as Arc<dyn EphemeralSource>);
        let found = asking.tools().await.expect("tools");
        assert_eq!(found.found.source, Source::Endpoint);
        assert_eq!(names(&found).len(), 3);
        assert_eq!(
            starts.begun.load(Ordering::Relaxed),
            starts.ended.load(Ordering::Relaxed)
        );
    };
    tokio::select! {
        _ = serving => panic!("the other node ended"),
        () = asked => {}
    }
}

#[tokio::test]
async fn a_container_is_started_when_the_endpoint_refuses_and_ended_afterwards() {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    let asking = Asking::about(&format!(r#"{OWN}, "endpoint": "http://{address}/mcp""#)).await;
    let starts = Arc::new(Starts::default());
    let discovery = &asking.node.gateway().discovery;
    discovery.starts_by(Arc::clone(&starts) as Arc<dyn EphemeralSource>);
    let found = asking.tools().await.expect("tools");
    assert_eq!(found.found.source, Source::Ephemeral);
    assert_eq!(found.found.silent[0].source, Source::Endpoint);
    assert_eq!(starts.ended.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_container_that_does_not_listen_yet_is_asked_again() {
    let asking = Asking::about(OWN).await;
    let starts = Arc::new(Starts {
        listens_late: true,
        ..Starts::default()
    });
    let discovery = &asking.node.gateway().discovery;
    discovery.starts_by(Arc::clone(&starts) as Arc<dyn EphemeralSource>);
    let found = asking.tools().await.expect("tools");
    assert_eq!(found.found.source, Source::Ephemeral, "{found:?}");
    assert_eq!(names(&found).len(), 3);
}

#[tokio::test]
async fn a_container_that_does_not_start_in_time_is_given_up() {
    let asking = Asking::about(OWN).await;
    let starts = Arc::new(Starts {
        hangs: true,
        ..Starts::default()
    });
    let discovery = &asking.node.gateway().discovery;
    discovery.starts_by(Arc::clone(&starts) as Arc<dyn EphemeralSource>);
    let begun = Instant::now();
    let found = asking.tools().await.expect("tools");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(found.found.source, Source::Static);
    assert_eq!(found.found.silent[0].source, Source::Ephemeral);
    assert_eq!(starts.ended.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_template_that_says_static_starts_nothing() {
    let asking = Asking::about(&format!(r#"{OWN}, "tool_discovery": "static""#)).await;
    let starts = Arc::new(Starts::default());
    let discovery = &asking.node.gateway().discovery;
    discovery.starts_by(Arc::clone(&starts) as Arc<dyn EphemeralSource>);
    let found = asking.tools().await.expect("tools");
    assert_eq!(
        (found.found.source, names(&found)),
        (Source::Static, vec!["own".into()])
    );
    assert_eq!(starts.begun.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn when_nobody_can_be_asked_that_is_said() {
    let asking = Asking::about(r#""description": "mute""#).await;
    let error = asking.tools().await.expect_err("nobody to ask");
    assert!(
        error.to_string().contains("there is nobody to ask"),
        "{error}"
    );
}
