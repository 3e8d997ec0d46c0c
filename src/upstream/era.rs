//! Which era a replica speaks, read from its answer to `server/discover`.
//!
//! Pure: sending the probe is the business of `peer`. The rules are those of
//! the 2026-07-28 specification for clients, with what servers really answer.

use std::time::Duration;

use http::StatusCode;

use super::{Description, UpstreamError};
use crate::mcp::{
    Raw,
    capabilities::ServerCapabilities,
    envelope,
    error::{HEADER_MISMATCH, MISSING_CAPABILITY, RpcError, UNSUPPORTED_VERSION},
    json::{self, RawObject},
    message::Answer,
    version::{Era, Version},
};

/// How release candidates said "unsupported protocol version".
const CANDIDATE_UNSUPPORTED_VERSION: i64 = -32004;

/// What came back for `server/discover`.
#[derive(Debug)]
pub(super) enum Reply {
    /// A JSON-RPC answer, over HTTP with its status.
    Answer(Option<StatusCode>, Answer),
    /// None.
    Failed(UpstreamError),
}

/// What it says about the replica.
#[derive(Debug)]
pub(super) enum Finding {
    /// It speaks this modern version and describes itself.
    Modern(Version, Box<Description>),
    /// It is modern, but refused this request.
    Reserved(UpstreamError),
    /// Ask again at this version.
    AskAgain(Version),
    /// It does not know the modern era: try `initialize`.
    Legacy,
    /// It says nothing about the era.
    NoEvidence(UpstreamError),
    /// It is modern, but has no version in common with us.
    Incompatible(String),
}

/// Reads the reply to a probe at version `asked`.
pub(super) fn read_reply(reply: Reply, asked: Version) -> Finding {
    match reply {
        Reply::Answer(_, Answer::Result(result)) => read_result(&result),
        Reply::Answer(status, Answer::Error(error)) => read_error(status, error, asked),
        Reply::Failed(UpstreamError::Malformed(_)) => Finding::Legacy,
        Reply::Failed(error) => match &error {
            UpstreamError::Http { status, .. } if !is_evidence(*status) => {
                Finding::NoEvidence(error)
            }
            UpstreamError::Http { .. } => Finding::Legacy,
            _ => Finding::NoEvidence(error),
        },
    }
}

/// Statuses about credentials, load or failure tell nothing about the era.
fn is_evidence(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 408 | 429)
}

fn read_result(result: &Raw) -> Finding {
    let Some(supported) = supported_versions(result, "supportedVersions") else {
        return Finding::Legacy;
    };
    match newest_common(&supported) {
        None => Finding::Legacy,
        Some(version) => match describe_discovered(result, version, supported) {
            Ok(description) => Finding::Modern(version, Box::new(description)),
            Err(error) => Finding::NoEvidence(error),
        },
    }
}

fn read_error(status: Option<StatusCode>, error: Box<Raw>, asked: Version) -> Finding {
    let rpc = RpcError::parse(&error);
    let refused = UpstreamError::Refused {
        status,
        answer: Answer::Error(error),
    };
    if let Some(status) = status
        && !status.is_success()
        && !is_evidence(status)
    {
        return Finding::NoEvidence(refused);
    }
    let Some(rpc) = rpc else {
        return Finding::Legacy;
    };
    let supported = rpc
        .data
        .as_deref()
        .and_then(|data| supported_versions(data, "supported"));
    match (rpc.code, supported) {
        (UNSUPPORTED_VERSION | CANDIDATE_UNSUPPORTED_VERSION, Some(supported)) => {
            match newest_common(&supported) {
                Some(version) if version != asked => Finding::AskAgain(version),
                Some(_) => Finding::Reserved(refused),
                None if supported.iter().any(|name| is_legacy(name)) => Finding::Legacy,
                None => Finding::Incompatible(format!("it supports {}", supported.join(", "))),
            }
        }
        (HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION, _) => {
            Finding::Reserved(refused)
        }
        _ => Finding::Legacy,
    }
}

fn is_legacy(name: &str) -> bool {
    Version::parse(name).is_some_and(|version| version.era() == Era::Legacy)
}

fn newest_common(supported: &[String]) -> Option<Version> {
    supported
        .iter()
        .filter_map(|name| Version::parse(name))
        .filter(|version| version.era() == Era::Modern)
        .max()
}

fn supported_versions(object: &Raw, member: &str) -> Option<Vec<String>> {
    let object = RawObject::parse(object).ok()?;
    let names = json::elements(object.get(member)?).ok()?;
    let names = names.into_iter().filter_map(json::as_str);
    Some(names.map(std::borrow::Cow::into_owned).collect())
}

/// Reads the result of `server/discover`.
pub(super) fn describe_discovered(
    result: &Raw,
    version: Version,
    supported: Vec<String>,
) -> Result<Description, UpstreamError> {
    let object = RawObject::parse(result).map_err(UpstreamError::malformed)?;
    let in_meta = object
        .get_object("_meta")
        .and_then(|meta| meta.get(envelope::SERVER_INFO).map(ToOwned::to_owned));
    // Release candidates had it beside the other members.
    let server_info = in_meta.or_else(|| object.get("serverInfo").map(ToOwned::to_owned));
    let ttl = object
        .get("ttlMs")
        .and_then(|ttl| ttl.get().parse::<u64>().ok());
    let public = object.get_str("cacheScope").as_deref() == Some("public");
    Ok(Description {
        version,
        supported,
        capabilities: server_capabilities(&object)?,
        server_info,
        instructions: object.get("instructions").map(ToOwned::to_owned),
        raw: result.to_owned(),
        ttl: ttl.map(|ms| (Duration::from_millis(ms), public)),
    })
}

/// Reads the result of `initialize`.
pub(super) fn describe_initialized(result: &Raw) -> Result<Description, UpstreamError> {
    let object = RawObject::parse(result).map_err(UpstreamError::malformed)?;
    let named = object.get_str("protocolVersion").ok_or_else(|| {
        UpstreamError::Malformed("the result of initialize names no protocolVersion".into())
    })?;
    let version = Version::parse(&named)
        .filter(|version| version.era() == Era::Legacy)
        .ok_or_else(|| UpstreamError::Incompatible(format!("it answered {named:?}")))?;
    Ok(Description {
        version,
        supported: vec![named.into_owned()],
        capabilities: server_capabilities(&object)?,
        server_info: object.get("serverInfo").map(ToOwned::to_owned),
        instructions: object.get("instructions").map(ToOwned::to_owned),
        raw: result.to_owned(),
        ttl: None,
    })
}

fn server_capabilities(object: &RawObject<'_>) -> Result<ServerCapabilities, UpstreamError> {
    match object.get("capabilities") {
        Some(raw) => ServerCapabilities::parse(raw).map_err(UpstreamError::malformed),
        None => Ok(ServerCapabilities::none()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mcp::json::raw;

    fn result(value: &Value) -> Reply {
        Reply::Answer(Some(StatusCode::OK), Answer::Result(raw(value)))
    }

    fn error(status: u16, code: i64, data: &Value) -> Reply {
        let error = json!({"code": code, "message": "no", "data": data});
        Reply::Answer(
            Some(StatusCode::from_u16(status).unwrap()),
            Answer::Error(raw(&error)),
        )
    }

    fn http(status: u16) -> Reply {
        Reply::Failed(UpstreamError::Http {
            status: StatusCode::from_u16(status).unwrap(),
            text: "".into(),
            www_authenticate: None,
            retry_after: None,
        })
    }

    fn name(finding: &Finding) -> &'static str {
        match finding {
            Finding::Modern(..) => "modern",
            Finding::Reserved(_) => "reserved",
            Finding::AskAgain(_) => "again",
            Finding::Legacy => "legacy",
            Finding::NoEvidence(_) => "none",
            Finding::Incompatible(_) => "incompatible",
        }
    }

    #[test]
    fn verdicts_over_http() {
        let modern = json!({"supportedVersions": ["2026-07-28", "2025-11-25"], "capabilities": {}});
        let only_legacy = json!({"supportedVersions": ["2025-11-25"], "capabilities": {}});
        let cases = [
            ("modern", result(&modern)),
            ("legacy", result(&only_legacy)),
            ("legacy", result(&json!({"hello": "world"}))),
            ("reserved", error(400, -32020, &Value::Null)),
            ("reserved", error(400, -32021, &Value::Null)),
            ("reserved", error(400, -32022, &Value::Null)),
            (
                "reserved",
                error(400, -32022, &json!({"supported": ["2026-07-28"]})),
            ),
            (
                "legacy",
                error(400, -32022, &json!({"supported": ["2025-06-18"]})),
            ),
            (
                "legacy",
                error(400, -32004, &json!({"supported": ["2025-06-18"]})),
            ),
            (
                "incompatible",
                error(400, -32022, &json!({"supported": ["2031-01-01"]})),
            ),
            ("legacy", error(400, -32000, &Value::Null)),
            ("legacy", error(200, -32601, &Value::Null)),
            ("legacy", error(404, -32601, &Value::Null)),
            ("none", error(500, -32603, &Value::Null)),
            ("none", error(401, -32000, &Value::Null)),
            ("none", http(401)),
            ("none", http(403)),
            ("none", http(408)),
            ("none", http(429)),
            ("none", http(500)),
            ("none", http(503)),
            ("legacy", http(400)),
            ("legacy", http(404)),
            ("legacy", http(405)),
            ("legacy", http(422)),
            (
                "none",
                Reply::Failed(UpstreamError::TimedOut { sent: true }),
            ),
            ("legacy", Reply::Failed(UpstreamError::Malformed("".into()))),
        ];
        for (expected, reply) in cases {
            let shown = format!("{reply:?}");
            let found = read_reply(reply, Version::LATEST_MODERN);
            assert_eq!(name(&found), expected, "{shown}");
        }
    }

    #[test]
    fn discovery_is_described() {
        let modern = json!({
            "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "instructions": "read me", "ttlMs": 5000, "cacheScope": "public",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "x", "version": "1"}},
        });
        let Finding::Modern(version, description) =
            read_reply(result(&modern), Version::LATEST_MODERN)
        else {
            panic!("not modern");
        };
        assert_eq!(version, Version::V2026_07_28);
        assert_eq!(description.ttl, Some((Duration::from_secs(5), true)));
        assert!(description.capabilities.has_tools());
        assert_eq!(
            description.server_info.unwrap().get(),
            r#"{"name":"x","version":"1"}"#
        );
    }

    #[test]
    fn initialize_results_name_a_legacy_version() {
        let good = raw(&json!({"protocolVersion": "2025-06-18", "capabilities": {}}));
        assert_eq!(
            describe_initialized(&good).unwrap().version,
            Version::V2025_06_18
        );
        let modern = raw(&json!({"protocolVersion": "2026-07-28", "capabilities": {}}));
        assert!(matches!(
            describe_initialized(&modern),
            Err(UpstreamError::Incompatible(_))
        ));
        assert!(describe_initialized(&raw(&json!({}))).is_err());
    }
}
