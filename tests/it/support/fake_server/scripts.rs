//! The script most tests use: a few tools, one prompt, one resource.
//!
//! | tool | what it does |
//! |---|---|
//! | `echo` | gives back its arguments as `structuredContent`, byte for byte |
//! | `ask` | asks the client for a name by an elicitation, then greets |
//! | `report` | progress 1, 2, 3 and a log message of each level, then a result |
//! | `wait` | reports progress, then waits for the gate `go`, or for being cancelled |
//! | `fail` | fails as a tool |

use serde_json::{Value, json};

use super::call::{Call, Outcome};

pub(crate) const LEVELS: [&str; 4] = ["debug", "info", "warning", "error"];

/// Answers every request that is no list and no handshake.
pub(crate) async fn standard(call: Call) -> Outcome {
    match call.request.method().as_str() {
        "tools/call" => tool(call).await,
        "prompts/get" => match call.name().as_str() {
            "greet" => Outcome::Result(
                r#"{"messages":[{"role":"user","content":{"type":"text","text":"hello"}}]}"#.into(),
            ),
            _ => Outcome::error(-32602, "unknown prompt"),
        },
        "resources/read" => read(&call),
        "completion/complete" => Outcome::Result(r#"{"completion":{"values":["one"]}}"#.into()),
        _ => Outcome::error(-32601, "method not found"),
    }
}

fn read(call: &Call) -> Outcome {
    let uri = call.name();
    if !uri.starts_with("doc://a") {
        let code = if call.is_modern() { -32602 } else { -32002 };
        let error = json!({"code": code, "message": "no such resource", "data": {"uri": uri}});
        return Outcome::Error(error.to_string());
    }
    let mut result = json!({"contents": [{"uri": uri, "text": "text of a"}]});
    if call.is_modern() {
        let contents = call.shared.contents.lock().expect("not poisoned");
        result["ttlMs"] = json!(contents.ttl_ms);
        result["cacheScope"] = json!(contents.scope);
        result["resultType"] = json!("complete");
    }
    Outcome::value(&result)
}

async fn tool(call: Call) -> Outcome {
    match call.name().as_str() {
        "echo" => {
            let arguments = call.request.raw_arguments();
            Outcome::Result(format!(
                r#"{{"content":[{{"type":"text","text":"echo"}}],"structuredContent":{arguments}}}"#
            ))
        }
        "ask" => ask(call).await,
        "report" => {
            for (step, level) in LEVELS.iter().enumerate() {
                if !call.token().is_null() {
                    call.progress(f64::from(u32::try_from(step).expect("few") + 1));
                }
                call.log(level, json!(format!("said at {level}")));
            }
            Outcome::text("reported")
        }
        "wait" => {
            if !call.token().is_null() {
                call.progress(1.0);
            }
            tokio::select! {
                () = call.gate("go") => Outcome::text("waited"),
                () = call.gone() => Outcome::Silence,
                () = call.cancelled() => Outcome::Silence,
            }
        }
        "fail" => Outcome::Result(
            r#"{"content":[{"type":"text","text":"it failed"}],"isError":true}"#.into(),
        ),
        _ => Outcome::error(-32602, "unknown tool"),
    }
}

/// The elicitation of `ask`.
pub(crate) fn question() -> Value {
    json!({"mode": "form", "message": "Who?", "requestedSchema": {
        "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"],
    }})
}

async fn ask(call: Call) -> Outcome {
    if !call.is_modern() {
        let answer = call.ask("elicitation/create", question()).await;
        return greet(&answer["result"]);
    }
    let params = &call.request.json["params"];
    match params["inputResponses"].get("who") {
        Some(answer) if params["requestState"] == "state\u{e9} of ask" => greet(answer),
        Some(_) => Outcome::error(-32602, "the state did not come back"),
        None => Outcome::value(&json!({
            "resultType": "input_required",
            "inputRequests": {"who": {"method": "elicitation/create", "params": question()}},
            "requestState": "state\u{e9} of ask",
        })),
    }
}

fn greet(answer: &Value) -> Outcome {
    match answer["content"]["name"].as_str() {
        Some(name) => Outcome::text(&format!("hello {name}")),
        None => Outcome::text(&format!("nobody: {}", answer["action"])),
    }
}
