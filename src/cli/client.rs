//! Talks to a node over HTTP.

use std::time::Duration;

use crate::mcp::Raw;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::Failure;

/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 256 << 20;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A node, as the command line sees it.
#[derive(Debug)]
pub(super) struct Node {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Runs a command on a runtime of its own.
pub(super) fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))?
        .block_on(command)
}

impl Node {
    /// Checks the address; dials nothing yet.
    pub(super) fn at(url: &str) -> Result<Self, Failure> {
        let is_http = url::Url::parse(url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_http {
            return Err(Failure::Usage(format!(
                "expected the address of a node such as {}, found {url:?}",
                super::DEFAULT_NODE
            )));
        }
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_connect_timeout(Some(CONNECT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| Failure::Failed(format!("TLS: {error}")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(plain);
        Ok(Self {
            base: url.trim_end_matches('/').to_owned(),
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Asks for a document.
    pub(super) async fn get(&self, path: &str) -> Result<Box<Raw>, Failure> {
        let limit = Duration::from_secs(60);
        self.exchange(Method::GET, path, Bytes::new(), limit).await
    }

    /// Sends a document and waits for the answer; a call may take its time.
    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Result<Box<Raw>, Failure> {
        let limit = Duration::from_secs(3600);
        self.exchange(Method::POST, path, body.into(), limit).await
    }

    /// Asks for a document that may not be there.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Box<Raw>>, Failure> {
        let limit = Duration::from_secs(60);
        let (status, bytes) = self.ask(Method::GET, path, Bytes::new(), limit).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status => self.read(status, &bytes).map(Some),
        }
    }

    /// Removes something; what it is until it is gone.
    pub(super) async fn delete(&self, path: &str) -> Result<Option<Box<Raw>>, Failure> {
        let limit = Duration::from_secs(60);
        let (status, bytes) = self.ask(Method::DELETE, path, Bytes::new(), limit).await?;
        match status {
            StatusCode::NO_CONTENT => Ok(None),
            status => self.read(status, &bytes).map(Some),
        }
    }

    /// Gives the lines of an answer to `each` as they come, while it wants more.
    pub(super) async fn lines(
        &self,
        path: &str,
        mut each: impl FnMut(&str) -> bool,
    ) -> Result<(), Failure> {
        let request = self.request(Method::GET, path, Bytes::new())?;
        let response = self.begin(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Failure::Failed(format!("the answer of {} broke off: {error}", self.base))
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            rest.extend_from_slice(&data);
            if !status.is_success() {
                continue;
            }
            while let Some(end) = memchr::memchr(b'\n', &rest) {
                let line: Vec<_> = rest.drain(..=end).collect();
                if !each(String::from_utf8_lossy(&line).trim_end()) {
                    return Ok(());
                }
            }
        }
        if status.is_success() {
            Ok(())
        } else {
            Err(Failure::Failed(refusal(status, &rest)))
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Box<Raw>, Failure> {
        let (status, bytes) = self.ask(method, path, body, limit).await?;
        self.read(status, &bytes)
    }

    fn read(&self, status: StatusCode, bytes: &[u8]) -> Result<Box<Raw>, Failure> {
        if !status.is_success() {
            return Err(Failure::Failed(refusal(status, bytes)));
        }
        serde_json::from_slice(bytes).map_err(|_| {
            Failure::Failed(format!(
                "{} answered something that is not JSON: is it an mcp-fleet node?",
                self.base
            ))
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let request = self.request(method, path, body)?;
        let answer = tokio::time::timeout(limit, self.send(request)).await;
        answer.map_err(|_| {
            Failure::Failed(format!("{} did not answer within {limit:?}", self.base))
        })?
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| Failure::Usage(format!("{}{path} is not an address", self.base)))?;
        Request::builder()
            .method(method)
            .uri(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Failure::Usage(error.to_string()))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
        let response = self.begin(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await.map_err(|error| {
            Failure::Failed(format!("the answer of {} broke off: {error}", self.base))
        })?;
        Ok((status, body.to_bytes()))
    }

    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        self.client.request(request).await.map_err(|error| {
            Failure::Failed(if error.is_connect() {
                self.unreachable(&error)
            } else {
                format!("{} went away in mid-answer: {}", self.base, chain(&error))
            })
        })
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> String {
        format!(
            "no node can be reached at {} ({}): start one with `mcp-fleet serve`, or name another \
             with --node URL or MCP_FLEET_URL",
            self.base,
            chain(error)
        )
    }
}

/// The innermost cause, which is what a person can act upon.
fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What a node says when it refuses, in the shapes it says it.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let told = value
        .pointer("/error/message")
        .or_else(|| value.pointer("/message"))
        .or_else(|| value.pointer("/detail"))
        .or_else(|| value.pointer("/error"))
        .and_then(serde_json::Value::as_str)
        .map(str::to_owned);
    let text = told.unwrap_or_else(|| super::output::short(&String::from_utf8_lossy(body), 200));
    // What else is not there is told with what there is.
    let code = value.pointer("/error/code").and_then(|code| code.as_str());
    let hint = match (status, code) {
        (StatusCode::NOT_FOUND, None | Some("unknown_server")) => {
            " (`mcp-fleet servers` lists what there is)"
        }
        _ => "",
    };
    if text.is_empty() {
        format!("the node answered {status}{hint}")
    } else {
        format!("{text} [{}]{hint}", status.as_u16())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_in_every_shape() {
        let bad = StatusCode::BAD_REQUEST;
        assert_eq!(
            refusal(bad, br#"{"error":{"code":1,"message":"no"}}"#),
            "no [400]"
        );
        assert_eq!(refusal(bad, br#"{"error":"no"}"#), "no [400]");
        assert_eq!(refusal(bad, b"plain\ntext"), "plain [400]");
        assert_eq!(refusal(bad, b""), "the node answered 400 Bad Request");
        assert!(refusal(StatusCode::NOT_FOUND, b"").contains("mcp-fleet servers"));
    }

    #[test]
    fn addresses_are_checked() {
        assert!(Node::at("http://127.0.0.1:8080/").is_ok());
        for bad in ["127.0.0.1:8080", "ftp://x", "", "http://"] {
            assert!(matches!(Node::at(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
