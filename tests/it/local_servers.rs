//! Stdio servers that run beside nodes: each node runs its own copy, and a
//! client's session stays in the process that made it, whichever node is asked.

use std::{
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use mcp_fleet::{
    bridge::token::{SCHEME, SigningKey},
    certificates,
    telemetry::metrics::Gauge,
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;

use crate::support::{
    eventually,
    legacy_client::{Session, legacy},
    node::{NodeProcess, Setup, TestCluster, TestNode},
    redis::{Certificate, RedisServer},
    wire,
};

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/support/scripted_stdio.py"
);
const SECRET: &str = "the same at every node of this test";

/// Nodes that each run the scripted server as `up`.
fn setup() -> Setup {
    Setup::new().program("up", &json!(["python3", SCRIPT, "legacy"]))
}

async fn pid(session: &Session) -> u64 {
    let answered = session.call("pid", json!({})).await;
    answered.result()["pid"].as_u64().expect("a number")
}

fn is_running(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie waits only to be reaped.
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The status of a call.
async fn status(session: &Session) -> u16 {
    let params = json!({"name": "pid", "arguments": {}});
    session.open(json!(77), "tools/call", params).await.status
}

#[tokio::test]
async fn a_session_is_in_one_process_whichever_node_is_asked() {
    let cluster = TestCluster::three(setup()).await;
    let [a, b, c] = &cluster.nodes[..] else {
        panic!("three");
    };
    let session = legacy("2025-11-25").open(a).await;
    let first = pid(&session).await;
    for node in [b, c, a, c] {
        assert_eq!(pid(&session.through(node)).await, first);
    }
    let other = legacy("2025-06-18").open(b).await;
    assert_ne!(pid(&other).await, first, "a process of its own");
    assert_eq!(pid(&other.through(a)).await, pid(&other.through(c)).await);

    assert_eq!(session.through(b).delete().await, 204);
    eventually("its process ends", async || !is_running(first)).await;
    for node in [a, b, c] {
        let there = session.through(node);
        eventually("the node knows", async || status(&there).await == 404).await;
    }
    let others = pid(&other.through(c)).await;
    assert!(is_running(others));
    let counts = [a, b, c].map(|node| Arc::clone(&node.gateway.metrics));
    let running = || counts.each_ref().map(|m| m.current(Gauge::Processes));
    assert!(running().iter().sum::<i64>() > 0);
    for node in cluster.nodes {
        node.stop();
        node.stopped().await;
    }
    assert_eq!(running(), [0; 3]);
    assert!(!is_running(others), "the process outlived its node");
}

#[tokio::test]
async fn the_first_calls_of_a_session_may_come_to_all_nodes_at_once() {
    let cluster = TestCluster::three(setup()).await;
    for _ in 0..5 {
        let session = legacy("2025-11-25").open(cluster.a()).await;
        let everywhere = cluster.nodes.iter().map(|node| session.through(node));
        let everywhere: Vec<_> = everywhere.collect();
        futures_util::future::join_all(everywhere.iter().map(pid)).await;
        let pids = futures_util::future::join_all(everywhere.iter().map(pid)).await;
        assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    }
}

#[tokio::test]
async fn questions_and_their_answers_pass_through_any_nodes() {
    let cluster = TestCluster::three(setup()).await;
    let [a, b, c] = &cluster.nodes[..] else {
        panic!("three");
    };
    let client = legacy("2025-11-25").capabilities(json!({"elicitation": {}}));
    let session = client.open(a).await;
    let owner = pid(&session).await;
    for (asked, answered) in [(b, c), (c, a), (a, b)] {
        let params = json!({"name": "ask", "arguments": {"message": "how?"}});
        let through = session.through(asked);
        let mut stream = through.open(json!(5), "tools/call", params).await;
        let question = loop {
            let message = stream.message().await;
            if message["method"] == "elicitation/create" {
                break message;
            }
        };
        let answer = json!({"action": "accept", "content": {"so": true}});
        let told = session.through(answered);
        assert_eq!(told.respond(&question["id"], answer.clone()).await, 202);
        let result = stream.answered().await;
        assert_eq!(result.result()["answered"], answer);
    }
    assert_eq!(pid(&session).await, owner);
}

#[tokio::test]
async fn a_broken_stream_is_resumed_at_another_node() {
    let cluster = TestCluster::three(setup()).await;
    let [a, b, c] = &cluster.nodes[..] else {
        panic!("three");
    };
    let client = legacy("2025-11-25").capabilities(json!({"elicitation": {}}));
    let session = client.open(a).await;
    pid(&session).await;
    let params = json!({"name": "ask", "arguments": {}});
    let mut stream = session
        .through(b)
        .open(json!(5), "tools/call", params)
        .await;
    let (last, question) = loop {
        let event = stream.event().await.expect("a question");
        if let Some(data) = event.data.as_deref()
            && data.contains("elicitation/create")
        {
            break (event.id.clone().expect("an id"), event.json());
        }
    };
    drop(stream);
    let answer = json!({"action": "decline"});
    assert_eq!(session.respond(&question["id"], answer).await, 202);
    let mut resumed = session.through(c).resume(&last).await;
    let message = resumed.message().await;
    assert_eq!(message["result"]["answered"]["action"], "decline");
}

#[tokio::test]
async fn what_belongs_to_no_call_reaches_a_stream_at_another_node() {
    let cluster = TestCluster::three(setup()).await;
    let [a, b, c] = &cluster.nodes[..] else {
        panic!("three");
    };
    let session = legacy("2025-11-25").open(a).await;
    pid(&session).await;
    let mut stream = session.through(c).stream().await;
    assert_eq!(stream.status, 200);
    let change = json!({"uri": "x://1"});
    session.result("resources/subscribe", change.clone()).await;
    session.through(b).call("updated", change).await.result();
    let message = stream.message().await;
    assert_eq!(message["method"], "notifications/resources/updated");
    assert_eq!(message["params"]["uri"], "x://1");
}

#[tokio::test]
async fn a_crash_is_told_where_it_is_asked_and_the_session_goes_on() {
    let cluster = TestCluster::three(setup()).await;
    let [a, b, c] = &cluster.nodes[..] else {
        panic!("three");
    };
    let session = legacy("2025-11-25").open(a).await;
    let before = pid(&session).await;
    let died = session.through(b).call("die", json!({"code": 7})).await;
    let message = died.response["error"]["message"].as_str().expect("text");
    assert!(message.contains("exit code 7"), "{message}");
    let after = pid(&session.through(c)).await;
    assert_ne!(before, after);
    assert_eq!(pid(&session).await, after);
}

#[tokio::test]
async fn a_crash_tells_no_secret_to_clients_nor_to_the_log() {
    let keys = "env = { API_TOKEN = \"s3cr3t-value\" }\nmode = \"shared\"";
    let command = json!(["python3", SCRIPT, "legacy", "--password", "hunter2"]);
    let setup = Setup::new()
        .program_with("up", &command, keys)
        .set("telemetry.log", "\"debug\"");
    let path = std::env::var("PATH").expect("a search path");
    let mut node = NodeProcess::start_in(&setup, Stdio::piped(), &[("PATH", &path)]).await;
    let session = legacy("2025-11-25").open(&node).await;
    let words = "login failed with token s3cr3t-value and hunter2\n";
    let died = session.call("die", json!({ "words": words })).await;
    let shown = "login failed with token *** and ***";
    let error = &died.response["error"];
    let message = error["message"].as_str().expect("text");
    assert!(message.ends_with(shown), "{message}");
    assert_eq!(error["data"]["stderr"], json!([shown]));
    node.signal("-TERM");
    let log = node.stderr().await;
    assert!(log.contains(shown), "{log}");
    assert!(!log.contains("s3cr3t") && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn large_answers_pass_between_nodes() {
    let cluster = TestCluster::three(setup()).await;
    let session = legacy("2025-11-25").open(cluster.a()).await;
    pid(&session).await;
    for node in &cluster.nodes {
        let size = json!({"bytes": 15 << 20});
        let answered = session.through(node).call("size", size).await;
        let text = answered.result()["content"][0]["text"].as_str();
        assert_eq!(text.map(str::len), Some(15 << 20));
    }
}

fn knock(method: Method, server: &str, authorization: &[&str]) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("/bridge/{server}"))
        .header("host", "localhost")
        .header("content-type", "application/json");
    for value in authorization {
        request = request.header("authorization", *value);
    }
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }});
    let body = Full::new(Bytes::from(initialize.to_string()));
    request.body(body).expect("a request")
}

#[tokio::test]
async fn nobody_but_nodes_of_the_fleet_is_let_in() {
    let setup = setup().set("node.secret", &format!("{SECRET:?}"));
    let node = setup.server("web", "http://127.0.0.1:1/mcp").start().await;
    let secret: [u8; 32] = Sha256::digest(SECRET).into();
    let (ours, strangers) = (SigningKey::derive(&secret), SigningKey::derive(&[9; 32]));
    let own = format!("{}/up", node.gateway.membership.me());
    let now = SystemTime::now();
    let (later, before) = (now + Duration::from_secs(60), now - Duration::from_secs(30));
    let token = |key: &SigningKey, audience: &str, expires| {
        format!("{SCHEME} {}", key.sign("another", audience, expires))
    };
    let good = token(&ours, &own, later);
    let bare = good.replacen(SCHEME, "Bearer", 1);
    let refused = [
        (vec![], 401),
        (vec!["Bearer mcp_0123456789abcdef0123456789abcdef"], 401),
        (vec![&*bare], 401),
        (vec!["MCP-Fleet-Node e30.AAAA"], 401),
        (vec![&*good, &*good], 401),
    ];
    let forged = token(&strangers, &own, later);
    let expired = token(&ours, &own, before);
    let aged = token(&ours, &own, later + Duration::from_secs(3600));
    let refused = refused.into_iter().chain([
        (vec![&*forged], 401),
        (vec![&*expired], 401),
        (vec![&*aged], 401),
    ]);
    let others = [
        token(&ours, "up", later),
        token(&ours, "up/up", later),
        token(&ours, &own.replace("/up", "/web"), later),
    ];
    let others = others.iter().map(|token| (vec![&**token], 410));
    for (authorization, expected) in refused.chain(others) {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let request = knock(method.clone(), "up", &authorization);
            let reply = wire::send(node.address, request).await;
            assert_eq!(reply.status, expected, "{method} {authorization:?}");
            assert!(reply.header("mcp-session-id").is_none());
        }
    }
    for elsewhere in ["web", "demo", "nothing", "", "up/", "up/x", "%75p"] {
        let audience = format!("{}/{elsewhere}", node.gateway.membership.me());
        let token = token(&ours, &audience, later);
        let request = knock(Method::POST, elsewhere, &[&token]);
        let reply = wire::send(node.address, request).await;
        assert_eq!(reply.status, 404, "{elsewhere:?}");
    }
    let reply = wire::send(node.address, knock(Method::POST, "up", &[&good])).await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("mcp-session-id").is_some());
}

/// Sends a request over TLS to a node whose certificate is that authority's.
async fn over_tls(node: &TestNode, authority: &Path, request: Request<Full<Bytes>>) -> Value {
    let client = certificates::client(Some(authority)).expect("a certificate");
    let stream = tokio::net::TcpStream::connect(node.address).await;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(client))
        .connect(name, stream.expect("a connection"))
        .await
        .expect("TLS");
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.expect("HTTP");
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("an answer");
    let body = response.into_body().collect().await.expect("a body");
    connection.abort();
    serde_json::from_slice(&body.to_bytes()).expect("JSON")
}

#[tokio::test]
async fn nodes_that_speak_tls_are_dialled_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let certificate = Certificate::make(directory.path());
    let redis = RedisServer::start();
    let setup = setup()
        .redis(&redis)
        .set("node.secret", &format!("{SECRET:?}"))
        .set("upstream.ca_file", &format!("{:?}", certificate.file));
    let (file, key) = (&certificate.file, &certificate.key);
    let tls = format!("{{ certificate = {file:?}, key = {key:?} }}");
    let a = setup.clone().named("a").set("node.tls", &tls);
    let (a, b) = (a.start().await, setup.named("b").start().await);
    // A session is one at every node; this one's process is at the first.
    let session = legacy("2025-11-25").open(&b).await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "pid", "arguments": {}}});
    let request = Request::post("/mcp/up")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-session-id", &session.id)
        .header("mcp-protocol-version", "2025-11-25")
        .body(Full::new(Bytes::from(call.to_string())));
    let answer = over_tls(&a, &certificate.file, request.expect("a request")).await;
    assert_eq!(answer["result"]["pid"], pid(&session).await);
}

/// A fleet of one node that can be killed and others, on a Redis that has long
/// patience with nodes that say nothing.
async fn with_one_to_kill(setup: Setup) -> (NodeProcess, [TestNode; 2], RedisServer) {
    let redis = RedisServer::start();
    let setup = setup
        .redis(&redis)
        .set("node.secret", &format!("{SECRET:?}"));
    let killed = NodeProcess::start(&setup.clone().named("a")).await;
    let others = [
        setup.clone().named("b").start().await,
        setup.named("c").start().await,
    ];
    (killed, others, redis)
}

#[tokio::test]
async fn a_session_ends_at_once_with_the_node_it_lived_on() {
    // The others do not hear for five minutes that the node is gone.
    let setup = setup().set("cluster.lease_ttl", "\"5m\"");
    let (mut a, [b, c], _redis) = with_one_to_kill(setup).await;
    let session = legacy("2025-11-25").open(&a).await;
    let met = legacy("2025-06-18").open(&a).await;
    let process = pid(&session).await;
    assert_eq!(pid(&met).await, pid(&met.through(&b)).await);
    a.kill();
    // One that the node has dealt with before, and one it has not.
    assert_eq!(status(&met.through(&b)).await, 404);
    assert_eq!(status(&session.through(&c)).await, 404);
    for (session, node) in [(&session, &b), (&met, &c)] {
        eventually("all nodes know", async || {
            status(&session.through(node)).await == 404
        })
        .await;
    }
    eventually("its process ends", async || !is_running(process)).await;
    for node in [&b, &c] {
        let new = legacy("2025-11-25").open(node).await;
        let process = pid(&new).await;
        assert_eq!(pid(&new.through(&b)).await, process);
        assert_eq!(pid(&new.through(&c)).await, process);
    }
}

#[tokio::test]
async fn a_node_that_has_left_is_not_asked() {
    // Whoever is asked there never answers: only the list of nodes helps.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let deaf = deaf.expect("a port");
    let address = deaf.local_addr().expect("an address");
    let redis = RedisServer::start();
    let setup = setup()
        .redis(&redis)
        .set("node.secret", &format!("{SECRET:?}"));
    let advertised = setup
        .clone()
        .set("node.advertise", &format!("\"{address}\""));
    let a = advertised.named("a").start().await;
    let b = setup.named("b").start().await;
    let session = legacy("2025-11-25").open(&a).await;
    pid(&session).await;
    let met = legacy("2025-11-25").open(&a).await;
    pid(&met).await;
    a.stop();
    a.stopped().await;
    eventually("the others hear that it left", async || {
        b.gateway.membership.view().count() == 1
    })
    .await;
    for session in [&session, &met] {
        assert_eq!(status(&session.through(&b)).await, 404);
    }
    drop(deaf);
}

#[tokio::test]
async fn of_all_servers_at_one_address_only_the_lost_one_begins_anew() {
    let (mut a, [b, _], _redis) = with_one_to_kill(setup()).await;
    let session = legacy("2025-11-25").at("/mcp").open(&a).await;
    let call = async |session: &Session| session.call("up__pid", json!({})).await;
    let before = call(&session).await.result()["pid"].clone();
    let there = session.through(&b);
    assert_eq!(call(&there).await.result()["pid"], before);
    a.kill();
    let lost = call(&there).await;
    assert_eq!(lost.status, 200);
    let message = lost.response["error"]["message"].as_str().expect("text");
    assert!(message.contains("begins anew"), "{message}");
    assert_ne!(call(&there).await.result()["pid"], before);
}

#[tokio::test]
async fn a_shared_process_serves_the_sessions_of_all_nodes_apart() {
    let command = json!(["python3", SCRIPT, "legacy"]);
    let setup = Setup::new().program_with("up", &command, "mode = \"shared\"");
    let cluster = TestCluster::pair(setup).await;
    let one = legacy("2025-11-25").open(cluster.a()).await;
    let two = legacy("2025-11-25").open(cluster.a()).await;
    let process = pid(&one).await;
    assert_eq!(pid(&two).await, process);
    assert_eq!(pid(&two.through(cluster.b())).await, process);
    assert_eq!(one.through(cluster.b()).delete().await, 204);
    assert_eq!(pid(&two.through(cluster.b())).await, process);
}
