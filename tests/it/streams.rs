//! When an answer becomes a stream, and what becomes of calls whose client
//! does not read or finds no place for a stream.

use std::time::Duration;

use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    client::{Modern, call},
    eventually,
    fake_server::{
        Contents, FakeServer, SESSIONS, Speaks,
        call::{Call, Outcome},
        scripts,
    },
    legacy_client::{Legacy, legacy},
    node::{Setup, TestNode},
    proxy::{Proxy, Road},
    redis::RedisServer,
};

const BOTH: [Speaks; 2] = [Speaks::Modern, SESSIONS];

fn able() -> Legacy {
    legacy("2025-11-25").capabilities(json!({"elicitation": {"form": {}}}))
}

fn asks() -> Modern {
    call("ask", json!({})).capabilities(json!({"elicitation": {"form": {}}}))
}

async fn scripted<F>(
    speaks: Speaks,
    script: impl Fn(Call) -> F + Send + Sync + 'static,
) -> FakeServer
where
    F: Future<Output = Outcome> + Send + 'static,
{
    FakeServer::with(speaks, Contents::default(), script).await
}

/// A node that soon makes a stream of what takes long.
async fn impatient(server: &FakeServer) -> TestNode {
    let setup = Setup::up(server).set("node.keep_alive", "\"1s\"");
    setup.start().await
}

#[tokio::test]
async fn a_call_that_takes_long_is_a_stream_before_its_server_says_anything() {
    for speaks in BOTH {
        let server = scripted(speaks, |call| async move {
            call.gate("go").await;
            Outcome::text("done")
        })
        .await;
        let node = impatient(&server).await;
        let modern = call("echo", json!({})).open(&node).await;
        assert!(modern.is_stream(), "{speaks:?}");
        let session = legacy("2025-11-25").open(&node).await;
        let params = json!({"name": "echo"});
        let legacy = session.open(json!(1), "tools/call", params).await;
        assert!(legacy.is_stream(), "{speaks:?}");
        server.open_gate("go");
        for stream in [modern, legacy] {
            let text = stream.answered().await.result()["content"][0]["text"].clone();
            assert_eq!(text, "done", "{speaks:?}");
        }
    }
}

#[tokio::test]
async fn a_late_failure_is_told_on_the_stream() {
    let server = scripted(Speaks::Modern, |call| async move {
        call.gate("go").await;
        Outcome::Http(500, "broken".to_owned())
    })
    .await;
    let node = impatient(&server).await;
    let stream = call("echo", json!({})).id(json!("x")).open(&node).await;
    assert!(stream.is_stream());
    server.open_gate("go");
    let answered = stream.answered().await;
    assert_eq!(answered.refusal(), (200, -32603));
    assert_eq!(answered.response["id"], "x");
}

#[tokio::test]
async fn a_question_that_is_being_parked_survives_the_beginning_of_the_stream() {
    let redis = RedisServer::start();
    let road = Proxy::before(redis.port()).await;
    let server = scripted(SESSIONS, |call| async move {
        if call.name() == "ask" {
            call.gate("ask").await;
        }
        scripts::standard(call).await
    })
    .await;
    let setup = Setup::up(&server).redis_at(road.address);
    let node = setup.set("node.keep_alive", "\"1s\"").start().await;
    // The pooled session exists from here on.
    let warm = call("echo", json!({})).capabilities(json!({"elicitation": {"form": {}}}));
    warm.result(&node).await;
    let request = asks();
    let (reply, ()) = tokio::join!(request.open(&node), async {
        server.wait_for("tools/call", 2).await;
        road.set(Road::Held);
        server.open_gate("ask");
    });
    assert!(reply.is_stream());
    road.set(Road::Open);
    let answered = reply.answered().await;
    assert_eq!(answered.result()["resultType"], "input_required");
}

#[tokio::test]
async fn without_a_place_for_a_stream_the_answer_alone_is_sent() {
    for speaks in BOTH {
        let server = scripted(speaks, |call| async move {
            call.progress(1.0);
            if call.name() == "wait" {
                call.gate("go").await;
            }
            Outcome::text("done")
        })
        .await;
        let setup = Setup::up(&server).set("limits.streams", "1");
        let node = setup.set("node.keep_alive", "\"1s\"").start().await;
        let session = legacy("2025-11-25").open(&node).await;
        let _only = session.stream().await;
        for tool in ["echo", "wait"] {
            let modern = call(tool, json!({})).meta("progressToken", json!("t"));
            let params = json!({"name": tool, "_meta": {"progressToken": "t"}});
            let (modern, legacy, ()) = tokio::join!(
                modern.open(&node),
                session.open(json!(1), "tools/call", params),
                // The beginning of an answer that took longer than `keep_alive`.
                async {
                    if tool == "wait" {
                        server.wait_for("tools/call", 4).await;
                        tokio::time::sleep(Duration::from_millis(1100)).await;
                        server.open_gate("go");
                    }
                }
            );
            for reply in [modern, legacy] {
                assert!(!reply.is_stream(), "{speaks:?} {tool}");
                let answered = reply.answered().await;
                assert_eq!(answered.status, 200, "{speaks:?} {tool}");
                assert_eq!(answered.response["id"], 1);
                assert_eq!(answered.result()["content"][0]["text"], "done");
            }
        }
        // Nothing was given up and sent again.
        assert_eq!(server.seen("tools/call").len(), 4, "{speaks:?}");
    }
}

#[tokio::test]
async fn a_question_without_a_place_for_a_stream_is_declined() {
    for speaks in BOTH {
        let server = FakeServer::start(speaks).await;
        let setup = Setup::up(&server).set("limits.streams", "1");
        let node = setup.start().await;
        let session = able().open(&node).await;
        let _only = session.stream().await;
        let answered = session.call("ask", json!({})).await;
        assert_eq!(answered.status, 200, "{speaks:?}");
        let text = &answered.result()["content"][0]["text"];
        let text = text.as_str().expect("text");
        assert!(text.starts_with("nobody"), "{speaks:?}: {text}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_keeps_no_place_at_the_server() {
    for speaks in BOTH {
        for is_modern in [true, false] {
            let server = scripted(speaks, |call| async move {
                if call.name() == "echo" {
                    return Outcome::text("done");
                }
                // More than lies between the server and the client.
                let much = "x".repeat(256 * 1024);
                let token = call.token();
                for step in 0..200 {
                    call.say(format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{step},"message":"{much}"}}}}"#
                    ));
                }
                call.gone().await;
                Outcome::Silence
            })
            .await;
            let keys = "max_in_flight = 1\nqueue_timeout = \"1s\"";
            let setup = Setup::new().replicas("up", &[server.url()], keys);
            let node = setup.set("limits.call", "\"3s\"").start().await;
            let params = json!({"name": "report", "_meta": {"progressToken": "t"}});
            let unread = if is_modern {
                let request = call("report", json!({})).meta("progressToken", json!("t"));
                request.open(&node).await
            } else {
                let session = legacy("2025-11-25").open(&node).await;
                session.open(json!(1), "tools/call", params).await
            };
            if !unread.is_stream() {
                panic!("{speaks:?} {is_modern}: {}", unread.text().await);
            }
            eventually("a place for another call", async || {
                let other = call("echo", json!({})).send(&node).await;
                other.response.get("result").is_some()
            })
            .await;
        }
    }
}

#[tokio::test]
async fn progress_leaves_an_open_question_its_time() {
    let server = scripted(SESSIONS, |call| async move {
        let progress = async {
            call.gate("asked").await;
            call.progress(1.0);
        };
        let question = scripts::question();
        tokio::join!(call.ask("elicitation/create", question), progress);
        Outcome::text("done")
    })
    .await;
    let setup = Setup::new().server_with("up", &server.url(), "2s");
    let node = setup.start().await;
    let session = able().open(&node).await;
    let params = json!({"name": "echo", "_meta": {"progressToken": "t"}});
    let mut stream = session.open(json!(1), "tools/call", params).await;
    let asked = stream.message().await;
    server.open_gate("asked");
    assert_eq!(stream.message().await["method"], "notifications/progress");
    // Longer than a server may be silent.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let answer = json!({"action": "cancel"});
    assert_eq!(session.respond(&asked["id"], answer).await, 202);
    stream.answered().await.result();
}

#[tokio::test]
async fn a_question_that_is_taken_back_is_named_as_the_client_knows_it() {
    let server = scripted(SESSIONS, |call| async move {
        let question = json!({
            "jsonrpc": "2.0", "id": "own", "method": "elicitation/create",
            "params": scripts::question(),
        });
        call.say(question.to_string());
        let cancelled = "notifications/cancelled";
        call.notify(cancelled, json!({"requestId": "strange"}));
        call.notify(cancelled, json!({"requestId": "own", "reason": "late"}));
        call.gate("told").await;
        Outcome::text("done")
    })
    .await;
    let node = Setup::up(&server).start().await;
    let session = able().open(&node).await;
    let params = json!({"name": "echo"});
    let mut stream = session.open(json!(1), "tools/call", params).await;
    let asked = stream.message().await;
    let told = stream.message().await;
    assert_eq!(told["method"], "notifications/cancelled");
    let params = json!({"requestId": asked["id"], "reason": "late"});
    assert_eq!(told["params"], params);
    // An answer that was on its way is for nobody.
    session
        .respond(&asked["id"], json!({"action": "cancel"}))
        .await;
    server.open_gate("told");
    let rest = stream.answered().await;
    assert_eq!(rest.messages, Vec::<serde_json::Value>::new());
    rest.result();
    assert!(server.seen("response").is_empty());
}

#[tokio::test]
async fn an_answer_from_another_node_arrives_while_progress_does() {
    let redis = RedisServer::start();
    let road = Proxy::before(redis.port()).await;
    let server = scripted(SESSIONS, |call| async move {
        let asking = call.ask("elicitation/create", scripts::question());
        tokio::pin!(asking);
        let mut steps = 0.0;
        loop {
            tokio::select! {
                _ = &mut asking => return Outcome::text("done"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
            steps += 1.0;
            call.progress(steps);
        }
    })
    .await;
    let secret = "\"the same at every node of this test\"";
    let setup = Setup::up(&server).set("node.secret", secret);
    let near = setup.clone().redis(&redis).start().await;
    let far = setup.redis_at(road.address).start().await;
    let session = able().open(&far).await;
    let params = json!({"name": "echo", "_meta": {"progressToken": "t"}});
    let mut stream = session.open(json!(1), "tools/call", params).await;
    let asked = stream.message().await;
    road.set(Road::Slow(Duration::from_millis(20)));
    let there = session.through(&near);
    let answer = json!({"action": "cancel"});
    assert_eq!(there.respond(&asked["id"], answer).await, 202);
    server.wait_for("response", 1).await;
    road.set(Road::Open);
    stream.answered().await.result();
}

#[tokio::test]
async fn a_client_that_leaves_while_its_stream_is_opened_leaves_nothing_behind() {
    let redis = RedisServer::start();
    let road = Proxy::before(redis.port()).await;
    let server = FakeServer::start(SESSIONS).await;
    let node = Setup::up(&server).redis_at(road.address).start().await;
    eventually("the node reaches redis", async || {
        node.gateway.store.is_reachable()
    })
    .await;
    let is_open = || redis.cli(&["keys", "*mailbox*"]).contains("mailbox");
    road.set(Road::Slow(Duration::from_millis(200)));
    let mut client = TcpStream::connect(node.address).await.expect("connected");
    let request = "GET /sse/up HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
    client.write_all(request.as_bytes()).await.expect("sent");
    // The node does not know yet that its mailbox is there.
    eventually("a mailbox", async || is_open()).await;
    drop(client);
    road.set(Road::Open);
    eventually("no mailbox", async || !is_open()).await;
}
