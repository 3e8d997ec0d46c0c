//! Every combination of message, envelope, version header and session against
//! the steps of the protocol, written down once more as a table.

use proptest::prelude::*;

use super::{
    super::{
        json::tests::any_json,
        message::{ParseLimits, parse_body},
    },
    *,
};

const LIMITS: ParseLimits = ParseLimits {
    max_depth: 64,
    max_batch: 8,
};

/// What a body turned out to be, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Modern,
    ModernNotification,
    Dropped,
    Initialize,
    Legacy(LegacyVersion),
    Batch(LegacyVersion),
    Refused(i64),
}

fn outcome(body: &str, header: Option<&str>, has_session: bool) -> Outcome {
    let body = parse_body(body.as_bytes(), &LIMITS).expect("a message");
    match classify(body, header, has_session) {
        Classified::Modern { .. } => Outcome::Modern,
        Classified::ModernNotification(_) => Outcome::ModernNotification,
        Classified::Dropped => Outcome::Dropped,
        Classified::Initialize(_) => Outcome::Initialize,
        Classified::Legacy { version, .. } => Outcome::Legacy(version),
        Classified::LegacyBatch { version, .. } => Outcome::Batch(version),
        Classified::Refused { error, .. } => Outcome::Refused(error.code),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Call,
    Initialize,
    Notification,
    Response,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Envelope {
    Absent,
    NoParams,
    Served,
    Unserved,
    Nonsense,
    Legacy,
    NotText,
    Repeated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Absent,
    Modern,
    Future,
    Legacy(Version),
    Nonsense,
    Ancient,
}

const KINDS: [Kind; 4] = [
    Kind::Call,
    Kind::Initialize,
    Kind::Notification,
    Kind::Response,
];

const ENVELOPES: [Envelope; 8] = [
    Envelope::Absent,
    Envelope::NoParams,
    Envelope::Served,
    Envelope::Unserved,
    Envelope::Nonsense,
    Envelope::Legacy,
    Envelope::NotText,
    Envelope::Repeated,
];

const HEADERS: [Header; 9] = [
    Header::Absent,
    Header::Modern,
    Header::Future,
    Header::Nonsense,
    Header::Ancient,
    Header::Legacy(Version::V2024_11_05),
    Header::Legacy(Version::V2025_03_26),
    Header::Legacy(Version::V2025_06_18),
    Header::Legacy(Version::V2025_11_25),
];

impl Header {
    fn text(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::Modern => Some("2026-07-28"),
            Self::Future => Some("2099-01-01"),
            Self::Nonsense => Some("not-a-version"),
            Self::Ancient => Some("2000-01-01"),
            Self::Legacy(version) => Some(version.as_str()),
        }
    }
}

fn params(envelope: Envelope) -> String {
    let meta = |version: &str| {
        format!(r#","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{version}}}}}"#)
    };
    match envelope {
        Envelope::NoParams => String::new(),
        Envelope::Absent => r#","params":{"name":"x","_meta":{"progressToken":1}}"#.to_owned(),
        Envelope::Served => meta("\"2026-07-28\""),
        Envelope::Unserved => meta("\"2027-01-01\""),
        Envelope::Nonsense => meta("\"\""),
        Envelope::Legacy => meta("\"2025-11-25\""),
        Envelope::NotText => meta("5"),
        Envelope::Repeated => r#","params":{"name":"x","\u006eame":"y"}"#.to_owned(),
    }
}

fn body(kind: Kind, envelope: Envelope) -> String {
    let params = params(envelope);
    match kind {
        Kind::Call => format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call"{params}}}"#),
        Kind::Initialize => format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize"{params}}}"#),
        Kind::Notification => format!(r#"{{"jsonrpc":"2.0","method":"notifications/x"{params}}}"#),
        Kind::Response => r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned(),
    }
}

/// Steps 2 to 6, in the words of the protocol.
fn expected(kind: Kind, envelope: Envelope, header: Header, has_session: bool) -> Outcome {
    let is_notification = kind == Kind::Notification;
    // A response has no parameters.
    let envelope = match kind {
        Kind::Response => Envelope::NoParams,
        _ => envelope,
    };
    let unreadable = |code| match is_notification {
        true => Outcome::Dropped,
        false => Outcome::Refused(code),
    };
    match envelope {
        Envelope::Repeated => return unreadable(-32600),
        Envelope::NotText => return unreadable(-32602),
        Envelope::Served | Envelope::Unserved | Envelope::Nonsense => {
            return match is_notification {
                true => Outcome::ModernNotification,
                false => Outcome::Modern,
            };
        }
        Envelope::Absent | Envelope::NoParams | Envelope::Legacy => {}
    }
    let has_envelope = envelope == Envelope::Legacy;
    let header_is_modern = matches!(header, Header::Modern | Header::Future);
    if !has_envelope && header_is_modern {
        return match kind {
            Kind::Response => Outcome::Refused(-32600),
            _ => unreadable(-32602),
        };
    }
    if kind == Kind::Initialize {
        return Outcome::Initialize;
    }
    if has_envelope && !has_session {
        return Outcome::Refused(-32022);
    }
    match (header, has_session) {
        (Header::Absent, true) => Outcome::Legacy(LegacyVersion::OfSession { header: None }),
        (Header::Absent, false) => Outcome::Legacy(LegacyVersion::Assumed),
        (Header::Legacy(version), true) => Outcome::Legacy(LegacyVersion::OfSession {
            header: Some(version),
        }),
        (Header::Legacy(version), false) => Outcome::Legacy(LegacyVersion::OfHeader(version)),
        (Header::Modern | Header::Future | Header::Nonsense | Header::Ancient, _) => {
            Outcome::Refused(-32022)
        }
    }
}

#[test]
fn every_combination_is_classified_as_the_protocol_says() {
    let mut seen = 0;
    for kind in KINDS {
        for envelope in ENVELOPES {
            for header in HEADERS {
                for has_session in [false, true] {
                    let body = body(kind, envelope);
                    assert_eq!(
                        outcome(&body, header.text(), has_session),
                        expected(kind, envelope, header, has_session),
                        "{kind:?} {envelope:?} {header:?} session: {has_session}"
                    );
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 4 * 8 * 9 * 2);
}

#[test]
fn batches_belong_to_one_version() {
    let call = body(Kind::Call, Envelope::Absent);
    let batch = |items: &[&str]| format!("[{}]", items.join(","));
    let plain = batch(&[
        &call,
        "5",
        &body(Kind::Notification, Envelope::NoParams),
        &body(Kind::Response, Envelope::Absent),
    ]);
    for header in HEADERS {
        for has_session in [false, true] {
            let expected = match (header, has_session) {
                (Header::Absent, true) => Outcome::Batch(LegacyVersion::OfSession { header: None }),
                (Header::Absent, false) => Outcome::Batch(LegacyVersion::Assumed),
                (Header::Legacy(version @ Version::V2025_03_26), true) => {
                    Outcome::Batch(LegacyVersion::OfSession {
                        header: Some(version),
                    })
                }
                (Header::Legacy(version @ Version::V2025_03_26), false) => {
                    Outcome::Batch(LegacyVersion::OfHeader(version))
                }
                _ => Outcome::Refused(-32600),
            };
            assert_eq!(
                outcome(&plain, header.text(), has_session),
                expected,
                "{header:?}"
            );
            for kind in [Kind::Call, Kind::Initialize, Kind::Notification] {
                for envelope in ENVELOPES {
                    let is_plain = matches!(envelope, Envelope::Absent | Envelope::NoParams);
                    if is_plain && kind != Kind::Initialize {
                        continue;
                    }
                    let mixed = batch(&[&call, &body(kind, envelope)]);
                    let outcome = outcome(&mixed, header.text(), has_session);
                    assert_eq!(outcome, Outcome::Refused(-32600), "{kind:?} {envelope:?}");
                }
            }
        }
    }
}

#[test]
fn refusals_carry_the_id_of_requests_only() {
    let id = |body: &str| {
        let body = parse_body(body.as_bytes(), &LIMITS).expect("a message");
        match classify(body, Some("1999-01-01"), true) {
            Classified::Refused { id, .. } => id.map(|id| id.to_string()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        id(r#"{"jsonrpc":"2.0","id":"q","method":"x"}"#).as_deref(),
        Some("\"q\"")
    );
    assert_eq!(id(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#), None);
    assert_eq!(id(r#"{"jsonrpc":"2.0","method":"x"}"#), None);
}

#[test]
fn requests_without_a_body_have_a_version_too() {
    assert_eq!(
        legacy_version(None, false).expect("assumed"),
        LegacyVersion::Assumed
    );
    assert_eq!(
        legacy_version(Some("2025-06-18"), true).expect("of the session"),
        LegacyVersion::OfSession {
            header: Some(Version::V2025_06_18)
        }
    );
    for header in ["2026-07-28", "", "x"] {
        assert_eq!(
            legacy_version(Some(header), true).expect_err(header).code,
            -32022
        );
    }
}

proptest! {
    #[test]
    fn a_modern_envelope_decides_alone(
        arguments in any_json(),
        version in "[a-z0-9-]{0,12}",
        header in prop::option::of("[a-z0-9-]{0,12}"),
        has_session: bool,
    ) {
        prop_assume!(!is_legacy(&version));
        let body = format!(
            r#"{{"params":{{"arguments":{arguments},"_meta":{{"x":{arguments},"io.modelcontextprotocol\/protocolVersion":"{version}"}}}},"jsonrpc":"2.0","id":1,"method":"initialize"}}"#
        );
        let body = parse_body(body.as_bytes(), &LIMITS).expect("a request");
        match classify(body, header.as_deref(), has_session) {
            Classified::Modern { version: read, .. } => prop_assert_eq!(&*read, &*version),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn any_request_is_classified_calmly(params in any_json(), header in prop::option::of(any::<String>()), has_session: bool) {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{params}}}"#);
        if let Ok(body) = parse_body(body.as_bytes(), &LIMITS) {
            let classified = classify(body, header.as_deref(), has_session);
            let is_answered = !matches!(classified, Classified::Dropped | Classified::LegacyBatch { .. });
            prop_assert!(is_answered);
        }
    }
}
