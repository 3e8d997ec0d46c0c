//! Pushes metrics to a collector: the cells of [`Metrics`] as OTLP messages.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
    },
    resource::v1::Resource,
};
use prometheus::proto::{MetricFamily, MetricType};
use prost::Message as _;
use tokio::{task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    Identity,
    collector::Collector,
    metrics::{
        Metrics,
        instruments::{self, Instrument},
    },
    names,
};

/// The task that pushes.
#[derive(Debug)]
pub(super) struct MetricsPush {
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl MetricsPush {
    /// Pushes every `interval` until it is stopped.
    #[expect(
        clippy::disallowed_methods,
        reason = "telemetry outlives the node's tasks; this guard owns the task"
    )]
    pub(super) fn start(
        collector: Collector,
        identity: Identity,
        metrics: Arc<Metrics>,
        interval: Duration,
    ) -> Self {
        let stopping = CancellationToken::new();
        let stop = stopping.clone();
        let started = now();
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick is at once, when there is nothing to tell.
            ticks.tick().await;
            loop {
                let is_last = tokio::select! {
                    _ = ticks.tick() => false,
                    () = stop.cancelled() => true,
                };
                let message = message(&metrics.gather(), &identity, started, now());
                let pushed = collector.post("v1/metrics", message.encode_to_vec());
                if let Err(error) = pushed.await {
                    debug!(%error, "metrics were not pushed");
                }
                if is_last {
                    return;
                }
            }
        });
        Self { stopping, task }
    }

    /// Pushes the last values, within `limit`.
    pub(super) async fn stop(mut self, limit: Duration) {
        self.stopping.cancel();
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "points in time of pushed metrics are for display"
)]
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

fn message(
    families: &[MetricFamily],
    identity: &Identity,
    started: u64,
    now: u64,
) -> ExportMetricsServiceRequest {
    let metrics = families
        .iter()
        .filter_map(|family| metric(family, started, now));
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let resource = Resource {
        attributes: vec![
            attribute(names::SERVICE_NAME, &identity.service),
            attribute(names::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
            attribute(names::SERVICE_INSTANCE_ID, &identity.instance),
        ],
        ..Resource::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics: metrics.collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn metric(family: &MetricFamily, started: u64, now: u64) -> Option<Metric> {
    let instrument = instruments::ALL
        .into_iter()
        .find(|instrument| instrument.is_called(family.name()))?;
    let number = |value: f64, metric: &prometheus::proto::Metric| NumberDataPoint {
        attributes: attributes(&instrument, metric),
        start_time_unix_nano: started,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let points = family.get_metric().iter();
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => metric::Data::Sum(Sum {
            data_points: points
                .map(|metric| number(metric.get_counter().get_value(), metric))
                .collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => metric::Data::Gauge(Gauge {
            data_points: points
                .map(|metric| number(metric.get_gauge().get_value(), metric))
                .collect(),
        }),
        MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
            data_points: points
                .map(|metric| histogram_point(&instrument, metric, started, now))
                .collect(),
            aggregation_temporality: cumulative,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    Some(Metric {
        name: instrument.name.into(),
        description: instrument.about.into(),
        unit: instrument.unit.into(),
        data: Some(data),
        ..Metric::default()
    })
}

/// Labels under their dotted names; an empty one says that there is none.
fn attributes(instrument: &Instrument, metric: &prometheus::proto::Metric) -> Vec<KeyValue> {
    let dotted = |snake: &str| {
        instrument
            .labels
            .iter()
            .find(|label| label.replace('.', "_") == snake)
    };
    metric
        .get_label()
        .iter()
        .filter(|pair| !pair.value().is_empty())
        .filter_map(|pair| Some(attribute(dotted(pair.name())?, pair.value())))
        .collect()
}

fn histogram_point(
    instrument: &Instrument,
    metric: &prometheus::proto::Metric,
    started: u64,
    now: u64,
) -> HistogramDataPoint {
    let histogram = metric.get_histogram();
    let count = histogram.get_sample_count();
    let mut below = 0;
    let mut bounds = Vec::new();
    let mut counts = Vec::new();
    for bucket in histogram.get_bucket() {
        // Ours are cumulative, OTLP's are not.
        counts.push(bucket.cumulative_count().saturating_sub(below));
        bounds.push(bucket.upper_bound());
        below = bucket.cumulative_count();
    }
    counts.push(count.saturating_sub(below));
    HistogramDataPoint {
        attributes: attributes(instrument, metric),
        start_time_unix_nano: started,
        time_unix_nano: now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::ServerId,
        telemetry::metrics::{Era, Outcome},
    };

    #[test]
    fn every_family_is_told_under_its_dotted_name() {
        let metrics = Metrics::new();
        let demo = ServerId::try_from("demo").expect("good name");
        let took = Duration::from_millis(3);
        metrics.request(Some(&demo), "tools/call", Era::Modern, Outcome::Ok, took);
        metrics.upstream_request(&demo, Era::Modern, Outcome::TimedOut, took);
        let families = metrics.gather();
        let identity = Identity {
            service: "mcp-fleet".into(),
            instance: "node-1".into(),
        };
        let message = message(&families, &identity, 1, 2);
        let told = &message.resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!(told.len(), families.len());
        let durations = told
            .iter()
            .find(|metric| metric.name == "mcp.server.operation.duration")
            .expect("the histogram");
        assert_eq!(durations.unit, "s");
        let Some(metric::Data::Histogram(histogram)) = &durations.data else {
            panic!("not a histogram: {durations:?}");
        };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.bucket_counts.iter().sum()), (1, 1_u64));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        let keys: Vec<_> = point
            .attributes
            .iter()
            .map(|pair| pair.key.as_str())
            .collect();
        assert_eq!(
            keys,
            ["mcp_fleet.era", "mcp_fleet.server", "mcp.method.name"]
        );
    }
}
