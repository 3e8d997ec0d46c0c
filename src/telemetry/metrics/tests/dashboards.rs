//! Dashboards and alerts ask for metrics that exist, by labels that these have.
//! Every file in `deploy/grafana/dashboards` and the rules of Prometheus are read,
//! so a new panel needs no change here.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use prometheus::proto::MetricType;
use serde_json::Value;

use super::*;

/// Metrics that Prometheus makes itself.
const OWN_METRICS: [&str; 1] = ["up"];
/// Labels that scraping adds (`node` by deploy/prometheus/prometheus.yml), and a histogram's.
const OWN_LABELS: [&str; 4] = ["job", "instance", "node", "le"];
/// Words before a list of labels.
const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
/// Words between two expressions.
const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(char),
}

/// A metric that an expression asks for, and the labels it selects by.
#[derive(Debug, PartialEq, Eq)]
struct Selector {
    metric: String,
    labels: Vec<String>,
}

#[derive(Debug, Default)]
struct Asked {
    selectors: Vec<Selector>,
    groups: Vec<String>,
}

/// The words and signs of a PromQL expression; texts, numbers and Grafana's variables are left out.
fn tokens(expression: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(first) = rest.next() {
        if first == '"' {
            while rest.next().is_some_and(|next| next != '"') {}
            continue;
        }
        if !(first.is_alphanumeric() || first == '_' || first == '$') {
            if !first.is_whitespace() {
                found.push(Token::Sign(first));
            }
            continue;
        }
        let mut word = String::from(first);
        while let Some(next) = rest.next_if(|next| next.is_alphanumeric() || "_:.".contains(*next))
        {
            word.push(next);
        }
        if first.is_alphabetic() || first == '_' {
            found.push(Token::Word(word));
        }
    }
    found
}

/// The words up to the closing sign, after an opening one.
fn words_until(close: char, rest: &mut impl Iterator<Item = Token>) -> Vec<String> {
    rest.take_while(|token| *token != Token::Sign(close))
        .filter_map(|token| match token {
            Token::Word(word) => Some(word),
            Token::Sign(_) => None,
        })
        .collect()
}

fn asked(expression: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = tokens(expression).into_iter().peekable();
    while let Some(token) = rest.next() {
        let Token::Word(word) = token else { continue };
        let next = rest.peek().cloned();
        if GROUPING.contains(&word.as_str()) {
            asked.groups.extend(words_until(')', &mut rest));
        } else if next == Some(Token::Sign('{')) {
            let labels = words_until('}', &mut rest);
            asked.selectors.push(Selector {
                metric: word,
                labels,
            });
        } else {
            let is_function = next == Some(Token::Sign('('));
            // `sum by (label) (...)`
            let is_aggregation =
                matches!(&next, Some(Token::Word(next)) if GROUPING.contains(&next.as_str()));
            if !is_function && !is_aggregation && !OPERATORS.contains(&word.as_str()) {
                asked.selectors.push(Selector {
                    metric: word,
                    labels: Vec::new(),
                });
            }
        }
    }
    asked
}

/// Names of series as Prometheus stores them, each with its labels.
#[derive(Debug)]
struct Exported(HashMap<String, BTreeSet<String>>);

impl Exported {
    fn new() -> Self {
        let families = Metrics::new().gather();
        let mut series = HashMap::new();
        for instrument in instruments::ALL {
            let family = families
                .iter()
                .find(|family| instrument.is_called(family.name()));
            let labels: BTreeSet<String> = instrument
                .labels
                .iter()
                .map(|label| label.replace('.', "_"))
                .collect();
            let histogram = instrument.histogram_name();
            let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{histogram}{part}"));
            let names = match family {
                Some(family) if family.get_field_type() != MetricType::HISTOGRAM => {
                    vec![family.name().to_owned()]
                }
                Some(_) => parts.to_vec(),
                // Nothing has been measured yet that would tell what it is.
                None => [vec![instrument.counter_name()], parts.to_vec()].concat(),
            };
            series.extend(names.into_iter().map(|name| (name, labels.clone())));
        }
        Self(series)
    }

    fn problems(&self, expression: &str) -> Vec<String> {
        let asked = asked(expression);
        let is_own_label = |label: &str| OWN_LABELS.contains(&label);
        let mut problems = Vec::new();
        for Selector { metric, labels } in &asked.selectors {
            if OWN_METRICS.contains(&metric.as_str()) {
                continue;
            }
            let Some(known) = self.0.get(metric) else {
                problems.push(format!("no metric is called {metric}"));
                continue;
            };
            let foreign = labels
                .iter()
                .filter(|label| !known.contains(*label) && !is_own_label(label));
            problems.extend(foreign.map(|label| format!("{metric} has no label {label}")));
        }
        let strange = asked.groups.iter().filter(|label| {
            !is_own_label(label) && !self.0.values().any(|known| known.contains(*label))
        });
        problems.extend(strange.map(|label| format!("no metric has a label {label}")));
        problems
    }
}

/// The texts under `key`, however deep.
fn texts(document: &Value, key: &str) -> Vec<String> {
    match document {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(text) if name == key => vec![text.clone()],
                _ => texts(value, key),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| texts(item, key)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let directory = deploy().join("grafana/dashboards");
    let files = std::fs::read_dir(&directory).expect("the dashboards");
    files
        .map(|file| file.expect("a file").path())
        .map(|path| {
            let dashboard = serde_json::from_str(&read(&path)).expect("JSON");
            (path, dashboard)
        })
        .collect()
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(&deploy().join(path))).expect("YAML")
}

fn check(place: &Path, expressions: &[String]) {
    assert!(!expressions.is_empty(), "{}: nothing", place.display());
    let exported = Exported::new();
    for expression in expressions {
        let problems = exported.problems(expression);
        assert!(
            problems.is_empty(),
            "{}: {expression}: {problems:?}",
            place.display()
        );
    }
}

#[test]
fn dashboards_ask_for_what_nodes_export() {
    for (path, dashboard) in dashboards() {
        check(&path, &texts(&dashboard, "expr"));
    }
}

#[test]
fn variables_of_dashboards_are_labels_that_nodes_export() {
    let exported = Exported::new();
    for (path, dashboard) in dashboards() {
        for query in texts(&dashboard["templating"], "query") {
            let (selector, label) = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'))
                .and_then(|arguments| arguments.rsplit_once(", "))
                .unwrap_or_else(|| panic!("{}: {query}", path.display()));
            let grouped = format!("sum by ({label}) ({selector})");
            let problems = exported.problems(&grouped);
            assert!(problems.is_empty(), "{}: {problems:?}", path.display());
        }
    }
}

#[test]
fn alerts_ask_for_what_nodes_export() {
    let rules = yaml("prometheus/rules.yml");
    check(Path::new("rules.yml"), &texts(&rules, "expr"));
}

#[test]
fn dashboards_use_the_data_source_that_is_provisioned() {
    let provisioned = yaml("grafana/provisioning/datasources/prometheus.yml");
    let uid = &provisioned["datasources"][0]["uid"];
    for (path, dashboard) in dashboards() {
        for panel in dashboard["panels"].as_array().expect("panels") {
            let is_row = panel["type"] == "row";
            assert!(
                is_row || panel["datasource"]["uid"] == *uid,
                "{}: {}",
                path.display(),
                panel["title"]
            );
        }
    }
}

#[test]
fn mistakes_in_expressions_are_found() {
    let exported = Exported::new();
    let good = r#"histogram_quantile(0.9, sum by (le, node) (rate(mcp_server_operation_duration_seconds_bucket{error_type!="x y",mcp_fleet_server=~"$server"}[$__rate_interval]))) > 1.5 and up == 0"#;
    assert_eq!(exported.problems(good), Vec::<String>::new());
    for (bad, problem) in [
        ("mcp_fleet_made_up", "no metric is called mcp_fleet_made_up"),
        (
            "rate(mcp_fleet_in_use_total[5m])",
            "no metric is called mcp_fleet_in_use_total",
        ),
        (
            r#"mcp_fleet_in_use{mcp_fleet_server="demo"}"#,
            "mcp_fleet_in_use has no label mcp_fleet_server",
        ),
        (
            "sum by (server) (mcp_fleet_in_use)",
            "no metric has a label server",
        ),
        (
            "mcp_server_operation_duration_seconds",
            "no metric is called mcp_server_operation_duration_seconds",
        ),
    ] {
        assert_eq!(exported.problems(bad), [problem]);
    }
}
