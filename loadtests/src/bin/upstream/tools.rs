//! Lists of tools of about a kilobyte each, always the same.

use std::borrow::Cow;

use bytes::Bytes;

/// How many tools the servers have.
const FEW: usize = 5;
const FIFTY: usize = 50;
const MANY: usize = 2000;

/// How many of many a page holds: as many as one of the gateway.
const PAGE: usize = 1000;

/// The cursor of the second page.
const SECOND: &str = "second";

/// The servers, in the order in which the merged list shows them.
const SERVERS: [&str; 2] = ["demo", "sessions"];

/// The lists, ready to send; they live as long as the process.
pub(crate) struct Catalogue {
    few: &'static str,
    fifty: &'static str,
    many: &'static str,
    pages: [&'static str; 2],
    merged: &'static str,
}

/// A page of a list, as an array.
pub(crate) struct Page {
    pub(crate) tools: Cow<'static, str>,
    pub(crate) next: Option<&'static str>,
}

impl Page {
    pub(crate) fn whole(tools: impl Into<Cow<'static, str>>) -> Self {
        Self {
            tools: tools.into(),
            next: None,
        }
    }
}

impl Catalogue {
    pub(crate) fn new() -> Self {
        let merged = SERVERS
            .iter()
            .flat_map(|server| (0..FIFTY).map(move |number| tool(&format!("{server}__"), number)));
        let plain = |numbers: std::ops::Range<usize>| -> &'static str {
            array(numbers.map(|number| tool("", number))).leak()
        };
        Self {
            few: plain(0..FEW),
            fifty: plain(0..FIFTY),
            many: plain(0..MANY),
            pages: [plain(0..PAGE), plain(PAGE..MANY)],
            merged: array(merged).leak(),
        }
    }

    pub(crate) fn few(&self) -> Page {
        Page::whole(self.few)
    }

    pub(crate) fn fifty(&self) -> Page {
        Page::whole(self.fifty)
    }

    /// The first page of many, or the second.
    pub(crate) fn many(&self, cursor: Option<&str>) -> Page {
        let [first, second] = self.pages;
        match cursor {
            Some(SECOND) => Page::whole(second),
            _ => Page {
                next: Some(SECOND),
                ..Page::whole(first)
            },
        }
    }

    /// The arrays that a bare proxy fetches where the gateway answers by itself.
    pub(crate) fn plain(&self, server: &str) -> Option<Bytes> {
        let array = match server {
            "few" => self.few,
            "demo" | "slow" | "sessions" | "sessionless" => self.fifty,
            "many" => self.many,
            "*" => self.merged,
            _ => return None,
        };
        Some(Bytes::from_static(array.as_bytes()))
    }
}

fn array(tools: impl Iterator<Item = String>) -> String {
    format!("[{}]", tools.collect::<Vec<_>>().join(","))
}

/// The first tool echoes, the others are there to be listed.
fn tool(prefix: &str, number: usize) -> String {
    if number == 0 {
        return format!(
            r#"{{"name":"{prefix}echo","description":"Says what it was told, or as many bytes as it was told, at once or as a stream","inputSchema":{{"type":"object","properties":{{"message":{{"type":"string"}},"bytes":{{"type":"integer"}},"stream":{{"type":"boolean"}}}},"required":["message"]}}}}"#
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
