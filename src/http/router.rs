//! Every path of a node, and the middleware around them.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use http::{HeaderName, HeaderValue};

use super::{admin, batch, error, guard, guard::Guard, mcp, readiness, rest, sse};
use crate::gateway::Gateway;

/// Names the node that answered.
const NODE_HEADER: HeaderName = HeaderName::from_static("x-mcp-fleet-node");

/// The service a node offers.
pub fn router(gateway: &Arc<Gateway>) -> Router {
    let endpoints = Router::new()
        .route(
            "/mcp",
            post(mcp::post_merged)
                .get(mcp::get_merged)
                .delete(mcp::delete_merged),
        )
        .route(
            "/mcp/{server}",
            post(mcp::post_server)
                .get(mcp::get_server)
                .delete(mcp::delete_server),
        )
        .route("/sse", get(sse::open_merged))
        .route("/sse/message", post(sse::post_merged))
        .route("/sse/{server}", get(sse::open_server))
        .route("/sse/{server}/message", post(sse::post_server))
        .merge(rest::routes())
        .merge(batch::routes())
        .merge(admin::routes())
        .merge(readiness::routes())
        .fallback(error::unknown_path)
        .with_state(Arc::clone(gateway));
    let guard = Arc::new(Guard::new(&gateway.config.node));
    // The outermost layer is added last.
    endpoints
        // Before anything is read: pages of foreign sites go no further.
        .layer(middleware::from_fn_with_state(guard, guard::guard))
        // Around everything, so that refusals name the node as well.
        .layer(middleware::from_fn_with_state(
            Arc::clone(gateway),
            name_node,
        ))
}

async fn name_node(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    // The configuration has checked that a node's name can stand in a header.
    if let Ok(name) = HeaderValue::from_str(gateway.node.as_str()) {
        response.headers_mut().insert(NODE_HEADER, name);
    }
    response
}
