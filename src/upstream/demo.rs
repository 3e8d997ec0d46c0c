//! The built-in demo server: a modern MCP server without a socket, so that a
//! node with no configuration has something to call.

use serde_json::{Value, json};

use crate::mcp::{Raw, error::RpcError, json::raw, message::Answer, version::Version};

const NAME: &str = "mcp-fleet-demo";
/// The lists never change while the process lives.
const TTL_MS: u64 = 3_600_000;

/// Answers one request.
pub(super) fn answer(method: &str, params: Option<&Raw>) -> Answer {
    let params = params.map_or(Value::Null, |params| {
        serde_json::from_str(params.get()).unwrap_or(Value::Null)
    });
    let result = match method {
        "server/discover" => discover(),
        "tools/list" => tools(),
        "tools/call" => match call(&params) {
            Ok(result) => result,
            Err(error) => return Answer::error(&error),
        },
        "prompts/list" => cacheable("prompts"),
        "resources/list" => cacheable("resources"),
        "resources/templates/list" => cacheable("resourceTemplates"),
        _ => return Answer::error(&RpcError::method_not_found(method)),
    };
    Answer::Result(raw(&result))
}

fn discover() -> Value {
    json!({
        "resultType": "complete",
        "supportedVersions": [Version::LATEST_MODERN.as_str()],
        "capabilities": {"tools": {}},
        "instructions": "A demonstration server: greets, echoes and describes itself.",
        "ttlMs": TTL_MS,
        "cacheScope": "public",
        "_meta": meta(),
    })
}

fn cacheable(items: &str) -> Value {
    json!({
        "resultType": "complete",
        items: [],
        "ttlMs": TTL_MS,
        "cacheScope": "public",
        "_meta": meta(),
    })
}

fn tools() -> Value {
    let read_only = json!({"readOnlyHint": true, "idempotentHint": true, "openWorldHint": false});
    let message = json!({
        "type": "object",
        "properties": {"message": {"type": "string"}},
        "required": ["message"],
    });
    let mut list = cacheable("tools");
    list["tools"] = json!([
        {
            "name": "say_hello",
            "title": "Say hello",
            "description": "Greets someone by name.",
            "inputSchema": {
                "type": "object",
                "properties": {"name": {"type": "string", "description": "Who is greeted."}},
                "required": ["name"],
            },
            "outputSchema": message,
            "annotations": read_only,
        },
        {
            "name": "echo_message",
            "title": "Echo a message",
            "description": "Gives a message back unchanged.",
            "inputSchema": {
                "type": "object",
                "properties": {"message": {"type": "string", "description": "What is echoed."}},
                "required": ["message"],
            },
            "outputSchema": message,
            "annotations": read_only,
        },
        {
            "name": "get_server_info",
            "title": "Describe the server",
            "description": "Name and version of this demonstration server.",
            "inputSchema": {"type": "object", "properties": {}},
            "outputSchema": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
                "required": ["name", "version"],
            },
            "annotations": read_only,
        },
    ]);
    list
}

fn call(params: &Value) -> Result<Value, RpcError> {
    let tool = params["name"]
        .as_str()
        .ok_or_else(|| RpcError::invalid_params("`name` has to be the name of a tool"))?;
    let result = match tool {
        "say_hello" => match text_argument(params, "name") {
            Ok(name) => message(&format!("Hello, {name}! Greetings from mcp-fleet.")),
            Err(why) => failed(&why),
        },
        "echo_message" => match text_argument(params, "message") {
            Ok(given) => message(given),
            Err(why) => failed(&why),
        },
        "get_server_info" => server_info(),
        unknown => {
            return Err(RpcError::invalid_params(format!(
                "unknown tool {unknown:?}: this server has say_hello, echo_message and get_server_info"
            )));
        }
    };
    Ok(result)
}

fn text_argument<'a>(params: &'a Value, name: &str) -> Result<&'a str, String> {
    match &params["arguments"][name] {
        Value::String(text) => Ok(text),
        Value::Null => Err(format!("the argument `{name}` is missing: give a text")),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(format!("the argument `{name}` has to be a text"))
        }
    }
}

fn server_info() -> Value {
    let info = json!({"name": NAME, "version": env!("CARGO_PKG_VERSION")});
    let mut result = text(&info.to_string());
    result["structuredContent"] = info;
    result
}

/// A text that is also the `message` of the structured content.
fn message(given: &str) -> Value {
    let mut result = text(given);
    result["structuredContent"] = json!({"message": given});
    result
}

fn text(text: &str) -> Value {
    json!({
        "resultType": "complete",
        "content": [{"type": "text", "text": text}],
        "isError": false,
        "_meta": meta(),
    })
}

fn failed(why: &str) -> Value {
    let mut result = text(why);
    result["isError"] = json!(true);
    result
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/serverInfo": {
            "name": NAME,
            "title": "Demo",
            "version": env!("CARGO_PKG_VERSION"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, params: Value) -> Result<Value, Value> {
        match answer(method, Some(&raw(&params))) {
            Answer::Result(result) => Ok(serde_json::from_str(result.get()).unwrap()),
            Answer::Error(error) => Err(serde_json::from_str(error.get()).unwrap()),
        }
    }

    #[test]
    fn greets_and_echoes() {
        let hello = ask(
            "tools/call",
            json!({"name": "say_hello", "arguments": {"name": "Ada"}}),
        );
        let text = hello.unwrap()["content"][0]["text"].clone();
        assert!(text.as_str().unwrap().starts_with("Hello, Ada!"));
        let echo = ask(
            "tools/call",
            json!({"name": "echo_message", "arguments": {"message": "\u{a0}👩‍🚀"}}),
        );
        assert_eq!(echo.unwrap()["content"][0]["text"], "\u{a0}👩‍🚀");
    }

    #[test]
    fn lists_are_public_and_complete() {
        for method in [
            "tools/list",
            "prompts/list",
            "resources/list",
            "server/discover",
        ] {
            let list = ask(method, json!({})).unwrap();
            assert_eq!(list["resultType"], "complete", "{method}");
            assert_eq!(list["cacheScope"], "public", "{method}");
        }
        assert_eq!(
            ask("tools/list", json!({})).unwrap()["tools"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
    }

    #[test]
    fn unknown_tools_are_protocol_errors_and_bad_arguments_are_not() {
        let unknown = ask("tools/call", json!({"name": "rm"}));
        assert_eq!(unknown.unwrap_err()["code"], -32602);
        let bad = ask("tools/call", json!({"name": "say_hello"}));
        assert_eq!(bad.unwrap()["isError"], true);
        let method = ask("tools/burn", json!({}));
        assert_eq!(method.unwrap_err()["code"], -32601);
    }
}
