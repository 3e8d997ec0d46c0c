//! Statuses, codes and messages.

use std::sync::Arc;

use axum::response::IntoResponse as _;
use http::header::RETRY_AFTER;

use super::*;
use crate::{
    balance::Policy,
    ids::ServerId,
    mcp::Raw,
    mcp::cursor::BadCursor,
    servers::{Endpoint, Replica, Server},
};

fn servers(names: &[&str]) -> Servers {
    let server = |name: &&str| {
        let id = ServerId::try_from(*name).expect("good name");
        let replica = Arc::new(Replica::new(id.clone(), Endpoint::Demo, 1));
        Arc::new(Server::new(id, vec![replica], Policy::P2c, SOON, "config"))
    };
    Servers::new(names.iter().map(server).collect())
}

fn id(name: &str) -> ServerId {
    ServerId::try_from(name).expect("good name")
}

#[test]
fn an_unknown_server_is_answered_with_the_nearest_or_all() {
    let known = servers(&["demo", "notes"]);
    assert_eq!(
        unknown_server_message(&known, "dmeo"),
        "there is no server \"dmeo\"; did you mean \"demo\"?"
    );
    assert_eq!(
        unknown_server_message(&known, "filesystem"),
        "there is no server \"filesystem\"; known are demo, notes"
    );
    assert!(unknown_server_message(&servers(&[]), "x").ends_with("none is configured"));
    let many: Vec<String> = (0..12).map(|n| format!("server-number-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let message = unknown_server_message(&servers(&many), &"y".repeat(5000));
    assert!(
        message.ends_with("and 2 more") && message.len() < 400,
        "{message}"
    );
}

#[test]
fn the_modern_transport_fixes_some_statuses() {
    for (code, status) in [
        (codes::METHOD_NOT_FOUND, 404),
        (codes::HEADER_MISMATCH, 400),
        (codes::MISSING_CAPABILITY, 400),
        (codes::UNSUPPORTED_VERSION, 400),
        (codes::PARSE_ERROR, 400),
        (codes::INVALID_PARAMS, 200),
        (codes::INTERNAL_ERROR, 200),
        (17, 200),
    ] {
        assert_eq!(rpc_status(Era::Modern, code).as_u16(), status, "{code}");
        assert_eq!(rpc_status(Era::Legacy, code), StatusCode::OK);
    }
}

#[test]
fn bad_cursors_are_bad_parameters() {
    let failure = list_failure(&ListError::BadCursor(BadCursor), Era::Modern);
    assert_eq!(failure.answer.error_code(), Some(codes::INVALID_PARAMS));
}

#[test]
fn internals_are_hidden_and_time_outs_are_told_from_failures() {
    let refused = std::io::Error::other("tcp connect 10.1.2.3:99 refused");
    let error = ListError::Upstream {
        server: id("notes"),
        error: Box::new(UpstreamError::ConnectFailed(Arc::new(refused))),
    };
    let failure = list_failure(&error, Era::Modern);
    let Answer::Error(raw) = &failure.answer else {
        panic!("an error was expected");
    };
    assert_eq!(failure.answer.error_code(), Some(codes::INTERNAL_ERROR));
    assert!(
        raw.get().contains("notes") && !raw.get().contains("10.1.2.3"),
        "{raw}"
    );
    assert_eq!(RestError::from(error).status(), StatusCode::BAD_GATEWAY);

    let error = RelayError::Upstream {
        server: id("notes"),
        source: UpstreamError::TimedOut { sent: true },
    };
    assert_eq!(relay_failure(&error, Era::Legacy).status, StatusCode::OK);
    assert_eq!(RestError::from(error).status(), StatusCode::GATEWAY_TIMEOUT);
}

#[test]
fn whoever_is_turned_away_is_told_when_to_come_back() {
    let error = RelayError::Upstream {
        server: id("notes"),
        source: UpstreamError::Busy("all sessions are taken"),
    };
    let failure = relay_failure(&error, Era::Modern);
    assert_eq!(failure.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(failure.retry_after, Some(SOON));
    let response = RestError::from(error).into_response();
    assert_eq!(response.headers()[RETRY_AFTER], "1");
}

#[test]
fn a_servers_own_error_is_passed_on() {
    let own = Raw::from_string(r#"{"code":-32602,"message":"Unknown tool: x","data":1.0}"#.into());
    let error = RestError::answered(&own.expect("JSON"));
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        error.to_raw().get(),
        r#"{"code":"rpc_error","message":"Unknown tool: x","rpc":{"code":-32602,"message":"Unknown tool: x","data":1.0}}"#
    );
}
