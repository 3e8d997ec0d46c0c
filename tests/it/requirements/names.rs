//! G57: names on the merged endpoint.

use serde_json::json;

use super::BOTH;
use crate::support::{
    client::{call, modern},
    fake_server::{Contents, FakeServer, contents},
    legacy_client::legacy,
    node::Setup,
};

#[tokio::test]
async fn g57_the_same_name_at_two_servers_is_two_tools() {
    for speaks in BOTH {
        // Both call themselves "fake", and both have the same tools and prompts.
        let one = FakeServer::start(speaks).await;
        let two = FakeServer::start(speaks).await;
        let node = Setup::new()
            .server("one", &one.url())
            .server("two", &two.url())
            .start()
            .await;
        let list = modern("tools/list").at("/mcp").result(&node).await;
        let tools = list["tools"].as_array().expect("tools");
        let names: Vec<_> = tools
            .iter()
            .map(|tool| tool["name"].as_str().expect("a name"))
            .collect();
        for name in ["one__echo", "two__echo"] {
            assert_eq!(
                names.iter().filter(|n| **n == name).count(),
                1,
                "{speaks:?}: {names:?}"
            );
        }
        call("two__echo", json!({"n": 2}))
            .at("/mcp")
            .result(&node)
            .await;
        assert_eq!(one.seen("tools/call").len(), 0);
        assert_eq!(two.only("tools/call").params()["name"], "echo");

        let prompt = modern("prompts/get")
            .at("/mcp")
            .params(json!({"name": "one__greet"}));
        prompt.result(&node).await;
        assert_eq!(one.only("prompts/get").params()["name"], "greet");
        let reference = json!({"type": "ref/prompt", "name": "two__greet"});
        let complete = modern("completion/complete").at("/mcp");
        let argument = json!({"name": "a", "value": ""});
        complete
            .params(json!({"ref": reference, "argument": argument}))
            .result(&node)
            .await;
        assert_eq!(
            two.only("completion/complete").params()["ref"]["name"],
            "greet"
        );

        let session = legacy("2025-11-25").at("/mcp").open(&node).await;
        session.call("one__echo", json!({"n": 1})).await.result();
        assert_eq!(
            one.only("tools/call").params()["arguments"],
            json!({"n": 1})
        );
    }
}

#[tokio::test]
async fn g57_merged_names_are_good_for_model_interfaces() {
    let long = "a-very-long-tool-name-".repeat(6);
    let odd = "dots.and spaces/\u{e9}";
    for speaks in BOTH {
        let contents = Contents {
            tools: vec![
                contents::tool(&long),
                contents::tool(odd),
                contents::tool("plain"),
            ],
            ..Contents::default()
        };
        let server = FakeServer::offering(speaks, contents).await;
        let node = Setup::up(&server).start().await;
        let list = modern("tools/list").at("/mcp").result(&node).await;
        let tools = list["tools"].as_array().expect("tools");
        assert_eq!(tools.len(), 3);
        for (tool, original) in tools.iter().zip([long.as_str(), odd, "plain"]) {
            let name = tool["name"].as_str().expect("a name");
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            assert!(
                name.len() <= 64 && name.chars().all(good),
                "{speaks:?} {name}"
            );
            assert!(name.starts_with("up__"), "{name}");
            call(name, json!({})).at("/mcp").send(&node).await;
            let seen = server.seen("tools/call");
            let last = seen.last().expect("a call");
            assert_eq!(last.params()["name"], original, "{speaks:?}");
        }
    }
}
