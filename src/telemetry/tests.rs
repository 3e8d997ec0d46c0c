use std::{net::SocketAddr, sync::Mutex};

use axum::{Router, extract::State, routing::post};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use tokio::net::TcpListener;

use super::*;

/// What a collector was sent: path, headers, body.
pub(super) type Received = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// A collector that takes everything.
#[expect(clippy::disallowed_methods, reason = "ends with the test")]
pub(super) async fn collector() -> (String, Received) {
    let received = Received::default();
    let take = |State(received): State<Received>, uri: Uri, headers: HeaderMap, body: Bytes| async move {
        let mut received = received.lock().expect("not poisoned");
        received.push((uri.path().to_owned(), headers, body));
    };
    let router = Router::new()
        .route("/v1/{signal}", post(take))
        .with_state(Arc::clone(&received));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), received)
}

/// Waits until the collector has been sent something on `path`.
pub(super) async fn sent_to(received: &Received, path: &str) -> (HeaderMap, Bytes) {
    for _ in 0..500 {
        let found = received
            .lock()
            .expect("not poisoned")
            .iter()
            .find(|(sent, ..)| sent == path)
            .map(|(_, headers, body)| (headers.clone(), body.clone()));
        if let Some(found) = found {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was sent to {path}");
}

pub(super) fn identity() -> Identity {
    Identity {
        service: "fleet".into(),
        instance: "node-1".into(),
    }
}

fn push_to(endpoint: &str, interval: Duration) -> MetricsPush {
    let token = (
        HeaderName::from_static("authorization"),
        HeaderValue::from_static("Bearer t0p"),
    );
    let collector = Collector::new(endpoint, vec![token]).expect("a client");
    MetricsPush::start(collector, identity(), Metrics::for_tests(), interval)
}

#[tokio::test]
async fn metrics_are_pushed_with_the_collectors_headers() {
    let (endpoint, received) = collector().await;
    let push = push_to(&endpoint, Duration::from_millis(20));
    let (headers, body) = sent_to(&received, "/v1/metrics").await;
    assert_eq!(headers["authorization"], "Bearer t0p");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let message = ExportMetricsServiceRequest::decode(body).expect("OTLP");
    let resource = message.resource_metrics[0]
        .resource
        .as_ref()
        .expect("a resource");
    assert_eq!(resource.attributes[0].key, "service.name");
    push.stop(LAST_WORDS).await;
}

#[tokio::test]
async fn the_last_values_are_pushed_at_the_end() {
    let (endpoint, received) = collector().await;
    let push = push_to(&endpoint, Duration::from_secs(3600));
    push.stop(LAST_WORDS).await;
    assert_eq!(received.lock().expect("not poisoned").len(), 1);
}

/// Nobody listens at the first address, nobody answers at the second.
async fn useless_collectors() -> (SocketAddr, SocketAddr, TcpListener) {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let refused = gone.local_addr().expect("an address");
    drop(gone);
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let hung = silent.local_addr().expect("an address");
    (refused, hung, silent)
}

#[tokio::test]
async fn a_dead_collector_does_not_hold_up_the_end() {
    let (refused, hung, _silent) = useless_collectors().await;
    for address in [refused, hung] {
        let push = push_to(&format!("http://{address}"), Duration::from_millis(5));
        tokio::time::sleep(Duration::from_millis(30)).await;
        let begun = tokio::time::Instant::now();
        push.stop(Duration::from_millis(200)).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_toward_a_dead_collector_cost_nothing_but_themselves() {
    let (refused, hung, _silent) = useless_collectors().await;
    for address in [refused, hung] {
        let endpoint = format!("http://{address}");
        let collector = Collector::new(&endpoint, Vec::new()).expect("a client");
        let tracer = traces::provider(&collector, &identity(), 1.0).expect("an exporter");
        let subscriber = tracing_subscriber::registry().with(traces::layer(&tracer));
        let begun = tokio::time::Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..20_000 {
                drop(traces::request_span(
                    "POST",
                    "/mcp",
                    &crate::mcp::envelope::TraceContext::default(),
                ));
            }
        });
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{address}: {:?}",
            begun.elapsed()
        );
        let telemetry = tokio::task::spawn_blocking(move || {
            tracer.shutdown_with_timeout(Duration::from_millis(200))
        });
        let begun = tokio::time::Instant::now();
        // Whether it says so or not, it comes back.
        telemetry.await.expect("no panic").ok();
        assert!(begun.elapsed() < Duration::from_secs(2), "{address}");
    }
}
