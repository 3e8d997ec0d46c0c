//! What a fake server offers, as the JSON it will send byte for byte.

/// Lists and self-description.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    pub(crate) capabilities: String,
    pub(crate) tools: Vec<String>,
    pub(crate) prompts: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) templates: Vec<String>,
    /// Items per page; 0: all on one.
    pub(crate) page: usize,
    /// `ttlMs` of modern answers.
    pub(crate) ttl_ms: u64,
    /// `cacheScope` of modern answers.
    pub(crate) scope: &'static str,
    /// More members of list results: `,"x":1`.
    pub(crate) extra: String,
    /// More members of the self-description: `,"x":1`.
    pub(crate) about: String,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            capabilities: r#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"completions":{},"logging":{}}"#.to_owned(),
            tools: ["echo", "ask", "report", "wait", "fail"].map(tool).into(),
            prompts: vec![r#"{"name":"greet"}"#.to_owned()],
            resources: vec![r#"{"uri":"doc://a","name":"a"}"#.to_owned()],
            templates: vec![r#"{"uriTemplate":"doc://{name}","name":"docs"}"#.to_owned()],
            page: 0,
            ttl_ms: 60_000,
            scope: "public",
            extra: String::new(),
            about: String::new(),
        }
    }
}

/// A tool without parameters.
pub(crate) fn tool(name: &str) -> String {
    format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}}}"#)
}

impl Contents {
    pub(crate) fn tools(tools: &[&str]) -> Self {
        Self {
            tools: tools.iter().map(|&tool| tool.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The members of a list's page: `"tools":[..],"nextCursor":".."`; `None` for a bad cursor.
    pub(super) fn page(&self, method: &str, cursor: Option<&str>) -> Option<String> {
        let (key, items) = match method {
            "tools/list" => ("tools", &self.tools),
            "prompts/list" => ("prompts", &self.prompts),
            "resources/list" => ("resources", &self.resources),
            "resources/templates/list" => ("resourceTemplates", &self.templates),
            _ => panic!("not a list: {method}"),
        };
        let from = match cursor {
            None => 0,
            Some(cursor) => cursor.strip_prefix("at-")?.parse().ok()?,
        };
        let size = if self.page == 0 {
            items.len()
        } else {
            self.page
        };
        let to = items.len().min(from + size);
        let shown = items.get(from..to)?.join(",");
        let next = match to < items.len() {
            true => format!(r#","nextCursor":"at-{to}""#),
            false => String::new(),
        };
        Some(format!(r#""{key}":[{shown}]{next}{}"#, self.extra))
    }
}
