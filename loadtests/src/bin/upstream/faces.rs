//! The servers at this address: what each offers, and how it behaves.

use std::time::Duration;

use crate::{
    changes::Changes,
    tools::{Catalogue, Page},
};

/// How long the slow server takes for a list.
const SLOW: Duration = Duration::from_millis(300);

/// One server.
pub(crate) struct Face {
    pub(crate) era: Era,
    pub(crate) tools: Tools,
    /// How long it takes for a list.
    pub(crate) list_takes: Duration,
}

/// Which protocol it speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    Modern,
    /// 2025-11-25, with sessions.
    Sessions,
    /// 2025-11-25, as servers that give out no session.
    Sessionless,
}

/// What it lists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tools {
    Few,
    Fifty,
    /// Two thousand, in pages.
    Many,
    /// A list that changes, and a server that says so.
    Changing,
}

impl Face {
    /// The server at a path, unless there is none.
    pub(crate) fn at(path: &str) -> Option<Self> {
        let (era, tools) = match path.strip_prefix("/mcp/")? {
            "demo" | "slow" => (Era::Modern, Tools::Fifty),
            "sessions" => (Era::Sessions, Tools::Fifty),
            "sessionless" => (Era::Sessionless, Tools::Fifty),
            "few" => (Era::Modern, Tools::Few),
            "many" => (Era::Modern, Tools::Many),
            "changing" => (Era::Modern, Tools::Changing),
            "changing-sessions" => (Era::Sessions, Tools::Changing),
            _ => return None,
        };
        let list_takes = match path {
            "/mcp/slow" => SLOW,
            _ => Duration::ZERO,
        };
        Some(Self {
            era,
            tools,
            list_takes,
        })
    }

    pub(crate) fn changes(&self) -> bool {
        self.tools == Tools::Changing
    }

    /// The page of the list that a request asks for.
    pub(crate) fn page(
        &self,
        catalogue: &Catalogue,
        changes: &Changes,
        cursor: Option<&str>,
    ) -> Page {
        match self.tools {
            Tools::Few => catalogue.few(),
            Tools::Fifty => catalogue.fifty(),
            Tools::Many => catalogue.many(cursor),
            Tools::Changing => Page::whole(changes.tools()),
        }
    }
}
