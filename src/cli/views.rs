//! `status`, `servers` and `tools`: what a node tells, as tables.
//!
//! Fields that are missing or new are no reason to fail: nodes and command
//! lines of different versions talk to each other.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Failure, NodeArgs, ToolsArgs,
    client::Node,
    output::{document, short, table},
    say,
};
use crate::ids::ServerId;

pub(super) async fn status(args: NodeArgs) -> Result<(), Failure> {
    let raw = Node::at(&args.node)?.get("/api/cluster").await?;
    print(&args, &raw, cluster_table)
}

pub(super) async fn servers(args: NodeArgs) -> Result<(), Failure> {
    let raw = Node::at(&args.node)?.get("/api/servers").await?;
    print(&args, &raw, servers_table)
}

pub(super) async fn tools(args: ToolsArgs) -> Result<(), Failure> {
    let server = server_in_path(&args.server)?;
    let path = format!("/mcp/{server}/tools/list");
    let raw = Node::at(&args.node.node)?.get(&path).await?;
    print(&args.node, &raw, tools_table)
}

/// A server's name as a path segment; `*` stands for all.
pub(super) fn server_in_path(name: &str) -> Result<&str, Failure> {
    match ServerId::try_from(name) {
        _ if name == "*" => Ok(name),
        Ok(_) => Ok(name),
        Err(error) => Err(Failure::Usage(error.to_string())),
    }
}

fn print(
    args: &NodeArgs,
    raw: &RawValue,
    table: fn(&RawValue) -> Result<String, serde_json::Error>,
) -> Result<(), Failure> {
    let text = match document(args.output, raw)? {
        Some(text) => text,
        None => table(raw).map_err(|error| {
            let message =
                format!("the node's answer is not understood ({error}); try --output json");
            Failure::Failed(message)
        })?,
    };
    say(text.trim_end_matches('\n'));
    Ok(())
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Cluster {
    nodes: Vec<ClusterNode>,
    store: Store,
    servers: Option<u64>,
    sessions: Option<u64>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct ClusterNode {
    id: String,
    version: String,
    uptime_s: Option<f64>,
    listen: String,
    #[serde(rename = "self")]
    is_self: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Store {
    kind: String,
    reachable: bool,
}

fn cluster_table(raw: &RawValue) -> Result<String, serde_json::Error> {
    let cluster: Cluster = serde_json::from_str(raw.get())?;
    let reachable = if cluster.store.reachable {
        "reachable"
    } else {
        "not reachable: lists may be stale, nothing is shared"
    };
    let mut text = format!("store {} ({reachable})", cluster.store.kind);
    for (count, what) in [(cluster.servers, "servers"), (cluster.sessions, "sessions")] {
        if let Some(count) = count {
            text.push_str(&format!(", {what}: {count}"));
        }
    }
    text.push_str("\n\n");
    let rows: Vec<_> = cluster.nodes.iter().map(node_row).collect();
    text.push_str(&table(&["NODE", "LISTENS ON", "VERSION", "UP", ""], &rows));
    Ok(text)
}

fn node_row(node: &ClusterNode) -> Vec<String> {
    let up = node.uptime_s.map_or_else(|| "-".to_owned(), uptime);
    let mark = if node.is_self { "answers" } else { "" };
    vec![
        node.id.clone(),
        node.listen.clone(),
        node.version.clone(),
        up,
        mark.to_owned(),
    ]
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

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Server {
    name: String,
    origin: String,
    balance: String,
    replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Replica {
    endpoint: String,
    in_flight: u64,
    version: Option<String>,
}

fn servers_table(raw: &RawValue) -> Result<String, serde_json::Error> {
    let servers: Vec<Server> = serde_json::from_str(raw.get())?;
    if servers.is_empty() {
        return Ok(
            "no servers: start the node with --server NAME=URL, or configure [servers.NAME]".into(),
        );
    }
    let mut rows = Vec::new();
    for server in &servers {
        for (index, replica) in server.replicas.iter().enumerate() {
            let of_server = |text: &str| {
                if index == 0 {
                    text.to_owned()
                } else {
                    String::new()
                }
            };
            rows.push(vec![
                of_server(&server.name),
                short(&replica.endpoint, 60),
                replica.version.clone().unwrap_or_else(|| "-".into()),
                replica.in_flight.to_string(),
                of_server(&server.balance),
                of_server(&server.origin),
            ]);
        }
    }
    let titles = [
        "SERVER",
        "REPLICA",
        "SPEAKS",
        "IN FLIGHT",
        "BALANCE",
        "FROM",
    ];
    Ok(table(&titles, &rows))
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Tool {
    name: String,
    title: Option<String>,
    description: Option<String>,
}

fn tools_table(raw: &RawValue) -> Result<String, serde_json::Error> {
    let tools: Vec<Tool> = serde_json::from_str(raw.get())?;
    if tools.is_empty() {
        return Ok("no tools".into());
    }
    let rows: Vec<_> = tools
        .iter()
        .map(|tool| {
            let about = tool.description.as_ref().or(tool.title.as_ref());
            let about = about.map(|text| short(text, 90)).unwrap_or_default();
            vec![tool.name.clone(), about]
        })
        .collect();
    Ok(table(&["TOOL", "WHAT IT DOES"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(view: fn(&RawValue) -> Result<String, serde_json::Error>, json: &str) -> String {
        view(serde_json::from_str(json).expect("JSON")).expect("a table")
    }

    #[test]
    fn status_shows_store_and_nodes() {
        let text = shown(
            cluster_table,
            r#"{"nodes":[{"id":"node-1","version":"0.1.0","uptime_s":3725,"listen":"127.0.0.1:8080","self":true,"new":1}],
                "store":{"kind":"embedded","reachable":true},"servers":2}"#,
        );
        assert!(
            text.starts_with("store embedded (reachable), servers: 2\n"),
            "{text}"
        );
        assert!(
            text.contains("node-1  127.0.0.1:8080  0.1.0    1h2m  answers"),
            "{text}"
        );
        assert!(shown(cluster_table, "{}").contains("not reachable"));
    }

    #[test]
    fn servers_are_shown_with_their_replicas() {
        let text = shown(
            servers_table,
            r#"[{"name":"a","origin":"config","balance":"p2c","replicas":[
                 {"id":"x","endpoint":"http://one/","in_flight":3,"version":"2026-07-28"},{"endpoint":"http://two/"}]}]"#,
        );
        assert!(
            text.contains("  a       http://one/  2026-07-28  3          p2c      config\n"),
            "{text}"
        );
        assert!(
            text.contains("          http://two/  -           0\n"),
            "{text}"
        );
        assert!(shown(servers_table, "[]").contains("--server NAME=URL"));
    }

    #[test]
    fn tools_are_shown_by_their_first_line() {
        let text = shown(
            tools_table,
            r#"[{"name":"t","description":"One.\nTwo."},{"name":"u","title":"U"}]"#,
        );
        assert_eq!(text, "  TOOL  WHAT IT DOES\n  t     One.\n  u     U\n");
    }
}
