//! The kinds of questions that servers ask in mid-call.

use crate::mcp::{Raw, json, method};

/// A kind of question that a server can ask in mid-call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// `roots/list`
    Roots,
    /// `sampling/createMessage`
    Sampling {
        /// Whether the model may call tools.
        tools: bool,
    },
    /// `elicitation/create` with a form.
    ElicitForm,
    /// `elicitation/create` with a URL.
    ElicitUrl,
    /// Anything else: an extension's.
    Other,
}

impl InputKind {
    /// Which kind the question is.
    #[must_use]
    pub fn of(method: &str, params: Option<&Raw>) -> Self {
        match method {
            method::ROOTS_LIST => Self::Roots,
            method::SAMPLING_CREATE => Self::Sampling {
                tools: params.is_some_and(samples_with_tools),
            },
            method::ELICITATION_CREATE => {
                let mode = params.and_then(|params| json::member_str(params, "mode"));
                match mode.as_deref() {
                    Some("url") => Self::ElicitUrl,
                    Some(_) | None => Self::ElicitForm,
                }
            }
            _ => Self::Other,
        }
    }

    /// The capability it takes, as the object of `-32021`.
    #[must_use]
    pub fn required(self) -> Box<Raw> {
        let capabilities = match self {
            Self::Roots => serde_json::json!({"roots": {}}),
            Self::Sampling { tools: false } => serde_json::json!({"sampling": {}}),
            Self::Sampling { tools: true } => serde_json::json!({"sampling": {"tools": {}}}),
            Self::ElicitForm => serde_json::json!({"elicitation": {"form": {}}}),
            Self::ElicitUrl => serde_json::json!({"elicitation": {"url": {}}}),
            Self::Other => serde_json::json!({}),
        };
        json::raw(&capabilities)
    }
}

/// Whether a sampling request offers tools or has messages about their use,
/// which clients without `sampling.tools` cannot parse.
fn samples_with_tools(params: &Raw) -> bool {
    let Ok([tools, choice, messages]) = json::members(params, ["tools", "toolChoice", "messages"])
    else {
        return true;
    };
    let about_tools = |message: &&Raw| {
        json::member(message, "content").is_some_and(|content| {
            let kind = json::member_str(content, "type");
            json::is_array(content) || matches!(kind.as_deref(), Some("tool_use" | "tool_result"))
        })
    };
    let messages = messages.and_then(|list| json::elements(list).ok());
    tools.is_some() || choice.is_some() || messages.is_some_and(|list| list.iter().any(about_tools))
}
