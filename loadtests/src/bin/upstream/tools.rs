//! Fifty tools of about a kilobyte each, always the same.

use bytes::Bytes;

/// How many tools a server has.
const TOOLS: usize = 50;

/// The servers, in the order in which the merged list shows them.
const SERVERS: [&str; 2] = ["demo", "sessions"];

/// The lists, ready to send; they live as long as the process.
pub(crate) struct Catalogue {
    one: &'static str,
    merged: &'static str,
}

impl Catalogue {
    pub(crate) fn new() -> Self {
        let merged = SERVERS
            .iter()
            .flat_map(|server| (0..TOOLS).map(move |number| tool(&format!("{server}__"), number)));
        Self {
            one: array((0..TOOLS).map(|number| tool("", number))).leak(),
            merged: array(merged).leak(),
        }
    }

    /// The array of one server's tools.
    pub(crate) fn as_str(&self) -> &'static str {
        self.one
    }

    /// The same, to be sent.
    pub(crate) fn one(&self) -> Bytes {
        Bytes::from_static(self.one.as_bytes())
    }

    /// The array of all servers' tools, named as a gateway merges them.
    pub(crate) fn merged(&self) -> Bytes {
        Bytes::from_static(self.merged.as_bytes())
    }
}

fn array(tools: impl Iterator<Item = String>) -> String {
    format!("[{}]", tools.collect::<Vec<_>>().join(","))
}

/// The first tool echoes, the others are there to be listed.
fn tool(prefix: &str, number: usize) -> String {
    if number == 0 {
        return format!(
            r#"{{"name":"{prefix}echo","description":"Says what it was told","inputSchema":{{"type":"object","properties":{{"message":{{"type":"string"}}}},"required":["message"]}}}}"#
        );
    }
    let properties: Vec<String> = ["site", "sku", "batch", "owner", "since", "until"]
        .iter()
        .map(|name| {
            format!(
                r#""{name}":{{"type":"string","title":"{name} of record {number:02}","description":"Restricts the answer to records whose {name} is given"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"name":"{prefix}record_{number:02}","title":"Record {number:02}","description":"Looks up records of kind {number:02} and returns those that every given property matches, newest first.","inputSchema":{{"type":"object","properties":{{{}}},"required":["site","sku"],"additionalProperties":false}},"annotations":{{"readOnlyHint":true,"openWorldHint":false}}}}"#,
        properties.join(",")
    )
}
