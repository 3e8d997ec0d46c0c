//! G76-G82, G89: the handshake and the session of legacy clients.

use std::collections::BTreeSet;

use mcp_fleet::store::RecordKey;
use serde_json::{Value, json};

use super::{BOTH, SESSION_VERSIONS};
use crate::support::{
    client::{bare, post},
    eventually,
    fake_server::{FakeServer, Speaks},
    legacy_client::{Session, legacy},
    node::{Setup, TestCluster, node_with},
    redis::RedisServer,
    wire,
};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[tokio::test]
async fn g76_a_version_that_is_spoken_is_repeated_and_another_answered_by_the_newest() {
    for speaks in BOTH {
        let (node, _server) = node_with(speaks).await;
        for path in ["/mcp/up", "/mcp"] {
            for (requested, answered) in [
                ("2024-11-05", "2024-11-05"),
                ("2025-03-26", "2025-03-26"),
                ("2025-06-18", "2025-06-18"),
                ("2025-11-25", "2025-11-25"),
                ("1999-01-01", "2025-11-25"),
                ("2026-07-28", "2025-11-25"),
                ("newest", "2025-11-25"),
            ] {
                let session = legacy(requested).at(path).open(&node).await;
                assert_eq!(session.version, answered, "{requested}");
                assert!(session.hello["capabilities"]["tools"].is_object());
                assert!(session.hello["serverInfo"]["name"].is_string());
                assert_eq!(session.result("ping", json!({})).await, json!({}));
            }
        }
    }
}

#[tokio::test]
async fn g76_a_handshake_without_a_version_is_refused() {
    let (node, _server) = node_with(Speaks::Modern).await;
    for params in [json!({}), json!({"protocolVersion": 1, "capabilities": {}})] {
        let body = json!({"jsonrpc": "2.0", "id": "x", "method": "initialize", "params": params});
        let reply = post(&node, "/mcp/up", &[], body.to_string()).await;
        assert_eq!(reply.header("mcp-session-id"), None);
        let refused = reply.answered().await;
        assert_eq!(refused.refusal(), (400, -32602));
        assert_eq!(refused.response["id"], "x");
    }
}

#[tokio::test]
async fn g77_session_ids_are_visible_ascii_and_all_different() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let id = legacy("2025-11-25").open(&node).await.id;
        assert!(id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{id}");
        // 128 bits take 22 characters of base64.
        assert!(id.len() >= 22, "{id}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 20);
}

#[tokio::test]
async fn g78_a_session_works_on_any_node() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        for version in SESSION_VERSIONS {
            let here = legacy(version).open(cluster.a()).await;
            let there = here.through(cluster.b());
            for session in [&here, &there] {
                session.call("echo", json!({})).await.result();
                assert!(session.result("tools/list", json!({})).await["tools"].is_array());
                session
                    .result("resources/read", json!({"uri": "doc://a"}))
                    .await;
            }
            assert_eq!(
                there
                    .result("logging/setLevel", json!({"level": "error"}))
                    .await,
                json!({})
            );
            eventually("the level is known to the other node", async || {
                let reported = here.call("report", json!({})).await;
                let levels: Vec<_> = reported
                    .messages
                    .iter()
                    .map(|m| m["params"]["level"].clone())
                    .collect();
                levels == ["error"]
            })
            .await;
        }
    }
}

#[tokio::test]
async fn g78_nodes_without_a_secret_find_one_they_share() {
    let server = FakeServer::start(Speaks::Modern).await;
    let cluster = TestCluster::pair_without_secret(Setup::up(&server)).await;
    let here = legacy("2025-11-25").open(cluster.a()).await;
    let there = here.through(cluster.b());
    there.call("echo", json!({})).await.result();
}

#[tokio::test]
async fn g78_nodes_that_start_before_their_redis_share_a_secret_when_it_comes() {
    let server = FakeServer::start(Speaks::Modern).await;
    let mut redis = RedisServer::stopped(&[]);
    let setup = Setup::up(&server)
        .redis(&redis)
        .set("redis.connect_timeout", "\"200ms\"");
    let (a, b) = (setup.start().await, setup.start().await);
    let client = legacy("2025-11-25");
    let before = [client.open(&a).await, client.open(&b).await];
    assert!(!ping(&before[0].through(&b)).await, "opened by a stranger");

    redis.run();
    eventually("a session is known to the other node", async || {
        let (at_a, at_b) = (client.open(&a).await, client.open(&b).await);
        ping(&at_a.through(&b)).await && ping(&at_b.through(&a)).await
    })
    .await;
    for session in &before {
        assert!(ping(session).await, "a session that was there before");
    }

    // The store loses what it kept: who starts later has the same secret still.
    redis.kill();
    redis.run();
    eventually("the secret is put back", async || {
        let kept = a.gateway.store.get(&RecordKey::Secret).await;
        kept.is_ok_and(|kept| kept.is_some())
    })
    .await;
    let c = setup.start().await;
    let lately = client.open(&a).await.through(&c);
    eventually("a new node knows the session", async || ping(&lately).await).await;
}

/// Whether the node knows the session.
async fn ping(session: &Session) -> bool {
    let reply = session.open(json!(99), "ping", json!({})).await;
    reply.status == 200
}

#[tokio::test]
async fn g78_both_nodes_use_one_session_of_the_server() {
    let server = FakeServer::start(crate::support::fake_server::SESSIONS).await;
    let cluster = TestCluster::pair(Setup::up(&server)).await;
    let here = legacy("2025-11-25").open(cluster.a()).await;
    here.call("echo", json!({})).await.result();
    here.through(cluster.b())
        .call("echo", json!({}))
        .await
        .result();
    let sessions: BTreeSet<_> = server
        .seen("tools/call")
        .iter()
        .map(|call| call.header("mcp-session-id").map(str::to_owned))
        .collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
}

#[tokio::test]
async fn g79_a_missing_session_is_400_and_an_unknown_one_404() {
    let (node, server) = node_with(Speaks::Modern).await;
    let call = r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"echo"}}"#;
    for body in [
        PING,
        call,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    ] {
        for headers in [&[][..], &[("mcp-protocol-version", "2025-11-25")]] {
            let reply = post(&node, "/mcp/up", headers, body).await;
            assert_eq!(reply.status, 400, "{body}");
        }
    }
    let session = legacy("2025-11-25").open(&node).await;
    let mut tampered = session.id.clone().into_bytes();
    let middle = tampered.len() / 2;
    tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).expect("text");
    let longer = format!("{}A", session.id);
    for unknown in ["x", "7f9c2e41b6d84c0f9a53", &tampered, &longer] {
        let headers = [("mcp-session-id", unknown)];
        assert_eq!(
            post(&node, "/mcp/up", &headers, call).await.status,
            404,
            "{unknown}"
        );
        let get = bare(
            &node,
            "GET",
            "/mcp/up",
            &[headers[0], ("accept", "text/event-stream")],
        )
        .await;
        assert_eq!(get.status, 404, "{unknown}");
        assert_eq!(
            bare(&node, "DELETE", "/mcp/up", &headers).await.status,
            404,
            "{unknown}"
        );
    }
    // A session belongs to the endpoint it was opened at.
    let headers = [("mcp-session-id", session.id.as_str())];
    assert_eq!(post(&node, "/mcp", &headers, PING).await.status, 404);
    assert!(server.seen("tools/call").is_empty());
}

#[tokio::test]
async fn g80_delete_ends_a_session_on_all_nodes() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let cluster = TestCluster::pair(Setup::up(&server)).await;
        let here = legacy("2025-11-25").open(cluster.a()).await;
        let there = here.through(cluster.b());
        for session in [&here, &there] {
            session.call("echo", json!({})).await.result();
        }
        let params = json!({"name": "wait", "_meta": {"progressToken": 1}});
        let mut running = there.open(json!(99), "tools/call", params).await;
        running.message().await;
        let standing = [here.stream().await, there.stream().await];
        let waiting = there.through(cluster.b());
        let params = json!({"name": "wait"});
        let waiting =
            tokio::spawn(async move { waiting.open(json!(98), "tools/call", params).await });
        server.wait_for("tools/call", 4).await;
        assert_eq!(here.delete().await, 204);
        assert_eq!(here.post(PING).await.status, 404);
        eventually("the other node knows", async || {
            there.post(PING).await.status == 404
        })
        .await;
        assert_eq!(there.stream().await.status, 404);
        // Streams that stand open end too.
        for stream in standing {
            assert_eq!(stream.status, 200);
            stream.answered().await;
        }
        // Its calls end, and the server's session with it.
        let told = running.answered().await;
        assert_eq!(told.response["id"], 99, "{}", told.text);
        assert!(told.response["error"].is_object(), "{}", told.text);
        let refused = wire::within("the call", waiting).await.expect("no panic");
        assert_eq!(refused.status, 404, "{speaks:?}");
        assert_eq!(refused.answered().await.response["id"], 98);
        if !speaks.is_modern() {
            let id = server.seen("tools/call")[0]
                .header("mcp-session-id")
                .map(str::to_owned);
            let ended = server.wait_for("DELETE", 1).await;
            assert_eq!(ended[0].header("mcp-session-id").map(str::to_owned), id);
        }
        assert_eq!(there.delete().await, 404);
    }
}

#[tokio::test]
async fn g81_a_session_of_somebody_else_is_unknown() {
    let (node, server) = node_with(Speaks::Modern).await;
    let own = legacy("2025-11-25")
        .header("authorization", "Bearer alice")
        .open(&node)
        .await;
    // The first of two copies decides, and there is none of ours.
    let foreign = legacy("2025-11-25")
        .open(&node)
        .await
        .with_header("authorization", "Bearer bob");
    assert_eq!(foreign.post(PING).await.status, 404);
    assert_eq!(foreign.stream().await.status, 404);
    assert_eq!(foreign.delete().await, 404);
    for credential in [&[][..], &[("authorization", "Bearer bob")]] {
        let headers = [&[("mcp-session-id", own.id.as_str())], credential].concat();
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#;
        assert_eq!(
            post(&node, "/mcp/up", &headers, call).await.status,
            404,
            "{credential:?}"
        );
    }
    assert!(server.seen("tools/call").is_empty());
    own.call("echo", json!({})).await.result();
}

#[tokio::test]
async fn g82_an_unsupported_version_header_is_refused_and_none_means_the_sessions() {
    let (node, _server) = node_with(Speaks::Modern).await;
    for version in SESSION_VERSIONS {
        let session = legacy(version).open(&node).await;
        for unsupported in ["1999-01-01", "2025-13-01", "latest", ""] {
            let headers = [
                ("mcp-session-id", session.id.as_str()),
                ("mcp-protocol-version", unsupported),
            ];
            let refused = post(&node, "/mcp/up", &headers, PING).await;
            assert_eq!(refused.status, 400, "{version} {unsupported:?}");
            for method in ["GET", "DELETE"] {
                let all = [&headers[..], &[("accept", "text/event-stream")]].concat();
                let refused = bare(&node, method, "/mcp/up", &all).await;
                assert_eq!(refused.status, 400, "{method} {version} {unsupported:?}");
            }
        }
        let headers = [("mcp-session-id", session.id.as_str())];
        let batch = format!("[{PING}]");
        let status = post(&node, "/mcp/up", &headers, batch).await.status;
        // Only 2025-03-26 has batches, so the session's version was found.
        assert_eq!(status, if version == "2025-03-26" { 200 } else { 400 });
        let answered = post(&node, "/mcp/up", &headers, PING)
            .await
            .answered()
            .await;
        assert_eq!(answered.result(), &json!({}));
    }
}

#[tokio::test]
async fn g89_pings_are_answered_with_an_empty_result() {
    for speaks in BOTH {
        let (node, server) = node_with(speaks).await;
        for path in ["/mcp/up", "/mcp"] {
            for version in SESSION_VERSIONS {
                let session = legacy(version).at(path).open(&node).await;
                let answered = session.send("ping", Value::Null).await;
                assert_eq!((answered.status, answered.result()), (200, &json!({})));
                // A client may ping before it says that it is ready.
                let hello = legacy(version).at(path).hello(&node).await;
                let id = hello
                    .header("mcp-session-id")
                    .expect("a session")
                    .to_owned();
                let headers = [("mcp-session-id", id.as_str())];
                let answered = post(&node, path, &headers, PING).await.answered().await;
                assert_eq!(answered.result(), &json!({}));
            }
        }
        let mut sse = legacy("2024-11-05").open_sse(&node, "/sse/up").await;
        assert_eq!(sse.send("ping", json!({})).await["result"], json!({}));
        assert!(server.seen("ping").is_empty(), "{speaks:?}");
    }
}

#[tokio::test]
async fn g89_a_servers_ping_is_answered_by_the_gateway() {
    let (node, server) = {
        use crate::support::fake_server::{Contents, SESSIONS, call::Outcome};
        let server = FakeServer::with(SESSIONS, Contents::default(), |call| async move {
            let answer = call.ask("ping", json!({})).await;
            Outcome::value(&json!({"content": [], "structuredContent": answer["result"]}))
        })
        .await;
        (Setup::up(&server).start().await, server)
    };
    let result = crate::support::client::call("echo", json!({}))
        .result(&node)
        .await;
    assert_eq!(result["structuredContent"], json!({}));
    let session = legacy("2025-11-25").open(&node).await;
    let answered = session.call("echo", json!({})).await;
    assert_eq!(answered.messages, Vec::<Value>::new());
    assert_eq!(server.seen("response").len(), 2);
}

#[tokio::test]
async fn nothing_is_kept_of_a_stream_that_a_client_makes_up() {
    let (node, _server) = node_with(Speaks::Modern).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }});
    let path = "/sse/up/message?sessionId=madeup";
    let reply = post(&node, path, &[], body.to_string()).await;
    assert_eq!(reply.status, 404);
    let record = RecordKey::Stream("madeup".into());
    let kept = node.gateway.store.get(&record).await;
    assert_eq!(kept.expect("reachable"), None);
}
