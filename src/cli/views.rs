//! `servers` and `tools`: what a node tells of servers, as tables.
//!
//! Fields that are missing or new are no reason to fail: nodes and command
//! lines of different versions talk to each other.

use crate::mcp::Raw;
use serde::Deserialize;

use super::{
    Failure, NodeArgs, ToolsArgs,
    client::Node,
    output::{document, short, table},
    say,
};
use crate::ids::ServerId;

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

/// Prints an answer as it was asked for.
pub(super) fn print(
    args: &NodeArgs,
    raw: &Raw,
    table: fn(&Raw) -> Result<String, serde_json::Error>,
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
struct Server {
    name: String,
    origin: String,
    balance: String,
    replicas: Vec<Replica>,
    problem: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Replica {
    endpoint: String,
    healthy: Option<bool>,
    in_flight: u64,
    version: Option<String>,
}

fn servers_table(raw: &Raw) -> Result<String, serde_json::Error> {
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
                state(replica.healthy).to_owned(),
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
        "STATE",
        "IN FLIGHT",
        "BALANCE",
        "FROM",
    ];
    let mut text = table(&titles, &rows);
    for server in &servers {
        if let Some(problem) = &server.problem {
            text.push_str(&format!("\n{}: {problem}", server.name));
        }
    }
    Ok(text)
}

/// Health in a word; older nodes tell nothing of it.
pub(super) fn state(healthy: Option<bool>) -> &'static str {
    match healthy {
        Some(true) => "healthy",
        Some(false) => "unhealthy",
        None => "-",
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Tool {
    name: String,
    title: Option<String>,
    description: Option<String>,
}

fn tools_table(raw: &Raw) -> Result<String, serde_json::Error> {
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

    fn shown(view: fn(&Raw) -> Result<String, serde_json::Error>, json: &str) -> String {
        view(serde_json::from_str(json).expect("JSON")).expect("a table")
    }

    #[test]
    fn servers_are_shown_with_their_replicas() {
        let text = shown(
            servers_table,
            r#"[{"name":"a","origin":"config","balance":"p2c","replicas":[
                 {"id":"x","endpoint":"http://one/","healthy":true,"in_flight":3,"version":"2026-07-28"},{"endpoint":"http://two/"}]},
                {"name":"b","origin":"api","replicas":[],"problem":"not understood"}]"#,
        );
        assert!(
            text.contains(
                "  a       http://one/  2026-07-28  healthy  3          p2c      config\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("          http://two/  -           -        0\n"),
            "{text}"
        );
        assert!(text.ends_with("\nb: not understood"), "{text}");
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
