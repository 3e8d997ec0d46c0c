//! Where lists come from: the cache, under the right key, filled by a fetch.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    Caller, Document, Items, ListError, Listing, Lists, Missing,
    fetch::{Fetcher, Wanted},
    merged::{Part, Parts},
};
use crate::{
    cache::{CacheKey, Cacheable as _, Fetch, Served, Subject},
    ids::{Principal, ServerId},
    mcp::{
        capabilities::ClientCapabilities,
        method::{self, ListKind},
        version::Era,
    },
    servers::Server,
    store::registry::Edition,
};

impl Lists {
    /// One server's list, from the cache or fetched.
    pub(super) async fn catalogue(
        &self,
        server: &Arc<Server>,
        kind: ListKind,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Part, ListError> {
        let description = self.description(server, caller, deadline).await?;
        let era = description.version.era();
        let key = self.list_key(server, kind, era, caller);
        let fetch = self.fetch(server, caller, Wanted::List(kind));
        let served = self
            .cache
            .get(&key, &self.settings.durations, fetch, deadline)
            .await?;
        let part = as_part(server, kind, served, description)?;
        if part.catalogue.upstream().era() != era {
            // The server changed its era: what was known of it is wrong.
            let subject = Subject {
                server: server.id.clone(),
                method: method::DISCOVER,
                uri: None,
            };
            self.cache.invalidate(&subject).await;
        }
        Ok(part)
    }

    /// The servers' parts of a merged list, asked for at the same time. A
    /// server that was late is not waited for again until it has answered.
    pub(super) async fn parts(&self, kind: ListKind, caller: &Caller, deadline: Instant) -> Parts {
        let servers = self.servers.all();
        let deadline = self.part_deadline(deadline);
        let asked = servers.iter().map(|server| {
            let is_late = self.late.contains_key(&server.id);
            let deadline = if is_late { Instant::now() } else { deadline };
            self.part(server, kind, caller, deadline)
        });
        let mut parts = Parts::default();
        let answers = join_all(asked).await;
        for (server, answer) in servers.iter().zip(answers) {
            match &answer {
                // The fetch goes on without us.
                Err(error) if error.is_late() => self.late.insert(server.id.clone(), ()),
                _ => self.late.invalidate(&server.id),
            }
            match answer {
                Ok(Some(part)) => parts.present.push(part),
                Ok(None) => {}
                Err(error) if error.is_not_offered() => {}
                Err(error) => parts.missing.push(absent(&server.id, &error)),
            }
        }
        parts
    }

    /// One server's part; `None` when it has no such list.
    async fn part(
        &self,
        server: &Arc<Server>,
        kind: ListKind,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Option<Part>, ListError> {
        let description = self.description(server, caller, deadline).await?;
        if !description.capabilities.has_list(kind) {
            return Ok(None);
        }
        self.catalogue(server, kind, caller, deadline)
            .await
            .map(Some)
    }

    /// What is known of a server at any age that may be served, fetched when
    /// nothing is.
    pub(super) async fn description(
        &self,
        server: &Arc<Server>,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Arc<Document>, ListError> {
        if let Some(served) = self.cache.peek(&self.document_key(server, caller)) {
            return document(server, &served).map(|served| served.value);
        }
        let served = self.discovery(server, caller, deadline).await?;
        Ok(served.value)
    }

    /// A server's list from itself, past the cache and without keeping it.
    /// Dropping the future ends the exchange.
    ///
    /// # Errors
    /// When it has no answer.
    pub async fn ask(
        &self,
        server: &Arc<Server>,
        kind: ListKind,
        deadline: Instant,
    ) -> Result<Items, ListError> {
        let caller = Caller::plain(Principal::ANONYMOUS);
        let fetch = self.fetch(server, &caller, Wanted::List(kind));
        let timed_out = |_| ListError::TimedOut {
            what: format!("{} of server {}", kind.method(), server.id),
        };
        let fetched = tokio::time::timeout_at(deadline, fetch()).await;
        let fetched = fetched.map_err(timed_out)??;
        match Listing::decode(&fetched.payload) {
            Ok(Listing::Catalogue(catalogue)) => Ok(catalogue.items().clone()),
            Ok(Listing::Document(_) | Listing::Read(_)) | Err(_) => {
                Err(foreign(server, kind.method()))
            }
        }
    }

    fn part_deadline(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.settings.list_deadline)
    }

    /// A fetch that can outlive the request that wants it.
    pub(super) fn fetch(
        &self,
        server: &Arc<Server>,
        caller: &Caller,
        wanted: Wanted,
    ) -> Fetch<ListError> {
        let fetcher = Fetcher {
            upstreams: Arc::clone(&self.upstreams),
            server: Arc::clone(server),
            capabilities: caller.capabilities.clone(),
            bounds: self.settings.bounds,
            wanted,
        };
        Arc::new(move || Box::pin(fetcher.clone().fetch()))
    }
}

impl Lists {
    pub(super) fn document_key(&self, server: &Server, caller: &Caller) -> CacheKey {
        self.keys.document(&self.servers, server, caller.principal)
    }

    pub(super) fn list_key(
        &self,
        server: &Server,
        kind: ListKind,
        era: Era,
        caller: &Caller,
    ) -> CacheKey {
        self.keys.list(&self.servers, (server, era), kind, caller)
    }
}

/// What a server may answer differently for: legacy servers learn all the
/// capabilities when a session is opened, modern ones may only let their lists
/// depend on extensions.
pub(super) fn variant(server: &Server, era: Era, capabilities: &ClientCapabilities) -> String {
    let variant = match era {
        Era::Legacy => format!("legacy {}", capabilities.fingerprint()),
        Era::Modern => format!("modern {}", capabilities.extension_list()),
    };
    of_edition(server, variant)
}

/// What another server of the same name said before is not this one's answer.
pub(super) fn of_edition(server: &Server, variant: String) -> String {
    match server.edition {
        Edition(0) => variant,
        Edition(edition) => format!("edition {edition} {variant}"),
    }
}

fn absent(server: &ServerId, error: &ListError) -> Missing {
    tracing::debug!(%server, %error, "a server is missing from a merged list");
    Missing {
        server: server.to_string(),
        reason: error.reason(),
    }
}

/// Entries of different methods have different keys, so another kind of value
/// under this one was written by something else.
pub(super) fn as_part(
    server: &Server,
    kind: ListKind,
    served: Served<Listing>,
    document: Arc<Document>,
) -> Result<Part, ListError> {
    match &*served.value {
        Listing::Catalogue(catalogue) => Ok(Part {
            catalogue: Arc::clone(catalogue),
            document,
            served,
        }),
        Listing::Document(_) | Listing::Read(_) => Err(foreign(server, kind.method())),
    }
}

pub(super) fn document(
    server: &Server,
    served: &Served<Listing>,
) -> Result<Served<Document>, ListError> {
    match &*served.value {
        Listing::Document(document) => Ok(Served {
            value: Arc::clone(document),
            status: served.status,
            remaining: served.remaining,
            age: served.age,
            scope: served.scope,
            generation: served.generation,
            digest: served.digest,
        }),
        Listing::Catalogue(_) | Listing::Read(_) => Err(foreign(server, method::DISCOVER)),
    }
}

pub(super) fn foreign(server: &Server, method: &'static str) -> ListError {
    ListError::Malformed {
        server: server.id.clone(),
        method,
        why: "the store holds something else under its key".to_owned(),
    }
}
