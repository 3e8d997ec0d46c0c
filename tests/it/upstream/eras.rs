//! G93: which era a replica speaks, and what is sent to it.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::{Side, answer_of, settings, soon};
use crate::support::raw_server::{Feed, RawRequest, RawServer, Reply};
use mcp_fleet::{
    mcp::version::Version,
    upstream::{SessionUse, UpstreamError},
};

pub(crate) fn discovery() -> Value {
    json!({
        "resultType": "complete", "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}},
        "ttlMs": 60000, "cacheScope": "public",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "raw", "version": "1"}},
    })
}

pub(crate) fn initialized(version: &str) -> Value {
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}, "logging": {}, "resources": {"subscribe": true}},
        "serverInfo": {"name": "raw", "version": "1"},
    })
}

/// A legacy server with sessions `s1`, `s2`, ..; `rest` answers what comes after the handshake.
pub(crate) fn legacy(
    rest: impl Fn(&RawRequest) -> Reply + Send + Sync + 'static,
) -> impl Fn(&RawRequest) -> Reply + Send + Sync + 'static {
    let sessions = std::sync::atomic::AtomicUsize::new(0);
    move |request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(400, &request.error(-32000, "Server not initialized")),
        "initialize" => {
            let number = sessions.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            let version = request.json()["params"]["protocolVersion"].clone();
            let result = request.result(initialized(version.as_str().unwrap_or_default()));
            Reply::json_with(200, &[("mcp-session-id", &format!("s{number}"))], &result)
        }
        "notifications/initialized" | "notifications/cancelled" => Reply::status(202),
        _ if request.method == "DELETE" => Reply::status(204),
        _ => rest(request),
    }
}

#[tokio::test]
async fn a_modern_replica_gets_envelope_and_headers() {
    let server = RawServer::start(|request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(200, &request.result(discovery())),
        _ => Reply::json(
            200,
            &request.result(json!({"resultType": "complete", "content": []})),
        ),
    })
    .await;
    let side = Side::http(&server.url("/mcp"));
    let params = json!({"name": "caf\u{e9}", "arguments": {"n": 1}, "_meta": {"mine": 2}});
    for _ in 0..3 {
        let result = side.ask("tools/call", params.clone()).await.unwrap();
        assert_eq!(result["resultType"], "complete");
    }
    assert_eq!(
        server.methods(),
        ["server/discover", "tools/call", "tools/call", "tools/call"]
    );
    assert_eq!(server.connections(), 1, "connections are reused");
    let call = server.request("tools/call").await;
    assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(call.header("mcp-method"), Some("tools/call"));
    assert_eq!(call.header("mcp-name"), Some("=?base64?Y2Fmw6k=?="));
    assert_eq!(
        call.header("accept"),
        Some("application/json, text/event-stream")
    );
    assert_eq!(call.header("mcp-session-id"), None);
    let meta = &call.json()["params"]["_meta"];
    assert_eq!(
        meta["io.modelcontextprotocol/protocolVersion"],
        "2026-07-28"
    );
    assert_eq!(
        meta["io.modelcontextprotocol/clientCapabilities"],
        json!({})
    );
    assert_eq!(
        meta["io.modelcontextprotocol/clientInfo"]["name"],
        "test-node"
    );
    assert_eq!(meta["mine"], 2);
    let ids: Vec<_> = server.requests().iter().map(RawRequest::rpc_id).collect();
    let distinct: std::collections::BTreeSet<_> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(distinct.len(), ids.len(), "G45: ids are fresh");
}

#[tokio::test]
async fn a_modern_description_is_kept_as_long_as_it_allows() {
    let server = RawServer::start(|request| Reply::json(200, &request.result(discovery()))).await;
    let side = Side::http(&server.url("/mcp"));
    for _ in 0..3 {
        let description = side
            .upstreams
            .describe(&side.replica, soon())
            .await
            .unwrap();
        assert_eq!(description.version, Version::V2026_07_28);
        assert!(description.capabilities.has_tools());
        assert_eq!(description.ttl.unwrap().0.as_secs(), 60);
    }
    assert_eq!(server.methods(), ["server/discover"]);
}

#[tokio::test]
async fn a_legacy_replica_gets_the_handshake_once() {
    let server = RawServer::start(legacy(|request| {
        Reply::json(200, &request.result(json!({"tools": []})))
    }))
    .await;
    let side = Side::http(&server.url("/mcp"));
    for _ in 0..3 {
        side.ask("tools/list", json!({})).await.unwrap();
    }
    assert_eq!(
        server.methods(),
        [
            "server/discover",
            "initialize",
            "notifications/initialized",
            "tools/list",
            "tools/list",
            "tools/list"
        ]
    );
    let initialize = server.request("initialize").await;
    assert_eq!(initialize.json()["params"]["protocolVersion"], "2025-11-25");
    assert_eq!(
        initialize.json()["params"]["clientInfo"]["name"],
        "test-node"
    );
    assert_eq!(initialize.header("mcp-session-id"), None);
    let list = server.request("tools/list").await;
    assert_eq!(list.header("mcp-session-id"), Some("s1"));
    assert_eq!(list.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(list.header("mcp-method"), None);
    let description = side
        .upstreams
        .describe(&side.replica, soon())
        .await
        .unwrap();
    assert_eq!(description.version, Version::V2025_11_25);
    side.stop().await;
    let delete = server.request("DELETE").await;
    assert_eq!(delete.header("mcp-session-id"), Some("s1"));
}

#[tokio::test]
async fn failures_say_nothing_about_the_era_and_are_safe_to_retry() {
    for status in [401, 403, 429, 500, 503] {
        let server = RawServer::start(move |_| Reply::status(status)).await;
        let side = Side::http(&server.url("/mcp"));
        let error = side.ask("tools/list", json!({})).await.unwrap_err();
        assert!(error.is_safe_to_retry(), "{status}: {error:?}");
        assert!(
            matches!(error.root(), UpstreamError::Http { status: got, .. } if got.as_u16() == status),
            "{status}: {error:?}"
        );
        assert_eq!(
            server.methods(),
            ["server/discover"],
            "no fallback on {status}"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_is_safe_to_retry() {
    let side = Side::http("http://127.0.0.1:9/mcp");
    let error = side.ask("tools/list", json!({})).await.unwrap_err();
    assert!(
        matches!(error, UpstreamError::ConnectFailed(_)),
        "{error:?}"
    );
    assert!(error.is_safe_to_retry());
}

#[tokio::test]
async fn a_replica_that_names_another_modern_version_is_asked_again_then_refused() {
    let server = RawServer::start(|request| {
        let mut error = request.error(-32022, "Unsupported protocol version");
        error["error"]["data"] = json!({"supported": ["2031-01-01"], "requested": "2026-07-28"});
        Reply::json(400, &error)
    })
    .await;
    let side = Side::http(&server.url("/mcp"));
    let error = side.ask("tools/list", json!({})).await.unwrap_err();
    assert!(
        matches!(error.root(), UpstreamError::Incompatible(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn http_sse_is_found_behind_a_refused_initialize() {
    let server = sse_server(|request| {
        if request.rpc_method() == "initialize" {
            initialized("2024-11-05")
        } else {
            json!({"tools": []})
        }
    })
    .await;
    let side = Side::http(&server.url("/sse"));
    let list = side.ask("tools/list", json!({})).await.unwrap();
    assert_eq!(list, json!({"tools": []}));
    let description = side
        .upstreams
        .describe(&side.replica, soon())
        .await
        .unwrap();
    assert_eq!(description.version, Version::V2024_11_05);
    side.ask("tools/list", json!({})).await.unwrap();
    let gets = server.methods().iter().filter(|m| *m == "GET").count();
    assert_eq!(gets, 1, "one stream serves all: {:?}", server.methods());
    side.stop().await;
}

/// An HTTP+SSE server of 2024-11-05 that answers each request on the only stream.
pub(crate) async fn sse_server(
    answer: impl Fn(&RawRequest) -> Value + Send + Sync + 'static,
) -> RawServer {
    let streams: Mutex<Vec<Feed>> = Mutex::default();
    RawServer::start(move |request| {
        let mut streams = streams.lock().expect("not poisoned");
        if request.method == "GET" {
            let feed = Feed::default();
            streams.push(feed.clone());
            let endpoint = format!("/messages?sessionId={}", streams.len());
            return Reply::sse()
                .text(&format!("event: endpoint\ndata: {endpoint}\n\n"))
                .feed(&feed);
        }
        let Some(number) = request.path.strip_prefix("/messages?sessionId=") else {
            return Reply::status(405);
        };
        let number: usize = number.parse().expect("one of our numbers");
        if !request.rpc_id().is_null() {
            let data = request.result(answer(request));
            streams[number - 1].push(format!("event: message\r\ndata: {data}\r\n\r\n"));
        }
        Reply::full(202, &[], "Accepted")
    })
    .await
}

#[tokio::test]
async fn a_replica_upgraded_to_modern_is_noticed() {
    let upgraded = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&upgraded);
    let old = legacy(|request| Reply::json(200, &request.result(json!({"old": true}))));
    let server = RawServer::start(move |request| {
        if !flag.load(std::sync::atomic::Ordering::SeqCst) {
            return old(request);
        }
        match request.rpc_method().as_str() {
            "server/discover" => Reply::json(200, &request.result(discovery())),
            _ if request.header("mcp-protocol-version") == Some("2026-07-28") => {
                Reply::json(200, &request.result(json!({"resultType": "complete"})))
            }
            "initialize" => Reply::json(400, &request.error(-32022, "no")),
            _ => Reply::json(404, &request.error(-32601, "no such session")),
        }
    })
    .await;
    let side = Side::http(&server.url("/mcp"));
    assert_eq!(
        side.ask("tools/list", json!({})).await.unwrap()["old"],
        true
    );
    upgraded.store(true, std::sync::atomic::Ordering::SeqCst);
    let now = side.ask("tools/list", json!({})).await.unwrap();
    assert_eq!(now["resultType"], "complete");
}

#[tokio::test]
async fn an_old_legacy_verdict_is_checked_beside_the_traffic() {
    let upgraded = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&upgraded);
    let old = legacy(|request| Reply::json(200, &request.result(json!({"old": true}))));
    let server = RawServer::start(move |request| {
        let modern = flag.load(std::sync::atomic::Ordering::SeqCst);
        match request.rpc_method().as_str() {
            "server/discover" if modern => Reply::json(200, &request.result(discovery())),
            _ if request.header("mcp-method").is_some() && modern => {
                Reply::json(200, &request.result(json!({"resultType": "complete"})))
            }
            _ => old(request),
        }
    })
    .await;
    let mut settings = settings();
    settings.verdict_horizon = std::time::Duration::from_millis(50);
    let store = std::sync::Arc::new(mcp_fleet::store::memory::MemoryStore::new());
    let side = Side::with(&server.url("/mcp"), settings, store);
    side.ask("tools/list", json!({})).await.unwrap();
    upgraded.store(true, std::sync::atomic::Ordering::SeqCst);
    let deadline = soon();
    loop {
        let answer = side.ask("tools/list", json!({})).await.unwrap();
        if answer["resultType"] == "complete" {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "never noticed");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // The old session was ended.
    server.request("DELETE").await;
}

#[tokio::test]
async fn an_old_modern_verdict_is_corrected_and_the_request_sent_again() {
    let downgraded = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&downgraded);
    let old = legacy(|request| Reply::json(200, &request.result(json!({"old": true}))));
    let server = RawServer::start(move |request| {
        if flag.load(std::sync::atomic::Ordering::SeqCst) {
            if request.header("mcp-session-id").is_none() && request.rpc_method() == "tools/call" {
                return Reply::full(422, &[], "expect initialize request");
            }
            return old(request);
        }
        match request.rpc_method().as_str() {
            "server/discover" => Reply::json(200, &request.result(discovery())),
            _ => Reply::json(200, &request.result(json!({"resultType": "complete"}))),
        }
    })
    .await;
    let side = Side::http(&server.url("/mcp"));
    let call = || side.ask("tools/call", json!({"name": "x"}));
    assert_eq!(call().await.unwrap()["resultType"], "complete");
    downgraded.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(call().await.unwrap()["old"], true);
}

#[tokio::test]
async fn a_modern_replica_in_the_place_of_a_legacy_one_says_so() {
    for (code, status) in [(-32602, 400), (-32020, 400), (-32022, 400)] {
        let upgraded = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = std::sync::Arc::clone(&upgraded);
        let old = legacy(|request| Reply::json(200, &request.result(json!({"old": true}))));
        let server = RawServer::start(move |request| {
            if !flag.load(std::sync::atomic::Ordering::SeqCst) {
                return old(request);
            }
            match request.rpc_method().as_str() {
                "server/discover" => Reply::json(200, &request.result(discovery())),
                _ if request.header("mcp-method").is_some() => {
                    Reply::json(200, &request.result(json!({"resultType": "complete"})))
                }
                _ => Reply::json(status, &request.error(code, "no envelope")),
            }
        })
        .await;
        let side = Side::http(&server.url("/mcp"));
        let call = || side.ask("tools/list", json!({}));
        assert_eq!(call().await.unwrap()["old"], true);
        upgraded.store(true, std::sync::atomic::Ordering::SeqCst);
        if code == -32602 {
            // Right after a probe an answer is believed.
            assert_eq!(call().await.unwrap()["error"]["code"], code);
        } else {
            assert_eq!(call().await.unwrap()["resultType"], "complete");
        }
    }
}

#[tokio::test]
async fn redirects_within_the_origin_are_followed_and_remembered() {
    let server = RawServer::start(|request| match request.path.as_str() {
        "/mcp" => Reply::full(307, &[("location", "/mcp/")], ""),
        _ if request.rpc_method() == "server/discover" => {
            Reply::json(200, &request.result(discovery()))
        }
        _ => Reply::json(200, &request.result(json!({"resultType": "complete"}))),
    })
    .await;
    let side = Side::http(&server.url("/mcp"));
    for _ in 0..3 {
        side.ask("tools/list", json!({})).await.unwrap();
    }
    let paths: Vec<String> = server.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["/mcp", "/mcp/", "/mcp/", "/mcp/", "/mcp/"]);

    let elsewhere = RawServer::start(|_| Reply::status(200)).await;
    let target = elsewhere.url("/mcp");
    let server = RawServer::start(move |_| Reply::full(307, &[("location", &target)], "")).await;
    let side = Side::http(&server.url("/mcp"));
    let error = side.ask("tools/list", json!({})).await.unwrap_err();
    assert!(
        matches!(error.root(), UpstreamError::Http { .. }),
        "{error:?}"
    );
    assert!(
        elsewhere.requests().is_empty(),
        "another origin is never called"
    );
}

#[tokio::test]
async fn errors_of_a_modern_replica_pass_up_with_any_status() {
    for status in [200, 400, 404] {
        let server = RawServer::start(move |request| match request.rpc_method().as_str() {
            "server/discover" => Reply::json(200, &request.result(discovery())),
            _ => Reply::json(status, &request.error(-32602, "unknown tool")),
        })
        .await;
        let side = Side::http(&server.url("/mcp"));
        let answer = side.ask("tools/call", json!({"name": "x"})).await.unwrap();
        assert_eq!(answer["error"]["code"], -32602);
        assert_eq!(server.requests().len(), 2, "sent once");
    }
}

#[tokio::test]
async fn a_refusal_of_our_own_headers_is_no_answer() {
    let server = RawServer::start(move |request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(200, &request.result(discovery())),
        _ => Reply::json(400, &request.error(-32020, "header mismatch")),
    })
    .await;
    let side = Side::http(&server.url("/mcp"));
    let error = side
        .ask("tools/call", json!({"name": "x"}))
        .await
        .unwrap_err();
    assert!(matches!(&error, UpstreamError::Refused { .. }), "{error:?}");
    // Probed again, but not sent again: nothing would be different.
    assert_eq!(
        server.methods(),
        ["server/discover", "tools/call", "server/discover"]
    );
}

#[tokio::test]
async fn the_demo_server_needs_no_socket() {
    let store = std::sync::Arc::new(mcp_fleet::store::memory::MemoryStore::new());
    let side = Side::of(mcp_fleet::servers::Endpoint::Demo, settings(), store);
    let description = side
        .upstreams
        .describe(&side.replica, soon())
        .await
        .unwrap();
    assert_eq!(description.version, Version::V2026_07_28);
    let params = json!({"name": "echo_message", "arguments": {"message": "hi"}});
    let exchange = side
        .call("tools/call", params, json!({}), SessionUse::Pooled)
        .await
        .unwrap();
    let answer = answer_of(exchange).await.unwrap();
    assert_eq!(answer["content"][0]["text"], "hi");
}
