//! The collector that traces and metrics are pushed to: OTLP, protobuf over HTTP.
//!
//! A collector that is dead or slow costs a bounded wait on a task of its own
//! and a log line when that begins and when it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;
use tracing::{info, warn};

/// Longest wait for the collector's answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read; it says at most what was refused.
const MAX_ANSWER: usize = 64 << 10;

/// Sends to one collector. Clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    endpoint: String,
    headers: Arc<[(HeaderName, HeaderValue)]>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    is_failing: Arc<AtomicBool>,
}

impl Collector {
    /// Dials nothing yet. Inside the runtime.
    pub(super) fn new(
        endpoint: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> anyhow::Result<Self> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .context("TLS toward the collector")?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            endpoint: endpoint.to_owned(),
            headers: headers.into(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime: Handle::current(),
            is_failing: Arc::default(),
        })
    }

    /// The address of one signal, e.g. `v1/traces`.
    pub(super) fn address(&self, signal: &str) -> String {
        format!("{}/{signal}", self.endpoint)
    }

    /// Posts one protobuf message.
    pub(super) async fn post(&self, signal: &str, body: Vec<u8>) -> Result<(), HttpError> {
        let request = Request::post(self.address(signal))
            .header(http::header::CONTENT_TYPE, "application/x-protobuf")
            .body(Bytes::from(body))?;
        let response = self.send(request).await?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(format!("the collector answered {}", response.status()).into())
        }
    }

    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        for (name, value) in self.headers.iter() {
            request.headers_mut().insert(name, value.clone());
        }
        let outcome = match tokio::time::timeout(TIMEOUT, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {TIMEOUT:?}").into()),
        };
        self.note(&outcome);
        outcome
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.client.request(request.map(Full::new)).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }

    /// Says when pushing begins and ceases to fail, not that it still does.
    fn note(&self, outcome: &Result<Response<Bytes>, HttpError>) {
        let failure = match outcome {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(refusal(response.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => {
                let collector = &self.endpoint;
                warn!(%collector, %error, "traces and metrics cannot be pushed; trying on");
            }
            None if was_failing => info!(collector = %self.endpoint, "pushing works again"),
            Some(_) | None => {}
        }
    }
}

fn refusal(status: StatusCode) -> String {
    format!("the collector answered {status}")
}

#[async_trait]
impl HttpClient for Collector {
    /// The exporter of traces has a thread without a runtime: the work is done
    /// in ours, and any executor can wait for it.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let this = self.clone();
        let sent = self.runtime.spawn(async move { this.send(request).await });
        sent.await?
    }
}
