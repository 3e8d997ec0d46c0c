//! `check`: everything that is wrong with a configuration; when nothing is, what it says.

use super::{CheckArgs, Failure, output::table, say};
use crate::{
    config::{self, ConfigErrors, Loaded, Sources},
    templates,
};

pub(super) fn check(args: CheckArgs, environment: Vec<(String, String)>) -> Result<(), Failure> {
    let name = match &args.config {
        Some(file) => file.display().to_string(),
        None => "the configuration (no file, environment only)".into(),
    };
    let sources = Sources {
        file: args.config,
        environment,
        ..Sources::default()
    };
    match config::load(&sources) {
        Ok(loaded) => {
            say(&summary(&name, &loaded));
            Ok(())
        }
        Err(ConfigErrors(findings)) => {
            for finding in &findings {
                super::say_error(finding);
            }
            Err(Failure::Failed(match findings.len() {
                1 => "1 finding; nothing would be started".into(),
                count => format!("{count} findings; nothing would be started"),
            }))
        }
    }
}

fn summary(name: &str, loaded: &Loaded) -> String {
    let mut text = format!("{name} is valid\n");
    for warning in &loaded.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for broken in templates::broken_in(&loaded.config.templates.directories) {
        for finding in &broken.findings {
            text.push_str(&format!("warning: template {}: {finding}\n", broken.name));
        }
    }
    text.push_str("\nservers\n");
    text.push_str(&servers(loaded));
    text.push_str("\nsettings that are not the default\n");
    let changed: Vec<_> = loaded
        .changed
        .iter()
        .map(|setting| {
            let value = format!("= {}", setting.value);
            vec![setting.key.clone(), value, format!("({})", setting.place)]
        })
        .collect();
    if changed.is_empty() {
        text.push_str("  none\n");
    }
    text.push_str(&table(&[], &changed));
    text.trim_end().to_owned()
}

fn servers(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for server in &config.servers {
        for (index, replica) in server.replicas.iter().enumerate() {
            let name = if index == 0 { server.id.as_str() } else { "" };
            rows.push(vec![
                name.into(),
                replica.endpoint.to_string(),
                server.origin.into(),
            ]);
        }
    }
    let has_demo = config
        .servers
        .iter()
        .any(|server| server.id.as_str() == "demo");
    if config.node.demo && !has_demo {
        rows.push(vec!["demo".into(), "built-in".into(), String::new()]);
    }
    if rows.is_empty() {
        return "  none\n".into();
    }
    table(&[], &rows)
}
