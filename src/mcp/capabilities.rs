//! What clients and servers declare they can do, and what of it is told on.

use std::sync::Arc;

use super::{Raw, json::NotAnObject, method::ListKind, version::Version};

/// What a client declared, with `initialize` or with a request.
#[derive(Debug, Clone)]
pub struct ClientCapabilities {
    raw: Arc<Raw>,
}

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
        let _ = (method, params);
        todo!()
    }

    /// The capability it takes, as an object for `-32021`.
    #[must_use]
    pub fn required(self) -> Box<Raw> {
        todo!()
    }
}

impl ClientCapabilities {
    /// No capability at all.
    #[must_use]
    pub fn none() -> Self {
        todo!()
    }

    /// Reads a `ClientCapabilities` object of any version.
    ///
    /// # Errors
    /// When it is not an object.
    pub fn parse(raw: &Raw) -> Result<Self, NotAnObject> {
        let _ = raw;
        todo!()
    }

    /// As the client wrote them.
    #[must_use]
    pub fn as_raw(&self) -> &Raw {
        &self.raw
    }

    /// Whether the client can be asked that.
    #[must_use]
    pub fn allows(&self, kind: InputKind) -> bool {
        let _ = kind;
        todo!()
    }

    /// Whether the client declares an extension.
    #[must_use]
    pub fn has_extension(&self, id: &str) -> bool {
        let _ = id;
        todo!()
    }

    /// The ids of the declared extensions, sorted.
    #[must_use]
    pub fn extensions(&self) -> Vec<String> {
        todo!()
    }

    /// The same for clients that declare the same, however they write it;
    /// different when an upstream session opened for one must not serve the other.
    #[must_use]
    pub fn fingerprint(&self) -> Arc<str> {
        todo!()
    }

    /// What a modern upstream is told.
    #[must_use]
    pub fn for_modern(&self) -> Box<Raw> {
        todo!()
    }

    /// What a legacy upstream is told with `initialize`.
    #[must_use]
    pub fn for_legacy(&self, version: Version) -> Box<Raw> {
        let _ = version;
        todo!()
    }
}

/// What a server declared, with its `initialize` or `server/discover` result.
#[derive(Debug, Clone)]
pub struct ServerCapabilities {
    raw: Arc<Raw>,
}

impl ServerCapabilities {
    /// No capability at all.
    #[must_use]
    pub fn none() -> Self {
        todo!()
    }

    /// Reads a `ServerCapabilities` object of any version.
    ///
    /// # Errors
    /// When it is not an object.
    pub fn parse(raw: &Raw) -> Result<Self, NotAnObject> {
        let _ = raw;
        todo!()
    }

    /// As the server wrote them.
    #[must_use]
    pub fn as_raw(&self) -> &Raw {
        &self.raw
    }

    /// Whether it has tools.
    #[must_use]
    pub fn has_tools(&self) -> bool {
        todo!()
    }

    /// Whether it has prompts.
    #[must_use]
    pub fn has_prompts(&self) -> bool {
        todo!()
    }

    /// Whether it has resources.
    #[must_use]
    pub fn has_resources(&self) -> bool {
        todo!()
    }

    /// Whether it declares completion (2024-11-05 servers may have it undeclared).
    #[must_use]
    pub fn has_completions(&self) -> bool {
        todo!()
    }

    /// Whether it sends log messages.
    #[must_use]
    pub fn has_logging(&self) -> bool {
        todo!()
    }

    /// Whether it tells when a resource's content changes.
    #[must_use]
    pub fn has_subscribe(&self) -> bool {
        todo!()
    }

    /// Whether it offers that list.
    #[must_use]
    pub fn has_list(&self, kind: ListKind) -> bool {
        let _ = kind;
        todo!()
    }

    /// Whether it tells when that list changes.
    #[must_use]
    pub fn has_list_changed(&self, kind: ListKind) -> bool {
        let _ = kind;
        todo!()
    }

    /// What the merged endpoint offers: what any of them has. Extensions are
    /// not routed there and therefore left out.
    #[must_use]
    pub fn union<'s>(all: impl IntoIterator<Item = &'s Self>) -> Self {
        let _ = all.into_iter();
        todo!()
    }

    /// What a modern client is told.
    #[must_use]
    pub fn for_modern(&self) -> Box<Raw> {
        todo!()
    }

    /// What a legacy client is told.
    #[must_use]
    pub fn for_legacy(&self, version: Version) -> Box<Raw> {
        let _ = version;
        todo!()
    }
}
