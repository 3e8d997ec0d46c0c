//! The cache's names of what is asked again and again, and what calls keep of
//! the answers.
//!
//! A name is a digest of server, method and what the answer may depend on.
//! Those of a server's lists are the same for nearly all callers, so they are
//! computed once and then found by the server's name.

use std::{collections::HashMap, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{Caller, source::variant, tools::Known};
use crate::{
    cache::CacheKey,
    ids::{Principal, ServerId},
    mcp::{
        method::{self, ListKind},
        version::Era,
    },
    servers::{Server, Servers},
    store::registry::Edition,
};

/// Kinds of callers whose names are kept, by server and era; those of others
/// are computed each time.
const KEPT: usize = 32;

/// The names in use.
#[derive(Debug, Default)]
pub(super) struct Keys(ArcSwap<HashMap<ServerId, Arc<OfServer>>>);

#[derive(Debug)]
struct OfServer {
    edition: Edition,
    document: CacheKey,
    /// By what a server's lists may depend on, of modern and legacy callers.
    lists: [ArcSwap<HashMap<Arc<str>, Arc<Names>>>; 2],
    /// By all that they may depend on.
    tools: ArcSwap<HashMap<Arc<str>, KnownTools>>,
}

/// What calls know of a server's tools.
pub(super) type KnownTools = Arc<ArcSwapOption<Known>>;

type Names = [CacheKey; ListKind::ALL.len()];

impl Keys {
    /// What a server says of itself.
    pub(super) fn document(&self, servers: &Servers, server: &Server, who: Principal) -> CacheKey {
        self.of(servers, server).document.asked_by(who)
    }

    /// A list of a server that speaks `era`.
    pub(super) fn list(
        &self,
        servers: &Servers,
        (server, era): (&Server, Era),
        kind: ListKind,
        caller: &Caller,
    ) -> CacheKey {
        let (known, depends_on) = match era {
            Era::Modern => (0, caller.capabilities.extension_list()),
            Era::Legacy => (1, caller.capabilities.fingerprint()),
        };
        let of_server = self.of(servers, server);
        let known = &of_server.lists[known];
        if let Some(names) = known.load().get(depends_on) {
            return names[kind as usize].asked_by(caller.principal);
        }
        let variant = variant(server, era, &caller.capabilities);
        let names = Arc::new(ListKind::ALL.map(|kind| {
            let method = kind.method();
            CacheKey::new(&server.id, method, None, &variant, Principal::ANONYMOUS)
        }));
        known.rcu(|known| {
            let mut known = HashMap::clone(known);
            if known.len() < KEPT {
                known.insert(Arc::clone(depends_on), Arc::clone(&names));
            }
            known
        });
        names[kind as usize].asked_by(caller.principal)
    }

    /// Where calls keep what they know of a server's tools.
    pub(super) fn tools(&self, servers: &Servers, server: &Server, caller: &Caller) -> KnownTools {
        let of_server = self.of(servers, server);
        let depends_on = caller.capabilities.fingerprint();
        if let Some(known) = of_server.tools.load().get(depends_on) {
            return Arc::clone(known);
        }
        let new = KnownTools::default();
        of_server.tools.rcu(|known| {
            let mut known = HashMap::clone(known);
            if known.len() < KEPT {
                known.insert(Arc::clone(depends_on), Arc::clone(&new));
            }
            known
        });
        new
    }

    fn of(&self, servers: &Servers, server: &Server) -> Arc<OfServer> {
        if let Some(found) = self.0.load().get(&server.id)
            && found.edition == server.edition
        {
            return Arc::clone(found);
        }
        let found = Arc::new(OfServer {
            edition: server.edition,
            document: document(server),
            lists: Default::default(),
            tools: ArcSwap::default(),
        });
        self.0.rcu(|all| {
            // Servers that are gone are forgotten when one comes.
            let known = servers.all();
            let mut all = HashMap::clone(all);
            all.retain(|id, _| known.iter().any(|server| server.id == *id));
            all.insert(server.id.clone(), Arc::clone(&found));
            all
        });
        found
    }
}

fn document(server: &Server) -> CacheKey {
    let variant = super::source::of_edition(server, String::new());
    let anonymous = Principal::ANONYMOUS;
    CacheKey::new(&server.id, method::DISCOVER, None, &variant, anonymous)
}
