use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value,
};
use prost::Message as _;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::telemetry::tests::{collector, identity, sent_to};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn parent() -> TraceContext {
    TraceContext::new(Some(PARENT), Some("vendor=1"))
}

#[test]
fn without_a_collector_the_callers_context_is_passed_on() {
    let span = request_span("POST", "/mcp", &parent());
    let _entered = span.enter();
    assert_eq!(outgoing(&parent()), parent());
    assert_eq!(outgoing(&TraceContext::default()), TraceContext::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_recorded_under_its_caller_and_names_itself_to_servers() {
    let (endpoint, received) = collector().await;
    let collector = Collector::new(&endpoint, Vec::new()).expect("a client");
    let provider = provider(&collector, &identity(), 1.0).expect("an exporter");
    let subscriber = tracing_subscriber::registry().with(layer(&provider));
    let told = tracing::subscriber::with_default(subscriber, || {
        let span = request_span("POST", "/mcp/{server}", &TraceContext::default());
        follow(&span, &parent());
        let demo = ServerId::try_from("demo").expect("good name");
        describe(&span, Some(&demo), "tools/call", Some("say_hello"));
        let told = span.in_scope(|| {
            let upstream = upstream_span(&demo, "demo/1", "tools/call");
            upstream.in_scope(|| outgoing(&parent()))
        });
        finish(&span, Outcome::ToolError);
        told
    });
    let traceparent = told.traceparent.expect("a context");
    assert_eq!(traceparent[..36], PARENT[..36]);
    assert_ne!(traceparent[36..52], PARENT[36..52]);
    assert_eq!(told.tracestate.as_deref(), Some("vendor=1"));

    tokio::task::spawn_blocking(move || provider.shutdown())
        .await
        .expect("no panic")
        .expect("exported");
    let (_, body) = sent_to(&received, "/v1/traces").await;
    let message = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let spans = &message.resource_spans[0].scope_spans[0].spans;
    let request = spans
        .iter()
        .find(|span| span.name == "tools/call say_hello")
        .expect("the request's span");
    assert_eq!(crate::ids::hex(&request.parent_span_id), PARENT[36..52]);
    assert_eq!(crate::ids::hex(&request.trace_id), PARENT[3..35]);
    let attribute = |key: &str| {
        let pair = request.attributes.iter().find(|pair| pair.key == key)?;
        match pair.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    };
    for (key, value) in [
        (names::HTTP_ROUTE, "/mcp/{server}"),
        (names::MCP_METHOD_NAME, "tools/call"),
        (names::GEN_AI_TOOL_NAME, "say_hello"),
        (names::GEN_AI_OPERATION_NAME, "execute_tool"),
        (names::SERVER, "demo"),
        (names::ERROR_TYPE, "tool_error"),
    ] {
        assert_eq!(attribute(key).as_deref(), Some(value), "{key}");
    }
    assert!(
        spans
            .iter()
            .any(|span| span.parent_span_id == request.span_id)
    );
}
