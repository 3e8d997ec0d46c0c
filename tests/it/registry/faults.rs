//! The registry while the store is away, and after it lost what it kept.

use super::*;

#[tokio::test]
async fn without_redis_nothing_is_registered_and_nothing_is_lost() {
    let server = FakeServer::start(Speaks::Modern).await;
    let mut cluster = TestCluster::pair(Setup::new()).await;
    assert_eq!(register(cluster.a(), up(&server)).await.0, 201);
    let knows_it = async || knows(cluster.b(), "up").await;
    eventually("both nodes know it", knows_it).await;
    cluster.redis.kill();
    let node = cluster.a();
    let reply = post(
        node,
        "/api/servers",
        &[],
        json!({"name": "x", "url": "http://a/"}).to_string(),
    )
    .await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after"), Some("1"));
    let answer = reply.json().await;
    assert_eq!(answer["error"]["code"], "store_unavailable", "{answer}");
    assert_eq!(unregister(node, "up").await, 503);
    assert!(!tools(node, "/mcp/up").await.is_empty());
    // It comes back empty: the nodes put back what they know.
    cluster.redis.run();
    eventually("the registry is back", async || {
        cluster
            .redis
            .cli(&["hexists", "mcp-fleet:servers", "up"])
            .trim()
            == "1"
    })
    .await;
    for node in &cluster.nodes {
        assert!(knows(node, "up").await);
    }
    eventually("servers can be registered again", async || {
        let server = json!({"name": "x", "url": "http://127.0.0.1:1/mcp"});
        register(cluster.b(), server).await.0 == 201
    })
    .await;
    eventually("the other node knows", async || {
        knows(cluster.a(), "x").await
    })
    .await;
    assert!(knows(cluster.b(), "up").await);
}

#[tokio::test]
async fn a_node_that_starts_without_redis_learns_of_servers_later() {
    let (own, other) = (
        FakeServer::start(Speaks::Modern).await,
        FakeServer::start(Speaks::Modern).await,
    );
    let redis = RedisServer::start();
    let setup = Setup::new()
        .redis(&redis)
        .set("redis.command_timeout", "\"250ms\"")
        .set("redis.connect_timeout", "\"500ms\"");
    let first = setup.start().await;
    eventually("the node reaches redis", async || {
        first.gateway.store.is_reachable()
    })
    .await;
    let registered = json!({"name": "later", "url": other.url()});
    eventually("it is registered", async || {
        register(&first, registered.clone()).await.0 < 300
    })
    .await;
    redis.pause();
    let second = setup.server("own", &own.url()).start().await;
    assert!(knows(&second, "own").await && !knows(&second, "later").await);
    assert!(!tools(&second, "/mcp/own").await.is_empty());
    redis.resume();
    eventually("the node learns of it", async || {
        knows(&second, "later").await
    })
    .await;
}

#[tokio::test]
async fn a_lost_message_is_made_up_for() {
    let server = FakeServer::start(Speaks::Modern).await;
    let redis = RedisServer::start();
    let node = Setup::new()
        .redis(&redis)
        .set("cluster.lease_ttl", "\"1s\"")
        .start()
        .await;
    eventually("the node reaches redis", async || {
        node.gateway.store.is_reachable()
    })
    .await;
    // Written behind its back: nothing is told.
    let definition = format!("1 {}", up(&server));
    redis.cli(&[
        "hset",
        "mcp-fleet:servers",
        "up",
        &definition,
        ":edition",
        "1",
    ]);
    eventually("the node finds it", async || knows(&node, "up").await).await;
}

#[tokio::test]
async fn a_definition_that_is_not_understood_is_reported() {
    let redis = RedisServer::start();
    redis.cli(&[
        "hset",
        "mcp-fleet:servers",
        "up",
        "1 {\"name\":\"up\",\"quic\":true}",
        ":edition",
        "1",
    ]);
    let node = Setup::new().redis(&redis).start().await;
    eventually("the problem is reported", async || {
        let servers = get(&node, "/api/servers").await;
        let problem = servers[0]["problem"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        servers[0]["name"] == "up" && problem.contains("servers.up.quic: unknown key")
    })
    .await;
    assert_eq!(unregister(&node, "up").await, 204);
    assert_eq!(get(&node, "/api/servers").await, json!([]));
}
