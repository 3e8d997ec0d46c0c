//! The floor of the load tests: a reverse proxy that only moves bytes.
//!
//! `bare-proxy LISTEN UPSTREAM` (two `HOST:PORT`) sends every request to the
//! upstream over pooled keep-alive connections and streams both bodies. Clients
//! speak HTTP/1.1 or HTTP/2, it speaks HTTP/1.1 to the upstream, as the gateway
//! does. It parses nothing and knows nothing of MCP: what a gateway costs beyond
//! this is what it costs for being a gateway.

#![expect(
    clippy::disallowed_methods,
    reason = "a load tool: its connections end with the process"
)]

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri, Version,
    body::Incoming,
    header::{self, HeaderName},
    http::uri::{Authority, PathAndQuery, Scheme},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// Headers about one connection, not about the message (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

struct Proxy {
    upstream: Authority,
    client: Client<HttpConnector, Incoming>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bare-proxy LISTEN UPSTREAM".into());
    };
    let proxy = Arc::new(Proxy::new(upstream.parse()?));
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true).ok();
        let proxy = Arc::clone(&proxy);
        tokio::spawn(async move {
            let service = service_fn(move |request| Arc::clone(&proxy).serve(request));
            // A connection that breaks concerns its client, who sees it.
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

impl Proxy {
    fn new(upstream: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { upstream, client }
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        Ok(self.forward(request).await.unwrap_or_else(|error| {
            let mut answer = Response::new(Either::Right(Full::from(error.to_string())));
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            answer
        }))
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Result<Answer, Failure> {
        *request.uri_mut() = self.target(request.uri())?;
        // Neither clients of HTTP/1.0 (`ab`) nor of HTTP/2 choose the upstream's.
        *request.version_mut() = Version::HTTP_11;
        // Without it the client writes the upstream's.
        request.headers_mut().remove(header::HOST);
        strip_hop_by_hop(request.headers_mut());
        let mut answer = self.client.request(request).await?;
        strip_hop_by_hop(answer.headers_mut());
        Ok(answer.map(Either::Left))
    }

    fn target(&self, asked: &Uri) -> Result<Uri, Failure> {
        let path = asked.path_and_query().cloned();
        Ok(Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.upstream.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()?)
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}
