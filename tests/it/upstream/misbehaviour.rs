//! Replicas that hang, break off, talk nonsense or too much: an error in
//! time, never a wait without end.

use std::time::{Duration, Instant};

use mcp_fleet::upstream::{SessionUse, UpstreamError};
use serde_json::json;

use super::{Side, answer_of, caps, eras::discovery, within};
use crate::support::raw_server::{RawRequest, RawServer, Reply, Step};

/// A modern server whose `tools/call` is answered by `misbehave`.
async fn modern_but(
    misbehave: impl Fn(&RawRequest) -> Reply + Send + Sync + 'static,
) -> (RawServer, Side) {
    let server = RawServer::start(move |request| match request.rpc_method().as_str() {
        "server/discover" => Reply::json(200, &request.result(discovery())),
        _ => misbehave(request),
    })
    .await;
    let side = Side::http(&server.url("/mcp"));
    (server, side)
}

async fn call(side: &Side, ms: u64) -> Result<serde_json::Value, UpstreamError> {
    let capabilities = caps(&json!({}));
    let params = super::raw(&json!({"name": "x"}));
    let request = mcp_fleet::upstream::Outgoing {
        method: "tools/call",
        params: Some(&params),
        capabilities: &capabilities,
        log_level: None,
        progress_token: None,
        trace: Default::default(),
        headers: Vec::new(),
    };
    let begun = Instant::now();
    let calling = side
        .upstreams
        .call(&side.replica, request, SessionUse::Pooled, within(ms));
    let outcome = match calling.await {
        Ok(exchange) => answer_of(exchange).await,
        Err(error) => Err(error),
    };
    let late = begun.elapsed() > Duration::from_millis(ms + 500);
    assert!(!late, "took {:?}", begun.elapsed());
    outcome
}

#[tokio::test]
async fn hanging_is_bounded_by_the_deadline() {
    let replies: [fn(&RawRequest) -> Reply; 4] = [
        |_| Reply::hang(),
        |_| Reply::raw("HTTP/1.1 200 OK\r\n").then(Step::Hang),
        |_| {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
            Reply::raw(head).then(Step::Hang)
        },
        |_| Reply::sse().text(": still here\n\n").then(Step::Hang),
    ];
    for reply in replies {
        let (server, side) = modern_but(reply).await;
        let error = call(&side, 300).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::TimedOut { sent: true }),
            "{error:?}"
        );
        assert!(
            !error.is_safe_to_retry()
                && matches!(error.tells(), mcp_fleet::breaker::Told::Failed(_))
        );
        server
            .until("the hang-up", |s| (s.hangups() == 1).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn a_probe_that_hangs_is_bounded_too() {
    let server = RawServer::start(|_| Reply::hang()).await;
    let side = Side::http(&server.url("/mcp"));
    let callers = (0..10).map(|_| call(&side, 300));
    for outcome in futures_util::future::join_all(callers).await {
        let error = outcome.unwrap_err();
        assert!(error.is_safe_to_retry(), "{error:?}");
    }
    assert_eq!(server.requests().len(), 1, "one probe for all who wait");
}

#[tokio::test]
async fn broken_connections_are_told_apart() {
    let (_server, side) = modern_but(|_| Reply::close()).await;
    let error = call(&side, 2000).await.unwrap_err();
    let before = matches!(
        error,
        UpstreamError::Closed {
            before_headers: true,
            ..
        }
    );
    assert!(before && !error.is_safe_to_retry(), "{error:?}");

    let (_server, side) = modern_but(|_| {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
        Reply::raw(head).then(Step::Close)
    })
    .await;
    let error = call(&side, 2000).await.unwrap_err();
    let after = matches!(
        error,
        UpstreamError::Closed {
            before_headers: false,
            ..
        }
    );
    assert!(after && !error.is_safe_to_retry(), "{error:?}");

    let (_server, side) = modern_but(|_| Reply::sse().then(Step::Close)).await;
    let error = call(&side, 2000).await.unwrap_err();
    let after = matches!(
        error,
        UpstreamError::Closed {
            before_headers: false,
            ..
        }
    );
    assert!(after, "{error:?}");
}

#[tokio::test]
async fn nonsense_is_malformed() {
    let json = &[("content-type", "application/json")];
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "{\"jsonrpc\":\"2.0\",\"id\":\"another\",\"result\":{}}",
        "\u{0}\u{1}",
    ];
    for body in bodies {
        let (_server, side) = modern_but(move |_| Reply::full(200, json, body)).await;
        let error = call(&side, 2000).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::Malformed(_)),
            "{body:?}: {error:?}"
        );
    }
    let (_server, side) =
        modern_but(|_| Reply::full(200, &[("content-type", "text/html")], "<p>")).await;
    let error = call(&side, 2000).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Malformed(_)), "{error:?}");
    let (_server, side) = modern_but(|_| Reply::sse().text("data: {nonsense\n\n").end()).await;
    let error = call(&side, 2000).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Malformed(_)), "{error:?}");
    let (_server, side) =
        modern_but(|_| Reply::raw("SMTP 1.0 hello\r\n\r\n").then(Step::Close)).await;
    let error = call(&side, 2000).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Closed { .. }), "{error:?}");
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_and_large_ones_below_it_pass() {
    let big =
        |bytes: usize| move |request: &RawRequest| request.result(json!({"x": "x".repeat(bytes)}));
    // The limit of these tests is one megabyte.
    for stream in [false, true] {
        let wrap = move |body: &serde_json::Value| match stream {
            true => Reply::sse().event(body).end(),
            false => Reply::json(200, body),
        };
        let over = big(1024 * 1024);
        let (_server, side) = modern_but(move |request| wrap(&over(request))).await;
        let error = call(&side, 5000).await.unwrap_err();
        assert!(matches!(error, UpstreamError::TooLarge { .. }), "{error:?}");
        let below = big(1000 * 1000);
        let (_server, side) = modern_but(move |request| wrap(&below(request))).await;
        let answer = call(&side, 5000).await.unwrap();
        assert_eq!(answer["x"].as_str().unwrap().len(), 1000 * 1000);
    }
}

#[tokio::test]
async fn statuses_without_json_rpc_pass_up_as_statuses() {
    for status in [401, 403, 418, 429, 500, 502, 503] {
        let (_server, side) = modern_but(move |_| {
            let headers = [("retry-after", "7"), ("www-authenticate", "Bearer x")];
            Reply::full(status, &headers, "no\nbackend")
        })
        .await;
        let error = call(&side, 2000).await.unwrap_err();
        let UpstreamError::Http {
            status: got,
            text,
            www_authenticate,
            retry_after,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(got.as_u16(), status);
        assert_eq!(&**text, "no");
        assert!(www_authenticate.is_some() && retry_after.is_some());
        assert!(!error.is_safe_to_retry());
    }
}

#[tokio::test]
async fn a_dead_idle_connection_is_replaced_without_an_error() {
    let (server, side) =
        modern_but(|request| Reply::json(200, &request.result(json!({}))).then(Step::Close)).await;
    for _ in 0..5 {
        call(&side, 2000).await.unwrap();
        // Lets the client see the end of the connection.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let calls = server
        .methods()
        .iter()
        .filter(|m| *m == "tools/call")
        .count();
    assert_eq!(calls, 5);
}

#[tokio::test]
async fn hundreds_of_calls_share_few_connections() {
    let (server, side) = modern_but(|request| Reply::json(200, &request.result(json!({})))).await;
    call(&side, 2000).await.unwrap();
    for _ in 0..20 {
        let calls = (0..10).map(|_| call(&side, 2000));
        for outcome in futures_util::future::join_all(calls).await {
            outcome.unwrap();
        }
    }
    assert!(
        server.connections() <= 20,
        "{} connections",
        server.connections()
    );
}
