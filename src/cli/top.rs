//! `top`: the load of nodes and replicas, look after look.

use std::{
    collections::HashMap,
    io::{IsTerminal as _, stdout},
};

use crate::mcp::Raw;
use serde::Deserialize;

use super::{
    Failure, Output, TopArgs,
    client::Node,
    cluster::{Cluster, ClusterNode},
    output::{document, short, table},
    say,
    views::state,
};

/// Puts the cursor home and clears what is there.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) async fn top(args: TopArgs) -> Result<(), Failure> {
    let node = Node::at(&args.node.node)?;
    let refreshes = args.node.output == Output::Table && stdout().is_terminal();
    let looks = args
        .iterations
        .unwrap_or(if refreshes { u64::MAX } else { 1 });
    let mut rates = Rates::default();
    for look in 0..looks {
        if look > 0 {
            tokio::time::sleep(args.interval).await;
        }
        let cluster = node.get("/api/cluster").await?;
        let servers = node.get("/api/servers").await?;
        let both = format!(
            r#"{{"cluster":{},"servers":{}}}"#,
            cluster.get(),
            servers.get()
        );
        let both: Box<Raw> = serde_json::from_str(&both).map_err(not_understood)?;
        let text = match document(args.node.output, &both)? {
            Some(text) => text,
            None => page(&cluster, &servers, &mut rates).map_err(not_understood)?,
        };
        let clear = if refreshes { CLEAR } else { "" };
        say(&format!("{clear}{text}"));
    }
    Ok(())
}

fn not_understood(error: serde_json::Error) -> Failure {
    Failure::Failed(format!(
        "the node's answer is not understood ({error}); try --output json"
    ))
}

/// Requests per second of each node, from what it had answered when it last
/// told: nodes tell every few seconds, whatever the pause between two looks.
#[derive(Debug, Default)]
struct Rates(HashMap<String, Sample>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    answered: u64,
    uptime_ms: u64,
    per_second: Option<f64>,
}

impl Rates {
    fn rate(&mut self, node: &ClusterNode) -> Option<f64> {
        let (answered, uptime_ms) = (node.answered?, node.uptime_ms?);
        let before = self.0.get(&node.id).copied();
        // A node that was restarted counts from zero.
        let before = before.filter(|before| before.uptime_ms <= uptime_ms);
        let per_second = before.and_then(|before| {
            let millis = uptime_ms - before.uptime_ms;
            if millis == 0 {
                return before.per_second;
            }
            #[expect(clippy::cast_precision_loss, reason = "for display")]
            let rate = answered.saturating_sub(before.answered) as f64 * 1000.0 / millis as f64;
            Some(rate)
        });
        let sample = Sample {
            answered,
            uptime_ms,
            per_second,
        };
        self.0.insert(node.id.clone(), sample);
        per_second
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Server {
    name: String,
    replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Replica {
    endpoint: String,
    healthy: Option<bool>,
    in_flight: u64,
}

fn page(cluster: &Raw, servers: &Raw, rates: &mut Rates) -> Result<String, serde_json::Error> {
    let cluster = Cluster::parse(cluster)?;
    let servers: Vec<Server> = serde_json::from_str(servers.get())?;
    let nodes: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| {
            let rate = rates.rate(node);
            vec![
                node.id.clone(),
                rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
                node.requests.to_string(),
                node.connections.to_string(),
                node.streams.to_string(),
                node.duty_count.to_string(),
            ]
        })
        .collect();
    let replicas: Vec<_> = servers
        .iter()
        .flat_map(|server| server.replicas.iter().map(move |replica| (server, replica)))
        .map(|(server, replica)| {
            vec![
                server.name.clone(),
                short(&replica.endpoint, 60),
                state(replica.healthy).to_owned(),
                replica.in_flight.to_string(),
            ]
        })
        .collect();
    let titles = [
        "NODE",
        "REQUESTS/S",
        "IN WORK",
        "CONNECTIONS",
        "STREAMS",
        "DUTIES",
    ];
    Ok(format!(
        "{}\n\n{}\n{}",
        cluster.summary(),
        table(&titles, &nodes),
        table(&["SERVER", "REPLICA", "STATE", "IN FLIGHT"], &replicas)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(answered: u64, uptime_ms: u64) -> ClusterNode {
        let json = format!(r#"{{"id":"a","answered":{answered},"uptime_ms":{uptime_ms}}}"#);
        serde_json::from_str(&json).expect("a node")
    }

    #[test]
    fn rates_come_from_what_nodes_tell() {
        let mut rates = Rates::default();
        assert_eq!(rates.rate(&node(100, 1000)), None);
        assert_eq!(rates.rate(&node(150, 1500)), Some(100.0));
        // It has not told anything new.
        assert_eq!(rates.rate(&node(150, 1500)), Some(100.0));
        assert_eq!(rates.rate(&node(150, 2500)), Some(0.0));
        // It was restarted.
        assert_eq!(rates.rate(&node(5, 100)), None);
        assert_eq!(rates.rate(&ClusterNode::default()), None);
    }

    #[test]
    fn a_page_has_nodes_and_replicas() {
        let raw = |text: &str| -> Box<Raw> { serde_json::from_str(text).expect("JSON") };
        let cluster = raw(
            r#"{"nodes":[{"id":"a","requests":2,"duty_count":3}],"store":{"kind":"redis","reachable":true}}"#,
        );
        let servers = raw(
            r#"[{"name":"up","replicas":[{"endpoint":"http://x/","healthy":false,"in_flight":4}]}]"#,
        );
        let text = page(&cluster, &servers, &mut Rates::default()).expect("a page");
        assert!(
            text.starts_with("store redis (reachable), nodes: 1\n"),
            "{text}"
        );
        assert!(
            text.contains("  a     -           2        0            0        3\n"),
            "{text}"
        );
        assert!(
            text.contains("  up      http://x/  unhealthy  4\n"),
            "{text}"
        );
    }
}
