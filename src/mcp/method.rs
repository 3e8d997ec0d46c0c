//! Names of methods and what each of them allows.

/// Opens a legacy session.
pub const INITIALIZE: &str = "initialize";
/// Ends the legacy handshake.
pub const INITIALIZED: &str = "notifications/initialized";
/// Legacy liveness check, in both directions.
pub const PING: &str = "ping";
/// Legacy, session-wide.
pub const LOGGING_SET_LEVEL: &str = "logging/setLevel";
/// A modern server's description of itself.
pub const DISCOVER: &str = "server/discover";
/// A modern client's stream of change notifications.
pub const LISTEN: &str = "subscriptions/listen";
/// First message on a listen stream.
pub const LISTEN_ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
/// Lists tools.
pub const TOOLS_LIST: &str = "tools/list";
/// Calls a tool.
pub const TOOLS_CALL: &str = "tools/call";
/// Lists prompts.
pub const PROMPTS_LIST: &str = "prompts/list";
/// Renders a prompt.
pub const PROMPTS_GET: &str = "prompts/get";
/// Lists resources.
pub const RESOURCES_LIST: &str = "resources/list";
/// Lists resource templates.
pub const RESOURCES_TEMPLATES_LIST: &str = "resources/templates/list";
/// Reads a resource.
pub const RESOURCES_READ: &str = "resources/read";
/// Legacy: asks for `notifications/resources/updated`.
pub const RESOURCES_SUBSCRIBE: &str = "resources/subscribe";
/// Legacy: the opposite of [`RESOURCES_SUBSCRIBE`].
pub const RESOURCES_UNSUBSCRIBE: &str = "resources/unsubscribe";
/// Completes an argument.
pub const COMPLETE: &str = "completion/complete";
/// A server asks for a model's answer.
pub const SAMPLING_CREATE: &str = "sampling/createMessage";
/// A server asks for the client's roots.
pub const ROOTS_LIST: &str = "roots/list";
/// A server asks the user.
pub const ELICITATION_CREATE: &str = "elicitation/create";
/// State of a task.
pub const TASKS_GET: &str = "tasks/get";
/// Modern tasks extension: answers a task's questions.
pub const TASKS_UPDATE: &str = "tasks/update";
/// Ends a task.
pub const TASKS_CANCEL: &str = "tasks/cancel";
/// 2025-11-25 only: waits for a task.
pub const TASKS_RESULT: &str = "tasks/result";
/// 2025-11-25 only: lists tasks.
pub const TASKS_LIST: &str = "tasks/list";
/// Progress of a call.
pub const PROGRESS: &str = "notifications/progress";
/// A log message.
pub const LOG_MESSAGE: &str = "notifications/message";
/// Ends a request early.
pub const CANCELLED: &str = "notifications/cancelled";
/// The tools changed.
pub const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
/// The prompts changed.
pub const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
/// The resources or their templates changed.
pub const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
/// The content of one resource changed.
pub const RESOURCE_UPDATED: &str = "notifications/resources/updated";
/// Legacy: the client's roots changed.
pub const ROOTS_CHANGED: &str = "notifications/roots/list_changed";
/// 2025-11-25 only: a URL elicitation is done.
pub const ELICITATION_COMPLETE: &str = "notifications/elicitation/complete";
/// 2025-11-25 only: a task's state changed.
pub const TASK_STATUS: &str = "notifications/tasks/status";
/// Modern tasks extension: a task's state changed.
pub const TASK_CHANGED: &str = "notifications/tasks";

/// A list that servers offer page by page and the fleet keeps whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListKind {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    ResourceTemplates,
}

impl ListKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Tools,
        Self::Prompts,
        Self::Resources,
        Self::ResourceTemplates,
    ];

    /// The method that lists them.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Tools => TOOLS_LIST,
            Self::Prompts => PROMPTS_LIST,
            Self::Resources => RESOURCES_LIST,
            Self::ResourceTemplates => RESOURCES_TEMPLATES_LIST,
        }
    }

    /// The member of the result that holds the items.
    #[must_use]
    pub fn items_key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::ResourceTemplates => "resourceTemplates",
        }
    }

    /// The server capability without which there is no such list.
    #[must_use]
    pub fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::ResourceTemplates => "resources",
        }
    }

    /// The notification that makes the list out of date.
    #[must_use]
    pub fn changed_notification(self) -> &'static str {
        match self {
            Self::Tools => TOOLS_CHANGED,
            Self::Prompts => PROMPTS_CHANGED,
            Self::Resources | Self::ResourceTemplates => RESOURCES_CHANGED,
        }
    }

    /// The member of an item that identifies it within the list.
    #[must_use]
    pub fn name_key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::ResourceTemplates => "uriTemplate",
        }
    }
}

/// Which list `method` asks for.
#[must_use]
pub fn list_kind(method: &str) -> Option<ListKind> {
    ListKind::ALL
        .into_iter()
        .find(|kind| kind.method() == method)
}

/// Methods a modern client may not send: its answer is `-32601`.
#[must_use]
pub fn is_removed_in_modern(method: &str) -> bool {
    matches!(
        method,
        INITIALIZE
            | INITIALIZED
            | PING
            | LOGGING_SET_LEVEL
            | RESOURCES_SUBSCRIBE
            | RESOURCES_UNSUBSCRIBE
            | ROOTS_CHANGED
            | ELICITATION_COMPLETE
            | TASKS_RESULT
            | TASKS_LIST
            | TASK_STATUS
            | SAMPLING_CREATE
            | ROOTS_LIST
            | ELICITATION_CREATE
    )
}

/// Methods that no legacy version has.
#[must_use]
pub fn is_modern_only(method: &str) -> bool {
    matches!(
        method,
        DISCOVER | LISTEN | LISTEN_ACKNOWLEDGED | TASKS_UPDATE | TASK_CHANGED
    )
}

/// Methods that may be answered with `input_required`.
#[must_use]
pub fn allows_input_required(method: &str) -> bool {
    matches!(method, TOOLS_CALL | PROMPTS_GET | RESOURCES_READ)
}

/// Methods whose complete modern results carry `ttlMs` and `cacheScope`.
#[must_use]
pub fn is_cacheable(method: &str) -> bool {
    matches!(method, DISCOVER | RESOURCES_READ) || list_kind(method).is_some()
}

/// The member of `params` that the `Mcp-Name` header repeats.
#[must_use]
pub fn name_param(method: &str) -> Option<&'static str> {
    match method {
        TOOLS_CALL | PROMPTS_GET => Some("name"),
        RESOURCES_READ => Some("uri"),
        TASKS_GET | TASKS_UPDATE | TASKS_CANCEL => Some("taskId"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_methods_and_kinds_agree() {
        for kind in ListKind::ALL {
            assert_eq!(list_kind(kind.method()), Some(kind));
            assert!(is_cacheable(kind.method()));
            assert!(!allows_input_required(kind.method()));
            assert_eq!(name_param(kind.method()), None);
        }
        assert_eq!(list_kind("tools/call"), None);
        assert_eq!(list_kind("roots/list"), None);
    }

    #[test]
    fn six_results_are_cacheable() {
        let cacheable = [
            DISCOVER,
            TOOLS_LIST,
            PROMPTS_LIST,
            RESOURCES_LIST,
            RESOURCES_TEMPLATES_LIST,
            RESOURCES_READ,
        ];
        assert!(cacheable.into_iter().all(is_cacheable));
        assert!(!is_cacheable(TOOLS_CALL));
    }

    #[test]
    fn no_method_is_both_removed_and_new() {
        for method in [DISCOVER, LISTEN, LISTEN_ACKNOWLEDGED, TASKS_UPDATE] {
            assert!(is_modern_only(method) && !is_removed_in_modern(method));
        }
        for method in [TOOLS_CALL, COMPLETE, CANCELLED, PROGRESS, TASKS_GET] {
            assert!(!is_modern_only(method) && !is_removed_in_modern(method));
        }
    }
}
