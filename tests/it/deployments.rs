//! Deployments, as far as no engine is needed: what nodes refuse, what all of
//! them make of what a node with an engine has written down; `engine`: what a
//! node does with a fake one. With a real engine: tests/deploy.

use bytes::Bytes;
use mcp_fleet::{
    deployments::{
        definition::{Definition, EngineRef, Wish},
        record::{Phase, Record, ReplicaRecord, ReplicaState},
    },
    ids::ServerId,
    store::{
        Channel, Fence, RecordKey,
        registry::{Change, Changed, Edition, Which},
    },
    templates::spec::{Isolation, ServerSpec, Transport, Value as Setting},
};
use serde_json::{Value, json};

use crate::support::{
    client::{bare, modern, post},
    eventually,
    fake_server::{FakeServer, Speaks},
    node::{Setup, TestCluster, TestNode},
};

mod bridges;
mod engine;

async fn ask(node: &TestNode, path: &str, body: Value) -> (u16, Value) {
    let reply = post(node, path, &[], body.to_string()).await;
    (reply.status, reply.json().await)
}

async fn get(node: &TestNode, path: &str) -> Value {
    bare(node, "GET", path, &[]).await.json().await
}

fn definition(name: &str) -> Definition {
    let secret = Setting {
        value: "s3cr3t-value".to_owned(),
        sensitive: true,
    };
    Definition {
        name: name.to_owned(),
        spec: ServerSpec {
            template: "memory".to_owned(),
            template_version: None,
            image: "example/memory:1".to_owned(),
            transport: Transport::Http {
                port: 80,
                path: "/mcp".to_owned(),
            },
            entrypoint: None,
            command: None,
            arguments: Vec::new(),
            env: [("KEY".to_owned(), secret)].into(),
            volumes: Vec::new(),
            isolation: Isolation::default(),
            timeout: None,
        },
        replicas: 1,
        engine: EngineRef::docker("elsewhere"),
        wish: Wish::Run,
        generation_nonce: "00".to_owned(),
        attempt: 0,
        adopted: None,
    }
}

/// Writes what the node that answers would write, and what a node with the engine would.
async fn deployed(node: &TestNode, name: &str, url: &str) {
    let definition = definition(name);
    let change = Change::Put {
        name: name.to_owned(),
        definition: definition.encode().expect("encodes").into(),
        most: 10,
        over: None,
    };
    let store = &node.gateway.store;
    let changed = store.change_registry(Which::Deployments, &change, Edition(0));
    assert_eq!(changed.await.expect("reachable"), Changed::Created);
    write(node, &record(&definition, url)).await;
}

fn record(definition: &Definition, url: &str) -> Record {
    let spec = definition.hash().to_string();
    Record {
        name: definition.name.clone(),
        phase: Phase::Ready,
        spec: spec.clone(),
        template: "memory".to_owned(),
        engine: definition.engine.to_string(),
        replicas: vec![ReplicaRecord {
            container: "c-0".to_owned(),
            spec,
            state: ReplicaState::Ready,
            url: Some(url.to_owned()),
            routed: true,
            served: true,
            ..ReplicaRecord::default()
        }],
        fence: 7,
        serial: 1,
        ..Record::default()
    }
}

async fn write(node: &TestNode, record: &Record) {
    let key = RecordKey::Deployment(ServerId::try_from(record.name.as_str()).expect("good name"));
    let value = Bytes::from(record.encode().expect("encodes"));
    let day = std::time::Duration::from_secs(86_400);
    let fence = Fence(record.fence);
    let store = &node.gateway.store;
    let written = store.put_fenced(&key, fence, value, day, Channel::Deployments);
    assert!(written.await.expect("reachable"));
}

fn replica_of(node: &TestNode, name: &str) -> Option<String> {
    let server = node.gateway.servers.get(name)?;
    Some(server.replicas[0].endpoint.to_string())
}

#[tokio::test]
async fn what_cannot_be_deployed_is_refused_before_anything_is_stored() {
    let node = Setup::new()
        .server("taken", "http://127.0.0.1:1/mcp")
        .start()
        .await;
    let registered = json!({"name": "known", "url": "http://127.0.0.1:1/mcp"});
    assert_eq!(ask(&node, "/api/servers", registered).await.0, 201);
    for (body, status, code) in [
        (json!({"template": "memroy"}), 404, "unknown_template"),
        (
            json!({"template": "memory", "name": "a__b"}),
            400,
            "invalid_name",
        ),
        (
            json!({"template": "memory", "name": "taken"}),
            409,
            "name_taken",
        ),
        (
            json!({"template": "memory", "name": "known"}),
            409,
            "name_taken",
        ),
        (
            json!({"template": "memory", "engine": "podman"}),
            400,
            "unknown_engine",
        ),
        (
            json!({"template": "memory", "config": {"storage": ""}}),
            400,
            "invalid_settings",
        ),
        (
            json!({"template": "memory", "config": {"storage": 5}}),
            400,
            "bad_request",
        ),
        (
            json!({"template": "memory", "colour": "s3cr3t"}),
            400,
            "bad_request",
        ),
        (json!({"template": "memory"}), 503, "no_engine"),
        (
            json!({"template": "memory", "dry_run": true}),
            503,
            "no_engine",
        ),
    ] {
        let (got, answer) = ask(&node, "/api/deployments", body.clone()).await;
        assert_eq!(
            (got, &answer["error"]["code"]),
            (status, &json!(code)),
            "{body}: {answer}"
        );
        assert!(!answer.to_string().contains("s3cr3t"), "{answer}");
    }
    assert_eq!(get(&node, "/api/deployments").await, json!([]));
    for path in ["stop", "restart", "scale"] {
        let body = if path == "scale" {
            json!({"replicas": 2})
        } else {
            json!({})
        };
        let (status, answer) = ask(&node, &format!("/api/deployments/none/{path}"), body).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (404, &json!("unknown_deployment"))
        );
    }
    assert_eq!(
        bare(&node, "GET", "/api/deployments/none/logs", &[])
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn every_node_serves_what_a_node_with_the_engine_wrote_down() {
    let (one, two) = (
        FakeServer::start(Speaks::Modern).await,
        FakeServer::start(Speaks::Modern).await,
    );
    let cluster = TestCluster::pair(Setup::new().set("cluster.lease_ttl", "\"1s\"")).await;
    deployed(cluster.a(), "run", &one.url()).await;
    for node in &cluster.nodes {
        let serves = async || replica_of(node, "run") == Some(one.url());
        eventually("the node serves it", serves).await;
        assert!(modern("tools/list").at("/mcp/run").result(node).await["tools"].is_array());
        let servers = get(node, "/api/servers").await;
        assert_eq!(servers[0]["origin"], "deployment", "{servers}");
    }
    // Told without secrets.
    let told = get(cluster.b(), "/api/deployments/run").await;
    assert_eq!(
        (&told["phase"], &told["ready"]),
        (&json!("ready"), &json!(1))
    );
    assert_eq!(told["spec"]["env"]["KEY"]["value"], "***");
    assert!(!told.to_string().contains("s3cr3t"), "{told}");
    // Its name is taken.
    let registered = json!({"name": "run", "url": "http://127.0.0.1:1/mcp"});
    let (status, answer) = ask(cluster.b(), "/api/servers", registered).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("deployed"))
    );
    // Another address; an older record is not believed.
    let mut moved = record(&definition("run"), &two.url());
    moved.serial = 2;
    write(cluster.a(), &moved).await;
    for node in &cluster.nodes {
        let serves = async || replica_of(node, "run") == Some(two.url());
        eventually("the node follows", serves).await;
    }
    write(cluster.a(), &record(&definition("run"), &one.url())).await;
    assert_eq!(replica_of(cluster.b(), "run"), Some(two.url()));
    // Nobody has its engine: it is taken out at once.
    let path = "/api/deployments/run";
    assert_eq!(bare(cluster.b(), "DELETE", path, &[]).await.status, 204);
    for node in &cluster.nodes {
        eventually("it is gone", async || replica_of(node, "run").is_none()).await;
    }
    assert_eq!(bare(cluster.a(), "DELETE", path, &[]).await.status, 404);
}

#[tokio::test]
async fn without_redis_deployments_stay_as_they_are() {
    let server = FakeServer::start(Speaks::Modern).await;
    let mut cluster = TestCluster::pair(Setup::new().set("cluster.lease_ttl", "\"1s\"")).await;
    deployed(cluster.a(), "run", &server.url()).await;
    for node in &cluster.nodes {
        let serves = async || replica_of(node, "run").is_some();
        eventually("the node serves it", serves).await;
    }
    cluster.redis.kill();
    let node = cluster.b();
    let path = "/api/deployments/run";
    let (status, answer) = ask(node, &format!("{path}/scale"), json!({"replicas": 2})).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (503, &json!("store_unavailable")),
        "{answer}"
    );
    assert_eq!(bare(node, "DELETE", path, &[]).await.status, 503);
    assert!(modern("tools/list").at("/mcp/run").result(node).await["tools"].is_array());
    // It comes back empty: what is wanted is put back, what runs goes on.
    cluster.redis.run();
    eventually("the table is back", async || {
        let there = cluster
            .redis
            .cli(&["hexists", "mcp-fleet:deployments", "run"]);
        there.trim() == "1"
    })
    .await;
    for node in &cluster.nodes {
        assert_eq!(replica_of(node, "run"), Some(server.url()));
    }
}

#[tokio::test]
async fn a_definition_of_a_newer_node_is_left_alone_and_said() {
    let node = Setup::new()
        .set("cluster.lease_ttl", "\"1s\"")
        .start()
        .await;
    let change = Change::Put {
        name: "later".to_owned(),
        definition: Bytes::from_static(br#"{"name":"later","spin":"s3cr3t"}"#),
        most: 10,
        over: None,
    };
    let store = &node.gateway.store;
    let changed = store.change_registry(Which::Deployments, &change, Edition(0));
    assert_eq!(changed.await.expect("reachable"), Changed::Created);
    eventually("it is told", async || {
        let told = get(&node, "/api/deployments").await;
        let reason = told[0]["reason"].as_str().unwrap_or_default();
        assert!(!told.to_string().contains("s3cr3t"), "{told}");
        reason.contains("does not understand")
    })
    .await;
    let (status, answer) = ask(&node, "/api/deployments/later/restart", json!({})).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("not_understood"))
    );
}
