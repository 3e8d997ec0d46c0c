//! Nobody's misbehaviour harms anybody else: large messages, clients that do
//! not read, servers that lie, shout or never finish a line.

use http::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{
    bridge::{Bridge, Caller, Setup, tool_call},
    wire,
};

const LARGE: usize = 15 << 20;
const MIDDLE: usize = 300 << 10;

/// A text that shows when bytes are mixed up.
fn text(client: usize, length: usize) -> String {
    let word = format!("[{client}:{length}]");
    word.repeat(length / word.len() + 1)[..length].to_owned()
}

#[tokio::test]
async fn large_messages_of_four_nodes_arrive_whole_and_small_ones_pass_between() {
    let bridge = Setup::scripted("legacy").start().await;
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let node = bridge.session(&format!("node-{client}"), json!({})).await;
        clients.spawn(async move {
            for length in [MIDDLE, LARGE, MIDDLE, MIDDLE] {
                let sent = text(client, length);
                let back = node.text("echo", json!({"text": sent})).await;
                assert!(back == sent, "{client} {length}: {} bytes", back.len());
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test]
async fn one_node_with_much_to_say_does_not_keep_the_others_waiting() {
    let bridge = Setup::scripted("legacy").start().await;
    let busy = bridge.session("busy", json!({})).await;
    let other = bridge.session("other", json!({})).await;
    let mut large = JoinSet::new();
    for n in 0..4 {
        let busy = busy.clone();
        let body = tool_call(n, "echo", json!({"text": text(n, LARGE)})).to_string();
        large.spawn(async move { busy.post(body).await.answered().await });
    }
    let sent = text(9, MIDDLE);
    assert!(other.text("echo", json!({"text": sent})).await == sent);
    // It waited for those that were on their way already, not for all.
    let mut done = 0;
    while large.try_join_next().is_some() {
        done += 1;
    }
    assert!(done < 4, "all large messages went first");
    for answered in large.join_all().await {
        assert_eq!(answered.status, 200);
    }
}

/// Sends a request and never reads the answer.
async fn deaf(bridge: &Bridge, caller: &Caller, body: String) -> TcpStream {
    let mut stream = TcpStream::connect(bridge.address).await.expect("connected");
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: b\r\nauthorization: {}\r\nmcp-session-id: {}\r\n\
         content-length: {}\r\n\r\n",
        caller.authorization,
        caller.session.as_deref().expect("a session"),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn a_node_that_stops_reading_is_cut_and_stalls_nobody() {
    let bridge = Setup::scripted("legacy").start().await;
    let stalled = bridge.session("stalled", json!({})).await;
    let other = bridge.session("other", json!({})).await;
    let mut call = tool_call(1, "progress", json!({"steps": 2000, "bytes": 100_000}));
    call["params"]["_meta"] = json!({"progressToken": "p"});
    let mut unread = deaf(&bridge, &stalled, call.to_string()).await;
    let mut answers = Vec::new();
    for n in 0..8 {
        let call = tool_call(10 + n, "size", json!({"bytes": LARGE}));
        answers.push(deaf(&bridge, &stalled, call.to_string()).await);
    }
    for _ in 0..20 {
        assert_eq!(other.text("echo", json!({"text": "on"})).await, "on");
    }
    // Whoever reads after all finds out that it missed something.
    let mut all = Vec::new();
    let reading = async {
        let mut chunk = vec![0; 1 << 16];
        while !String::from_utf8_lossy(&all[all.len().saturating_sub(400)..]).contains("was cut") {
            let read = unread.read(&mut chunk).await.expect("readable");
            assert!(read > 0, "it ended without a word");
            all.extend_from_slice(&chunk[..read]);
        }
    };
    wire::within("the stream's end", reading).await;
    assert!(all.len() < 100 << 20, "it was not bounded: {}", all.len());
    drop(answers);
    assert_eq!(stalled.text("echo", json!({"text": "back"})).await, "back");
}

#[tokio::test]
async fn answers_to_nothing_are_dropped() {
    let bridge = Setup::scripted("legacy").start().await;
    let node = bridge.session("a", json!({})).await;
    let mut open = node.open(&tool_call(5, "slow", json!({"name": "x"}))).await;
    open.message().await;
    let answered = node.call("forge", json!({})).await;
    assert_eq!(answered.result()["content"][0]["text"], "genuine");
    assert!(answered.messages.is_empty());
    node.call("release", json!({"name": "x"})).await.result();
    let rest = open.answered().await;
    assert_eq!(rest.result()["content"][0]["text"], "released");
}

#[tokio::test]
async fn an_endless_line_ends_that_process_and_no_other() {
    let setup = Setup::scripted("legacy").with(&["--mode", "per-session", "--max-line", "1MiB"]);
    let bridge = setup.start().await;
    let good = bridge.session("a", json!({})).await;
    let bad = bridge.session("b", json!({})).await;
    let mut open = good.open(&tool_call(1, "slow", json!({"name": "x"}))).await;
    open.message().await;
    let before = bad.pid().await;
    let failed = bad.call("endless", json!({})).await;
    let message = failed.response["error"]["message"].as_str().expect("text");
    assert!(message.contains("more than 1048576 bytes"), "{message}");
    let release = json!({"name": "x"});
    assert_eq!(good.text("release", release).await, "done");
    open.answered().await.result();
    // The session is still good.
    assert_ne!(bad.pid().await, before);
    // The other direction has the same bound.
    let large = tool_call(2, "echo", json!({"text": text(0, 2 << 20)}));
    assert_eq!(good.send(&large).await.refusal(), (413, -32600));
}

#[tokio::test]
async fn a_flood_costs_the_server_itself_most() {
    let setup = Setup::scripted("legacy").with(&["--mode", "per-session"]);
    let bridge = setup.start().await;
    let loud = bridge.session("a", json!({})).await;
    let quiet = bridge.session("b", json!({})).await;
    let mut flood = loud.open(&tool_call(1, "slow", json!({"name": "x"}))).await;
    flood.message().await;
    let flooding = loud.call("flood", json!({"lines": 20_000}));
    let calling = async {
        for _ in 0..20 {
            assert_eq!(quiet.text("echo", json!({"text": "on"})).await, "on");
        }
    };
    let (flooded, ()) = tokio::join!(flooding, calling);
    assert_eq!(flooded.result()["content"][0]["text"], "done");
    // Its stderr goes to the container's log, in bearable amounts.
    loud.text("noise", json!({"lines": 20_000})).await;
    crate::support::eventually("the last words are there", async || {
        loud.text("noise", json!({"lines": 1})).await;
        bridge.lines().iter().any(|line| line.contains("left out"))
    })
    .await;
    let noise = bridge.lines();
    let noise = noise.iter().filter(|line| line.starts_with("noise"));
    assert!(noise.count() < 10_000);
}

#[tokio::test]
async fn a_node_may_have_only_so_many_requests_open() {
    let bridge = Setup::scripted("legacy").start().await;
    let greedy = bridge.session("greedy", json!({})).await;
    let other = bridge.session("other", json!({})).await;
    let mut open = JoinSet::new();
    for n in 0..600 {
        let caller = greedy.clone();
        // The response's head comes with the first message, that is: never.
        open.spawn(async move {
            let call = tool_call(n, "slow", json!({"name": n}));
            let request = caller.request(Method::POST, call.to_string());
            wire::try_send(caller.address, request).await
        });
    }
    let refused = loop {
        let reply = wire::within("a refusal", open.join_next()).await;
        let reply = reply.expect("some are open").expect("no panic");
        let reply = reply.expect("an answer");
        if !reply.is_stream() {
            break reply;
        }
    };
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(other.text("echo", json!({"text": "on"})).await, "on");
}
