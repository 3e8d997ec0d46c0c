use super::*;

mod dashboards;

fn demo() -> ServerId {
    ServerId::try_from("demo").expect("good name")
}

#[test]
fn known_labels_start_at_zero() {
    let text = Metrics::new().render();
    for line in [
        r#"mcp_fleet_cache_lookups_total{mcp_fleet_cache_status="hit",mcp_method_name="tools/list"} 0"#,
        r#"mcp_fleet_cache_refreshes_total{mcp_fleet_outcome="failed"} 0"#,
        r#"mcp_fleet_in_use{mcp_fleet_kind="streams"} 0"#,
        r#"mcp_fleet_store_failures_total{mcp_fleet_reason="unreachable"} 0"#,
        "mcp_fleet_log_dropped_total 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_request_is_measured_in_seconds_under_bounded_labels() {
    let metrics = Metrics::new();
    let took = Duration::from_millis(3);
    metrics.request(
        Some(&demo()),
        "tools/call",
        Era::Modern,
        Outcome::ToolError,
        took,
    );
    metrics.request(None, "made/up", Era::Legacy, Outcome::Ok, took);
    let text = metrics.render();
    let labels = r#"error_type="tool_error",mcp_fleet_era="modern",mcp_fleet_server="demo",mcp_method_name="tools/call""#;
    for line in [
        format!(r#"mcp_server_operation_duration_seconds_bucket{{{labels},le="0.005"}} 1"#),
        format!(r#"mcp_server_operation_duration_seconds_bucket{{{labels},le="0.0025"}} 0"#),
        r#"mcp_fleet_server="*",mcp_method_name="other",le="0.005"} 1"#.to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("made/up"));
}

#[test]
fn a_dropped_guard_ends_the_count() {
    let metrics = Metrics::new();
    let one = metrics.count(Gauge::Streams);
    let two = metrics.count(Gauge::Streams);
    assert_eq!(metrics.current(Gauge::Streams), 2);
    assert_eq!(metrics.current(Gauge::Waiting), 0);
    drop((one, two));
    assert_eq!(metrics.current(Gauge::Streams), 0);
}

#[test]
fn every_gauge_has_its_own_cell() {
    for (index, gauge) in Gauge::ALL.into_iter().enumerate() {
        assert_eq!(gauge as usize, index);
    }
}

#[test]
fn series_of_a_removed_server_are_gone() {
    let metrics = Metrics::new();
    let other = ServerId::try_from("other").expect("good name");
    for server in [&demo(), &other] {
        metrics.request(
            Some(server),
            "tools/call",
            Era::Modern,
            Outcome::Ok,
            Duration::ZERO,
        );
        metrics.upstream_request(server, Era::Legacy, Outcome::TimedOut, Duration::ZERO);
        metrics.retry(server, Retry::NotSent);
    }
    metrics.forget_server(&demo());
    let text = metrics.render();
    assert!(!text.contains(r#""demo""#), "{text}");
    assert_eq!(
        text.matches(r#"mcp_fleet_server="other",mcp_method_name="tools/call",le="+Inf""#)
            .count(),
        1
    );
}
