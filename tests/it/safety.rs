//! What is wrong, oversized, dead or hanging gets an answer and harms nobody else.

mod http;
mod messages;
mod servers;

use serde_json::json;

use crate::support::{client::call, node::TestNode};

async fn alive(node: &TestNode) {
    assert_eq!(call("echo", json!({})).send(node).await.status, 200);
}
