//! The official Rust SDK as a client of a node, in front of servers of both eras.

use rmcp::{
    ServiceExt as _, model::CallToolRequestParams, transport::StreamableHttpClientTransport,
};

use crate::support::{
    fake_server::{SESSIONS, Speaks},
    node::node_with,
};

#[tokio::test]
async fn rmcp_lists_and_calls_on_both_endpoints() {
    for speaks in [Speaks::Modern, SESSIONS] {
        let (node, _server) = node_with(speaks).await;
        for (path, tool) in [("mcp/up", "echo"), ("mcp", "up__echo")] {
            let url = format!("http://{}/{path}", node.address);
            let transport = StreamableHttpClientTransport::from_uri(url);
            let client = ().serve(transport).await.expect("a connection");
            let tools = client.list_all_tools().await.expect("a list");
            assert!(
                tools.iter().any(|found| found.name == tool),
                "{speaks:?} {path}"
            );
            let arguments = serde_json::json!({"n": 1})
                .as_object()
                .cloned()
                .unwrap_or_default();
            let call = CallToolRequestParams::new(tool).with_arguments(arguments);
            let result = client.call_tool(call).await.expect("a result");
            assert_eq!(
                result.structured_content,
                Some(serde_json::json!({"n": 1})),
                "{speaks:?} {path}"
            );
            client.cancel().await.expect("a clean end");
        }
    }
}
