//! How a template's server speaks, from `transport`, `ports`, `stdio_mode`.

use super::spec::{StdioMode, Transport};
use crate::config::{
    section::Section,
    tree::{Located, Value as Node},
    values::{self, Problem},
};

/// What a template says about speaking.
pub(super) struct Spoken {
    pub(super) default: Transport,
    pub(super) supported: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Stdio,
    Http,
    Sse,
}

const WAYS: [(&str, Way); 5] = [
    ("stdio", Way::Stdio),
    ("http", Way::Http),
    ("streamable-http", Way::Http),
    ("streamable_http", Way::Http),
    ("sse", Way::Sse),
];

const MODES: [(&str, StdioMode); 5] = [
    ("shared", StdioMode::Shared),
    ("per-session", StdioMode::PerSession),
    ("per_session", StdioMode::PerSession),
    ("per-call", StdioMode::PerCall),
    ("per_call", StdioMode::PerCall),
];

/// Reads it; without a word a server speaks over its standard streams.
pub(super) fn read(root: &mut Section<'_>) -> Spoken {
    let mode = root.read("stdio_mode", StdioMode::Shared, values::choice(&MODES));
    let exposed = root.take("ports").and_then(|ports| first_port(&ports));
    // The short form: one word.
    if let Some(located) = root.take("transport")
        && let Node::Text(word) = &located.value
    {
        let way = values::choice(&WAYS)(&located);
        let supported = vec![word.clone()];
        let way = way.unwrap_or_else(|problem| {
            root.report("transport", &located, problem);
            Way::Stdio
        });
        return Spoken {
            default: transport(way, exposed.unwrap_or(DEFAULT_PORT), None, mode),
            supported,
        };
    }
    let mut section = root.section("transport");
    let supported = section.read("supported", Vec::new(), values::texts);
    let way = section.optional("default", values::choice(&WAYS));
    let port = section.optional("port", values::count(1..=u16::MAX));
    let path = section.optional("path", path);
    let way = way.unwrap_or_else(|| match supported.first().map(String::as_str) {
        Some("http" | "streamable-http" | "streamable_http") => Way::Http,
        Some("sse") => Way::Sse,
        Some(_) => Way::Stdio,
        None if port.is_some() || path.is_some() => Way::Http,
        None => Way::Stdio,
    });
    if way != Way::Stdio
        && port.or(exposed).is_none()
        && let Some(place) = section.place.clone()
    {
        let message =
            format!("does not say on which port the server listens; {DEFAULT_PORT} is taken");
        section.findings.warn(&place, "transport.port", message);
    }
    section.finish();
    let port = port.or(exposed).unwrap_or(DEFAULT_PORT);
    Spoken {
        default: transport(way, port, path, mode),
        supported,
    }
}

/// Where servers of this format listen when nobody says.
const DEFAULT_PORT: u16 = 8080;

fn transport(way: Way, port: u16, path: Option<String>, mode: StdioMode) -> Transport {
    let default = match way {
        Way::Stdio => return Transport::Stdio { mode },
        Way::Http => "/mcp",
        Way::Sse => "/sse",
    };
    Transport::Http {
        port,
        path: path.unwrap_or_else(|| default.to_owned()),
    }
}

fn path(located: &Located) -> Result<String, Problem> {
    let path = values::some_text(located)?;
    let is_path = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
    match is_path {
        true => Ok(path),
        false => Err(Problem::new(format!(
            "expected a path such as \"/mcp\", found {path:?}"
        ))),
    }
}

/// `{"8080": 8080}`: the ports in the container.
fn first_port(located: &Located) -> Option<u16> {
    let Node::Table(table) = &located.value else {
        return None;
    };
    table.0.iter().find_map(|entry| {
        let port = entry.key.split('/').next().unwrap_or(&entry.key);
        port.parse().ok().filter(|port| *port != 0)
    })
}
