//! What nodes tell of the fleet: `/api/cluster`, and the commands that show it.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    client::bare,
    eventually,
    fake_server::{FakeServer, Speaks},
    node::{Setup, TestCluster, TestNode},
};

async fn cluster(node: &TestNode) -> Value {
    bare(node, "GET", "/api/cluster", &[]).await.json().await
}

fn nodes(cluster: &Value) -> Vec<(&str, bool)> {
    let nodes = cluster["nodes"].as_array().expect("nodes");
    let id = |node: &'_ Value| node["self"].as_bool().expect("a flag");
    nodes
        .iter()
        .map(|node| (node["id"].as_str().expect("an id"), id(node)))
        .collect()
}

/// Runs the program beside the node, which goes on answering.
async fn run(node: &TestNode, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"));
    let url = format!("http://{}", node.address);
    command.env_clear().env("MCP_FLEET_URL", url).args(args);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("no panic").expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn every_node_tells_of_all_nodes() {
    let server = FakeServer::start(Speaks::Modern).await;
    let mut fleet = TestCluster::pair(Setup::up(&server)).await;
    for (node, expected) in [
        (fleet.a(), [("a", true), ("b", false)]),
        (fleet.b(), [("a", false), ("b", true)]),
    ] {
        eventually("it knows both nodes", async || {
            nodes(&cluster(node).await) == expected
        })
        .await;
    }
    let told = cluster(fleet.a()).await;
    assert_eq!(told["last_known"], false);
    assert_eq!(told["store"]["kind"], "redis");
    assert_eq!(told["replicas"]["count"], 1);
    assert_eq!(told["replicas"]["unhealthy"], serde_json::json!([]));
    for node in told["nodes"].as_array().expect("nodes") {
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
        for count in [
            "uptime_s",
            "uptime_ms",
            "requests",
            "answered",
            "connections",
            "streams",
            "duty_count",
            "age_ms",
        ] {
            assert!(node[count].is_u64(), "{count} of {node}");
        }
        assert!(
            node["duties"].is_array() && node["draining"] == false,
            "{node}"
        );
    }
    // What was known stays known without Redis, and is said to be old.
    fleet.redis.kill();
    eventually("it notices", async || {
        cluster(fleet.a()).await["last_known"] == true
    })
    .await;
    assert_eq!(
        nodes(&cluster(fleet.a()).await),
        [("a", true), ("b", false)]
    );
}

#[tokio::test]
async fn the_commands_show_a_real_fleet() {
    let server = FakeServer::start(Speaks::Modern).await;
    let fleet = TestCluster::pair(Setup::up(&server)).await;
    eventually("both nodes are known", async || {
        nodes(&cluster(fleet.a()).await).len() == 2
    })
    .await;
    let text = run(fleet.a(), &["status"]).await;
    assert!(text.contains("servers: 1, replicas: 1, nodes: 2"), "{text}");
    let text = run(fleet.a(), &["nodes"]).await;
    assert!(
        text.contains("DUTIES") && text.contains("answers"),
        "{text}"
    );
    let json: Value =
        serde_json::from_str(&run(fleet.b(), &["nodes", "-o", "json"]).await).expect("JSON");
    assert_eq!(json[1]["id"], "b");
    let yaml = run(fleet.b(), &["nodes", "-o", "yaml"]).await;
    assert!(yaml.starts_with("- id: a"), "{yaml}");
    let text = run(
        fleet.a(),
        &["top", "--iterations", "2", "--interval", "100ms"],
    )
    .await;
    assert_eq!(text.matches("REQUESTS/S").count(), 2, "{text}");
    assert!(text.contains("healthy") && !text.contains('\x1b'), "{text}");
    let text = run(fleet.a(), &["servers"]).await;
    assert!(text.contains("config"), "{text}");
}
