//! Replicas that fail in every way: the fleet knows what happened, and nobody else is harmed.

use std::time::Duration;

use mcp_fleet::{
    health::{Record, State},
    upstream::Stage,
};
use serde_json::json;

use crate::support::{
    eventually,
    fake_server::{FakeServer, Speaks},
    load::Load,
    node::{Setup, TestCluster, TestNode},
    raw_server::{RawServer, Reply, Step},
};

/// What a server does to every request, and what a probe makes of it.
struct Trouble {
    name: &'static str,
    server: RawServer,
    /// `None`: it lives.
    found: Option<(Stage, &'static str)>,
}

async fn trouble(
    name: &'static str,
    found: Option<(Stage, &'static str)>,
    answer: impl Fn() -> Reply + Send + Sync + 'static,
) -> Trouble {
    let server = RawServer::start(move |_| answer()).await;
    Trouble {
        name,
        server,
        found,
    }
}

async fn troubles() -> Vec<Trouble> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let bad = |stage, message| Some((stage, message));
    let json = "application/json";
    vec![
        trouble(
            "silent",
            bad(Stage::Answer, "no answer before the deadline"),
            Reply::hang,
        )
        .await,
        trouble(
            "stalling",
            bad(Stage::Answer, "no answer before the deadline"),
            move || Reply::raw(head).then(Step::Hang),
        )
        .await,
        trouble("closing", bad(Stage::Answer, "closed"), Reply::close).await,
        trouble("failing", bad(Stage::Status, "500"), || Reply::status(500)).await,
        trouble("missing", bad(Stage::Status, "404"), || Reply::status(404)).await,
        trouble("garbled", bad(Stage::Protocol, ""), move || {
            Reply::full(200, &[("content-type", json)], "<html>no</html>")
        })
        .await,
        trouble("guarded", None, || Reply::status(401)).await,
        trouble("forbidden", None, || Reply::status(403)).await,
        trouble("other", None, || Reply::status(405)).await,
    ]
}

fn record(node: &TestNode, server: &str) -> Option<Record> {
    let server = node.gateway.servers.get(server).expect("configured");
    node.gateway.health.record(&server.replicas[0].id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_knows_how_a_replica_fails_and_the_others_go_on() {
    let good = FakeServer::start(Speaks::Modern).await;
    let troubles = troubles().await;
    let refusing = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let nowhere = format!("http://{}/mcp", refusing.local_addr().expect("bound"));
    drop(refusing);
    let setup = troubles
        .iter()
        .fold(Setup::up(&good), |setup, trouble| {
            setup.server_with(trouble.name, &trouble.server.url("/mcp"), "1s")
        })
        .server_with("refusing", &nowhere, "1s")
        .set("health.probe", "true")
        .set("health.interval", "\"2s\"")
        .set("health.timeout", "\"2s\"")
        .set("health.unhealthy_after", "2")
        .set("cluster.lease_ttl", "\"3s\"");
    let cluster = TestCluster::pair(setup).await;
    let load = Load::on(&[cluster.a().address, cluster.b().address]).await;

    let refused = Some((Stage::Connect, "refused"));
    let expected = troubles
        .iter()
        .map(|trouble| (trouble.name, trouble.found))
        .chain([("refusing", refused), ("up", None)]);
    for (name, found) in expected {
        for node in &cluster.nodes {
            let wanted = match found {
                Some(_) => State::Unhealthy,
                None => State::Healthy,
            };
            eventually(&format!("{name} is {wanted:?}"), async || {
                record(node, name).is_some_and(|record| record.tally.state == wanted)
            })
            .await;
            let failure = record(node, name).and_then(|record| record.failure);
            let told = failure.as_ref().map(|failure| failure.stage);
            assert_eq!(told, found.map(|(stage, _)| stage), "{name}: {failure:?}");
            if let (Some(failure), Some((_, message))) = (failure, found) {
                println!("{name}: {}: {}", failure.stage.as_str(), failure.message);
                assert!(failure.message.contains(message), "{name}: {failure:?}");
            }
        }
    }
    // Calls to those that hang, beside the others.
    let stuck: Vec<_> = ["silent", "stalling"]
        .into_iter()
        .map(|name| {
            let call = crate::support::client::call("echo", json!({}));
            let (call, node) = (call.at(&format!("/mcp/{name}")), cluster.a().address);
            tokio::spawn(async move { call.open_at(node).await.answered().await })
        })
        .collect();
    load.flows().await;
    for one in stuck {
        let answered = crate::support::wire::within("an answer", one).await;
        assert!(answered.expect("no panic").response["error"].is_object());
    }
    let report = load.ends().await;
    report.nobody_failed();
    assert!(
        report.longest < Duration::from_secs(10),
        "{:?}",
        report.longest
    );
}
