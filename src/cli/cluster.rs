//! `status` and `nodes`: the fleet as a node sees it.

use crate::mcp::Raw;
use serde::Deserialize;

use super::{
    Failure, NodeArgs, Output,
    client::Node,
    output::{short, table},
    views::print,
};

/// Duties named in a table; the rest is counted.
const SHOWN_DUTIES: usize = 3;

pub(super) async fn status(args: NodeArgs) -> Result<(), Failure> {
    let raw = Node::at(&args.node)?.get("/api/cluster").await?;
    print(&args, &raw, status_table)
}

pub(super) async fn nodes(args: NodeArgs) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Nodes<'a> {
        #[serde(borrow)]
        nodes: &'a Raw,
    }
    let raw = Node::at(&args.node)?.get("/api/cluster").await?;
    let parsed: Result<Nodes<'_>, _> = serde_json::from_str(raw.get());
    match (args.output, parsed) {
        (Output::Json | Output::Yaml, Ok(cluster)) => print(&args, cluster.nodes, nodes_table),
        (Output::Table, _) | (_, Err(_)) => print(&args, &raw, nodes_table),
    }
}

/// `/api/cluster`, as far as tables show it.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Cluster {
    pub(super) nodes: Vec<ClusterNode>,
    last_known: bool,
    store: Store,
    servers: Option<u64>,
    replicas: Option<Replicas>,
    sessions: Option<u64>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct ClusterNode {
    pub(super) id: String,
    version: String,
    uptime_s: Option<f64>,
    pub(super) uptime_ms: Option<u64>,
    listen: String,
    pub(super) requests: u64,
    pub(super) answered: Option<u64>,
    pub(super) connections: u64,
    pub(super) streams: u64,
    duties: Vec<String>,
    pub(super) duty_count: u64,
    draining: bool,
    age_ms: u64,
    #[serde(rename = "self")]
    is_self: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Store {
    kind: String,
    reachable: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Replicas {
    count: u64,
    unhealthy: Vec<String>,
}

impl Cluster {
    pub(super) fn parse(raw: &Raw) -> Result<Self, serde_json::Error> {
        serde_json::from_str(raw.get())
    }

    /// What all share, in a line.
    pub(super) fn summary(&self) -> String {
        let reachable = if self.store.reachable {
            "reachable"
        } else {
            "not reachable: lists may be stale, nothing is shared"
        };
        let mut text = format!("store {} ({reachable})", self.store.kind);
        let replicas = self.replicas.as_ref().map(|replicas| replicas.count);
        let nodes = u64::try_from(self.nodes.len()).ok();
        for (count, what) in [
            (self.servers, "servers"),
            (replicas, "replicas"),
            (nodes.filter(|count| *count > 0), "nodes"),
            (self.sessions, "sessions"),
        ] {
            if let Some(count) = count {
                text.push_str(&format!(", {what}: {count}"));
            }
        }
        text
    }

    fn remarks(&self) -> String {
        let mut text = String::new();
        if self.last_known {
            text.push_str("\nother nodes are shown as they were last heard of\n");
        }
        let unhealthy = self.replicas.as_ref().map(|replicas| &replicas.unhealthy);
        for replica in unhealthy.into_iter().flatten() {
            text.push_str(&format!("\nunhealthy: {replica}"));
        }
        text
    }
}

fn status_table(raw: &Raw) -> Result<String, serde_json::Error> {
    let cluster = Cluster::parse(raw)?;
    let rows: Vec<_> = cluster.nodes.iter().map(ClusterNode::status_row).collect();
    let nodes = table(&["NODE", "LISTENS ON", "VERSION", "UP", ""], &rows);
    let (summary, remarks) = (cluster.summary(), cluster.remarks());
    Ok(format!("{summary}\n\n{nodes}{remarks}"))
}

fn nodes_table(raw: &Raw) -> Result<String, serde_json::Error> {
    let cluster = Cluster::parse(raw)?;
    let titles = ["NODE", "LISTENS ON", "VERSION", "UP", "LOAD", "DUTIES", ""];
    let rows: Vec<_> = cluster.nodes.iter().map(ClusterNode::row).collect();
    Ok(table(&titles, &rows) + &cluster.remarks())
}

impl ClusterNode {
    fn status_row(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.listen.clone(),
            self.version.clone(),
            self.uptime_s.map_or_else(|| "-".to_owned(), uptime),
            self.mark(),
        ]
    }

    fn row(&self) -> Vec<String> {
        let mut row = self.status_row();
        let mark = row.pop().unwrap_or_default();
        row.push(format!(
            "{} requests, {} connections, {} streams",
            self.requests, self.connections, self.streams
        ));
        row.push(self.duties());
        row.push(mark);
        row
    }

    fn duties(&self) -> String {
        let shown: Vec<_> = self.duties.iter().take(SHOWN_DUTIES).cloned().collect();
        if shown.is_empty() {
            return self.duty_count.to_string();
        }
        let count = self.duties.len();
        let more = if count > shown.len() { ", ..." } else { "" };
        short(&format!("{count}: {}{more}", shown.join(", ")), 80)
    }

    fn mark(&self) -> String {
        let mut marks = Vec::new();
        if self.is_self {
            marks.push("answers".to_owned());
        }
        if self.draining {
            marks.push("draining".to_owned());
        }
        // Nodes beat every few seconds: what is older is worth a word.
        if self.age_ms >= 5000 {
            marks.push(format!("silent for {}s", self.age_ms / 1000));
        }
        marks.join(", ")
    }
}

fn uptime(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a display of whole seconds"
    )]
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(view: fn(&Raw) -> Result<String, serde_json::Error>, json: &str) -> String {
        view(serde_json::from_str(json).expect("JSON")).expect("a table")
    }

    #[test]
    fn status_shows_store_and_nodes() {
        let text = shown(
            status_table,
            r#"{"nodes":[{"id":"node-1","version":"0.1.0","uptime_s":3725,"listen":"127.0.0.1:8080","self":true,"new":1}],
                "store":{"kind":"embedded","reachable":true},"servers":2,"replicas":{"count":3,"unhealthy":["a/0123"]}}"#,
        );
        assert!(
            text.starts_with("store embedded (reachable), servers: 2, replicas: 3, nodes: 1\n"),
            "{text}"
        );
        assert!(
            text.contains("node-1  127.0.0.1:8080  0.1.0    1h2m  answers"),
            "{text}"
        );
        assert!(text.ends_with("unhealthy: a/0123"), "{text}");
        assert!(shown(status_table, "{}").contains("not reachable"));
    }

    #[test]
    fn nodes_are_shown_with_load_and_duties() {
        let text = shown(
            nodes_table,
            r#"{"last_known":true,"nodes":[
                {"id":"a","uptime_s":5,"requests":1,"connections":2,"streams":3,"self":true,
                 "duties":["probe x/1","probe x/2","watch x","watch y"],"duty_count":4},
                {"id":"b","uptime_s":5,"duty_count":7,"draining":true,"age_ms":6100}]}"#,
        );
        for expected in [
            "1 requests, 2 connections, 3 streams  4: probe x/1, probe x/2, watch x, ...  answers\n",
            "7  ",
            "draining, silent for 6s\n",
            "as they were last heard of",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
