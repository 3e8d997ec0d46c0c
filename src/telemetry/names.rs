//! Names of metrics, spans and attributes: OpenTelemetry's where it has one
//! (semantic conventions for MCP, HTTP, JSON-RPC and generative AI),
//! `mcp_fleet.*` otherwise.

/// Method of the message, e.g. `tools/call`.
pub const MCP_METHOD_NAME: &str = "mcp.method.name";
/// Version of the protocol that was spoken.
pub const MCP_PROTOCOL_VERSION: &str = "mcp.protocol.version";
/// Session id; a digest of it, since the id itself opens the session.
pub const MCP_SESSION_ID: &str = "mcp.session.id";
/// Resource that is read.
pub const MCP_RESOURCE_URI: &str = "mcp.resource.uri";
/// Id of a JSON-RPC request.
pub const JSONRPC_REQUEST_ID: &str = "jsonrpc.request.id";
/// Code of a JSON-RPC error.
pub const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";
/// Tool that is called; in spans only, since the names are not ours to bound.
pub const GEN_AI_TOOL_NAME: &str = "gen_ai.tool.name";
/// What is done, `execute_tool` for a tool call.
pub const GEN_AI_OPERATION_NAME: &str = "gen_ai.operation.name";
/// Prompt that is asked for.
pub const GEN_AI_PROMPT_NAME: &str = "gen_ai.prompt.name";
/// Kind of failure; absent when there was none.
pub const ERROR_TYPE: &str = "error.type";
/// Method of the HTTP request.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// Pattern of the path, e.g. `/mcp/{server}`.
pub const HTTP_ROUTE: &str = "http.route";
/// Status of the HTTP answer.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// Host of the replica.
pub const SERVER_ADDRESS: &str = "server.address";

/// Server of the fleet that is meant.
pub const SERVER: &str = "mcp_fleet.server";
/// Replica that is called.
pub const REPLICA: &str = "mcp_fleet.replica";
/// `modern` or `legacy`.
pub const ERA: &str = "mcp_fleet.era";
/// How a list was served.
pub const CACHE_STATUS: &str = "mcp_fleet.cache.status";
/// What became of something.
pub const OUTCOME: &str = "mcp_fleet.outcome";
/// What something turned to.
pub const STATE: &str = "mcp_fleet.state";
/// How far a deployment is.
pub const PHASE: &str = "mcp_fleet.phase";
/// Why something was done.
pub const REASON: &str = "mcp_fleet.reason";

/// What kind of thing.
pub const KIND: &str = "mcp_fleet.kind";
/// What this program calls itself.
pub const SERVICE_NAME: &str = "service.name";
/// Version of this program.
pub const SERVICE_VERSION: &str = "service.version";
/// Name of this node.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";

/// Target of the spans of requests, for log filters.
pub const REQUEST_TARGET: &str = "mcp_fleet::request";
/// Field that `tracing-opentelemetry` takes a span's name from.
pub const SPAN_NAME: &str = "otel.name";
/// Field that it takes a span's status from.
pub const SPAN_STATUS: &str = "otel.status_code";

/// Duration of requests from clients.
pub const SERVER_OPERATION_DURATION: &str = "mcp.server.operation.duration";
/// Duration of requests to servers.
pub const CLIENT_OPERATION_DURATION: &str = "mcp.client.operation.duration";

/// Methods that are told apart in metrics; the rest is [`OTHER`].
pub const METHODS: [&str; 27] = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    "subscriptions/listen",
    "tasks/get",
    "tasks/list",
    "tasks/update",
    "tasks/result",
    "tasks/cancel",
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
];

/// Methods whose answers may come from the cache.
pub const CACHED_METHODS: [&str; 6] = [
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
];

/// Stands for every value that is not known, so that labels stay bounded.
pub const OTHER: &str = "other";

/// The method itself when it is known, [`OTHER`] when it is not.
#[must_use]
pub fn known_method(method: &str) -> &'static str {
    METHODS
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or(OTHER)
}
