//! What clients and servers declare they can do, and what of it is told on.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::ids::hex;

use super::{
    Raw,
    json::{self, NotAnObject, RawObject},
    method::{self, ListKind},
    version::{Era, Version},
};

/// The extension whose results only a modern peer understands.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// A kind of question that a server can ask in mid-call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// `roots/list`
    Roots,
    /// `sampling/createMessage`
    Sampling {
        /// Whether the model may call tools.
        tools: bool,
    },
    /// `elicitation/create` with a form.
    ElicitForm,
    /// `elicitation/create` with a URL.
    ElicitUrl,
    /// Anything else: an extension's.
    Other,
}

impl InputKind {
    /// Which kind the question is.
    #[must_use]
    pub fn of(method: &str, params: Option<&Raw>) -> Self {
        match method {
            method::ROOTS_LIST => Self::Roots,
            method::SAMPLING_CREATE => Self::Sampling {
                tools: params.is_some_and(samples_with_tools),
            },
            method::ELICITATION_CREATE => {
                let mode = params.and_then(|params| json::member_str(params, "mode"));
                match mode.as_deref() {
                    Some("url") => Self::ElicitUrl,
                    Some(_) | None => Self::ElicitForm,
                }
            }
            _ => Self::Other,
        }
    }

    /// The capability it takes, as the object of `-32021`.
    #[must_use]
    pub fn required(self) -> Box<Raw> {
        let capabilities = match self {
            Self::Roots => serde_json::json!({"roots": {}}),
            Self::Sampling { tools: false } => serde_json::json!({"sampling": {}}),
            Self::Sampling { tools: true } => serde_json::json!({"sampling": {"tools": {}}}),
            Self::ElicitForm => serde_json::json!({"elicitation": {"form": {}}}),
            Self::ElicitUrl => serde_json::json!({"elicitation": {"url": {}}}),
            Self::Other => serde_json::json!({}),
        };
        json::raw(&capabilities)
    }
}

/// Whether a sampling request offers tools or has messages about their use,
/// which clients without `sampling.tools` cannot parse.
fn samples_with_tools(params: &Raw) -> bool {
    let Ok([tools, choice, messages]) = json::members(params, ["tools", "toolChoice", "messages"])
    else {
        return true;
    };
    let about_tools = |message: &&Raw| {
        json::member(message, "content").is_some_and(|content| {
            let kind = json::member_str(content, "type");
            json::is_array(content) || matches!(kind.as_deref(), Some("tool_use" | "tool_result"))
        })
    };
    let messages = messages.and_then(|list| json::elements(list).ok());
    tools.is_some() || choice.is_some() || messages.is_some_and(|list| list.iter().any(about_tools))
}

/// What a client declared, with `initialize` or with a request.
#[derive(Debug, Clone)]
pub struct ClientCapabilities {
    raw: Arc<Raw>,
    declared: DeclaredInput,
}

/// The kinds of questions a client takes.
#[derive(Debug, Clone, Copy, Default)]
struct DeclaredInput {
    roots: bool,
    roots_changed: bool,
    sampling: bool,
    sampling_tools: bool,
    sampling_context: bool,
    form: bool,
    url: bool,
    extensions: bool,
}

impl ClientCapabilities {
    /// No capability at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            raw: Arc::from(RawObject::new().to_raw()),
            declared: DeclaredInput::default(),
        }
    }

    /// Reads a `ClientCapabilities` object of any version.
    ///
    /// # Errors
    /// When it is not an object, or repeats a capability.
    pub fn parse(raw: &Raw) -> Result<Self, NotAnObject> {
        let names = ["roots", "sampling", "elicitation", "extensions"];
        let found = json::members(raw, names).map_err(|_| NotAnObject)?;
        let [roots, sampling, elicitation, extensions] =
            found.map(|value| value.filter(|raw| json::is_object(raw)));
        let has = |of: Option<&Raw>, name| {
            of.and_then(|raw| json::member(raw, name))
                .is_some_and(is_offered)
        };
        let url = has(elicitation, "url");
        Ok(Self {
            raw: Arc::from(raw.to_owned()),
            declared: DeclaredInput {
                roots: roots.is_some(),
                roots_changed: has(roots, "listChanged"),
                sampling: sampling.is_some(),
                sampling_tools: has(sampling, "tools"),
                sampling_context: has(sampling, "context"),
                // An empty object means forms, as before there were URLs.
                form: elicitation.is_some() && (has(elicitation, "form") || !url),
                url,
                extensions: extensions.is_some_and(|raw| raw.get() != "{}"),
            },
        })
    }

    /// As the client wrote them.
    #[must_use]
    pub fn as_raw(&self) -> &Raw {
        &self.raw
    }

    /// Whether the client can be asked that. Kinds that we do not know belong
    /// to extensions: they need a client that has declared one.
    #[must_use]
    pub fn allows(&self, kind: InputKind) -> bool {
        let declared = &self.declared;
        match kind {
            InputKind::Roots => declared.roots,
            InputKind::Sampling { tools } => {
                declared.sampling && (!tools || declared.sampling_tools)
            }
            InputKind::ElicitForm => declared.form,
            InputKind::ElicitUrl => declared.url,
            InputKind::Other => declared.extensions,
        }
    }

    /// Whether the client can be asked anything.
    #[must_use]
    pub fn allows_any(&self) -> bool {
        let declared = &self.declared;
        declared.roots || declared.sampling || declared.form || declared.url || declared.extensions
    }

    /// Whether the client declares an extension.
    #[must_use]
    pub fn has_extension(&self, id: &str) -> bool {
        self.object()
            .get_object("extensions")
            .is_some_and(|extensions| extensions.contains(id))
    }

    /// The ids of the declared extensions, sorted.
    #[must_use]
    pub fn extensions(&self) -> Vec<String> {
        let object = self.object();
        let Some(extensions) = object.get_object("extensions") else {
            return Vec::new();
        };
        let mut ids: Vec<_> = extensions.iter().map(|(id, _)| id.to_owned()).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// The same for clients that declare the same, however they write it;
    /// different when an upstream session opened for one must not serve the
    /// other: a letter for each kind of question, then a digest of everything
    /// else that upstreams are told (extensions with their settings,
    /// `experimental`, `tasks`).
    #[must_use]
    pub fn fingerprint(&self) -> Arc<str> {
        let declared = &self.declared;
        let mut text: String = [
            (declared.roots, 'r'),
            (declared.roots_changed, 'l'),
            (declared.sampling, 's'),
            (declared.sampling_tools, 't'),
            (declared.sampling_context, 'c'),
            (declared.form, 'f'),
            (declared.url, 'u'),
        ]
        .into_iter()
        .filter_map(|(is_declared, letter)| is_declared.then_some(letter))
        .collect();
        if text.is_empty() {
            text.push('-');
        }
        let mut others = self.object();
        others.retain(|name, value| {
            let known = matches!(name, "roots" | "sampling" | "elicitation");
            !known && is_offered(value) && value.get() != "{}"
        });
        if !others.is_empty() {
            let digest = Sha256::digest(json::canonical(&others.to_raw()));
            text.push('+');
            text.push_str(&hex(&digest[..8]));
        }
        text.into()
    }

    /// What a modern upstream is told: the same without what only legacy
    /// versions have.
    #[must_use]
    pub fn for_modern(&self) -> Box<Raw> {
        let mut object = self.object();
        object.remove("tasks");
        if self.declared.roots_changed {
            object.set("roots", RawObject::new().to_raw());
        }
        object.to_raw()
    }

    /// What a legacy upstream is told with `initialize`. A version that knows
    /// fewer kinds of questions must not take one kind for another: before
    /// 2025-11-25 `elicitation` always means forms.
    #[must_use]
    pub fn for_legacy(&self, version: Version) -> Box<Raw> {
        if version.era() == Era::Modern {
            return self.for_modern();
        }
        let mut object = self.object();
        if version < Version::V2025_11_25 {
            object.remove("tasks");
            if self.declared.sampling {
                object.set("sampling", RawObject::new().to_raw());
            }
            if version >= Version::V2025_06_18 && self.declared.form {
                object.set("elicitation", RawObject::new().to_raw());
            } else {
                object.remove("elicitation");
            }
        }
        remove_extension(&mut object, TASKS_EXTENSION);
        object.to_raw()
    }

    fn object(&self) -> RawObject<'_> {
        RawObject::parse(&self.raw).unwrap_or_default()
    }
}

impl Default for ClientCapabilities {
    fn default() -> Self {
        Self::none()
    }
}

/// A capability counts when it is there and neither `null` nor `false`.
fn is_offered(value: &Raw) -> bool {
    !matches!(value.get(), "null" | "false")
}

fn remove_extension(capabilities: &mut RawObject<'_>, id: &str) {
    let Some(mut extensions) = capabilities.get_object("extensions") else {
        return;
    };
    if extensions.remove(id).is_none() {
        return;
    }
    let left = (!extensions.is_empty()).then(|| extensions.to_raw());
    match left {
        Some(left) => capabilities.set("extensions", left),
        None => drop(capabilities.remove("extensions")),
    }
}

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

#[cfg(test)]
mod tests;
