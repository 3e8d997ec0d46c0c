//! One list of one server, whole: what is cached, and what is made of it once.
//!
//! The cache keeps every item with the bytes it was written with. What clients
//! of other versions or of the merged endpoint see is derived when it is first
//! asked for and kept, so that serving a cached list costs no JSON work.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    items::{BadBoundaries, Items},
    tools::Tools,
};
use crate::{
    ids::ServerId,
    mcp::{
        Raw,
        json::{self, RawObject},
        method::ListKind,
        name, shape,
        version::Version,
    },
};

/// One list of one server.
#[derive(Debug)]
pub struct Catalogue {
    server: ServerId,
    kind: ListKind,
    upstream: Version,
    items: Items,
    /// The item's name or URI; `None` when it has none that is text.
    names: Vec<Option<Box<str>>>,
    /// The first item of each name.
    index: HashMap<Box<str>, u32>,
    /// Unknown members of the upstream's list result, as one object.
    extras: Bytes,
    shaped: [OnceLock<Items>; Version::ALL.len()],
    merged: [OnceLock<Items>; Version::ALL.len()],
    exposed: OnceLock<HashMap<Box<str>, u32>>,
    tools: OnceLock<Arc<Tools>>,
}

/// What was fetched, on its way into the cache.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    /// The server it is of.
    pub server: &'a ServerId,
    /// Which list.
    pub kind: ListKind,
    /// The version spoken with the server.
    pub upstream: Version,
    /// The items in the server's order.
    pub items: Vec<&'a Raw>,
    /// Unknown members of the list result.
    pub extras: RawObject<'a>,
}

/// A catalogue as the store keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wire<'a> {
    server: &'a str,
    method: &'a str,
    upstream: &'a str,
    #[serde(borrow)]
    array: &'a serde_bytes::Bytes,
    ends: Vec<u32>,
    names: Vec<Option<String>>,
    #[serde(borrow)]
    extras: &'a serde_bytes::Bytes,
}

impl Draft<'_> {
    /// Writes it as the store keeps it.
    ///
    /// # Errors
    /// When it is longer than four gigabytes.
    pub(super) fn encode<T>(&self, write: impl FnOnce(Wire<'_>) -> T) -> Result<T, BadBoundaries> {
        let texts: Vec<&str> = self.items.iter().map(|item| item.get()).collect();
        let items = Items::join(&texts)?;
        let extras = self.extras.to_raw();
        Ok(write(Wire {
            server: self.server.as_str(),
            method: self.kind.method(),
            upstream: self.upstream.as_str(),
            array: serde_bytes::Bytes::new(items.array()),
            ends: items.ends().to_vec(),
            names: self
                .items
                .iter()
                .map(|item| item_name(self.kind, item))
                .collect(),
            extras: serde_bytes::Bytes::new(extras.get().as_bytes()),
        }))
    }
}

impl Catalogue {
    /// Reads what [`Draft::encode`] wrote; `payload` is what `wire` borrows from.
    ///
    /// # Errors
    /// When its parts do not belong together.
    pub(super) fn open(wire: Wire<'_>, payload: &Bytes) -> Result<Self, String> {
        let server = ServerId::try_from(wire.server).map_err(|error| error.to_string())?;
        let kind = ListKind::ALL
            .into_iter()
            .find(|kind| kind.method() == wire.method)
            .ok_or("an unknown list")?;
        let upstream = Version::parse(wire.upstream).ok_or("an unknown version")?;
        let items = Items::from_parts(payload.slice_ref(wire.array), wire.ends)
            .map_err(|error| error.to_string())?;
        if wire.names.len() != items.len() {
            return Err("as many names as items were expected".into());
        }
        let names: Vec<Option<Box<str>>> = wire
            .names
            .into_iter()
            .map(|name| name.map(String::into_boxed_str))
            .collect();
        Ok(Self {
            index: first_of_each(names.iter().map(Option::as_deref)),
            extras: payload.slice_ref(wire.extras),
            tools: OnceLock::new(),
            shaped: Default::default(),
            merged: Default::default(),
            exposed: OnceLock::new(),
            server,
            kind,
            upstream,
            items,
            names,
        })
    }

    /// The server it is of.
    #[must_use]
    pub fn server(&self) -> &ServerId {
        &self.server
    }

    /// The version spoken with the server.
    #[must_use]
    pub fn upstream(&self) -> Version {
        self.upstream
    }

    /// The items as the server wrote them.
    #[must_use]
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// The items as a client of `version` is to see them.
    pub fn items_for(&self, version: Version) -> &Items {
        self.shaped[version as usize].get_or_init(|| self.shape(version))
    }

    /// The items under the names of the merged endpoint; those without a name,
    /// which could not be addressed there, are left out.
    pub fn merged_for(&self, version: Version) -> &Items {
        self.merged[version as usize].get_or_init(|| self.rename(version))
    }

    /// The names on the merged endpoint of the items of
    /// [`merged_for`](Self::merged_for), in the same order.
    pub fn merged_names(&self) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
        self.names
            .iter()
            .flatten()
            .map(|name| self.exposed_name(name))
    }

    /// Unknown members of the upstream's list result, as one JSON object.
    #[must_use]
    pub fn extras(&self) -> &Bytes {
        &self.extras
    }

    /// Bytes it occupies beside what it was read from, once all that clients
    /// usually ask for has been derived.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.items.array().len() * 2 + self.names.len() * 160
    }

    /// Whether there is an item of that name (or URI).
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The names (or URIs, or URI templates) of the items, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().flatten().map(|name| &**name)
    }

    /// The name at the server of what the merged endpoint calls `exposed`.
    #[must_use]
    pub fn original_name(&self, exposed: &str) -> Option<&str> {
        let index = self.exposed.get_or_init(|| self.index_exposed());
        let at = *index.get(exposed)?;
        self.names.get(at as usize)?.as_deref()
    }

    /// What calls have to know of the tools, understood once; of other lists
    /// nothing.
    #[must_use]
    pub fn tools(&self) -> Arc<Tools> {
        Arc::clone(self.tools.get_or_init(|| Arc::new(self.understand())))
    }

    fn understand(&self) -> Tools {
        if self.kind != ListKind::Tools {
            return Tools::default();
        }
        let named = self.names.iter().enumerate();
        Tools::of(
            named.filter_map(|(at, name)| Some((name.as_deref()?, self.items.run(at..at + 1)))),
        )
    }

    fn shape(&self, version: Version) -> Items {
        self.edited(|item| match self.kind {
            ListKind::Tools => match shape::tool_for(version, item) {
                std::borrow::Cow::Borrowed(_) => None,
                std::borrow::Cow::Owned(tool) => Some(tool),
            },
            ListKind::Prompts | ListKind::Resources | ListKind::ResourceTemplates => None,
        })
    }

    /// Applies `edit` to every item; shares the bytes when nothing changes.
    fn edited(&self, edit: impl Fn(&Raw) -> Option<Box<Raw>>) -> Items {
        let edited: Vec<Option<Box<Raw>>> = (0..self.items.len())
            .map(|at| self.items.raw(at).and_then(&edit))
            .collect();
        if edited.iter().all(Option::is_none) {
            return self.items.clone();
        }
        let texts: Vec<&[u8]> = edited
            .iter()
            .zip(self.items.iter())
            .map(|(edited, original)| match edited {
                Some(edited) => edited.get().as_bytes(),
                None => original,
            })
            .collect();
        // Edits only take away, so the result fits where the original did.
        Items::join(&texts).unwrap_or_else(|_| self.items.clone())
    }

    fn rename(&self, version: Version) -> Items {
        let shaped = self.items_for(version);
        let named = self.names.iter().enumerate();
        let renamed: Vec<Bytes> = named
            .filter_map(|(at, name)| Some((at, name.as_deref()?)))
            .map(|(at, name)| self.renamed_item(shaped, at, name))
            .collect();
        Items::join(&renamed).unwrap_or_default()
    }

    fn renamed_item(&self, shaped: &Items, at: usize, name: &str) -> Bytes {
        let item = shaped.run(at..at + 1);
        if !is_renamed(self.kind) {
            return item;
        }
        let Some(mut object) = shaped.raw(at).and_then(|raw| RawObject::parse(raw).ok()) else {
            return item;
        };
        object.set("name", json::raw_str(&self.exposed_name(name)));
        let mut out = Vec::with_capacity(item.len() + self.server.as_str().len() + 2);
        object.write(&mut out);
        out.into()
    }

    fn exposed_name<'n>(&self, name: &'n str) -> std::borrow::Cow<'n, str> {
        if is_renamed(self.kind) {
            name::exposed(&self.server, name).into()
        } else {
            name.into()
        }
    }

    fn index_exposed(&self) -> HashMap<Box<str>, u32> {
        let exposed: Vec<Option<Box<str>>> = self
            .names
            .iter()
            .map(|name| name.as_deref().map(|name| self.exposed_name(name).into()))
            .collect();
        first_of_each(exposed.iter().map(Option::as_deref))
    }
}

/// Tools and prompts carry their server's name on the merged endpoint;
/// resources are found by who owns their URI.
fn is_renamed(kind: ListKind) -> bool {
    match kind {
        ListKind::Tools | ListKind::Prompts => true,
        ListKind::Resources | ListKind::ResourceTemplates => false,
    }
}

fn item_name(kind: ListKind, item: &Raw) -> Option<String> {
    let object = RawObject::parse(item).ok()?;
    object
        .get_str(kind.name_key())
        .map(|name| name.into_owned())
}

fn first_of_each<'n>(names: impl Iterator<Item = Option<&'n str>>) -> HashMap<Box<str>, u32> {
    let mut index = HashMap::new();
    for (at, name) in names.enumerate() {
        if let (Some(name), Ok(at)) = (name, u32::try_from(at)) {
            index.entry(name.into()).or_insert(at);
        }
    }
    index
}
