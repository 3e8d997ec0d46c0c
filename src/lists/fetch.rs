//! Brings a whole list from a server: every page, within bounds.
//!
//! Runs detached from the request that caused it, so it owns what it needs and
//! has its own deadline. Listing changes nothing at the server, so another
//! replica is asked whenever one fails.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{catalogue::Draft, discovery, error::ListError, listing::Stored, read};
use crate::{
    breaker::Told,
    cache::{Fetched, Scope},
    ids::ReplicaId,
    mcp::{
        Raw,
        capabilities::ClientCapabilities,
        envelope::TraceContext,
        error::{INVALID_PARAMS, RpcError},
        json::{self, RawObject},
        message::Answer,
        method::{self, ListKind},
        param_header::ParamHeaders,
        version::{Era, Version},
    },
    servers::{Endpoint, Replica, Server},
    upstream::{Event, Outgoing, SessionUse, UpstreamError, Upstreams},
};

/// How much of one list is taken.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Pages followed (`limits.list_pages`).
    pub pages: usize,
    /// Items taken (`limits.list_items`).
    pub items: usize,
    /// Bytes of all pages together.
    pub bytes: usize,
    /// Time for all pages together (`cache.fetch_timeout`).
    pub time: Duration,
}

/// Asks one server on behalf of one kind of caller.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) server: Arc<Server>,
    pub(super) capabilities: ClientCapabilities,
    pub(super) bounds: Bounds,
    pub(super) wanted: Wanted,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// A whole list.
    List(ListKind),
    /// What the server says of itself.
    Document,
    /// The content of a resource.
    Resource {
        /// With its URI.
        params: Box<Raw>,
    },
}

/// What a result says about keeping it. Absent or malformed hints of a modern
/// server mean: not at all (specification, caching).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hints {
    pub(super) ttl: Duration,
    pub(super) scope: Scope,
}

/// The hints of a modern result.
pub(super) fn hints(result: &RawObject<'_>) -> Hints {
    let ttl_ms = result
        .get("ttlMs")
        .and_then(|ttl| serde_json::from_str::<f64>(ttl.get()).ok())
        .filter(|ttl| ttl.is_finite() && *ttl > 0.0);
    let public = result.get_str("cacheScope").as_deref() == Some("public");
    Hints {
        ttl: ttl_ms
            .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
            .unwrap_or_default(),
        scope: if public {
            Scope::Public
        } else {
            Scope::Private
        },
    }
}

/// All pages of one list.
struct Pages {
    results: Vec<Box<Raw>>,
    upstream: Version,
}

/// Why a page was not brought.
enum PageError {
    /// The server does not take its own cursor any more: the list changed meanwhile.
    CursorRefused(ListError),
    Other(ListError),
}

impl Fetcher {
    /// Tries replicas until one answers, be it with an error. One that does
    /// not answer leaves time for the next.
    pub(super) async fn fetch(self) -> Result<Fetched, ListError> {
        let deadline = Instant::now() + self.bounds.time;
        let mut tried: Vec<ReplicaId> = Vec::new();
        let mut failure = None;
        while let Some(replica) = self.server.pick(&tried) {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            tried.push(replica.id.clone());
            let others = self.server.replicas.len() > tried.len();
            let until = if others {
                now + (deadline - now) / 2
            } else {
                deadline
            };
            let in_flight = replica.begin();
            match self.attempt(&replica, until).await {
                Err(ListError::Upstream { server, error }) => {
                    in_flight.tells(error.tells());
                    failure = Some(ListError::Upstream { server, error });
                }
                answered => {
                    // How long many pages take is no measure of one call.
                    in_flight.tells(Told::Alive);
                    return answered;
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.upstream_error(UpstreamError::TimedOut { sent: false })))
    }

    async fn attempt(
        &self,
        replica: &Arc<Replica>,
        deadline: Instant,
    ) -> Result<Fetched, ListError> {
        match &self.wanted {
            Wanted::Document => {
                let description = self.upstreams.describe(replica, deadline).await;
                let description = description.map_err(|error| self.upstream_error(error))?;
                discovery::fetched(&description)
                    .map_err(|why| self.malformed(method::DISCOVER, why))
            }
            Wanted::List(kind) => {
                let pages = match self.pages(replica, *kind, deadline).await {
                    // The list changed while it was read: all pages are discarded, once.
                    Err(PageError::CursorRefused(_)) => self.pages(replica, *kind, deadline).await,
                    pages => pages,
                };
                match pages {
                    Ok(pages) => self.assemble(*kind, &pages, &replica.endpoint),
                    Err(PageError::CursorRefused(error) | PageError::Other(error)) => Err(error),
                }
            }
            Wanted::Resource { params } => {
                let asked = self.ask(replica, method::RESOURCES_READ, Some(params), deadline);
                let (result, version) = asked.await?;
                read::fetched(&result, version)
                    .map_err(|why| self.malformed(method::RESOURCES_READ, why))
            }
        }
    }

    async fn pages(
        &self,
        replica: &Arc<Replica>,
        kind: ListKind,
        deadline: Instant,
    ) -> Result<Pages, PageError> {
        let mut results = Vec::new();
        let mut cursor: Option<String> = None;
        let mut bytes = 0;
        loop {
            let params = cursor
                .as_ref()
                .map(|cursor| json::raw(&serde_json::json!({ "cursor": cursor })));
            let asked = self.ask(replica, kind.method(), params.as_deref(), deadline);
            let (result, upstream) = asked
                .await
                .map_err(|error| at_cursor(error, cursor.is_some()))?;
            bytes += result.get().len();
            if bytes > self.bounds.bytes {
                let limit = self.bounds.bytes;
                return Err(PageError::Other(
                    self.too_long(kind, "bytes", limit, "built in"),
                ));
            }
            let next = next_cursor(&result);
            results.push(result);
            match next {
                None => return Ok(Pages { results, upstream }),
                Some(next) if cursor.as_ref() == Some(&next) => {
                    tracing::warn!(server = %self.server.id, method = kind.method(),
                        "a server repeats its cursor; its list ends here");
                    return Ok(Pages { results, upstream });
                }
                Some(_) if results.len() >= self.bounds.pages => {
                    let limit = self.bounds.pages;
                    let error = self.too_long(kind, "pages", limit, "limits.list_pages");
                    return Err(PageError::Other(error));
                }
                Some(next) => cursor = Some(next),
            }
        }
    }

    /// One request without a conversation: a question in its midst is refused.
    async fn ask(
        &self,
        replica: &Arc<Replica>,
        method: &'static str,
        params: Option<&Raw>,
        deadline: Instant,
    ) -> Result<(Box<Raw>, Version), ListError> {
        let request = Outgoing {
            method,
            params,
            capabilities: &self.capabilities,
            log_level: None,
            progress_token: None,
            trace: TraceContext::default(),
            headers: Vec::new(),
        };
        let deadline = deadline.min(Instant::now() + self.server.timeout);
        let answered = async {
            let sent = self
                .upstreams
                .call(replica, request, SessionUse::Pooled, deadline);
            let mut exchange = sent.await?;
            loop {
                match exchange.next().await? {
                    Event::Notification(_) | Event::Paused { .. } => {}
                    Event::Ask(question) => {
                        let refusal = RpcError::method_not_found(&question.method);
                        let refusal = Answer::error(&refusal);
                        exchange.answer(&question.key, &refusal).await?;
                    }
                    Event::Done(answer) => return Ok((answer, exchange.upstream_version())),
                }
            }
        };
        match answered.await.map_err(|error| self.upstream_error(error))? {
            (Answer::Result(result), version) => Ok((result, version)),
            (answer @ Answer::Error(_), _) => Err(ListError::Answered {
                server: self.server.id.clone(),
                answer,
            }),
        }
    }

    fn assemble(
        &self,
        kind: ListKind,
        pages: &Pages,
        endpoint: &Endpoint,
    ) -> Result<Fetched, ListError> {
        let malformed = |why: String| self.malformed(kind.method(), why);
        let modern = pages.upstream.era() == Era::Modern;
        let mut draft = Draft {
            server: &self.server.id,
            kind,
            upstream: pages.upstream,
            items: Vec::new(),
            extras: RawObject::new(),
        };
        let mut kept_for = Hints {
            ttl: Duration::MAX,
            scope: Scope::Public,
        };
        for page in &pages.results {
            let object = RawObject::parse(page).map_err(|error| malformed(error.to_string()))?;
            let page_hints = hints(&object);
            kept_for.ttl = kept_for.ttl.min(page_hints.ttl);
            if page_hints.scope == Scope::Private {
                kept_for.scope = Scope::Private;
            }
            let items = take_page(object, kind, &mut draft.extras).map_err(malformed)?;
            draft.items.extend(items);
        }
        if draft.items.len() > self.bounds.items {
            let limit = self.bounds.items;
            return Err(self.too_long(kind, "items", limit, "limits.list_items"));
        }
        // The specification asks this of clients over HTTP only.
        if kind == ListKind::Tools && modern && matches!(endpoint, Endpoint::Http(_)) {
            draft.items.retain(|tool| self.has_valid_headers(tool));
        }
        let payload = draft
            .encode(|wire| Stored::Catalogue(wire).encode())
            .map_err(|error| malformed(error.to_string()))?
            .map_err(malformed)?;
        Ok(Fetched {
            payload,
            ttl: modern.then_some(kept_for.ttl),
            scope: if modern { kept_for.scope } else { Scope::Fleet },
            storable: true,
            is_empty: draft.items.is_empty(),
        })
    }

    fn has_valid_headers(&self, tool: &Raw) -> bool {
        let Ok(object) = RawObject::parse(tool) else {
            return true;
        };
        let Some(schema) = object.get("inputSchema") else {
            return true;
        };
        match ParamHeaders::from_schema(schema) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(
                    server = %self.server.id,
                    tool = &*object.get_str("name").unwrap_or_default(),
                    %error,
                    "a tool is left out of the list"
                );
                false
            }
        }
    }

    fn upstream_error(&self, error: UpstreamError) -> ListError {
        ListError::Upstream {
            server: self.server.id.clone(),
            error: Box::new(error),
        }
    }

    fn malformed(&self, method: &'static str, why: String) -> ListError {
        ListError::Malformed {
            server: self.server.id.clone(),
            method,
            why,
        }
    }

    fn too_long(
        &self,
        kind: ListKind,
        what: &'static str,
        limit: usize,
        setting: &'static str,
    ) -> ListError {
        ListError::TooLong {
            server: self.server.id.clone(),
            method: kind.method(),
            what,
            limit,
            setting,
        }
    }
}

fn at_cursor(error: ListError, with_cursor: bool) -> PageError {
    match &error {
        ListError::Answered { answer, .. }
            if with_cursor && answer.error_code() == Some(INVALID_PARAMS) =>
        {
            PageError::CursorRefused(error)
        }
        _ => PageError::Other(error),
    }
}

fn next_cursor(result: &Raw) -> Option<String> {
    let object = RawObject::parse(result).ok()?;
    object
        .get_str("nextCursor")
        .map(|cursor| cursor.into_owned())
}

/// The items of a page. What else it says is added to `extras`, the first page
/// that says something winning; what is our own business is dropped.
fn take_page<'a>(
    mut page: RawObject<'a>,
    kind: ListKind,
    extras: &mut RawObject<'a>,
) -> Result<Vec<&'a Raw>, String> {
    use std::borrow::Cow;

    if let Some(other) = page
        .get_str("resultType")
        .filter(|result_type| result_type != "complete")
    {
        return Err(format!("a result of type {other:?}"));
    }
    let Some(Cow::Borrowed(items)) = page.remove(kind.items_key()) else {
        return Err(format!("there is no member {:?}", kind.items_key()));
    };
    for ours in ["resultType", "nextCursor", "ttlMs", "cacheScope"] {
        page.remove(ours);
    }
    let others: Vec<String> = page.iter().map(|(name, _)| name.to_owned()).collect();
    for name in others {
        if let Some(value) = page.remove(&name)
            && !extras.contains(&name)
        {
            extras.set(name, value);
        }
    }
    json::elements(items).map_err(|error| format!("{}: {error}", kind.items_key()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<Raw> {
        Raw::from_string(text.to_owned()).expect("valid JSON")
    }

    fn hints_of(text: &str) -> Hints {
        let raw = raw(text);
        hints(&RawObject::parse(&raw).expect("an object"))
    }

    #[test]
    fn absent_and_senseless_hints_mean_not_to_keep() {
        for none in [
            "{}",
            r#"{"ttlMs":-5}"#,
            r#"{"ttlMs":"5"}"#,
            r#"{"ttlMs":null,"cacheScope":"everyone"}"#,
        ] {
            let hints = hints_of(none);
            assert_eq!(hints.ttl, Duration::ZERO, "{none}");
            assert_eq!(hints.scope, Scope::Private, "{none}");
        }
        let hints = hints_of(r#"{"ttlMs":1500,"cacheScope":"public"}"#);
        assert_eq!(hints.ttl, Duration::from_millis(1500));
        assert_eq!(hints.scope, Scope::Public);
        assert!(hints_of(r#"{"ttlMs":1e300}"#).ttl.is_zero());
    }

    #[test]
    fn unknown_members_of_the_first_page_that_has_them_are_kept() {
        let first = raw(r#"{"tools":[1],"nextCursor":"n","x":1,"_meta":{"a":1}}"#);
        let second = raw(r#"{"resultType":"complete","tools":[2, 3],"x":2,"y":3,"ttlMs":5}"#);
        let mut extras = RawObject::new();
        let mut items = Vec::new();
        for page in [&first, &second] {
            let object = RawObject::parse(page).expect("an object");
            items.extend(take_page(object, ListKind::Tools, &mut extras).expect("a page"));
        }
        let items: Vec<_> = items.iter().map(|item| item.get()).collect();
        assert_eq!(items, ["1", "2", "3"]);
        assert_eq!(extras.to_raw().get(), r#"{"x":1,"_meta":{"a":1},"y":3}"#);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [
            r#"{"prompts":[]}"#,
            r#"{"tools":{}}"#,
            r#"{"resultType":"input_required","tools":[]}"#,
        ] {
            let page = raw(bad);
            let object = RawObject::parse(&page).expect("an object");
            assert!(
                take_page(object, ListKind::Tools, &mut RawObject::new()).is_err(),
                "{bad}"
            );
        }
    }
}
