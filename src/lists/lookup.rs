//! Finding one item: a tool's definition, the server behind a merged name, the
//! owner of a resource.
//!
//! These answer calls, so they take what this node holds at any age that may
//! be served, and fetch only what it does not hold at all.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Caller, Catalogue, Listing, Lists, Tool,
    source::{as_part, document},
    tools::Known,
    uri_template,
};
use crate::{
    cache::Scope,
    ids::Principal,
    mcp::{method::ListKind, name, version::Version},
    servers::Server,
};

/// Longest wait of a call for the definition of its tool.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// For how long calls do without after one has waited in vain.
pub(super) const NOT_AGAIN_FOR: Duration = Duration::from_secs(5);

impl Lists {
    /// What calls of a tool have to know of it; `None` when the server lists
    /// none of that name or its list cannot be had soon. A call can do without,
    /// so it never waits long, and not again after it has waited in vain.
    pub async fn tool(
        &self,
        server: &Arc<Server>,
        caller: &Caller,
        name: &str,
        deadline: Instant,
    ) -> Option<Arc<Tool>> {
        let slot = self.keys.tools(&self.servers, server, caller);
        let known = slot.load();
        if let Some(known) = &*known
            && known.stands()
        {
            return known.get(name);
        }
        if let Some((known, is_shared)) = self.peek_tools(server, caller) {
            let tool = known.get(name);
            if is_shared {
                slot.store(Some(Arc::new(known)));
            }
            return tool;
        }
        if let Some(known) = known.as_ref().filter(|known| known.may_do()) {
            return known.get(name);
        }
        // Not kept over the wait: others store meanwhile.
        drop(known);
        if self.unlisted.contains_key(&server.id) {
            return None;
        }
        let deadline = deadline.min(Instant::now() + LONGEST_WAIT);
        let listed = self.catalogue(server, ListKind::Tools, caller, deadline);
        match listed.await {
            Ok(part) => {
                let known = Known::of(&part.catalogue);
                let tool = known.get(name);
                if part.served.scope != Scope::Private {
                    slot.store(Some(Arc::new(known)));
                }
                tool
            }
            Err(error) => {
                tracing::debug!(server = %server.id, %error, "no list to look a tool up in");
                self.unlisted.insert(server.id.clone(), ());
                None
            }
        }
    }

    /// The server and the name there of what the merged endpoint calls
    /// `exposed`. A name that was not shortened needs no list: the server
    /// itself knows best what it has.
    pub async fn resolve_name(
        &self,
        kind: ListKind,
        exposed: &str,
        caller: &Caller,
        deadline: Instant,
    ) -> Option<(Arc<Server>, String)> {
        let (id, rest) = name::split(exposed)?;
        let server = self.servers.get(id.as_str())?;
        let plain = || name::matches(exposed, &id, rest).then(|| rest.to_owned());
        let original = if may_be_shortened(rest) {
            let catalogue = self.held(&server, kind, caller, deadline).await;
            let listed = catalogue
                .as_ref()
                .and_then(|catalogue| catalogue.original_name(exposed));
            listed.map(str::to_owned).or_else(plain)
        } else {
            plain()
        };
        original.map(|original| (server, original))
    }

    /// The server that a resource belongs to on the merged endpoint: the first
    /// in configured order that lists it, else the first with a template that
    /// it can be an expansion of, else the only one that has resources.
    pub async fn owner_of(
        &self,
        uri: &str,
        caller: &Caller,
        deadline: Instant,
    ) -> Option<Arc<Server>> {
        let listed = self.parts(ListKind::Resources, caller, deadline).await;
        let lists = || listed.present.iter().map(|part| &part.catalogue);
        if let Some(owner) = lists().find(|list| list.contains(uri)) {
            return self.servers.get(owner.server().as_str());
        }
        let templates = self
            .parts(ListKind::ResourceTemplates, caller, deadline)
            .await;
        let owner = templates.present.iter().find(|part| {
            // A completion names the template itself.
            let mut names = part.catalogue.names();
            names.any(|template| template == uri || uri_template::matches(template, uri))
        });
        if let Some(owner) = owner {
            return self.servers.get(owner.catalogue.server().as_str());
        }
        let mut owners = lists();
        match (owners.next(), owners.next()) {
            (Some(only), None) => self.servers.get(only.server().as_str()),
            (None | Some(_), _) => None,
        }
    }

    /// The version spoken with a server, if this node knows; no I/O.
    #[must_use]
    pub fn spoken(&self, server: &Server) -> Option<Version> {
        let caller = Caller::plain(Principal::ANONYMOUS);
        let described = self.cache.peek(&self.document_key(server, &caller))?;
        let described = document(server, &described).ok()?;
        Some(described.value.version)
    }

    /// The tools of a server as this node holds them, and whether they are the
    /// same for all callers of the kind; no I/O.
    fn peek_tools(&self, server: &Arc<Server>, caller: &Caller) -> Option<(Known, bool)> {
        let key = self.document_key(server, caller);
        let (described, as_described) = self.cache.peek_witnessed(&key)?;
        let era = document(server, &described).ok()?.value.version.era();
        let key = self.list_key(server, ListKind::Tools, era, caller);
        let (listed, as_listed) = self.cache.peek_witnessed(&key)?;
        let Listing::Catalogue(catalogue) = &*listed.value else {
            return None;
        };
        let known = Known::of(catalogue).witnessed([as_described, as_listed]);
        Some((known, listed.scope != Scope::Private))
    }

    /// A list as this node holds it; no I/O.
    fn peek(
        &self,
        server: &Arc<Server>,
        kind: ListKind,
        caller: &Caller,
    ) -> Option<Arc<Catalogue>> {
        let described = self.cache.peek(&self.document_key(server, caller))?;
        let document = document(server, &described).ok()?.value;
        let key = self.list_key(server, kind, document.version.era(), caller);
        let part = as_part(server, kind, self.cache.peek(&key)?, document);
        part.ok().map(|part| part.catalogue)
    }

    /// A list as this node holds it, fetched when it holds none.
    async fn held(
        &self,
        server: &Arc<Server>,
        kind: ListKind,
        caller: &Caller,
        deadline: Instant,
    ) -> Option<Arc<Catalogue>> {
        if let Some(catalogue) = self.peek(server, kind, caller) {
            return Some(catalogue);
        }
        match self.catalogue(server, kind, caller, deadline).await {
            Ok(part) => Some(part.catalogue),
            Err(error) => {
                tracing::debug!(server = %server.id, %error, "no list to look an item up in");
                None
            }
        }
    }
}

/// Whether a name on the merged endpoint ends like one that was shortened:
/// `_` and eight hex digits.
fn may_be_shortened(rest: &str) -> bool {
    rest.len() >= 9
        && rest.is_char_boundary(rest.len() - 9)
        && rest[rest.len() - 9..]
            .strip_prefix('_')
            .is_some_and(|digest| digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::may_be_shortened;

    #[test]
    fn only_names_that_end_in_a_digest_may_be_shortened() {
        assert!(may_be_shortened("long_name_0a1b2c3d"));
        assert!(may_be_shortened("_0a1b2c3d"));
        for plain in ["echo", "", "a_0a1b2c3", "a_0a1b2c3g", "ä_a1b2c3d"] {
            assert!(!may_be_shortened(plain), "{plain}");
        }
    }
}
