//! What servers declare, and what of it clients are told.

use std::sync::Arc;

use crate::mcp::{
    Raw,
    json::{self, NotAnObject, RawObject},
    method::ListKind,
    version::{Era, Version},
};

use super::{TASKS_EXTENSION, is_offered, remove_extension};

/// What a server declared, with its `initialize` or `server/discover` result.
#[derive(Debug, Clone)]
pub struct ServerCapabilities {
    raw: Arc<Raw>,
    offered: Offered,
}

/// What a server has, by capability.
#[derive(Debug, Clone, Copy, Default)]
struct Offered {
    tools: Option<Changes>,
    prompts: Option<Changes>,
    resources: Option<Changes>,
    subscribe: bool,
    completions: bool,
    logging: bool,
}

/// Whether a server tells when a list changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    Told,
    Untold,
}

impl ServerCapabilities {
    /// No capability at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            raw: Arc::from(RawObject::new().to_raw()),
            offered: Offered::default(),
        }
    }

    /// Reads a `ServerCapabilities` object of any version.
    ///
    /// # Errors
    /// When it is not an object, or repeats a capability.
    pub fn parse(raw: &Raw) -> Result<Self, NotAnObject> {
        let names = ["tools", "prompts", "resources", "completions", "logging"];
        let found = json::members(raw, names).map_err(|_| NotAnObject)?;
        let [tools, prompts, resources, completions, logging] =
            found.map(|value| value.filter(|raw| is_offered(raw)));
        let is_true =
            |of: &Raw, name| json::member(of, name).is_some_and(|raw| raw.get() == "true");
        let list = |of: &Raw| match is_true(of, "listChanged") {
            true => Changes::Told,
            false => Changes::Untold,
        };
        Ok(Self {
            raw: Arc::from(raw.to_owned()),
            offered: Offered {
                tools: tools.map(list),
                prompts: prompts.map(list),
                resources: resources.map(list),
                subscribe: resources.is_some_and(|of| is_true(of, "subscribe")),
                completions: completions.is_some(),
                logging: logging.is_some(),
            },
        })
    }

    /// As the server wrote them.
    #[must_use]
    pub fn as_raw(&self) -> &Raw {
        &self.raw
    }

    /// Whether it has tools.
    #[must_use]
    pub fn has_tools(&self) -> bool {
        self.offered.tools.is_some()
    }

    /// Whether it has prompts.
    #[must_use]
    pub fn has_prompts(&self) -> bool {
        self.offered.prompts.is_some()
    }

    /// Whether it has resources.
    #[must_use]
    pub fn has_resources(&self) -> bool {
        self.offered.resources.is_some()
    }

    /// Whether it declares completion (2024-11-05 servers may have it undeclared).
    #[must_use]
    pub fn has_completions(&self) -> bool {
        self.offered.completions
    }

    /// Whether it sends log messages.
    #[must_use]
    pub fn has_logging(&self) -> bool {
        self.offered.logging
    }

    /// Whether it tells when a resource's content changes.
    #[must_use]
    pub fn has_subscribe(&self) -> bool {
        self.offered.subscribe
    }

    /// Whether it offers that list.
    #[must_use]
    pub fn has_list(&self, kind: ListKind) -> bool {
        self.changes(kind).is_some()
    }

    /// Whether it tells when that list changes.
    #[must_use]
    pub fn has_list_changed(&self, kind: ListKind) -> bool {
        self.changes(kind) == Some(Changes::Told)
    }

    fn changes(&self, kind: ListKind) -> Option<Changes> {
        match kind {
            ListKind::Tools => self.offered.tools,
            ListKind::Prompts => self.offered.prompts,
            ListKind::Resources | ListKind::ResourceTemplates => self.offered.resources,
        }
    }

    /// What the merged endpoint offers: what any of them has. Extensions are
    /// not routed there and therefore left out.
    #[must_use]
    pub fn union<'s>(all: impl IntoIterator<Item = &'s Self>) -> Self {
        let either = |one: Option<Changes>, other: Option<Changes>| match (one, other) {
            (Some(Changes::Told), _) | (_, Some(Changes::Told)) => Some(Changes::Told),
            (one, other) => one.or(other),
        };
        let offered = all
            .into_iter()
            .fold(Offered::default(), |sum, Self { offered, .. }| Offered {
                tools: either(sum.tools, offered.tools),
                prompts: either(sum.prompts, offered.prompts),
                resources: either(sum.resources, offered.resources),
                subscribe: sum.subscribe || offered.subscribe,
                completions: sum.completions || offered.completions,
                logging: sum.logging || offered.logging,
            });
        Self {
            raw: Arc::from(offered.to_raw()),
            offered,
        }
    }

    /// The same where servers come and go: its lists change then, which is
    /// told, and tools may come with the next server.
    #[must_use]
    pub fn of_changing_servers(&self) -> Self {
        let told = |list: Option<Changes>| list.map(|_| Changes::Told);
        let offered = Offered {
            tools: Some(Changes::Told),
            prompts: told(self.offered.prompts),
            resources: told(self.offered.resources),
            ..self.offered
        };
        Self {
            raw: Arc::from(offered.to_raw()),
            offered,
        }
    }

    /// What a modern client is told: the same without what only legacy
    /// versions have.
    #[must_use]
    pub fn for_modern(&self) -> Box<Raw> {
        let mut object = self.object();
        object.remove("tasks");
        object.to_raw()
    }

    /// What a legacy client is told.
    #[must_use]
    pub fn for_legacy(&self, version: Version) -> Box<Raw> {
        if version.era() == Era::Modern {
            return self.for_modern();
        }
        let mut object = self.object();
        if version != Version::V2025_11_25 {
            object.remove("tasks");
        }
        remove_extension(&mut object, TASKS_EXTENSION);
        object.to_raw()
    }

    fn object(&self) -> RawObject<'_> {
        RawObject::parse(&self.raw).unwrap_or_default()
    }
}

impl Offered {
    fn to_raw(self) -> Box<Raw> {
        let mut object = RawObject::new();
        let list = |changes: Changes, subscribe: bool| {
            let mut list = RawObject::new();
            if subscribe {
                list.set("subscribe", json::raw(&true));
            }
            if changes == Changes::Told {
                list.set("listChanged", json::raw(&true));
            }
            list.to_raw()
        };
        let lists = [
            ("tools", self.tools, false),
            ("prompts", self.prompts, false),
            ("resources", self.resources, self.subscribe),
        ];
        for (name, changes, subscribe) in lists {
            if let Some(changes) = changes {
                object.set(name, list(changes, subscribe));
            }
        }
        for (name, is_offered) in [("completions", self.completions), ("logging", self.logging)] {
            if is_offered {
                object.set(name, RawObject::new().to_raw());
            }
        }
        object.to_raw()
    }
}
