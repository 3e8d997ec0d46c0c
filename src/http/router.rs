//! Every path of a node, and the middleware around them.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::Request,
    response::Response,
    routing::{get, post},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header::ALLOW};
use tower::{Service, ServiceExt as _};

use super::{admin, batch, bridge, error, guard, guard::Guard, mcp, readiness, rest, source, sse};
use crate::{gateway::Gateway, lists::Target};

/// Names the node that answered.
const NODE_HEADER: HeaderName = HeaderName::from_static("x-mcp-fleet-node");

/// The service a node offers.
#[derive(Clone, Debug)]
pub struct Node(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    gateway: Arc<Gateway>,
    guard: Guard,
    /// The node's name for [`NODE_HEADER`].
    name: Option<HeaderValue>,
    paths: Router,
}

/// The service of this node.
pub fn router(gateway: &Arc<Gateway>) -> Node {
    Node(Arc::new(Parts {
        gateway: Arc::clone(gateway),
        guard: Guard::new(&gateway.config.node),
        // The configuration has checked that a node's name can stand in a header.
        name: HeaderValue::from_str(gateway.node.as_str()).ok(),
        paths: paths(gateway),
    }))
}

impl Service<Request> for Node {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(Arc::clone(&self.0).answer(request))
    }
}

/// Who asks.
enum Visitor {
    /// Another node, for this server.
    Node(String),
    /// A client; the origin of its page, if it is one.
    Client(Option<HeaderValue>),
}

impl Parts {
    /// What stands around every path: the fleet's own servers and pages of
    /// foreign sites go no further, and all answers, refusals too, name the node.
    async fn answer(self: Arc<Self>, request: Request) -> Result<Response, Infallible> {
        let mut response = match self.enter(&request) {
            Err(answer) => *answer,
            // Few, and larger than what clients need.
            Ok(Visitor::Node(server)) => {
                Box::pin(bridge::answer(&self.gateway, &server, request)).await
            }
            Ok(Visitor::Client(page)) => {
                let mut response = self.route(request).await;
                if let Some(page) = page {
                    guard::make_readable(&mut response, page);
                }
                response
            }
        };
        if let Some(name) = &self.name {
            response.headers_mut().insert(NODE_HEADER, name.clone());
        }
        Ok(response)
    }

    fn enter(&self, request: &Request) -> Result<Visitor, Box<Response>> {
        let subnets = self.gateway.deployments.engine().docker.subnets();
        if let Err(refused) = source::check(subnets, request) {
            tracing::info!(%refused, "request refused");
            return Err(Box::new(guard::refusal(&refused)));
        }
        // No page can do what it takes to be let in there.
        if let Some(server) = bridge::server_in(request.uri().path()) {
            return Ok(Visitor::Node(server.to_owned()));
        }
        self.guard.enter(request).map(Visitor::Client)
    }

    /// Messages to a server, which are most of the traffic, need no look at
    /// all the other paths.
    async fn route(&self, request: Request) -> Response {
        if request.method() == Method::POST
            && let Some(name) = plain_server(request.uri().path())
            && let Some(server) = self.gateway.servers.get(name)
        {
            return mcp::post(Arc::clone(&self.gateway), Target::One(server), request).await;
        }
        let Ok(response) = self.paths.clone().oneshot(request).await;
        response
    }
}

/// The server in `/mcp/{server}`; `None` for other paths, and where a name is
/// written with escapes.
fn plain_server(path: &str) -> Option<&str> {
    let server = path.strip_prefix("/mcp/")?;
    let is_plain = !server.is_empty() && !server.bytes().any(|byte| matches!(byte, b'/' | b'%'));
    is_plain.then_some(server)
}

fn paths(gateway: &Arc<Gateway>) -> Router {
    // `GET` opens a stream here, and `HEAD` would do so for nobody.
    let no_head = |allowed: &'static str| {
        move || async move { (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, allowed)]) }
    };
    Router::new()
        .route(
            "/mcp",
            post(mcp::post_merged)
                .get(mcp::get_merged)
                .delete(mcp::delete_merged)
                .head(no_head("GET, POST, DELETE")),
        )
        .route(
            "/mcp/{server}",
            post(mcp::post_server)
                .get(mcp::get_server)
                .delete(mcp::delete_server)
                .head(no_head("GET, POST, DELETE")),
        )
        .route("/sse", get(sse::open_merged).head(no_head("GET")))
        .route("/sse/message", post(sse::post_merged))
        .route("/sse/{server}", get(sse::open_server).head(no_head("GET")))
        .route("/sse/{server}/message", post(sse::post_server))
        .merge(rest::routes())
        .merge(batch::routes())
        .merge(admin::routes())
        .merge(readiness::routes())
        .fallback(error::unknown_path)
        .with_state(Arc::clone(gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_take_the_short_way() {
        assert_eq!(plain_server("/mcp/demo"), Some("demo"));
        for other in [
            "/mcp",
            "/mcp/",
            "/mcp/demo/",
            "/mcp/demo/tools/list",
            "/mcp/d%65mo",
            "/sse/demo",
            "/x/mcp/demo",
        ] {
            assert_eq!(plain_server(other), None, "{other}");
        }
    }
}
