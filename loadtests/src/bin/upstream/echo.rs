//! The tool `echo`: it says what it was told.
//!
//! With `bytes` it says as many bytes from memory instead, and with `stream` its
//! answer is an event stream, with progress before it if there is a token for that
//! (a lone answer a gateway may as well send as JSON).

use std::sync::LazyLock;

use serde_json::value::RawValue;

use crate::{
    Answer,
    changes::Events,
    json,
    message::{self, Members, Message},
};

/// Nothing larger is asked for.
const MOST: usize = 1 << 20;

static FROM_MEMORY: LazyLock<String> = LazyLock::new(|| "x".repeat(MOST));

/// The answer to a call; `first` is what results of its era begin with.
pub(crate) fn answer(call: &Message<'_>, id: &str, first: &str) -> serde_json::Result<Answer> {
    let params = call.members()?;
    let arguments = params.get("arguments").copied();
    let arguments = arguments.map_or(Ok(Members::new()), message::of)?;
    let text = |text: &[&str]| {
        let around = [
            &[first, r#""content":[{"type":"text","text":"#],
            text,
            &["}]"],
        ];
        message::result(id, &around.concat())
    };
    let said = arguments.get("message").copied();
    let result = match number(&arguments, "bytes")? {
        Some(bytes) => text(&["\"", &FROM_MEMORY[..bytes.min(MOST)], "\""]),
        None => text(&[said.map_or("\"\"", RawValue::get)]),
    };
    Ok(match arguments.get("stream").map(|raw| raw.get()) {
        Some("true") => Events::only(progress(&params)?, result),
        _ => json(result),
    })
}

/// A word of progress, where it was asked for.
fn progress(params: &Members<'_>) -> serde_json::Result<Option<Vec<u8>>> {
    let meta = params.get("_meta").copied();
    let meta = meta.map_or(Ok(Members::new()), message::of)?;
    Ok(meta.get("progressToken").map(|token| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
        .into_bytes()
    }))
}

fn number(arguments: &Members<'_>, name: &str) -> serde_json::Result<Option<usize>> {
    let raw = arguments.get(name).copied();
    raw.map(|raw| serde_json::from_str(raw.get())).transpose()
}
