//! Who may reach this node from a browser: the `Host` and `Origin` rules, and
//! the CORS headers that follow from them.
//!
//! A page on a foreign site can make a browser call a service on loopback, and
//! by rebinding its own name to 127.0.0.1 it can even read the answers. The
//! `Host` header then still carries the foreign name and `Origin` the foreign
//! site, which is what is checked here, for every request of every protocol
//! era. This is not authentication: whoever is no browser sends what they like.

use std::{net::IpAddr, net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HOST, ORIGIN, VARY,
    },
    uri::Authority,
};

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

/// The rules of one node; immutable.
#[derive(Debug, Clone)]
pub struct Guard {
    hosts: Allowed,
    origins: Allowed,
    /// Pages served from this machine may call a node that only this machine reaches.
    loopback_origins: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    Any,
    Listed(Vec<String>),
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
    /// Two copies, of which readers could see different ones.
    #[error("header {header} is given more than once; send it once")]
    Repeated {
        /// The header.
        header: &'static str,
    },
}

impl Guard {
    /// The rules for a node that listens on `listen`.
    ///
    /// Loopback names are good hosts on every node: no foreign site can have
    /// them. With no `allowed_hosts`, a node on loopback knows no other name,
    /// and a node that is reachable from elsewhere cannot know its names and
    /// takes any. `*` in a list means any.
    #[must_use]
    pub fn new(listen: SocketAddr, allowed_hosts: &[String], allowed_origins: &[String]) -> Self {
        let on_loopback = listen.ip().is_loopback();
        let any_host = allowed_hosts.iter().any(|host| host == "*")
            || (allowed_hosts.is_empty() && !on_loopback);
        let any_origin = allowed_origins.iter().any(|origin| origin == "*");
        Self {
            hosts: if any_host {
                Allowed::Any
            } else {
                Allowed::Listed(allowed_hosts.iter().map(|host| lower(host)).collect())
            },
            origins: if any_origin {
                Allowed::Any
            } else {
                Allowed::Listed(
                    allowed_origins
                        .iter()
                        .map(|origin| canonical_origin(origin))
                        .collect(),
                )
            },
            loopback_origins: on_loopback,
        }
    }

    /// Checks both headers of a request.
    ///
    /// # Errors
    /// [`Refused`] says which rule was broken and how to change it.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        if let Some(host) = host_of(uri, headers)?
            && !self.allows_host(&host)
        {
            return Err(Refused::Host { host });
        }
        if let Some(origin) = single(headers, &ORIGIN, "origin")?
            && !self.allows_origin(&origin)
        {
            return Err(Refused::Origin { origin });
        }
        Ok(())
    }

    /// Whether this node answers for `host` (a `Host` header: a name, perhaps with a port).
    #[must_use]
    pub fn allows_host(&self, host: &str) -> bool {
        let Allowed::Listed(listed) = &self.hosts else {
            return true;
        };
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = bare_host(authority.host());
        is_loopback_name(&name)
            || listed
                .iter()
                .any(|allowed| *allowed == name || *allowed == lower(host))
    }

    /// Whether a page of `origin` may call this node.
    #[must_use]
    pub fn allows_origin(&self, origin: &str) -> bool {
        let Allowed::Listed(listed) = &self.origins else {
            return true;
        };
        listed.contains(&canonical_origin(origin))
            || (self.loopback_origins && is_loopback_origin(origin))
    }
}

/// The middleware: refuses, answers preflights, marks answers as readable by
/// the page that asked.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if let Err(refused) = guard.check(request.uri(), request.headers()) {
        tracing::debug!(%refused, "request refused");
        return refusal(&refused);
    }
    let Some(origin) = request.headers().get(ORIGIN).cloned() else {
        return next.run(request).await;
    };
    let mut response = if is_preflight(&request) {
        preflight(request.headers())
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(EXPOSED_RESPONSE_HEADERS),
    );
    headers.append(VARY, HeaderValue::from_static("origin"));
    response
}

/// 403 with a JSON-RPC error that has no id: the body was not read.
fn refusal(refused: &Refused) -> Response {
    let body = serde_json::json!({
        "jsonrpc": "2.0",
        "error": { "code": -32600, "message": refused.to_string() },
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
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
fn host_of(uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, Refused> {
    match single(headers, &HOST, "host")? {
        Some(host) => Ok(Some(host)),
        None => Ok(uri.authority().map(ToString::to_string)),
    }
}

fn single(
    headers: &HeaderMap,
    name: &HeaderName,
    header: &'static str,
) -> Result<Option<String>, Refused> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Refused::Repeated { header });
    }
    Ok(first.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned()))
}

fn lower(text: &str) -> String {
    text.trim().to_ascii_lowercase()
}

/// Lower case, without the brackets of an IPv6 literal and the dot of a full name.
fn bare_host(host: &str) -> String {
    let bare = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(host);
    lower(bare.strip_suffix('.').unwrap_or(bare))
}

fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_loopback_origin(origin: &str) -> bool {
    origin.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| is_loopback_name(&bare_host(host)))
    })
}

/// Lower case, no trailing slash, no default port: as browsers write it.
fn canonical_origin(origin: &str) -> String {
    let origin = lower(origin);
    let origin = origin.strip_suffix('/').unwrap_or(&origin);
    let shortened = match origin.split_once("://") {
        Some(("http", rest)) => rest.strip_suffix(":80").map(|host| format!("http://{host}")),
        Some(("https", rest)) => rest.strip_suffix(":443").map(|host| format!("https://{host}")),
        _ => None,
    };
    shortened.unwrap_or_else(|| origin.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard_on(listen: &str, hosts: &[&str], origins: &[&str]) -> Guard {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Guard::new(listen.parse().expect("address"), &owned(hosts), &owned(origins))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                (HeaderName::from_static(name), value.parse().expect("header value"))
            })
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn a_node_on_loopback_answers_only_for_loopback_names() {
        let guard = guard_on("127.0.0.1:8080", &[], &[]);
        for good in ["localhost", "LocalHost:8080", "127.0.0.1:8080", "127.8.9.1", "[::1]:80", "localhost."] {
            assert!(guard.allows_host(good), "{good} was refused");
        }
        for bad in ["evil.example.com", "evil.example.com:8080", "127.0.0.1.evil.com", "localhost.evil.com", "10.0.0.1", "", "a b", "user@evil"] {
            assert!(!guard.allows_host(bad), "{bad} was allowed");
        }
    }

    #[test]
    fn a_reachable_node_takes_any_host_until_names_are_configured() {
        assert!(guard_on("0.0.0.0:8080", &[], &[]).allows_host("gateway.internal:8080"));
        let named = guard_on("0.0.0.0:8080", &["MCP.example.com", "other:9000"], &[]);
        assert!(named.allows_host("mcp.example.com"));
        assert!(named.allows_host("mcp.example.com:443"));
        assert!(named.allows_host("other:9000"));
        assert!(named.allows_host("localhost:8080"));
        assert!(!named.allows_host("other:9001"));
        assert!(!named.allows_host("elsewhere.example.com"));
        assert!(guard_on("127.0.0.1:1", &["*"], &[]).allows_host("elsewhere"));
    }

    #[test]
    fn only_pages_of_this_machine_may_call_a_node_on_loopback() {
        let guard = guard_on("[::1]:8080", &[], &[]);
        for good in ["http://localhost:6274", "https://127.0.0.1", "http://[::1]:3000"] {
            assert!(guard.allows_origin(good), "{good} was refused");
        }
        for bad in ["http://evil.example.com", "null", "", "http://localhost.evil.com", "file://localhost", "localhost"] {
            assert!(!guard.allows_origin(bad), "{bad} was allowed");
        }
    }

    #[test]
    fn a_reachable_node_allows_only_configured_origins() {
        let guard = guard_on("0.0.0.0:80", &[], &["https://App.example.com:443", "null"]);
        assert!(guard.allows_origin("https://app.example.com"));
        assert!(guard.allows_origin("null"));
        assert!(!guard.allows_origin("http://app.example.com"));
        assert!(!guard.allows_origin("https://app.example.com:8443"));
        assert!(!guard.allows_origin("http://localhost:3000"));
        assert!(guard_on("0.0.0.0:80", &[], &["*"]).allows_origin("http://anything"));
    }

    #[test]
    fn repeated_and_absent_headers() {
        let guard = guard_on("127.0.0.1:8080", &[], &[]);
        let path = Uri::from_static("/mcp");
        assert_eq!(guard.check(&path, &HeaderMap::new()), Ok(()));
        let twice = headers(&[("host", "localhost"), ("host", "evil.example.com")]);
        assert_eq!(guard.check(&path, &twice), Err(Refused::Repeated { header: "host" }));
        let origins = headers(&[("origin", "http://localhost"), ("origin", "http://localhost")]);
        assert_eq!(guard.check(&path, &origins), Err(Refused::Repeated { header: "origin" }));
        let http2 = Uri::from_static("http://evil.example.com/mcp");
        assert!(matches!(guard.check(&http2, &HeaderMap::new()), Err(Refused::Host { .. })));
    }

    #[test]
    fn a_refusal_is_an_error_without_id() {
        let response = refusal(&Refused::Origin { origin: "http://a\"b".into() });
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn preflights_allow_parameter_headers_by_name() {
        let asked = headers(&[("access-control-request-headers", "Mcp-Param-Site, x-evil, mcp-method")]);
        let allowed = allowed_request_headers(&asked);
        assert!(allowed.contains("mcp-param-site") && allowed.contains("mcp-session-id"));
        assert!(!allowed.contains("x-evil"));
    }
}
