//! The lists of servers: fetched whole, cached, served in pages, merged.
//!
//! `fetch` brings a list from a server, `catalogue` is what is cached of it,
//! `page` what a client gets, `merged` the lists of all servers as one.
//! `discovery` and `read` are the two other answers that may be kept; `source`
//! asks the cache for all of them, `lookup` finds single items. How long and for
//! whom is the cache's affair ([`crate::cache`]), which replica is
//! asked the server's ([`crate::servers`]).

mod catalogue;
mod discovery;
mod error;
mod fetch;
mod items;
mod keys;
mod listing;
mod lookup;
mod merged;
mod page;
mod read;
mod source;
#[cfg(test)]
mod tests;
mod tools;
mod uri_template;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

pub use self::{
    catalogue::Catalogue,
    discovery::Document,
    error::ListError,
    fetch::Bounds,
    items::Items,
    listing::Listing,
    page::{ListPage, ListResult, MISSING, Missing},
    read::{Read, ReadResult},
    tools::{Annotations, Tool, Tools},
};
use self::{
    fetch::Wanted,
    keys::Keys,
    merged::Merger,
    page::{Keeping, Place, Source},
    source::{document, foreign, variant},
};
use crate::{
    cache::{Cache, CacheKey, CacheStatus, Durations, Scope, Served, Subject},
    config,
    fleet::Change,
    ids::{Principal, ServerId},
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        method::{self, ListKind},
        seal::Sealer,
        shape::{self, ModernResult},
        version::Era,
    },
    servers::{Server, Servers},
    telemetry::metrics::Metrics,
    upstream::Upstreams,
};

/// Bytes of all pages of one list.
const MAX_LIST_BYTES: usize = 64 << 20;

/// A server that was late and has not been asked for since counts as late no longer.
const LATE_FOR: Duration = Duration::from_secs(60);

/// How lists are fetched and served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long lists may be served.
    pub durations: Durations,
    /// Items per page sent to clients.
    pub page_size: usize,
    /// How long a merged list waits for each server.
    pub list_deadline: Duration,
    /// How much of one list is taken.
    pub bounds: Bounds,
    /// Who answers for merged lists and for a server that does not say who it is.
    pub server_info: Arc<Raw>,
}

impl Settings {
    /// From the node's configuration.
    #[must_use]
    pub fn new(cache: &config::Cache, limits: &config::Limits, server_info: Box<Raw>) -> Self {
        Self {
            server_info: server_info.into(),
            durations: cache.lists,
            page_size: cache.page_size.max(1),
            list_deadline: cache.list_deadline,
            bounds: Bounds {
                pages: limits.list_pages,
                items: limits.list_items,
                bytes: MAX_LIST_BYTES,
                // Ends before the cache loses patience, so that the reason is known.
                time: cache.fetch_timeout.mul_f64(0.95),
            },
        }
    }
}

/// On whose behalf a list is asked for.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The authorization context.
    pub principal: Principal,
    /// What the client declared.
    pub capabilities: ClientCapabilities,
}

impl Caller {
    /// A caller without a conversation: REST, batches, the node itself.
    #[must_use]
    pub fn plain(principal: Principal) -> Self {
        Self {
            principal,
            capabilities: ClientCapabilities::none(),
        }
    }
}

/// Whose list is asked for.
#[derive(Debug, Clone)]
pub enum Target {
    /// One server's, as it is.
    One(Arc<Server>),
    /// All servers', merged.
    All,
}

/// Serves the lists of all servers.
#[derive(Debug)]
pub struct Lists {
    upstreams: Arc<Upstreams>,
    servers: Arc<Servers>,
    cache: Arc<Cache<Listing>>,
    keys: Keys,
    sealer: Sealer,
    settings: Settings,
    metrics: Arc<Metrics>,
    merger: Merger,
    /// Resources whose server does not allow them to be kept, so that reading
    /// them takes the direct way.
    not_kept: moka::sync::Cache<(ServerId, String), ()>,
    /// Servers whose tools could not be listed lately, so that calls do not wait.
    unlisted: moka::sync::Cache<ServerId, ()>,
    /// Servers that missed the deadline of a merged list.
    late: moka::sync::Cache<ServerId, ()>,
}

impl Lists {
    /// Lists over `cache`; nothing is fetched yet.
    #[must_use]
    pub fn new(
        upstreams: Arc<Upstreams>,
        servers: Arc<Servers>,
        cache: Arc<Cache<Listing>>,
        sealer: Sealer,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            upstreams,
            servers,
            cache,
            keys: Keys::default(),
            sealer,
            settings,
            metrics,
            merger: Merger::new(),
            not_kept: moka::sync::Cache::builder()
                .max_capacity(10_000)
                .time_to_live(Duration::from_secs(600))
                .build(),
            unlisted: moka::sync::Cache::builder()
                .max_capacity(10_000)
                .time_to_live(lookup::NOT_AGAIN_FOR)
                .build(),
            late: moka::sync::Cache::builder()
                .max_capacity(10_000)
                .time_to_live(LATE_FOR)
                .build(),
        }
    }

    /// A page of a list.
    ///
    /// # Errors
    /// [`ListError::BadCursor`] when the cursor is not of this list as it is
    /// now; the others when one server is asked for and has no answer. A
    /// merged list names such servers instead.
    pub async fn page(
        &self,
        target: &Target,
        kind: ListKind,
        caller: &Caller,
        cursor: Option<&str>,
        deadline: Instant,
    ) -> Result<ListPage, ListError> {
        self.serve(
            target,
            kind,
            caller,
            deadline,
            cursor,
            self.settings.page_size,
        )
        .await
    }

    /// A whole list on one page.
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub async fn whole(
        &self,
        target: &Target,
        kind: ListKind,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<ListPage, ListError> {
        self.serve(target, kind, caller, deadline, None, usize::MAX)
            .await
    }

    async fn serve(
        &self,
        target: &Target,
        kind: ListKind,
        caller: &Caller,
        deadline: Instant,
        cursor: Option<&str>,
        size: usize,
    ) -> Result<ListPage, ListError> {
        let place = |server, generation| Place {
            kind,
            server,
            principal: &caller.principal,
            sealer: &self.sealer,
            generation,
        };
        let page = match target {
            Target::One(server) => {
                let part = self.catalogue(server, kind, caller, deadline).await?;
                let keeping = keeping(&part.served);
                let place = place(Some(&server.id), part.served.digest);
                let source = Source::One(part.catalogue);
                let (range, next_cursor) = place.run(cursor, size, source.len())?;
                let server_info = part.document.server_info.clone().map(Arc::from);
                ListPage {
                    next_cursor,
                    server_info: server_info.unwrap_or_else(|| self.server_info()),
                    ..ListPage::new(kind, source, range, keeping, self.server_info())
                }
            }
            Target::All => {
                let parts = self.parts(kind, caller, deadline).await;
                let merged = self.merger.merge(kind, &parts);
                let place = place(None, merged.generation());
                let source = Source::All(merged);
                let (range, next_cursor) = place.run(cursor, size, source.len())?;
                let keeping = parts.keeping();
                ListPage {
                    next_cursor,
                    missing: parts.missing,
                    ..ListPage::new(kind, source, range, keeping, self.server_info())
                }
            }
        };
        self.metrics.cache(kind.method(), page.status);
        Ok(page)
    }

    /// What a server says of itself.
    ///
    /// # Errors
    /// When it cannot be asked and nothing is kept of it.
    pub async fn discovery(
        &self,
        server: &Arc<Server>,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Served<Document>, ListError> {
        let key = self.document_key(server, caller);
        let fetch = self.fetch(server, caller, Wanted::Document);
        let served = self
            .cache
            .get(&key, &self.settings.durations, fetch, deadline)
            .await?;
        self.metrics.cache(method::DISCOVER, served.status);
        document(server, &served)
    }

    /// Reads a resource from the cache, when the request and the server allow
    /// it. `None`: the caller has to ask the server itself.
    ///
    /// # Errors
    /// When the server was asked and has no answer.
    pub async fn read(
        &self,
        server: &Arc<Server>,
        caller: &Caller,
        params: &Raw,
        deadline: Instant,
    ) -> Result<Option<Read>, ListError> {
        let Some(uri) = read::plain_uri(params) else {
            return Ok(None);
        };
        let slot = (server.id.clone(), uri);
        if self.not_kept.contains_key(&slot) {
            return Ok(None);
        }
        let description = self.description(server, caller, deadline).await?;
        if description.version.era() == Era::Legacy {
            return Ok(None);
        }
        let wanted = Wanted::Resource {
            params: params.to_owned(),
        };
        let fetch = self.fetch(server, caller, wanted);
        let variant = variant(server, Era::Modern, &caller.capabilities);
        let (id, method) = (&server.id, method::RESOURCES_READ);
        let key = CacheKey::new(id, method, Some(&slot.1), &variant, caller.principal);
        let served = self
            .cache
            .get(&key, &self.settings.durations, fetch, deadline)
            .await;
        let served = match served.map_err(ListError::from) {
            // A fetch has less time than a call may take.
            Err(error) if error.is_late() => {
                self.not_kept.insert(slot, ());
                return Ok(None);
            }
            served => served?,
        };
        self.metrics.cache(method, served.status);
        let Listing::Read(read) = &*served.value else {
            return Err(foreign(server, method));
        };
        if served.status == CacheStatus::Bypass {
            self.not_kept.insert(slot, ());
            // What the server asks, it asks whoever can answer.
            if !read.is_complete() {
                return Ok(None);
            }
        }
        let keeping = keeping(&served);
        let own = description.server_info.as_deref();
        let context = ModernResult {
            method,
            cache: None,
            server_info: own.unwrap_or(&self.settings.server_info),
        };
        let result = read.with_hints(keeping.ttl, keeping.public);
        Ok(Some(Read {
            result: shape::result_for_modern(&result, &context).into_owned(),
            upstream: read.upstream,
            status: served.status,
        }))
    }

    /// A change was reported: what it makes out of date is not served as fresh
    /// any more, on any node.
    pub async fn invalidate(&self, server: &ServerId, change: &Change) {
        let subject = |method, uri| Subject {
            server: server.clone(),
            method,
            uri,
        };
        match change {
            Change::Tools => {
                self.cache
                    .invalidate(&subject(method::TOOLS_LIST, None))
                    .await
            }
            Change::Prompts => {
                self.cache
                    .invalidate(&subject(method::PROMPTS_LIST, None))
                    .await
            }
            Change::Resources => {
                for method in [method::RESOURCES_LIST, method::RESOURCES_TEMPLATES_LIST] {
                    self.cache.invalidate(&subject(method, None)).await;
                }
            }
            Change::Resource { uri } => {
                let subject = subject(method::RESOURCES_READ, Some(uri.clone()));
                self.cache.invalidate(&subject).await;
            }
        }
    }

    /// Everything kept of a server is out of date: its changes may have gone
    /// unnoticed.
    pub async fn invalidate_all(&self, server: &ServerId) {
        let lists = ListKind::ALL.map(ListKind::method);
        for method in lists.into_iter().chain([method::RESOURCES_READ]) {
            let subject = Subject {
                server: server.clone(),
                method,
                uri: None,
            };
            self.cache.invalidate(&subject).await;
        }
    }

    fn server_info(&self) -> Arc<Raw> {
        Arc::clone(&self.settings.server_info)
    }
}

fn keeping<V>(served: &Served<V>) -> Keeping {
    Keeping {
        ttl: served.remaining,
        public: served.scope == Scope::Public,
        status: served.status,
    }
}
