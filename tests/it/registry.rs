//! Servers registered while the fleet runs.

use serde_json::{Value, json};

use crate::support::{
    client::{Modern, bare, modern, post},
    eventually,
    fake_server::{Contents, FakeServer, SESSIONS, Speaks},
    node::{Setup, TestCluster, TestNode},
    redis::RedisServer,
};

mod faults;

/// Registers a server; status and answer.
async fn register(node: &TestNode, server: Value) -> (u16, Value) {
    let reply = post(node, "/api/servers", &[], server.to_string()).await;
    (reply.status, reply.json().await)
}

async fn unregister(node: &TestNode, name: &str) -> u16 {
    let path = format!("/api/servers/{name}");
    bare(node, "DELETE", &path, &[]).await.status
}

async fn get(node: &TestNode, path: &str) -> Value {
    bare(node, "GET", path, &[]).await.json().await
}

fn up(server: &FakeServer) -> Value {
    json!({"name": "up", "url": server.url(), "timeout": "60s"})
}

/// The tools a node lists at a path.
async fn tools(node: &TestNode, path: &str) -> Vec<String> {
    let listed = modern("tools/list").at(path).send(node).await;
    if listed.status == 404 {
        return Vec::new();
    }
    let tools = listed.result()["tools"].as_array().expect("tools").clone();
    let name = |tool: &Value| tool["name"].as_str().expect("a name").to_owned();
    tools.iter().map(name).collect()
}

async fn knows(node: &TestNode, name: &str) -> bool {
    node.gateway.servers.get(name).is_some()
}

fn listening() -> Modern {
    modern("subscriptions/listen")
        .at("/mcp")
        .params(json!({"notifications": {"toolsListChanged": true}}))
}

#[tokio::test]
async fn a_server_registered_at_one_node_is_served_by_all() {
    let server = FakeServer::offering(Speaks::Modern, Contents::tools(&[])).await;
    server.change(|contents| {
        contents.tools = vec![crate::support::fake_server::contents::tool("one")]
    });
    let cluster = TestCluster::pair(Setup::new()).await;
    let (a, b) = (cluster.a(), cluster.b());
    let (status, answer) = register(a, up(&server)).await;
    assert_eq!(
        (status, &answer["outcome"]),
        (201, &json!("created")),
        "{answer}"
    );
    assert_eq!(answer["kept_by"], "fleet");
    assert_eq!(answer["server"]["origin"], "api");
    assert_eq!(answer["server"]["replicas"][0]["healthy"], true);
    // Served by the node that answered before it answered.
    assert_eq!(tools(a, "/mcp/up").await, ["one"]);
    eventually("the other node knows it", async || knows(b, "up").await).await;
    assert_eq!(tools(b, "/mcp/up").await, ["one"]);
    assert_eq!(tools(b, "/mcp").await, ["up__one"]);
    // Again, and changed.
    let (status, answer) = register(b, up(&server)).await;
    assert_eq!((status, &answer["outcome"]), (200, &json!("unchanged")));
    let mut other = up(&server);
    other["balance"] = json!("round_robin");
    let (status, answer) = register(b, other).await;
    assert_eq!((status, &answer["outcome"]), (200, &json!("replaced")));
    eventually("the change is known", async || {
        get(a, "/api/servers/up").await["balance"] == "round_robin"
    })
    .await;
    assert_eq!(unregister(b, "up").await, 204);
    assert_eq!(unregister(b, "up").await, 404);
    eventually("the other node forgets it", async || !knows(a, "up").await).await;
    let gone = modern("tools/list").send(a).await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn registered_servers_survive_restarts_of_all_nodes() {
    let server = FakeServer::start(Speaks::Modern).await;
    let redis = RedisServer::start();
    let setup = Setup::new().redis(&redis);
    let first = setup.start().await;
    assert_eq!(register(&first, up(&server)).await.0, 201);
    first.stop();
    first.stopped().await;
    // Known before the first request.
    let second = setup.start().await;
    assert!(knows(&second, "up").await);
}

#[tokio::test]
async fn configuration_wins_and_says_so() {
    let (own, other) = (
        FakeServer::start(Speaks::Modern).await,
        FakeServer::start(Speaks::Modern).await,
    );
    let redis = RedisServer::start();
    let configured = Setup::up(&own).redis(&redis).start().await;
    let free = Setup::new().redis(&redis).start().await;
    let (status, answer) = register(&configured, up(&other)).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("configured"))
    );
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(
        message.contains("up") && message.contains("(config)"),
        "{message}"
    );
    assert_eq!(unregister(&configured, "up").await, 409);
    assert_eq!(register(&free, up(&other)).await.0, 201);
    eventually("the conflict is reported", async || {
        get(&configured, "/api/servers/up").await["problem"].is_string()
    })
    .await;
    let all = get(&configured, "/api/servers").await;
    assert_eq!(all.as_array().expect("servers").len(), 1);
    assert_eq!(all[0]["origin"], "config");
    assert_eq!(all[0]["replicas"][0]["endpoint"], json!(own.url()));
    assert_eq!(get(&free, "/api/servers/up").await["problem"], Value::Null);
    // What is in the way can be taken out anywhere.
    assert_eq!(unregister(&configured, "up").await, 204);
    eventually("there is no conflict any more", async || {
        get(&configured, "/api/servers/up").await["problem"].is_null()
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_registered_is_explained() {
    let node = Setup::new()
        .set("limits.registered_servers", "1")
        .start()
        .await;
    for (server, status, told) in [
        (
            json!({"name": "x"}),
            400,
            "servers.x: does not say how it is reached",
        ),
        (
            json!({"name": "x", "url": "file:///etc/passwd"}),
            400,
            "beginning with http://",
        ),
        (
            json!({"name": "x", "url": "http://a/", "balanse": "p2c"}),
            400,
            "did you mean",
        ),
        (
            json!({"name": "x", "command": ["id"]}),
            400,
            "not for the API",
        ),
        (
            json!({"name": "x", "url": "http://a/", "headers": {"X": {"file": "/etc/passwd"}}}),
            400,
            "names a file",
        ),
        (
            json!({"name": "x", "url": "http://a/", "headers": {"X": "y".repeat(70_000)}}),
            413,
            "at most",
        ),
    ] {
        let (found, answer) = register(&node, server).await;
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(
            found == status && message.contains(told),
            "{found} {message}"
        );
    }
    let good = |name: &str| json!({"name": name, "url": "http://127.0.0.1:1/mcp"});
    let (status, answer) = register(&node, good("x")).await;
    // Without Redis it ends with the process, and the answer says so.
    assert_eq!((status, &answer["kept_by"]), (201, &json!("process")));
    assert_eq!(register(&node, good("y")).await.0, 507);
    assert_eq!(unregister(&node, "y").await, 404);
}

#[tokio::test]
async fn the_built_in_server_is_configuration_too() {
    let node = Setup::new().set("node.demo", "true").start().await;
    let server = json!({"name": "demo", "url": "http://127.0.0.1:1/mcp"});
    let (status, answer) = register(&node, server).await;
    assert_eq!(status, 409);
    assert!(answer.to_string().contains("built-in"), "{answer}");
}

#[tokio::test]
async fn a_server_that_comes_again_has_no_old_lists() {
    let cluster = TestCluster::pair(Setup::new()).await;
    let (a, b) = (cluster.a(), cluster.b());
    let (old, new) = (
        FakeServer::offering(Speaks::Modern, Contents::default()).await,
        FakeServer::offering(SESSIONS, Contents::default()).await,
    );
    let only = |name| vec![crate::support::fake_server::contents::tool(name)];
    old.change(|contents| contents.tools = only("old"));
    new.change(|contents| contents.tools = only("new"));
    for (server, tool) in [(&old, "old"), (&new, "new"), (&old, "old")] {
        assert_eq!(register(a, up(server)).await.0, 201);
        for node in [a, b] {
            eventually("the server is known", async || knows(node, "up").await).await;
            assert_eq!(tools(node, "/mcp/up").await, [tool]);
            assert_eq!(tools(node, "/mcp").await, [format!("up__{tool}")]);
        }
        assert_eq!(unregister(b, "up").await, 204);
        for node in [a, b] {
            eventually("the server is gone", async || !knows(node, "up").await).await;
        }
    }
    // The same address, but it is another server behind it now.
    assert_eq!(register(a, up(&old)).await.0, 201);
    assert_eq!(tools(a, "/mcp/up").await, ["old"]);
    old.change(|contents| contents.tools = only("renewed"));
    assert_eq!(unregister(a, "up").await, 204);
    assert_eq!(register(a, up(&old)).await.0, 201);
    assert_eq!(tools(a, "/mcp/up").await, ["renewed"]);
}

#[tokio::test]
async fn clients_of_every_node_hear_that_merged_lists_changed() {
    let server = FakeServer::start(Speaks::Modern).await;
    let cluster = TestCluster::pair(Setup::new()).await;
    let mut streams = Vec::new();
    for node in &cluster.nodes {
        let mut stream = listening().open(node).await;
        let acknowledged = stream.message().await;
        let honoured = &acknowledged["params"]["notifications"];
        assert_eq!(honoured["toolsListChanged"], true, "{acknowledged}");
        streams.push(stream);
    }
    assert_eq!(register(cluster.a(), up(&server)).await.0, 201);
    for (stream, node) in streams.iter_mut().zip(&cluster.nodes) {
        let told = stream.message().await;
        assert_eq!(told["method"], "notifications/tools/list_changed");
        // Whoever lists on hearing it sees the change.
        assert!(!tools(node, "/mcp").await.is_empty());
    }
    assert_eq!(unregister(cluster.b(), "up").await, 204);
    for (stream, node) in streams.iter_mut().zip(&cluster.nodes) {
        let told = stream.message().await;
        assert_eq!(told["method"], "notifications/tools/list_changed");
        assert!(tools(node, "/mcp").await.is_empty());
    }
}

#[tokio::test]
async fn who_listens_to_a_server_is_told_when_it_is_taken_out() {
    let server = FakeServer::start(Speaks::Modern).await;
    let cluster = TestCluster::pair(Setup::new()).await;
    let (a, b) = (cluster.a(), cluster.b());
    assert_eq!(register(a, up(&server)).await.0, 201);
    eventually("the other node knows it", async || knows(b, "up").await).await;
    let mut stream = listening().at("/mcp/up").open(b).await;
    let acknowledged = stream.message().await;
    assert!(acknowledged["method"].is_string(), "{acknowledged}");
    // Defined anew, it is still the server that is listened to.
    let mut other = up(&server);
    other["balance"] = json!("round_robin");
    assert_eq!(register(a, other).await.0, 200);
    eventually("the change is known", async || {
        get(b, "/api/servers/up").await["balance"] == "round_robin"
    })
    .await;
    assert_eq!(unregister(a, "up").await, 204);
    // What changed on the way may be told first.
    let told = loop {
        let told = stream.message().await;
        if told["method"].is_null() {
            break told;
        }
    };
    assert!(told["result"].is_object(), "{told}");
}

#[tokio::test]
async fn nothing_is_left_of_a_server_that_was_taken_out() {
    let server = FakeServer::start(SESSIONS).await;
    let node = Setup::new().start().await;
    assert_eq!(register(&node, up(&server)).await.0, 201);
    assert!(!tools(&node, "/mcp/up").await.is_empty());
    server.wait_for("initialize", 1).await;
    let series = || node.gateway.metrics.render().contains("\"up\"");
    eventually("the server is counted", async || series()).await;
    assert_eq!(unregister(&node, "up").await, 204);
    eventually("its series are gone", async || !series()).await;
    eventually("its sessions are ended", async || {
        server
            .seen("")
            .iter()
            .any(|seen| seen.http_method == "DELETE")
    })
    .await;
}

#[tokio::test]
async fn replicas_that_stay_keep_their_state() {
    let (one, two) = (
        FakeServer::start(Speaks::Modern).await,
        FakeServer::start(Speaks::Modern).await,
    );
    let node = Setup::new().start().await;
    let of = |urls: &[String]| json!({"name": "up", "replicas": urls});
    assert_eq!(register(&node, of(&[one.url()])).await.0, 201);
    let before = node.gateway.servers.get("up").expect("known");
    let _in_flight = before.replicas[0].begin();
    assert_eq!(register(&node, of(&[two.url(), one.url()])).await.0, 200);
    let replicas = get(&node, "/api/servers/up").await["replicas"].clone();
    assert_eq!(replicas[0]["in_flight"], 0);
    assert_eq!(replicas[1]["in_flight"], 1);
}
