//! `subscriptions/listen`: the change notifications of one or all servers, on
//! a stream of their own, from any node.

use std::{collections::BTreeSet, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream as streams;
use http::{Response, StatusCode};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Incoming, about, no_place, refusal, route, stream};
use crate::{
    changes::{self, Subscription},
    fleet::{Change, Heard, Listener, News},
    http::{
        error::{self, RpcFailure},
        record::Record,
    },
    lists::{Caller, Target},
    mcp::{
        Raw,
        capabilities::{ClientCapabilities, ServerCapabilities},
        envelope,
        error::RpcError,
        json::{self, RawObject},
        message::{self, Answer, Request, RequestId},
        method::{self, ListKind},
        sse,
        version::Era,
    },
    servers::Servers,
    telemetry::metrics::Outcome,
};

/// What a client wants to hear.
#[derive(Debug, Default, Clone)]
struct Filter {
    tools: bool,
    prompts: bool,
    resources: bool,
    uris: BTreeSet<String>,
}

/// Answers with the stream.
pub(super) async fn answer(
    incoming: &Incoming,
    request: &Request<'_>,
    record: Record,
) -> Result<Response<Body>, RpcFailure> {
    let gateway = &incoming.gateway;
    let bad = |error: RpcError| refusal(StatusCode::BAD_REQUEST, &error);
    let asked = Filter::parse(request.params, gateway.config.limits.subscriptions).map_err(bad)?;
    let caller = Caller {
        principal: incoming.principal,
        capabilities: ClientCapabilities::none(),
    };
    let deadline = Instant::now() + gateway.config.cache.list_deadline;
    let about = about::about(incoming, &caller, deadline)
        .await
        .map_err(|failed| error::list_failure(&failed, Era::Modern))?;
    let honoured = asked.honoured(&about.capabilities);
    let held = gateway.stream_place().map_err(|error| no_place(&error))?;
    // Listening begins before the acknowledgement goes out: nothing in between is lost.
    let news = gateway.fleet.listen();
    gateway.watch(&incoming.target);
    let mut watched = Vec::new();
    for uri in &honoured.uris {
        let params = json::raw(&serde_json::json!({ "uri": uri }));
        let method = method::RESOURCES_SUBSCRIBE;
        let routed = route::route(
            gateway,
            &incoming.target,
            &caller,
            method,
            Some(&params),
            deadline,
        )
        .await;
        if let Ok(routed) = routed {
            watched.push(gateway.changes.subscribe(&routed.server, uri));
        }
    }
    let listening = Listening {
        id: request.id.clone(),
        target: incoming.target.clone(),
        filter: honoured,
        news,
        stopping: gateway.tasks.stopping().clone(),
        known: gateway.servers.watch(),
        servers: Arc::clone(&gateway.servers),
        state: State::Beginning,
        watched,
    };
    record.end(Outcome::Ok);
    let frames = streams::unfold(listening, |mut listening| async {
        let message = listening.next().await?;
        Some((sse::event(None, None, &message), listening))
    });
    Ok(stream::event_stream(
        Box::pin(frames),
        gateway.config.node.keep_alive,
        held,
    ))
}

impl Filter {
    fn parse(params: Option<&Raw>, most: usize) -> Result<Self, RpcError> {
        let missing =
            || RpcError::invalid_params("params.notifications is missing or not an object");
        let params = params
            .and_then(|params| RawObject::parse(params).ok())
            .ok_or_else(missing)?;
        let wanted = params.get_object("notifications").ok_or_else(missing)?;
        let flag = |name: &str| match wanted.get(name).map(Raw::get) {
            None | Some("false" | "null") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(RpcError::invalid_params(format!(
                "notifications.{name} has to be a boolean"
            ))),
        };
        let uris = match wanted.get("resourceSubscriptions") {
            None => BTreeSet::new(),
            Some(uris) => serde_json::from_str(uris.get()).map_err(|_| {
                RpcError::invalid_params(
                    "notifications.resourceSubscriptions has to be a list of URIs",
                )
            })?,
        };
        if uris.len() > most {
            let message = format!(
                "at most {most} resources can be listened to on one stream (limits.subscriptions)"
            );
            return Err(RpcError::invalid_params(message));
        }
        Ok(Self {
            tools: flag("toolsListChanged")?,
            prompts: flag("promptsListChanged")?,
            resources: flag("resourcesListChanged")?,
            uris,
        })
    }

    /// What the server can tell of what was asked.
    fn honoured(self, server: &ServerCapabilities) -> Self {
        Self {
            tools: self.tools && server.has_list_changed(ListKind::Tools),
            prompts: self.prompts && server.has_list_changed(ListKind::Prompts),
            resources: self.resources && server.has_list_changed(ListKind::Resources),
            uris: if server.has_subscribe() {
                self.uris
            } else {
                BTreeSet::new()
            },
        }
    }

    /// The honoured filter as the acknowledgement repeats it.
    fn to_raw(&self) -> Box<Raw> {
        let mut filter = RawObject::new();
        let flags = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        for (name, _) in flags.into_iter().filter(|(_, wanted)| *wanted) {
            filter.set(name, json::raw(&true));
        }
        if !self.uris.is_empty() {
            filter.set("resourceSubscriptions", json::raw(&self.uris));
        }
        filter.to_raw()
    }

    /// The notification a change becomes, if it was asked for.
    fn notification(&self, change: &Change) -> Option<(&'static str, Option<Box<Raw>>)> {
        match change {
            Change::Tools => self.tools.then_some((method::TOOLS_CHANGED, None)),
            Change::Prompts => self.prompts.then_some((method::PROMPTS_CHANGED, None)),
            Change::Resources => self.resources.then_some((method::RESOURCES_CHANGED, None)),
            Change::Resource { uri } => self.uris.contains(uri).then(|| {
                let params = json::raw(&serde_json::json!({ "uri": uri }));
                (method::RESOURCE_UPDATED, Some(params))
            }),
        }
    }
}

enum State {
    Beginning,
    Listening,
    /// News may have been lost: everything asked for counts as changed.
    CatchingUp(Vec<Change>),
    Ended,
}

/// One listening client.
struct Listening {
    id: RequestId,
    target: Target,
    filter: Filter,
    news: Listener,
    stopping: CancellationToken,
    /// Tells when servers come and go.
    known: watch::Receiver<u64>,
    servers: Arc<Servers>,
    state: State,
    /// Keeps the resources watched.
    watched: Vec<Subscription>,
}

impl Listening {
    /// The next message: the acknowledgement, notifications, and when the node
    /// stops or the server is removed the result that ends the stream in good order.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match &mut self.state {
                State::Beginning => {
                    // A change right after the acknowledgement must not be missed.
                    tokio::select! {
                        () = self.stopping.cancelled() => {}
                        () = changes::confirmed(&self.watched) => {}
                    }
                    self.state = State::Listening;
                    let mut params = RawObject::new();
                    params.set("notifications", self.filter.to_raw());
                    return Some(self.message(method::LISTEN_ACKNOWLEDGED, Some(&params.to_raw())));
                }
                State::CatchingUp(changes) => match changes.pop() {
                    Some(change) => {
                        if let Some((method, params)) = self.filter.notification(&change) {
                            return Some(self.message(method, params.as_deref()));
                        }
                    }
                    None => self.state = State::Listening,
                },
                State::Listening => {
                    if self.is_removed() {
                        self.state = State::Ended;
                        return Some(self.goodbye());
                    }
                    let heard = tokio::select! {
                        () = self.stopping.cancelled() => None,
                        Ok(()) = self.known.changed() => continue,
                        heard = self.news.next() => heard,
                    };
                    match heard {
                        Some(Heard::News(news)) => {
                            if let Some(message) = self.tell(&news) {
                                return Some(message);
                            }
                        }
                        Some(Heard::Gap) => self.state = State::CatchingUp(self.everything()),
                        None => {
                            self.state = State::Ended;
                            return Some(self.goodbye());
                        }
                    }
                }
                State::Ended => return None,
            }
        }
    }

    /// Whether nobody has the server of that name any more. One that was
    /// defined anew is listened to further.
    fn is_removed(&self) -> bool {
        match &self.target {
            Target::One(own) => self.servers.get(own.id.as_str()).is_none(),
            Target::All => false,
        }
    }

    fn tell(&self, news: &News) -> Option<Bytes> {
        let News::Changed { server, change } = news else {
            return None;
        };
        if let Target::One(own) = &self.target
            && own.id.as_str() != server
        {
            return None;
        }
        let (method, params) = self.filter.notification(change)?;
        Some(self.message(method, params.as_deref()))
    }

    fn everything(&self) -> Vec<Change> {
        let lists = [Change::Tools, Change::Prompts, Change::Resources];
        let uris = self
            .filter
            .uris
            .iter()
            .map(|uri| Change::Resource { uri: uri.clone() });
        lists.into_iter().chain(uris).collect()
    }

    fn message(&self, method: &str, params: Option<&Raw>) -> Bytes {
        let params = envelope::with_subscription_id(params, &self.id);
        let mut message = Vec::new();
        message::write_notification(&mut message, method, Some(&params));
        message.into()
    }

    fn goodbye(&self) -> Bytes {
        let mut result = RawObject::new();
        result.set("resultType", json::raw_str("complete"));
        let result = envelope::with_subscription_id(Some(&result.to_raw()), &self.id);
        message::response_bytes(&self.id, &Answer::Result(result))
    }
}
