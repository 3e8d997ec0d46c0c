//! W3C trace context as requests carry it, checked before it is passed on.

use http::{HeaderMap, HeaderName};

const PARENT_HEADER: HeaderName = HeaderName::from_static("traceparent");

/// Longest `tracestate` that is kept; the recommendation asks for no more.
const MAX_STATE: usize = 512;
/// Most members of a `tracestate`.
const MAX_MEMBERS: usize = 32;

/// Trace and parent span; only valid values are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace and parent span.
    pub traceparent: Option<String>,
    /// Vendors' additions; never without a traceparent.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Keeps what is valid. A state without a valid parent means nothing.
    #[must_use]
    pub fn new(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let traceparent = traceparent.filter(|parent| is_parent(parent));
        Self {
            tracestate: tracestate
                .filter(|state| traceparent.is_some() && is_state(state))
                .map(ToOwned::to_owned),
            traceparent: traceparent.map(ToOwned::to_owned),
        }
    }

    /// From HTTP headers, for requests whose `_meta` has none.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut parents = headers.get_all(PARENT_HEADER).iter();
        let parent = parents.next().and_then(|value| value.to_str().ok());
        let parent = parent.filter(|_| parents.next().is_none());
        if parent.is_none() {
            return Self::default();
        }
        let states: Vec<_> = headers
            .get_all("tracestate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let state = (!states.is_empty()).then(|| states.join(","));
        Self::new(parent, state.as_deref())
    }

    /// This one, or `other` if this one is empty.
    #[must_use]
    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self.traceparent.is_some() {
            self
        } else {
            other()
        }
    }
}

/// `{version}-{trace id}-{parent id}-{flags}`; later versions may append fields.
fn is_parent(text: &str) -> bool {
    let is_hex = |part: &str| {
        part.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str| is_hex(part) && part.bytes().any(|byte| byte != b'0');
    let mut parts = text.splitn(5, '-');
    let mut part = |len: usize| parts.next().filter(|part| part.len() == len);
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (part(2), part(32), part(16), part(2))
    else {
        return false;
    };
    let ends = match version {
        "00" => parts.next().is_none(),
        _ => text.len() <= MAX_STATE && text.bytes().all(|byte| byte.is_ascii_graphic()),
    };
    ends && version != "ff" && is_hex(version) && is_id(trace) && is_id(span) && is_hex(flags)
}

/// `key=value` members, separated by commas.
fn is_state(text: &str) -> bool {
    let is_key =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let is_member = |member: &str| match member.trim_matches([' ', '\t']).split_once('=') {
        Some((key, value)) => {
            !key.is_empty()
                && key.bytes().all(is_key)
                && !value.contains('=')
                && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        }
        None => member.trim_matches([' ', '\t']).is_empty(),
    };
    text.len() <= MAX_STATE
        && text.split(',').count() <= MAX_MEMBERS
        && text.contains('=')
        && text.split(',').all(is_member)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn parents_are_checked() {
        for good in [
            PARENT.to_owned(),
            PARENT.replace("00-4", "cc-4"),
            PARENT.replace("00-4", "cc-4") + "-more",
        ] {
            let trace = TraceContext::new(Some(&good), None);
            assert_eq!(trace.traceparent.as_deref(), Some(&*good));
        }
        for bad in [
            String::new(),
            PARENT.to_uppercase(),
            PARENT.replace("00-4", "ff-4"),
            PARENT.to_owned() + "-more",
            PARENT.to_owned() + "-",
            PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            PARENT.replace("-01", "-1"),
            PARENT.replace('-', "_"),
            PARENT.replace("00-4", "cc-4") + "-\n",
        ] {
            assert_eq!(
                TraceContext::new(Some(&bad), Some("a=b")),
                TraceContext::default()
            );
        }
    }

    #[test]
    fn states_are_checked_and_need_a_parent() {
        for good in [
            "a=1",
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "a@b=x, c=d",
            "a=1,,b=2",
        ] {
            let trace = TraceContext::new(Some(PARENT), Some(good));
            assert_eq!(trace.tracestate.as_deref(), Some(good));
            assert_eq!(TraceContext::new(None, Some(good)), TraceContext::default());
        }
        for bad in [
            "",
            "a",
            "A=1",
            "a=1=2",
            "a=\u{e9}",
            "=1",
            &"a=1,".repeat(40),
            &format!("a={}", "x".repeat(600)),
        ] {
            assert_eq!(
                TraceContext::new(Some(PARENT), Some(bad)).tracestate,
                None,
                "{bad}"
            );
        }
    }

    #[test]
    fn headers_are_read_once() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", HeaderValue::from_static(PARENT));
        headers.append("tracestate", HeaderValue::from_static("a=1"));
        headers.append("tracestate", HeaderValue::from_static("b=2"));
        let trace = TraceContext::from_headers(&headers);
        assert_eq!(trace, TraceContext::new(Some(PARENT), Some("a=1,b=2")));
        assert_eq!(TraceContext::default().or(|| trace.clone()), trace);
        headers.append("traceparent", HeaderValue::from_static(PARENT));
        assert_eq!(
            TraceContext::from_headers(&headers),
            TraceContext::default()
        );
    }

    proptest! {
        #[test]
        fn what_is_kept_can_stand_in_a_header(parent in any::<String>(), state in any::<String>()) {
            let trace = TraceContext::new(Some(&parent), Some(&state));
            prop_assert!(trace.traceparent.is_none_or(|text| HeaderValue::from_str(&text).is_ok()));
        }

        #[test]
        fn a_kept_state_can_stand_in_a_header(state in "[a-z]=[ -~\u{80}-\u{90}\t\n]{0,9}") {
            let trace = TraceContext::new(Some(PARENT), Some(&state));
            prop_assert!(trace.tracestate.is_none_or(|text| HeaderValue::from_str(&text).is_ok()));
        }
    }
}
