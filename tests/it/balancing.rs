//! Which replica calls go to, on one node and on several: shared load, circuit
//! breakers, retries.

mod breakers;
mod limits;
mod load;
mod retries;

use crate::support::{
    fake_server::{Contents, FakeServer, Speaks, call::Outcome, contents::tool},
    node::TestNode,
};

/// An address nobody listens at.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}/mcp", listener.local_addr().expect("bound"))
}

/// A server whose tool `safe` says that it changes nothing; calls of `safe`
/// and `unsafe` come out as told.
async fn hinting(outcome: Outcome) -> FakeServer {
    let safe =
        r#"{"name":"safe","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":true}}"#;
    let contents = Contents::tools(&[safe, &tool("unsafe")]);
    FakeServer::with(Speaks::Modern, contents, move |_| {
        let outcome = outcome.clone();
        async move { outcome }
    })
    .await
}

/// Whether the replica's breaker is open on that node.
fn is_open(node: &TestNode, replica: usize) -> bool {
    node.replicas()[replica].breaker().is_open()
}
