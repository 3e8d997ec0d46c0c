//! What a node does with an engine, as far as a fake one can show it.

use std::{collections::BTreeMap, time::Duration};

use mcp_fleet::{
    deployments::record::{Phase, Record, ReplicaState},
    store::{Channel, Event},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ask, get};
use crate::support::{
    client::bare,
    eventually,
    fake_engine::FakeEngine,
    node::{Setup, TestCluster, TestNode},
    wire::{PATIENCE, within},
};

/// A template for each image.
fn templates() -> tempfile::TempDir {
    let templates = tempfile::tempdir().expect("a directory");
    for image in ["plain", "slow"] {
        let directory = templates.path().join(image);
        let template = json!({"name": image, "description": "For tests.", "version": "1.0.0",
            "docker_image": image, "docker_tag": "1",
            "transport": {"default": "http", "port": 80}});
        std::fs::create_dir(&directory).expect("made");
        std::fs::write(directory.join("template.json"), template.to_string()).expect("written");
    }
    templates
}

fn setup(engine: &FakeEngine, templates: &tempfile::TempDir) -> Setup {
    let directories = json!([templates.path()]).to_string();
    let setup = engine.setup().set("templates.directories", &directories);
    setup.set("cluster.lease_ttl", "\"1s\"")
}

/// A node with a fake engine.
struct Fleet {
    engine: FakeEngine,
    node: TestNode,
    _templates: tempfile::TempDir,
}

impl Fleet {
    async fn start() -> Self {
        Self::with(|setup| setup).await
    }

    async fn with(more: impl FnOnce(Setup) -> Setup) -> Self {
        let (engine, templates) = (FakeEngine::start().await, templates());
        let node = more(setup(&engine, &templates)).start().await;
        let fleet = Self {
            engine,
            node,
            _templates: templates,
        };
        eventually("the node has its engine", async || {
            fleet.node.gateway.deployments.engine().identity().is_some()
        })
        .await;
        fleet
    }

    async fn deploy(&self, template: &str, name: &str, replicas: u32) -> Value {
        let body = json!({"template": template, "name": name, "replicas": replicas});
        let (status, answer) = ask(&self.node, "/api/deployments", body).await;
        assert_eq!(status, 202, "{answer}");
        answer
    }

    async fn change(&self, name: &str, step: &str, body: Value) {
        let path = format!("/api/deployments/{name}/{step}");
        let (status, answer) = ask(&self.node, &path, body).await;
        assert_eq!(status, 202, "{answer}");
    }

    async fn told(&self, name: &str) -> Value {
        get(&self.node, &format!("/api/deployments/{name}")).await
    }

    async fn comes_to(&self, name: &str, phase: &str) {
        let mut last = Value::Null;
        let coming = async {
            while last["phase"] != phase {
                tokio::time::sleep(Duration::from_millis(5)).await;
                last = self.told(name).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, coming).await;
        assert!(came.is_ok(), "not {phase} within a minute: {last}");
    }
}

#[tokio::test]
async fn pulls_keep_nothing_else_from_being_done() {
    let fleet = Fleet::start().await;
    fleet.engine.has_image("plain:1", "sha256:plain");
    fleet.deploy("plain", "ready", 1).await;
    fleet.comes_to("ready", "ready").await;
    fleet.engine.hold_pulls(true);
    let pulling: Vec<_> = (0..17).map(|n| format!("slow-{n}")).collect();
    for name in &pulling {
        fleet.deploy("slow", name, 1).await;
    }
    // All of them, before the registry has said a word.
    for name in &pulling {
        fleet.comes_to(name, "pulling").await;
    }
    let (container, _) = fleet.engine.running().remove(0);
    fleet.engine.crash(&container);
    eventually("it was started again", async || {
        let told = fleet.told("ready").await;
        told["phase"] == "ready" && told["containers"][0]["restarts"] == 1
    })
    .await;
    fleet.engine.hold_pulls(false);
    for name in &pulling {
        fleet.comes_to(name, "ready").await;
    }
}

#[tokio::test]
async fn news_of_a_start_of_ours_unsettles_nobody() {
    let fleet = Fleet::start().await;
    fleet.engine.has_image("plain:1", "sha256:plain");
    fleet.deploy("plain", "one", 1).await;
    fleet.comes_to("one", "ready").await;
    fleet.engine.hold_events(true);
    fleet.change("one", "scale", json!({"replicas": 6})).await;
    eventually("all answer", async || fleet.told("one").await["ready"] == 6).await;
    let mut feed = fleet.node.gateway.store.subscribe();
    // What happened is heard of only now, and then of an end.
    let (crashed, _) = fleet.engine.running().remove(0);
    fleet.engine.crash(&crashed);
    fleet.engine.hold_events(false);
    let mut states: BTreeMap<String, Vec<ReplicaState>> = BTreeMap::new();
    let settled = async {
        loop {
            let Ok(Event::Message {
                channel: Channel::Deployments,
                payload,
            }) = feed.recv().await
            else {
                continue;
            };
            let record = Record::decode(&payload).expect("understood");
            for one in &record.replicas {
                states
                    .entry(one.container.clone())
                    .or_default()
                    .push(one.state);
                assert!(one.routed || one.container == crashed, "{record:?}");
            }
            let is_back = record.replicas.iter().any(|one| one.restarts == 1);
            if record.phase == Phase::Ready && is_back {
                return;
            }
        }
    };
    within("all answer again", settled).await;
    states.remove(&crashed);
    let is_ready =
        |states: &Vec<ReplicaState>| states.iter().all(|one| *one == ReplicaState::Ready);
    assert!(
        states.len() == 5 && states.values().all(is_ready),
        "{states:?}"
    );
}

#[tokio::test]
async fn a_name_that_stands_for_another_image_changes_nothing_before_a_restart() {
    let fleet = Fleet::start().await;
    let images = || -> Vec<_> {
        let running = fleet.engine.running().into_iter();
        running.map(|(_, image)| image).collect()
    };
    fleet.engine.has_image("plain:1", "sha256:a");
    fleet.deploy("plain", "one", 1).await;
    fleet.comes_to("one", "ready").await;
    fleet.engine.has_image("plain:1", "sha256:b");
    fleet.change("one", "scale", json!({"replicas": 3})).await;
    fleet.comes_to("one", "ready").await;
    assert_eq!(images(), ["sha256:a"; 3]);
    // None is left that says what it was made from.
    fleet.engine.lose_containers();
    eventually("all are back", async || images().len() == 3).await;
    assert_eq!(images(), ["sha256:a"; 3]);
    fleet.change("one", "restart", json!({})).await;
    let are_new = async || images().iter().filter(|id| *id == "sha256:b").count() == 3;
    eventually("all are new", are_new).await;
    fleet.comes_to("one", "ready").await;
    // What cannot be had any more is looked up anew.
    fleet.engine.has_image("plain:1", "sha256:c");
    fleet.engine.lose_image("sha256:b");
    fleet.engine.lose_containers();
    eventually("all are back", async || images() == ["sha256:c"; 3]).await;
}

#[tokio::test]
async fn what_was_mended_is_deployed_again_and_tried_at_once() {
    let fleet = Fleet::start().await;
    fleet.deploy("plain", "one", 1).await;
    fleet.comes_to("one", "failing").await;
    fleet.engine.has_image("plain:1", "sha256:plain");
    let begun = Instant::now();
    let told = fleet.deploy("plain", "one", 1).await;
    // Nothing is told of the attempt before.
    assert_eq!(
        (&told["outcome"], &told["reason"]),
        (&json!("unchanged"), &Value::Null)
    );
    assert_ne!(told["phase"], "failing");
    fleet.comes_to("one", "ready").await;
    // It would have been tried by itself after a minute.
    assert!(begun.elapsed() < Duration::from_secs(45));
    // One that works is left as it is.
    let told = fleet.deploy("plain", "one", 1).await;
    assert_eq!(told["phase"], "ready");
}

#[tokio::test]
async fn a_container_whose_network_is_gone_is_made_anew() {
    let fleet = Fleet::start().await;
    fleet.engine.has_image("plain:1", "sha256:plain");
    fleet.deploy("plain", "one", 1).await;
    fleet.comes_to("one", "ready").await;
    let before = fleet.told("one").await["containers"][0]["endpoint"].clone();
    let (container, _) = fleet.engine.running().remove(0);
    fleet.engine.lose_networks();
    fleet.engine.crash(&container);
    eventually("another one answers", async || {
        let told = fleet.told("one").await;
        told["phase"] == "ready" && told["containers"][0]["endpoint"] != before
    })
    .await;
}

#[tokio::test]
async fn what_was_stopped_stays_so_when_another_node_goes_on() {
    let (engine, templates) = (FakeEngine::start().await, templates());
    engine.has_image("plain:1", "sha256:plain");
    let mut cluster = TestCluster::pair(setup(&engine, &templates)).await;
    let path = "/api/deployments/one";
    let told = async |node: &TestNode, key: &str| get(node, path).await[key].clone();
    let body = json!({"template": "plain", "name": "one"});
    eventually("it is taken", async || {
        let (status, _) = ask(cluster.a(), "/api/deployments", body.clone()).await;
        status == 202
    })
    .await;
    let comes_to = async |node: &TestNode, phase: &str| {
        eventually(phase, async || told(node, "phase").await == phase).await;
    };
    comes_to(cluster.a(), "ready").await;
    let (stopped, _) = engine.running().remove(0);
    ask(cluster.a(), &format!("{path}/stop"), json!({})).await;
    comes_to(cluster.a(), "stopped").await;
    // Whoever looks after the engine ends.
    let duty = told(cluster.a(), "node").await;
    cluster
        .nodes
        .retain(|node| json!(node.gateway.node.as_str()) != duty);
    let node = cluster.a();
    let goes_on = async || told(node, "node").await == json!(node.gateway.node.as_str());
    eventually("the other node goes on", goes_on).await;
    assert_eq!(told(node, "phase").await, "stopped");
    assert_eq!(told(node, "reason").await, Value::Null);
    assert_eq!(told(node, "containers").await[0]["state"], "stopped");
    ask(node, &format!("{path}/restart"), json!({})).await;
    comes_to(node, "ready").await;
    assert_eq!(engine.starts(&stopped), 1);
    assert_ne!(engine.running()[0].0, stopped);
}

#[tokio::test]
async fn servers_have_the_usual_time_to_end_or_what_is_asked() {
    let fleet = Fleet::with(|setup| setup.set("engine.docker.stop_timeout", "\"3s\"")).await;
    fleet.engine.has_image("plain:1", "sha256:plain");
    for asked in [json!({}), json!({"timeout": 7})] {
        fleet.deploy("plain", "one", 1).await;
        fleet.comes_to("one", "ready").await;
        fleet.change("one", "stop", asked).await;
        fleet.comes_to("one", "stopped").await;
    }
    fleet.deploy("plain", "one", 1).await;
    fleet.comes_to("one", "ready").await;
    let removed = bare(&fleet.node, "DELETE", "/api/deployments/one", &[]).await;
    assert_eq!(removed.status, 202);
    eventually("it is gone", async || fleet.engine.running().is_empty()).await;
    assert_eq!(fleet.engine.graces(), ["3", "7", "3"]);
}
