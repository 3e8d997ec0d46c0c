//! What clients declare, and what of it upstreams are told.

use std::sync::{Arc, LazyLock, OnceLock};

use sha2::{Digest, Sha256};

use crate::{
    ids::hex,
    mcp::{
        Raw,
        json::{self, NotAnObject, RawObject},
        version::{Era, Version},
    },
};

use super::{InputKind, TASKS_EXTENSION, is_offered, remove_extension};

/// What a client declared, with `initialize` or with a request. Clones share
/// what is found out about it.
#[derive(Debug, Clone)]
pub struct ClientCapabilities(Arc<Declared>);

#[derive(Debug)]
struct Declared {
    raw: Box<Raw>,
    input: DeclaredInput,
    fingerprint: OnceLock<Arc<str>>,
    extensions: OnceLock<Arc<str>>,
    modern: OnceLock<Box<Raw>>,
}

/// Most clients, and the node itself, declare nothing.
static NONE: LazyLock<ClientCapabilities> =
    LazyLock::new(|| ClientCapabilities::of(RawObject::new().to_raw(), DeclaredInput::default()));

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
        NONE.clone()
    }

    fn of(raw: Box<Raw>, input: DeclaredInput) -> Self {
        Self(Arc::new(Declared {
            raw,
            input,
            fingerprint: OnceLock::new(),
            extensions: OnceLock::new(),
            modern: OnceLock::new(),
        }))
    }

    /// Reads a `ClientCapabilities` object of any version.
    ///
    /// # Errors
    /// When it is not an object, or repeats a capability.
    pub fn parse(raw: &Raw) -> Result<Self, NotAnObject> {
        if raw.get() == "{}" {
            return Ok(Self::none());
        }
        let names = ["roots", "sampling", "elicitation", "extensions"];
        let found = json::members(raw, names).map_err(|_| NotAnObject)?;
        let [roots, sampling, elicitation, extensions] =
            found.map(|value| value.filter(|raw| json::is_object(raw)));
        let has = |of: Option<&Raw>, name| {
            of.and_then(|raw| json::member(raw, name))
                .is_some_and(is_offered)
        };
        let url = has(elicitation, "url");
        let input = DeclaredInput {
            roots: roots.is_some(),
            roots_changed: has(roots, "listChanged"),
            sampling: sampling.is_some(),
            sampling_tools: has(sampling, "tools"),
            sampling_context: has(sampling, "context"),
            // An empty object means forms, as before there were URLs.
            form: elicitation.is_some() && (has(elicitation, "form") || !url),
            url,
            extensions: extensions.is_some_and(|raw| raw.get() != "{}"),
        };
        Ok(Self::of(raw.to_owned(), input))
    }

    /// As the client wrote them.
    #[must_use]
    pub fn as_raw(&self) -> &Raw {
        &self.0.raw
    }

    /// Whether the client can be asked that. Kinds that we do not know belong
    /// to extensions: they need a client that has declared one.
    #[must_use]
    pub fn allows(&self, kind: InputKind) -> bool {
        let declared = &self.0.input;
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
        let declared = &self.0.input;
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

    /// The same ids as one text, another for every other set of ids: clients
    /// choose them, with spaces if they like.
    #[must_use]
    pub fn extension_list(&self) -> &Arc<str> {
        let quoted = |id: &String| json::raw_str(id).get().to_owned();
        let list = || {
            let ids: Vec<_> = self.extensions().iter().map(quoted).collect();
            ids.join(" ").into()
        };
        self.0.extensions.get_or_init(list)
    }

    /// The same for clients that declare the same, however they write it;
    /// different when an upstream session opened for one must not serve the
    /// other: a letter for each kind of question, then a digest of everything
    /// else that upstreams are told (extensions with their settings,
    /// `experimental`, `tasks`).
    #[must_use]
    pub fn fingerprint(&self) -> &Arc<str> {
        self.0.fingerprint.get_or_init(|| self.make_fingerprint())
    }

    fn make_fingerprint(&self) -> Arc<str> {
        let declared = &self.0.input;
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
    pub fn for_modern(&self) -> &Raw {
        self.0.modern.get_or_init(|| self.make_modern())
    }

    fn make_modern(&self) -> Box<Raw> {
        let mut object = self.object();
        object.remove("tasks");
        if self.0.input.roots_changed {
            object.set("roots", RawObject::new().to_raw());
        }
        object.to_raw()
    }

    /// The kinds of questions the client takes, and nothing else it declared.
    #[must_use]
    pub fn questions_only(&self) -> Box<Raw> {
        let declared = &self.0.input;
        let object = |members: &[(&str, bool)]| {
            let mut object = RawObject::new();
            for (name, _) in members.iter().filter(|(_, is_declared)| *is_declared) {
                object.set(*name, RawObject::new().to_raw());
            }
            object.to_raw()
        };
        let mut all = RawObject::new();
        if declared.roots {
            let changes = declared.roots_changed;
            all.set(
                "roots",
                json::raw(&serde_json::json!({"listChanged": changes})),
            );
        }
        if declared.sampling {
            let kinds = [
                ("tools", declared.sampling_tools),
                ("context", declared.sampling_context),
            ];
            all.set("sampling", object(&kinds));
        }
        if declared.form || declared.url {
            let kinds = [("form", declared.form), ("url", declared.url)];
            all.set("elicitation", object(&kinds));
        }
        all.to_raw()
    }

    /// What a legacy upstream is told with `initialize`. A version that knows
    /// fewer kinds of questions must not take one kind for another: before
    /// 2025-11-25 `elicitation` always means forms.
    #[must_use]
    pub fn for_legacy(&self, version: Version) -> Box<Raw> {
        if version.era() == Era::Modern {
            return self.for_modern().to_owned();
        }
        let mut object = self.object();
        if version < Version::V2025_11_25 {
            object.remove("tasks");
            if self.0.input.sampling {
                object.set("sampling", RawObject::new().to_raw());
            }
            if version >= Version::V2025_06_18 && self.0.input.form {
                object.set("elicitation", RawObject::new().to_raw());
            } else {
                object.remove("elicitation");
            }
        }
        remove_extension(&mut object, TASKS_EXTENSION);
        object.to_raw()
    }

    fn object(&self) -> RawObject<'_> {
        RawObject::parse(&self.0.raw).unwrap_or_default()
    }
}

impl Default for ClientCapabilities {
    fn default() -> Self {
        Self::none()
    }
}
