//! Servers made with rmcp, over real sockets: legacy with sessions, legacy
//! without, modern only, and both.

use std::{borrow::Cow, sync::Arc};

use mcp_fleet::{
    mcp::version::Version,
    upstream::{Change, Event, SessionUse},
};
use rmcp::{
    ErrorData, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequestParams,
        ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion,
        ServerCapabilities, ServerConfig, SubscriptionFilter, Tool,
    },
    service::{RequestContext, RoleServer},
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Side, answer_of, client_session, dedicated, raw, soon, value_of};

#[derive(Clone)]
struct Fixture {
    versions: &'static [ProtocolVersion],
}

static LEGACY: &[ProtocolVersion] = &[ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2025_06_18];
static MODERN: &[ProtocolVersion] = &[ProtocolVersion::V_2026_07_28];
static BOTH: &[ProtocolVersion] = &[ProtocolVersion::V_2026_07_28, ProtocolVersion::V_2025_11_25];

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let mut config = ServerConfig::default();
        config.capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        config
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(self.versions)
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({"type": "object"});
        let schema = schema.as_object().expect("an object").clone();
        Ok(ListToolsResult::with_all_items(vec![Tool::new(
            "echo",
            "echoes",
            Arc::new(schema),
        )]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = match request.name.as_ref() {
            "echo" => json!(request.arguments).to_string(),
            "progress" => {
                let token = context.meta.get_progress_token().expect("a token");
                for step in 1..=2 {
                    let progress = ProgressNotificationParam::new(token.clone(), f64::from(step));
                    let sent = context.peer.notify_progress(progress).await;
                    sent.expect("a live peer");
                }
                "done".to_owned()
            }
            "ask" => {
                let question = ElicitRequestParams::FormElicitationParams {
                    meta: None,
                    message: "Delete?".into(),
                    requested_schema: serde_json::from_value(json!({
                        "type": "object", "properties": {"ok": {"type": "boolean"}},
                    }))
                    .expect("a schema"),
                };
                match context.peer.create_elicitation(question).await {
                    Ok(answer) => json!(answer).to_string(),
                    Err(error) => format!("refused: {error}"),
                }
            }
            "change" => {
                let sent = context.peer.notify_tool_list_changed().await;
                sent.expect("a live peer");
                "changed".to_owned()
            }
            other => return Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

struct Running {
    url: String,
    serving: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(versions: &'static [ProtocolVersion], sessions: bool, json: bool) -> Running {
    let mut config = StreamableHttpServerConfig::default();
    config.legacy_session_mode = sessions;
    config.json_response = json;
    let service: StreamableHttpService<Fixture, LocalSessionManager> =
        StreamableHttpService::new(move || Ok(Fixture { versions }), Default::default(), config);
    let router = axum::Router::new().nest_service("/mcp", service);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
    let serving = tokio::spawn(async move {
        axum::serve(listener, router).await.expect("serves");
    });
    Running { url, serving }
}

async fn echoes(side: &Side, session: SessionUse) {
    let params = json!({"name": "echo", "arguments": {"text": "caf\u{e9}"}});
    let exchange = side.call("tools/call", params, json!({}), session).await;
    let answer = answer_of(exchange.expect("called"))
        .await
        .expect("answered");
    let text = answer["content"][0]["text"].as_str().expect("text");
    assert_eq!(text, "{\"text\":\"caf\u{e9}\"}");
}

#[tokio::test]
async fn every_kind_of_server_lists_and_echoes() {
    for versions in [LEGACY, MODERN, BOTH] {
        for (sessions, json) in [(true, false), (false, false), (false, true)] {
            let server = serve(versions, sessions, json).await;
            let side = Side::http(&server.url);
            let shown = format!("{versions:?} sessions {sessions} json {json}");
            let description = side.upstreams.describe(&side.replica, soon()).await;
            let expected = if versions == LEGACY {
                Version::V2025_11_25
            } else {
                Version::V2026_07_28
            };
            assert_eq!(description.expect(&shown).version, expected, "{shown}");
            let list = side.ask("tools/list", json!({})).await.expect(&shown);
            assert_eq!(list["tools"][0]["name"], "echo", "{shown}");
            echoes(&side, SessionUse::Pooled).await;
            echoes(&side, dedicated("c1")).await;
            let unknown = side.ask("tools/call", json!({"name": "nope"})).await;
            assert_eq!(unknown.expect(&shown)["error"]["code"], -32602, "{shown}");
            side.stop().await;
        }
    }
}

#[tokio::test]
async fn legacy_clients_of_a_dual_replica_get_a_legacy_session() {
    let server = serve(BOTH, true, false).await;
    let side = Side::http(&server.url);
    let params = json!({"name": "echo", "arguments": {}});
    let call = |session| side.call("tools/call", params.clone(), json!({}), session);
    let pooled = call(SessionUse::Pooled).await.expect("called");
    assert_eq!(pooled.upstream_version(), Version::V2026_07_28);
    let own = call(dedicated("c1")).await.expect("called");
    assert_eq!(own.upstream_version(), Version::V2025_11_25);
    answer_of(own).await.expect("answered");
}

#[tokio::test]
async fn progress_comes_with_the_clients_token() {
    for versions in [LEGACY, MODERN] {
        let server = serve(versions, true, false).await;
        let side = Side::http(&server.url);
        let params = raw(&json!({"name": "progress", "_meta": {"progressToken": "theirs"}}));
        let capabilities = super::caps(&json!({}));
        let request = mcp_fleet::upstream::Outgoing {
            method: "tools/call",
            params: Some(&params),
            capabilities: &capabilities,
            log_level: None,
            progress_token: Some(raw(&json!("theirs"))),
            trace: Default::default(),
            headers: Vec::new(),
        };
        let mut exchange = side
            .upstreams
            .call(&side.replica, request, SessionUse::Pooled, soon())
            .await
            .expect("called");
        let mut seen = Vec::new();
        let answer = loop {
            match exchange.next().await.expect("goes on") {
                Event::Notification(message) => {
                    let message: Value = serde_json::from_slice(&message).expect("JSON");
                    assert_eq!(message["params"]["progressToken"], "theirs");
                    seen.push(message["params"]["progress"].as_f64().expect("a number"));
                }
                Event::Done(answer) => break value_of(&answer),
                Event::Ask(_) | Event::Paused { .. } => panic!("only progress"),
            }
        };
        assert_eq!(seen, [1.0, 2.0], "{versions:?}");
        assert_eq!(answer["content"][0]["text"], "done");
    }
}

#[tokio::test]
async fn a_question_in_mid_call_is_answered() {
    let server = serve(LEGACY, true, false).await;
    let side = Side::http(&server.url);
    let asked = json!({"elicitation": {"form": {}}});
    let params = json!({"name": "ask"});
    for session in [
        SessionUse::Pooled,
        SessionUse::Dedicated(client_session("c1", &asked)),
    ] {
        let mut exchange = side
            .call("tools/call", params.clone(), &asked, session)
            .await
            .expect("called");
        let ask = match exchange.next().await.expect("asked") {
            Event::Ask(ask) => ask,
            other => panic!("{other:?}"),
        };
        assert_eq!(ask.method, "elicitation/create");
        let answer = raw(&json!({"action": "accept", "content": {"ok": true}}));
        let answer = mcp_fleet::mcp::message::Answer::Result(answer);
        exchange.answer(&ask.key, &answer).await.expect("told");
        let done = answer_of(exchange).await.expect("answered");
        let text = done["content"][0]["text"].as_str().expect("text");
        assert!(text.contains("accept"), "{text}");
    }
    // A client that cannot be asked: the server is told.
    let answer = side.ask("tools/call", params).await.expect("answered");
    let text = answer["content"][0]["text"].as_str().expect("text");
    assert!(text.starts_with("refused"), "{text}");
}

#[tokio::test]
async fn changes_of_a_legacy_replica_are_seen() {
    let server = serve(LEGACY, true, false).await;
    let side = Side::http(&server.url);
    let (_uris, uris) = tokio::sync::watch::channel(Default::default());
    let (to, mut changes) = tokio::sync::mpsc::channel(8);
    let watching = side.upstreams.watch(&side.replica, super::wanted(uris), to);
    let seeing = async {
        assert!(matches!(changes.recv().await, Some(Change::Watching)));
        // rmcp sends it to the session of the call; whichever stream carries it counts.
        let changed = side.ask("tools/call", json!({"name": "change"})).await;
        changed.expect("called");
        let change = changes.recv().await;
        assert!(matches!(change, Some(Change::List(_))), "{change:?}");
        drop(changes);
    };
    let (outcome, ()) = tokio::join!(watching, seeing);
    outcome.expect("ended by its listener");
    side.stop().await;
}

#[tokio::test]
async fn a_modern_replica_acknowledges_the_watch() {
    let server = serve(MODERN, true, false).await;
    let side = Side::http(&server.url);
    let (_uris, uris) = tokio::sync::watch::channel(Default::default());
    let (to, mut changes) = tokio::sync::mpsc::channel(8);
    let watching = side.upstreams.watch(&side.replica, super::wanted(uris), to);
    let seeing = async {
        assert!(matches!(changes.recv().await, Some(Change::Watching)));
        drop(changes);
    };
    let (outcome, ()) = tokio::join!(watching, seeing);
    outcome.expect("ended by its listener");
}
