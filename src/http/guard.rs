//! Who may reach this node from a browser: the `Host` and `Origin` rules, and
//! the CORS headers that follow from them.
//!
//! A page on a foreign site can make a browser call a service on loopback, and
//! by rebinding its own name to 127.0.0.1 it can even read the answers. The
//! `Host` header then still carries the foreign name and `Origin` the foreign
//! site, which is what is checked here, for every request of every protocol
//! era. This is not authentication: whoever is no browser sends what they like.

use std::{borrow::Cow, net::IpAddr};

use axum::{body::Body, extract::Request, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HOST, ORIGIN, VARY,
    },
};

use super::readiness;
use crate::config::Node;

/// Request headers a page of an allowed origin may send, beside `mcp-param-*`.
const ALLOWED_REQUEST_HEADERS: [&str; 11] = [
    "accept",
    "authorization",
    "content-type",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "traceparent",
    "tracestate",
    "x-request-id",
];

/// Response headers such a page may read.
const EXPOSED_RESPONSE_HEADERS: &str =
    "mcp-session-id, www-authenticate, retry-after, x-mcp-fleet-node, x-mcp-fleet-cache";

/// Checks requests against the node's configuration.
#[derive(Debug, Clone)]
pub struct Guard {
    node: Node,
}

/// Why a request is refused with 403.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The `Host` header names a host this node does not answer for.
    #[error(
        "host {host:?} is not served here; if it is a name of this node, add it to node.allowed_hosts"
    )]
    Host {
        /// What the request named.
        host: String,
    },
    /// The page that sent the request is of a foreign site.
    #[error("origin {origin:?} is not allowed; if it should be, add it to node.allowed_origins")]
    Origin {
        /// What the request named.
        origin: String,
    },
    /// It comes from a network that only the fleet's servers are in.
    #[error("{peer} is in a network of servers that this fleet runs, and those may not call nodes")]
    Server {
        /// Where it comes from.
        peer: IpAddr,
    },
    /// Two copies, of which readers could see different ones.
    #[error("header {header} is given more than once; send it once")]
    Repeated {
        /// The header.
        header: &'static str,
    },
}

impl Guard {
    /// A guard by the rules of `node`.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        Self { node: node.clone() }
    }

    /// Checks both headers of a request.
    ///
    /// # Errors
    /// [`Refused`] says which rule was broken and how to change it.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        if let Some(host) = host_of(uri, headers)?
            && !is_probe(uri)
            && !self.node.accepts_host(&host)
        {
            let host = host.into_owned();
            return Err(Refused::Host { host });
        }
        if let Some(origin) = single(headers, &ORIGIN, "origin")?
            && !self.node.accepts_origin(&origin)
        {
            let origin = origin.into_owned();
            return Err(Refused::Origin { origin });
        }
        Ok(())
    }
}

/// Whether it is asked for what reveals nothing but that the node is alive, and
/// is asked for by address.
fn is_probe(uri: &Uri) -> bool {
    matches!(uri.path(), readiness::HEALTHZ | readiness::READYZ)
}

impl Guard {
    /// Lets a request in. Answers the page's origin, if it is of a page.
    ///
    /// # Errors
    /// The response, when the request is refused or is a preflight.
    pub(super) fn enter(&self, request: &Request) -> Result<Option<HeaderValue>, Box<Response>> {
        if let Err(refused) = self.check(request.uri(), request.headers()) {
            tracing::debug!(%refused, "request refused");
            return Err(Box::new(refusal(&refused)));
        }
        let origin = request.headers().get(ORIGIN).cloned();
        if let Some(origin) = &origin
            && is_preflight(request)
        {
            let mut answer = preflight(request.headers());
            make_readable(&mut answer, origin.clone());
            return Err(Box::new(answer));
        }
        Ok(origin)
    }
}

/// Marks a response as readable by the page that asked.
pub(super) fn make_readable(response: &mut Response, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(EXPOSED_RESPONSE_HEADERS),
    );
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// 403 with a JSON-RPC error that has no id: the body was not read.
pub(super) fn refusal(refused: &Refused) -> Response {
    let body = serde_json::json!({
        "jsonrpc": "2.0",
        "error": { "code": -32600, "message": refused.to_string() },
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight(headers: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answer = response.headers_mut();
    answer.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, DELETE"),
    );
    if let Ok(allowed) = HeaderValue::from_str(&allowed_request_headers(headers)) {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// The fixed list, and those `mcp-param-*` headers the page asks for.
fn allowed_request_headers(headers: &HeaderMap) -> String {
    let mut allowed = ALLOWED_REQUEST_HEADERS.map(str::to_owned).to_vec();
    let asked = headers
        .get(ACCESS_CONTROL_REQUEST_HEADERS)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    allowed.extend(
        asked
            .split(',')
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| name.starts_with("mcp-param-"))
            .filter(|name| HeaderName::try_from(name.as_str()).is_ok()),
    );
    allowed.join(", ")
}

/// HTTP/2 carries the host in the request target, HTTP/1.1 in a header.
fn host_of<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Result<Option<Cow<'r, str>>, Refused> {
    match single(headers, &HOST, "host")? {
        Some(host) => Ok(Some(host)),
        None => Ok(uri.authority().map(|authority| authority.as_str().into())),
    }
}

fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    header: &'static str,
) -> Result<Option<Cow<'h, str>>, Refused> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Refused::Repeated { header });
    }
    Ok(first.map(|value| String::from_utf8_lossy(value.as_bytes().trim_ascii())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    value.parse().expect("header value"),
                )
            })
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn foreign_hosts_and_origins_are_refused_with_the_setting() {
        let guard = Guard::new(&Node::default());
        let path = Uri::from_static("/mcp");
        let good = headers(&[
            ("host", "localhost:8080"),
            ("origin", "http://localhost:6274"),
        ]);
        assert_eq!(guard.check(&path, &good), Ok(()));
        let host = guard.check(&path, &headers(&[("host", "evil.example.com")]));
        assert!(
            host.expect_err("foreign")
                .to_string()
                .contains("node.allowed_hosts")
        );
        let origin = headers(&[("host", "localhost"), ("origin", "http://evil.example.com")]);
        let origin = guard.check(&path, &origin).expect_err("foreign");
        assert!(origin.to_string().contains("node.allowed_origins"));
    }

    #[test]
    fn probes_are_answered_whatever_they_call_this_node() {
        let node = Node {
            allowed_hosts: Some(vec!["mcp.example.com".into()]),
            ..Node::default()
        };
        let guard = Guard::new(&node);
        let by_address = headers(&[("host", "10.0.0.7:8080")]);
        for path in ["/healthz", "/readyz"] {
            assert_eq!(guard.check(&Uri::from_static(path), &by_address), Ok(()));
        }
        for path in ["/mcp", "/metrics", "/healthz/x", "/api/cluster"] {
            let checked = guard.check(&Uri::from_static(path), &by_address);
            assert!(matches!(checked, Err(Refused::Host { .. })), "{path}");
        }
        let page = headers(&[
            ("host", "10.0.0.7:8080"),
            ("origin", "http://evil.example.com"),
        ]);
        let checked = guard.check(&Uri::from_static("/healthz"), &page);
        assert!(matches!(checked, Err(Refused::Origin { .. })));
    }

    #[test]
    fn repeated_and_absent_headers() {
        let guard = Guard::new(&Node::default());
        let path = Uri::from_static("/mcp");
        assert_eq!(guard.check(&path, &HeaderMap::new()), Ok(()));
        let twice = headers(&[("host", "localhost"), ("host", "evil.example.com")]);
        assert_eq!(
            guard.check(&path, &twice),
            Err(Refused::Repeated { header: "host" })
        );
        let origins = headers(&[
            ("origin", "http://localhost"),
            ("origin", "http://localhost"),
        ]);
        assert_eq!(
            guard.check(&path, &origins),
            Err(Refused::Repeated { header: "origin" })
        );
        let http2 = Uri::from_static("http://evil.example.com/mcp");
        assert!(matches!(
            guard.check(&http2, &HeaderMap::new()),
            Err(Refused::Host { .. })
        ));
    }

    #[test]
    fn a_refusal_is_an_error_without_id() {
        let response = refusal(&Refused::Origin {
            origin: "http://a\"b".into(),
        });
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn preflights_allow_parameter_headers_by_name() {
        let asked = headers(&[(
            "access-control-request-headers",
            "Mcp-Param-Site, x-evil, mcp-method",
        )]);
        let allowed = allowed_request_headers(&asked);
        assert!(allowed.contains("mcp-param-site") && allowed.contains("mcp-session-id"));
        assert!(!allowed.contains("x-evil"));
    }
}
