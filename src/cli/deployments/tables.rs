//! What a node tells of deployments, for people.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    cli::{
        Failure,
        output::{short, table},
    },
    mcp::Raw,
};

/// A deployment, as far as tables show it.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Deployment {
    pub(super) name: String,
    path: String,
    template: String,
    engine: String,
    pub(super) phase: String,
    reason: Option<String>,
    #[serde(rename = "final")]
    pub(super) is_final: bool,
    pull: Option<String>,
    replicas: Option<u32>,
    ready: u32,
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Container {
    name: String,
    replica: u32,
    state: String,
    endpoint: Option<String>,
    restarts: u32,
    reason: Option<String>,
    log: Vec<String>,
}

impl Deployment {
    pub(super) fn parse(raw: &Raw) -> Result<Self, Failure> {
        serde_json::from_str(raw.get()).map_err(|error| {
            Failure::Failed(format!("the node's answer is not understood: {error}"))
        })
    }

    fn ready_of(&self) -> String {
        match self.replicas {
            Some(replicas) => format!("{}/{replicas}", self.ready),
            None => self.ready.to_string(),
        }
    }

    /// How far it is, in a line.
    pub(super) fn progress(&self) -> String {
        let what = match (self.phase.as_str(), &self.pull) {
            ("pending", _) => "waiting for a node to begin".to_owned(),
            ("pulling", Some(pull)) => format!("pulling {pull}"),
            ("pulling", None) => "pulling its image".to_owned(),
            ("starting", _) => format!("starting, {} ready", self.ready_of()),
            ("updating", _) => format!("updating, {} ready", self.ready_of()),
            ("ready", _) => format!("{} ready", self.ready_of()),
            ("engine_away", _) => "its engine does not answer".to_owned(),
            (phase, _) => phase.to_owned(),
        };
        match &self.reason {
            Some(reason) if !matches!(self.phase.as_str(), "ready" | "removing" | "stopping") => {
                format!("{}: {what}: {}", self.name, short(reason, 200))
            }
            Some(_) | None => format!("{}: {what}", self.name),
        }
    }

    /// What has to change for another line.
    pub(super) fn progress_in_lines(&self) -> String {
        match &self.pull {
            Some(pull) => {
                let layers = pull.split(',').next().unwrap_or_default();
                format!("{} {layers}", self.phase)
            }
            None => self.progress(),
        }
    }

    /// Whether it is to stand still.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.phase.as_str(), "stopping" | "stopped")
    }

    pub(super) fn is_without_engine(&self) -> bool {
        self.phase == "engine_away" || (self.phase == "pending" && self.reason.is_some())
    }

    /// Why it did not come to what was asked, with what its containers said.
    pub(super) fn failure(&self) -> String {
        let mut text = match &self.reason {
            Some(reason) => format!("{}: {}: {reason}", self.name, self.phase),
            None => format!("{}: {}", self.name, self.progress()),
        };
        let told = self.containers.iter().find(|one| !one.log.is_empty());
        if let Some(one) = told {
            text.push_str(&format!("\nlast lines of {}:", one.name));
            for line in &one.log {
                text.push_str(&format!("\n  {line}"));
            }
        }
        text.push_str(&format!(
            "\nit is tried again until you change it: `mcp-fleet logs {0}` shows more, `mcp-fleet rm {0}` removes it",
            self.name
        ));
        text
    }
}

pub(super) fn list(raw: &Raw) -> Result<String, serde_json::Error> {
    let deployments: Vec<Deployment> = serde_json::from_str(raw.get())?;
    if deployments.is_empty() {
        return Ok("no deployments: `mcp-fleet templates` lists what can be deployed".into());
    }
    let rows: Vec<_> = deployments
        .iter()
        .map(|one| {
            let restarts: u32 = one.containers.iter().map(|one| one.restarts).sum();
            vec![
                one.name.clone(),
                one.template.clone(),
                one.ready_of(),
                one.phase.clone(),
                restarts.to_string(),
                one.engine.clone(),
                one.path.clone(),
            ]
        })
        .collect();
    let titles = [
        "NAME", "TEMPLATE", "READY", "PHASE", "RESTARTS", "ENGINE", "PATH",
    ];
    let mut text = table(&titles, &rows);
    for one in &deployments {
        if let Some(reason) = &one.reason {
            text.push_str(&format!("\n{}: {reason}", one.name));
        }
    }
    Ok(text)
}

pub(super) fn one(raw: &Raw) -> Result<String, serde_json::Error> {
    let one: Deployment = serde_json::from_str(raw.get())?;
    let mut text = format!(
        "{}: {}, {} ready at {}\n\n",
        one.name,
        one.phase,
        one.ready_of(),
        one.path
    );
    let rows: Vec<_> = one
        .containers
        .iter()
        .map(|container| {
            vec![
                container.replica.to_string(),
                container.name.clone(),
                container.state.clone(),
                container.restarts.to_string(),
                container.endpoint.clone().unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(
            &["REPLICA", "CONTAINER", "STATE", "RESTARTS", "ENDPOINT"],
            &rows,
        ));
    }
    let reasons = one.containers.iter().filter_map(|container| {
        let reason = container.reason.as_ref()?;
        Some(format!("\n{}: {reason}", container.name))
    });
    text.extend(reasons);
    if let Some(reason) = &one.reason {
        text.push_str(&format!("\n{reason}"));
    }
    if one.is_stopped() {
        text.push_str(&format!("\n`mcp-fleet restart {}` starts it", one.name));
    }
    Ok(text)
}

pub(super) fn dry_run(raw: &Raw) -> Result<String, serde_json::Error> {
    let told: Value = serde_json::from_str(raw.get())?;
    let text = |pointer: &str| match told.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    let mut rows: Vec<Vec<String>> = [
        ("would", "/would"),
        ("name", "/name"),
        ("path", "/path"),
        ("engine", "/engine"),
        ("replicas", "/replicas"),
        ("image", "/spec/image"),
        ("transport", "/spec/transport"),
        ("memory", "/spec/isolation/memory"),
        ("cpus", "/spec/isolation/cpus"),
        ("pids", "/spec/isolation/pids"),
        ("read-only root", "/spec/isolation/read_only"),
        ("user", "/spec/isolation/user"),
        ("network", "/spec/isolation/network"),
        ("capabilities", "/spec/isolation/capabilities"),
    ]
    .into_iter()
    .map(|(what, pointer)| vec![what.to_owned(), text(pointer)])
    .collect();
    let values = |pointer: &str| told.pointer(pointer).cloned().unwrap_or_default();
    let shown = |value: &Value| match value.get("value") {
        Some(Value::String(text)) => text.clone(),
        _ => value.to_string(),
    };
    for (name, value) in values("/spec/env").as_object().into_iter().flatten() {
        rows.push(vec![format!("env {name}"), shown(value)]);
    }
    for value in values("/spec/arguments").as_array().into_iter().flatten() {
        rows.push(vec!["argument".to_owned(), shown(value)]);
    }
    for mount in values("/spec/volumes").as_array().into_iter().flatten() {
        rows.push(vec!["volume".to_owned(), mount.to_string()]);
    }
    for loosened in values("/spec/isolation/loosened")
        .as_array()
        .into_iter()
        .flatten()
    {
        let part = |key: &str| loosened.get(key).and_then(Value::as_str).unwrap_or("-");
        rows.push(vec![
            format!("loosened: {}", part("what")),
            part("reason").to_owned(),
        ]);
    }
    for name in values("/containers").as_array().into_iter().flatten() {
        rows.push(vec![
            "container".to_owned(),
            name.as_str().unwrap_or("-").to_owned(),
        ]);
    }
    Ok(format!(
        "nothing was changed; this is what would run\n\n{}",
        table(&[], &rows)
    ))
}

/// A line of a container's output.
pub(super) fn log_line(line: &str) -> String {
    #[derive(Deserialize)]
    struct Line {
        replica: u32,
        text: String,
    }
    match serde_json::from_str::<Line>(line) {
        Ok(line) => format!("{} | {}", line.replica, line.text),
        Err(_) => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"name":"notes","path":"/mcp/notes","template":"notes","engine":"docker/0a","phase":"failing",
        "reason":"container c-0 ended with exit code 1","final":false,"replicas":2,"ready":0,"new":1,
        "containers":[{"name":"c-0","replica":0,"state":"crashed","restarts":3,"log":["boom"]}]}"#;

    fn raw(text: &str) -> &Raw {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn deployments_are_listed() {
        let text = list(raw(&format!("[{ONE}]"))).expect("a table");
        assert!(
            text.contains("  notes  notes     0/2    failing  3         docker/0a  /mcp/notes\n"),
            "{text}"
        );
        assert!(
            text.ends_with("notes: container c-0 ended with exit code 1"),
            "{text}"
        );
        assert!(
            list(raw("[]"))
                .expect("a text")
                .contains("mcp-fleet templates")
        );
    }

    #[test]
    fn a_failure_is_told_with_the_last_lines() {
        let failure = Deployment::parse(raw(ONE)).expect("understood").failure();
        assert!(
            failure.contains("exit code 1\nlast lines of c-0:\n  boom\n"),
            "{failure}"
        );
    }

    #[test]
    fn progress_is_a_line_and_changes_with_layers_not_with_bytes() {
        let pulling = |pull: &str| Deployment {
            name: "n".into(),
            phase: "pulling".into(),
            pull: Some(pull.into()),
            ..Deployment::default()
        };
        let one = pulling("img: 1 of 3 layers, 1 of 9 MiB");
        assert_eq!(one.progress(), "n: pulling img: 1 of 3 layers, 1 of 9 MiB");
        let two = pulling("img: 1 of 3 layers, 2 of 9 MiB");
        assert_eq!(one.progress_in_lines(), two.progress_in_lines());
        let three = pulling("img: 2 of 3 layers, 2 of 9 MiB");
        assert_ne!(one.progress_in_lines(), three.progress_in_lines());
    }

    #[test]
    fn a_dry_run_shows_limits_and_no_secrets() {
        let text = dry_run(raw(
            r#"{"would":"create","name":"n","spec":{"image":"i:1","isolation":{"memory":1,"loosened":[{"what":"network","reason":"it asks"}]},
                "env":{"KEY":{"value":"***","sensitive":true}}},"containers":["c-*-0"]}"#,
        ))
        .expect("a text");
        for part in ["env KEY", "***", "loosened: network", "it asks", "c-*-0"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}
